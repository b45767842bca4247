"""Real slack-bolt over a loopback Socket Mode server: whatever happens to the socket, each event reaches Moss once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.adapters.slack.adapter import SlackAdapter
from bot.chat import AnyEvent, Commanded, Pressed, Reacted, Said
from bot.inbox import Inbox
from bot.sections import Slack
from bot.settings import Settings
from core.model.errors import Unavailable
from core.store import Store
from core.store import inbox as letters
from tests.support.databases import opened
from tests.support.slack_server import CHANNEL, TEAM, Fault, LoopbackSlack, forever, loopback_slack, reaction, said
from tests.support.until import until

SETTINGS = Settings.model_construct()


class Counted(Inbox):
    """The real inbox; it remembers what was new to it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, lambda: "test.first")
        self.fresh: list[AnyEvent] = []
        self.failing = 0

    async def take(self, event: AnyEvent) -> bool:
        if self.failing:
            self.failing -= 1
            raise Unavailable("The database is away for a moment.")
        new = await super().take(event)
        if new:
            self.fresh.append(event)
        return new


@dataclass
class Connected:
    slack: LoopbackSlack
    server: SlackAdapter
    inbox: Counted
    store: Store


@asynccontextmanager
async def connected(
    store: Store, slack: LoopbackSlack, *, wait: bool = True, inbox: Counted | None = None, **more: object
) -> AsyncIterator[Connected]:
    settings = Slack.model_validate(slack.settings | {"app_token": "xapp-test"} | more)
    inbox = inbox or Counted(store)
    server = SlackAdapter(store, SETTINGS, [settings], inbox, first_pause_s=0.05)
    serving = asyncio.create_task(server.serve())
    try:
        if wait:
            await until(lambda: server.health[0].connected)
        yield Connected(slack, server, inbox, store)
    finally:
        server.stop()
        await asyncio.wait_for(serving, 30)


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


async def test_every_kind_of_event_is_written_down_before_it_is_acknowledged(on: Connected) -> None:
    slack = on.slack
    await slack.event(reaction("1790000000.000100"))
    await slack.event(said("Refund?", "1790000001.000100"))
    await slack.deliver("slash_commands", slack.command("status"))
    await slack.deliver("interactive", slack.press({"action_id": "press:0", "value": "approve consent-1"}, "1.1"))
    assert [type(event) for event in on.inbox.fresh] == [Reacted, Said, Commanded, Pressed]
    async with on.store.reading() as db:
        assert await letters.waiting(db, "", 1 << 30)


async def test_an_event_that_could_not_be_written_down_is_not_acknowledged_and_comes_again(on: Connected) -> None:
    on.inbox.failing = 1
    payload = on.slack.envelope(reaction("1790000000.000100"))
    first = await on.slack.push("events_api", payload)
    await asyncio.sleep(0.3)
    assert first not in on.slack.acks
    await on.slack.deliver("events_api", payload, retry=1, reason="timeout")
    assert len(on.inbox.fresh) == 1


async def test_one_event_id_counts_once_also_after_a_restart(store: Store, slack: LoopbackSlack) -> None:
    event = reaction("1790000000.000100")
    async with connected(store, slack) as on:
        await slack.event(event, id="Ev1")
        await slack.event(event, id="Ev1", retry=1, reason="timeout")
        assert len(on.inbox.fresh) == 1
    async with connected(store, slack) as on:
        await slack.event(event, id="Ev1", retry=2, reason="timeout")
        assert on.inbox.fresh == []


async def test_a_first_delivery_that_is_called_the_second_retry_is_taken(on: Connected) -> None:
    await on.slack.event(reaction("1790000000.000100"), retry=2, reason="timeout")
    assert len(on.inbox.fresh) == 1


async def test_a_mention_that_comes_as_message_and_as_mention_is_one_event(on: Connected) -> None:
    await on.slack.event(said("<@UMOSS> hello", "1790000001.000100"))
    await on.slack.event(said("<@UMOSS> hello", "1790000001.000100") | {"type": "app_mention"})
    (event,) = on.inbox.fresh
    assert isinstance(event, Said)
    assert (event.text, event.addressed) == ("hello", True)


async def test_whatever_else_slack_sends_is_acknowledged_and_changes_nothing(on: Connected) -> None:
    await on.slack.event({"type": "channel_rename", "channel": {"id": "C1", "name": "x"}})
    await on.slack.event(said("edited", "1790000001.000100", subtype="message_changed"))
    await on.slack.event({"type": "message", "nonsense": [1]})
    await on.slack.deliver(
        "interactive", {"type": "shortcut", "callback_id": "other", "trigger_id": "1", "team": {"id": TEAM}}
    )
    await on.slack.deliver("interactive", on.slack.press({"action_id": "link", "value": ""}, "1.1"))
    stranger = on.slack.envelope(reaction("1790000000.000100")) | {
        "team_id": "T9",
        "authorizations": [{"team_id": "T9"}],
    }
    await on.slack.deliver("events_api", stranger)
    assert on.inbox.fresh == []


@pytest.mark.parametrize("reason", ["refresh_requested", "warning"])
async def test_a_new_socket_is_open_before_the_old_one_is_closed(on: Connected, reason: str) -> None:
    await on.slack.disconnect(reason)
    await until(lambda: on.slack.most == 2 and len(on.slack.sockets) == 1)
    assert on.slack.opened == 2
    await on.slack.event(reaction("1790000000.000100"))
    assert len(on.inbox.fresh) == 1
    assert on.server.health[0].reconnects == 1


