"""The manifest asks Slack for what Moss uses, and for nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.adapters.slack.app import FLAG_SHORTCUT
from bot.adapters.slack.web import SCOPES

ROOT = Path(__file__).parent.parent
ADAPTER = ROOT / "bot" / "adapters" / "slack"
EVENTS = {
    "app_mention": "app_mentions:read",
    "message.channels": "channels:history",
    "message.groups": "groups:history",
    "message.im": "im:history",
    "message.mpim": "mpim:history",
    "reaction_added": "reactions:read",
    "reaction_removed": "reactions:read",
}
"""What each subscription takes, by Slack's reference."""


@pytest.fixture
def manifest() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docs" / "slack-manifest.yaml").read_text()))


def test_it_asks_for_exactly_the_scopes_of_the_calls_the_events_and_the_command(manifest: dict[str, Any]) -> None:
    asked = manifest["oauth_config"]["scopes"]["bot"]
    assert asked == sorted({*filter(None, SCOPES.values()), *EVENTS.values(), "commands"})


def test_it_subscribes_to_what_moss_understands(manifest: dict[str, Any]) -> None:
    assert manifest["settings"]["event_subscriptions"]["bot_events"] == sorted(EVENTS)


def test_the_calls_of_the_adapter_are_those_the_scopes_are_asked_for() -> None:
    source = "".join(file.read_text() for file in ADAPTER.glob("*.py"))
    source = source.replace((ADAPTER / "web.py").read_text().partition("SCOPES: ")[2].partition("}")[0], "")
    families = "apps|auth|chat|conversations|files|reactions|usergroups|users|views"
    named = set(re.findall(rf'"((?:{families})\.[A-Za-z_0-9.]+)"', source))
    assert named == set(SCOPES)


def test_menu_and_command_are_the_ones_moss_listens_to(manifest: dict[str, Any]) -> None:
    features, settings = manifest["features"], manifest["settings"]
    assert [one["callback_id"] for one in features["shortcuts"]] == [FLAG_SHORTCUT]
    assert [one["command"] for one in features["slash_commands"]] == ["/moss"]
    assert settings["interactivity"]["is_enabled"]
    assert settings["socket_mode_enabled"]
