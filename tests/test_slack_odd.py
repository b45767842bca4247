"""What a Slack may send that nobody expects: fields left out or null, more than before, bytes that mean nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.adapters.slack import events
from bot.adapters.slack.events import Workspace
from bot.chat import Reacted, Replied, Said
from core.clock import system_clock
from core.store import Store
from tests.support.databases import opened
from tests.support.slack_server import BOT_USER, CHANNEL, LoopbackSlack, loopback_slack, reaction, said
from tests.test_slack_http import answering
from tests.test_slack_socket import Connected, connected

HERE = Workspace(team="T1", bot_user=BOT_USER, bot="B1", agent="UAGENT")
SLACK = LoopbackSlack(url="http://127.0.0.1:1")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path) as store:
        yield store


@pytest.fixture
async def slack() -> AsyncIterator[LoopbackSlack]:
    async with loopback_slack() as slack:
        yield slack


@pytest.fixture
async def on(store: Store, slack: LoopbackSlack) -> AsyncIterator[Connected]:
    async with connected(store, slack) as on:
        yield on


def heard(event: dict[str, Any], **body: Any) -> Said | Replied | Reacted | None:
    return events.happened({"type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event": event} | body, HERE)


def test_null_is_as_good_as_left_out() -> None:
    nothing = dict.fromkeys(("thread_ts", "bot_id", "app_id", "subtype", "channel_type", "files", "blocks"))
    found = heard(said("hello", "2.2", **nothing))
    assert isinstance(found, Said)
    assert (found.text, found.place.thread) == ("hello", "")
    assert isinstance(heard(said("hello", "2.2", bot_id="", subtype="")), Said)
    command = SLACK.command("status")
    assert events.commanded(command | {"text": None, "response_url": None}, HERE, system_clock()) is not None
    assert isinstance(heard(reaction("1.1") | {"item_user": None}), Reacted)


def test_a_direct_message_is_known_by_its_channel_as_well() -> None:
    plain = {name: value for name, value in said("hello", "2.2", channel="D1").items() if name != "channel_type"}
    found = heard(plain)
    assert isinstance(found, Said)
    assert found.addressed


def test_a_reaction_without_a_time_of_its_own_has_that_of_its_delivery() -> None:
    bare = {name: value for name, value in reaction("1.1").items() if name != "event_ts"}
    found = heard(bare, event_time=1_790_000_000)
    assert isinstance(found, Reacted)
    assert found.at == events.moment_of("1790000000.0")
    assert heard(bare) is None


def test_a_time_beyond_all_calendars_is_none() -> None:
    assert heard(said("hello", "999999999999.000100")) is None
    assert heard(reaction("1.1", at="999999999999.000100")) is None


def test_a_press_says_where_it_was_in_either_way() -> None:
    press = SLACK.press({"action_id": "press:0", "value": "approve consent-1"}, "1.1")
    place = press.pop("container")
    about = {"channel": {"id": CHANNEL, "name": "help"}, "message": {"ts": "1.1", "thread_ts": "1.0", "text": "x"}}
    found = events.pressed(press | about, HERE, system_clock())
    assert found is not None
    assert (found.place.channel, found.place.thread, found.message) == (CHANNEL, "1.0", "1.1")
    assert events.pressed(press | {"container": place}, HERE, system_clock()) is not None
    press.pop("channel")
    assert events.pressed(press, HERE, system_clock()) is None


FRAMES: list[str | bytes] = [
    "no json", "", "[]", "7", "null", '"hello"', "{}", '{"type": null}', '{"type": "new", "envelope_id": "e"}',
    '{"type": "events_api", "envelope_id": "e1"}', '{"type": "events_api", "envelope_id": "e2", "payload": null}',
    '{"type": "events_api", "envelope_id": "e3", "payload": "x"}',
    '{"type": "events_api", "envelope_id": "e4", "payload": []}',
    '{"type": "interactive", "envelope_id": "e5", "payload": {"type": "unheard_of"}}',
    '{"type": "slash_commands", "envelope_id": "e6", "payload": {}}',
    '{"type": "disconnect", "envelope_id": 7}'.replace("disconnect", "warning"),
    b"\x00\xff\xfe", "[" * 5000, '{"type": "events_api", "envelope_id": {"a": 1}, "payload": {"event": 1}}',
]  # fmt: skip


async def test_a_frame_that_means_nothing_costs_nothing(on: Connected) -> None:
    for frame in FRAMES:
        socket = on.slack.sockets[-1]
        await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
    await on.slack.event(reaction("1790000000.000100"))
    assert len(on.inbox.fresh) == 1
    assert on.server.health[0].reconnects == 0


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\xff\xfe\x00", "application/json"),
        (b"\xff\xfe\x00", "application/x-www-form-urlencoded"),
        (b"no json", "application/json"),
        (b"", "application/json"),
        (b"[1, 2]", "application/json"),
        (b"payload=no+json", "application/x-www-form-urlencoded"),
        (b"payload=[1]", "application/x-www-form-urlencoded"),
        (b"{}", "application/json; charset=never-heard-of"),
    ],
)
async def test_a_call_that_means_nothing_is_refused_without_a_word_in_the_log(
    store: Store, slack: LoopbackSlack, raw: bytes, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with answering(store, slack) as server:
        headers = {"Content-Type": kind, "X-Slack-Request-Timestamp": "1", "X-Slack-Signature": "v0=1"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{server.ports[0]}/slack/events", data=raw, headers=headers) as answer,
        ):
            assert answer.status in (400, 401)
        await asyncio.sleep(0)
    assert "Traceback" not in "".join(capfd.readouterr())