async def test_a_socket_that_slack_closes_for_good_is_replaced_by_another(on: Connected) -> None:
    await on.slack.disconnect("link_disabled")
    await until(lambda: on.slack.opened == 2 and on.server.health[0].connected)
    await on.slack.event(reaction("1790000000.000100"))
    assert len(on.inbox.fresh) == 1
    assert on.slack.most == 1


async def test_a_cut_line_loses_nothing(on: Connected) -> None:
    payload = on.slack.envelope(reaction("1790000000.000100"))
    on.slack.abort()
    await until(lambda: on.slack.opened == 2 and on.slack.sockets)
    await forever(on.slack, "events_api", payload)
    assert len(on.inbox.fresh) == 1


async def test_a_socket_that_gives_no_sign_of_life_is_replaced(on: Connected) -> None:
    on.slack.heartless = True
    await until(lambda: on.slack.opened >= 2)
    on.slack.heartless = False
    await until(lambda: on.server.health[0].connected)


async def test_a_socket_that_is_deaf_is_replaced(store: Store, slack: LoopbackSlack) -> None:
    async with connected(store, slack, renew_after_s=0.5):
        await until(lambda: slack.opened >= 2)


async def test_slack_being_away_at_the_start_is_waited_for_and_told(store: Store, slack: LoopbackSlack) -> None:
    slack.fail("auth.test", Fault("internal_error", 500), Fault("invalid_auth"))
    async with connected(store, slack, wait=False) as on:
        await until(lambda: "bot_token" in on.server.health[0].problem)
        await until(lambda: on.server.health[0].connected)
        assert on.server.health[0].problem == ""


async def test_the_age_of_the_last_event_is_known(on: Connected) -> None:
    assert on.server.health[0].last_event_at is None
    await on.slack.event(reaction("1790000000.000100"))
    assert on.server.health[0].last_event_at is not None
    assert on.server.health[0].workspace == TEAM


async def test_the_form_of_the_menu_becomes_a_flag_with_words(on: Connected) -> None:
    await on.slack.deliver("interactive", on.slack.shortcut("1790000000.000100"))
    await until(lambda: on.slack.views)
    values = {"kind": {"selected_option": {"value": "retrieval"}}, "reason": {"value": "It is 30 days."}}
    submission = on.slack.submission(on.slack.views[0], values)
    for _ in range(2):
        await on.slack.deliver("interactive", submission)
    (event,) = on.inbox.fresh
    assert (event.kind, event.failure, event.reason) == ("flagged", "retrieval", "It is 30 days.")
    assert (event.message, event.place.channel, event.person) == ("1790000000.000100", CHANNEL, "slack:T1/U1")


async def test_a_button_that_wants_a_reason_asks_for_it_first(on: Connected) -> None:
    button = {"action_id": "ask:1", "value": "decline consent-7"}
    await on.slack.deliver("interactive", on.slack.press(button, "1790000000.000100"))
    await until(lambda: on.slack.views)
    assert on.inbox.fresh == []
    await on.slack.deliver("interactive", on.slack.submission(on.slack.views[0], {"reason": {"value": "Too broad."}}))
    (event,) = on.inbox.fresh
    assert isinstance(event, Pressed)
    assert (event.verb, event.subject, event.reason) == ("decline", "consent-7", "Too broad.")


async def test_a_form_that_cannot_be_opened_is_told_privately(on: Connected) -> None:
    on.slack.fail("views.open", Fault("expired_trigger_id"))
    await on.slack.deliver("interactive", on.slack.shortcut("1790000000.000100"))
    await until(lambda: on.slack.answers)
    assert "try again" in on.slack.answers[0]["text"]


async def test_a_form_about_nothing_that_can_be_read_is_dropped(on: Connected) -> None:
    view = {"type": "modal", "callback_id": "moss_flag_form", "private_metadata": json.dumps({"channel": "../x"})}
    await on.slack.deliver("interactive", on.slack.submission(view, {}))
    assert on.inbox.fresh == []


async def test_two_moss_at_once_hear_one_event_once(store: Store, slack: LoopbackSlack) -> None:
    payload = slack.envelope(reaction("1790000000.000100"))
    async with connected(store, slack) as one, connected(store, slack) as two:
        for socket in list(slack.sockets):
            await socket.send_json({"type": "events_api", "envelope_id": f"env-{id(socket)}", "payload": payload})
        await until(lambda: len(slack.acks) == 2)
        assert len([*one.inbox.fresh, *two.inbox.fresh]) == 1


async def test_stopping_acknowledges_what_has_arrived(store: Store, slack: LoopbackSlack) -> None:
    class Slow(Counted):
        async def take(self, event: AnyEvent) -> bool:
            await asyncio.sleep(0.3)
            return await super().take(event)

    async with connected(store, slack, inbox=Slow(store)) as on:
        id = await slack.push("slash_commands", slack.command("status"))
        await asyncio.sleep(0.1)
        on.server.stop()
    await slack.acked(id, 2)
    assert len(on.inbox.fresh) == 1


async def test_stopping_does_not_wait_for_a_slack_that_says_nothing(store: Store, slack: LoopbackSlack) -> None:
    slack.dumb = True
    async with connected(store, slack, wait=False) as on:
        await until(lambda: slack.sockets)
        on.server.stop()
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 9
