"""`moss doctor` asks each platform whether it takes what Moss was given, and a platform without its library says so."""

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from bot.adapters import platforms
from bot.adapters.discord.ping import ping as ping_discord
from bot.adapters.slack.ping import ping as ping_slack
from bot.sections import Discord, Slack
from bot.settings import Settings
from core.model.errors import BadInput, MossError, Refused, Unavailable
from tests.support.discord_house import loopback, section
from tests.support.discord_server import DiscordServer
from tests.support.slack_server import Fault, LoopbackSlack, loopback_slack


@pytest.fixture
async def slack() -> AsyncIterator[LoopbackSlack]:
    async with loopback_slack() as server:
        yield server


@pytest.fixture
async def discord() -> AsyncIterator[DiscordServer]:
    async with loopback() as server:
        yield server


def workspace(slack: LoopbackSlack, **more: Any) -> Slack:
    return Slack.model_validate(slack.settings | {"app_token": "xapp-test"} | more)


async def test_a_slack_that_takes_both_tokens_is_well(slack: LoopbackSlack) -> None:
    assert "(T1), and Slack opens a socket" in await ping_slack(workspace(slack))
    assert not slack.sockets, "it only asked"


async def test_with_signed_calls_it_says_where_they_are_taken(slack: LoopbackSlack) -> None:
    calls = workspace(slack, app_token=None, signing_secret="secret", port=8091)
    assert "127.0.0.1:8091/slack/events" in await ping_slack(calls)


@pytest.mark.parametrize("method", ["auth.test", "apps.connections.open"])
async def test_a_slack_that_refuses_a_token_says_which_line_to_mend(slack: LoopbackSlack, method: str) -> None:
    slack.fail(method, Fault("invalid_auth"))
    with pytest.raises(Unavailable, match=r"put a fresh `.*_token` into"):
        await ping_slack(workspace(slack))


async def test_a_discord_that_takes_the_token_is_well(discord: DiscordServer) -> None:
    assert "on 1 of its servers" in await ping_discord(section(discord))
    assert not discord.identified, "it only asked"


@pytest.mark.parametrize(
    ("more", "flags", "words"),
    [
        ({}, 0, "switch that intent on"),
        ({"guilds": frozenset({"9999"})}, 1 << 18, "not on the server 9999; invite it"),
    ],
)
async def test_what_discord_would_not_tell_is_found_before_the_start(
    discord: DiscordServer, more: dict[str, Any], flags: int, words: str
) -> None:
    discord.application_flags = flags
    with pytest.raises(BadInput, match=words):
        await ping_discord(section(discord, **more))


async def test_a_discord_that_refuses_the_token_says_so(discord: DiscordServer) -> None:
    discord.broken["/users/@me"] = 401
    with pytest.raises(Refused, match="refuses the token"):
        await ping_discord(section(discord))


async def test_a_discord_that_is_not_there_is_away() -> None:
    gone = Discord(
        token=SecretStr("x"), guilds=frozenset({"1"}), api="http://127.0.0.1:1/api", gateway="ws://127.0.0.1:1/"
    )
    with pytest.raises(Unavailable, match="cannot be reached"):
        await ping_discord(gone)


@pytest.mark.parametrize(("name", "library"), [("slack", "slack_sdk"), ("discord", "discord")])
async def test_a_platform_without_its_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    for module in [each for each in sys.modules if each.startswith((f"bot.adapters.{name}", library))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    given: dict[str, Any] = {"slack": (), "discord": None}
    given[name] = {
        "slack": (Slack(bot_token=SecretStr("x"), app_token=SecretStr("x")),),
        "discord": Discord(token=SecretStr("x"), guilds=frozenset({"1"})),
    }[name]
    ((_, ping),) = platforms.pings(Settings.model_construct(**given))
    with pytest.raises(MossError, match=f"or Moss with the extra `{name}`"):
        await ping()
