"""What people see of a run in Slack while Slack fails: the last state of one card, every milestone once, and no press
lost. The run happens in a real store; adapter, inbox and announcer are those of `moss run`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from bot import announcer as news
from bot import inbox as letters
from bot.adapters.slack.adapter import SlackAdapter
from bot.announcer import Announcer
from bot.inbox import Inbox
from bot.receive import give_up, receive
from bot.sections import Slack
from bot.verbs import Moss
from core.containers.host import Host
from core.dispatch import Dispatch
from core.model.consent import ConsentState
from core.model.transcript import Message, Place
from core.store import Store, batches, turns
from tests.support.chat_moss import NoHost, StillDispatch
from tests.support.databases import DATABASES, opened
from tests.support.newsroom import DESK, Newsroom, newsroom
from tests.support.slack_people import SlackPeople
from tests.support.slack_server import CHANNEL, TEAM, Fault, LoopbackSlack, loopback_slack, reaction
from tests.support.story import Shown, seen
from tests.support.until import until

HERE = Place(platform="slack", workspace=TEAM, channel=CHANNEL)
NEWS = "CNEWS"
PEOPLE = '[people]\nanna = ["slack:T1/UANNA"]\nben = ["slack:T1/UBEN"]\n'
LIMITED = Fault("ratelimited", 429, retry_after="0.1")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "EDIT_EVERY_S", 0.05)
    monkeypatch.setattr(news, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(letters, "PAUSES_S", (0.05,) * 5)


@dataclass
class Lived:
    slack: LoopbackSlack
    room: Newsroom
    people: SlackPeople
    adapters: list[SlackAdapter]

    async def card(self, words: str, button: str = "") -> Shown:
        found = await seen(self.people, words, button=button, within_s=15)
        assert found.thread == ""
        return found

    def cards(self) -> list[str]:
        """Of runs, in the channel."""
        return [one.id for one in self.people.shown() if not one.thread and "Evidence: " in one.text]

    def milestones(self, card: str) -> list[str]:
        return [one.text for one in self.people.shown() if one.thread == card]

    async def swapped(self, consent: str) -> None:
        async def granted() -> bool:
            return (await self.room.consent(consent)).state is ConsentState.granted

        await until(granted)
        await self.room.swap(consent)


@asynccontextmanager
async def one_moss(store: Store, slack: LoopbackSlack, settings: Any, holder: str) -> AsyncIterator[SlackAdapter]:
    """As bot/wiring.py puts it together, without an engine."""
    box = Inbox(store, lambda: holder)
    section = Slack.model_validate(slack.settings | {"app_token": "xapp-test"})
    adapter = SlackAdapter(store, settings, [section], box, first_pause_s=0.05)
    dispatch = cast(Dispatch, StillDispatch(store))
    moss = Moss(settings, store, cast(Host, NoHost()), dispatch, box, {"slack": adapter.chat})
    telling = Announcer(store, settings, moss.chats)
    tasks = [
        asyncio.create_task(adapter.serve()),
        asyncio.create_task(box.work(partial(receive, moss), partial(give_up, moss), moss.chats)),
        asyncio.create_task(telling.run()),
    ]
    try:
        await until(lambda: adapter.health[0].connected)
        yield adapter
    finally:
        adapter.stop()
        await box.finish(1)
        telling.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


@asynccontextmanager
async def lived(store: Store, tmp: Path, *, processes: int = 1) -> AsyncIterator[Lived]:
    async with loopback_slack() as slack, newsroom(store, tmp, PEOPLE) as room:
        announce = room.settings.announce.model_copy(update={"place": f"slack/{TEAM}/{NEWS}"})
        room.settings = room.settings.model_copy(update={"announce": announce})
        async with one_moss(store, slack, room.settings, "test.1") as first:
            if processes == 1:
                yield Lived(slack, room, SlackPeople(slack), [first])
                return
            async with one_moss(store, slack, room.settings, "test.2") as second:
                yield Lived(slack, room, SlackPeople(slack), [first, second])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path) as store:
        yield store


@pytest.fixture
async def on(store: Store, tmp_path: Path) -> AsyncIterator[Lived]:
    async with lived(store, tmp_path) as on:
        yield on


async def test_after_a_storm_of_limits_on_posts_and_edits_the_last_state_stands_on_one_card(on: Lived) -> None:
    on.slack.fail("chat.postMessage", *[LIMITED] * 7)
    run = await on.room.begin(HERE)
    card = await on.card("a repair is under way")
    on.slack.fail("chat.update", *[LIMITED] * 7)
    on.slack.fail("chat.postMessage", *[LIMITED] * 4)
    asked = await on.room.offer(run.id)
    await on.room.decide(asked.id)
    await on.room.swap(asked.id)
    last = await on.card("the repair is live as version 1")
    assert (last.id, on.cards()) == (card.id, [card.id])
    await until(lambda: any("desk is live as version 1" in one for one in on.milestones(card.id)))
    told = on.milestones(card.id)
    assert len(told) == len(set(told))
    assert not any(on.slack.faults.values())


async def test_a_line_that_is_cut_in_the_middle_of_a_run_loses_no_press_and_no_news(on: Lived) -> None:
    run = await on.room.begin(HERE)
    card = await on.card("a repair is under way")
    on.slack.abort()
    on.slack.fail("chat.update", Fault(after=True))
    on.slack.fail("chat.postMessage", Fault(after=True))
    asked = await on.room.offer(run.id)
    offered = await on.card("a repair waits for approval", "Approve")
    await until(lambda: on.slack.opened == 2 and on.adapters[0].health[0].connected)
    assert "You approved this" in await on.people.press("ben", offered, "Approve")
    on.slack.abort()
    await on.swapped(asked.id)
    assert (await on.card("the repair is live as version 1")).id == card.id
    await until(lambda: any("desk is live as version 1" in one for one in on.milestones(card.id)))
    told = on.milestones(card.id)
    assert len(told) == len(set(told)), "a message whose answer was lost is found again"
    assert not any(on.slack.faults.values())


async def test_a_card_that_somebody_deleted_is_posted_anew_with_its_buttons(on: Lived) -> None:
    run = await on.room.begin(HERE)
    card = await on.card("a repair is under way")
    del on.slack.messages[CHANNEL, card.id]
    asked = await on.room.offer(run.id)
    fresh = await on.card("a repair waits for approval", "Approve")
    assert fresh.id != card.id
    assert "You approved this" in await on.people.press("ben", fresh, "Approve")
    await on.swapped(asked.id)
    assert (await on.card("the repair is live as version 1")).id == fresh.id
    assert on.cards() == [fresh.id]
    await until(lambda: any("desk is live as version 1" in one for one in on.milestones(fresh.id)))


async def test_where_moss_is_not_in_the_channel_the_card_stands_where_news_goes(on: Lived) -> None:
    on.slack.outside.add(CHANNEL)
    with capture_logs() as logs:
        await on.room.begin(HERE)
        await until(lambda: any("a repair is under way" in text for text in on.slack.texts(NEWS)))
    assert on.slack.texts() == []
    assert any("invite it there with `/invite`" in str(line.get("why")) for line in logs)


async def test_what_a_missing_scope_kept_back_is_said_once_the_scope_is_there(on: Lived) -> None:
    on.slack.fail("chat.postMessage", *[Fault("missing_scope", more={"needed": "chat:write"})] * 3)
    with capture_logs() as logs:
        await on.room.begin(HERE)
        await on.card("a repair is under way")
    assert any("the scope chat:write is missing" in str(line.get("why")) for line in logs)
    assert len(on.cards()) == 1


@pytest.mark.parametrize("database", DATABASES)
async def test_two_moss_at_once_tell_everything_once_and_count_a_flag_once(database: str, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as store, lived(store, tmp_path, processes=2) as on:
        flagged = await a_reply(on)
        events = [on.slack.envelope(reaction(flagged, user="UMARY"), "Ev1")] * 2
        for socket, event in zip(list(on.slack.sockets), events, strict=True):
            await socket.send_json({"type": "events_api", "envelope_id": f"env-{id(socket)}", "payload": event})
        await until(lambda: on.slack.whispers)
        run = await on.room.begin(HERE)
        asked = await on.room.offer(run.id)
        offered = await on.card("a repair waits for approval", "Approve")
        assert "You approved this" in await on.people.press("ben", offered, "Approve")
        await on.swapped(asked.id)
        last = await on.card("the repair is live as version 1")
        await until(lambda: any("desk is live as version 1" in one for one in on.milestones(last.id)))
        told = on.milestones(last.id)
        assert len(told) == len(set(told))
        assert on.cards() == [last.id]
        assert len(on.slack.whispers) == 1
        async with store.reading() as db:
            held = await batches.of_turn(db, DESK, HERE, flagged)
        assert [chunk.weight for _, chunk in held] == [1]


async def a_reply(on: Lived) -> str:
    """Of the agent, as if it had answered through Moss."""
    stamp = on.slack.stamp()
    async with on.room.store.writing() as db:
        for role, words, id in (("user", "Refund?", f"q{stamp}"), ("assistant", "No.", stamp)):
            said = Message.model_validate({"role": role, "content": words, "id": id})
            await turns.keep(db, on.room.store.now(), DESK, HERE, said=said, seconds=0.5)
    return stamp
