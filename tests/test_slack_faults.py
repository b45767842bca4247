"""What people see of a run in Slack while Slack fails: the last state of one card, every milestone once, and no press
lost. The run happens in a real store; adapter, inbox and announcer are those of `moss run`."""

import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot import announcer as news
from bot import inbox as letters
from bot.adapters.slack.adapter import SlackAdapter
from core.clock import system_clock
from core.model.consent import ConsentState
from core.model.transcript import Message, Place
from core.store import Store, batches, turns
from tests.support.databases import DATABASES, database, opened
from tests.support.newsroom import DESK, Newsroom, newsroom
from tests.support.slack_people import SlackPeople
from tests.support.slack_process import NEWS, one_moss, settings_of
from tests.support.slack_server import CHANNEL, TEAM, Fault, LoopbackSlack, loopback_slack, reaction
from tests.support.story import Shown, seen
from tests.support.until import until
from tests.support.world import ROOT

HERE = Place(platform="slack", workspace=TEAM, channel=CHANNEL)
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
    adapter: SlackAdapter = field(init=False)

    async def card(self, words: str, button: str = "") -> Shown:
        found = await seen(self.people, words, button=button, within_s=60)
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
async def a_room(store: Store, tmp: Path) -> AsyncIterator[Lived]:
    """Slack and the runs, and no Moss in it yet."""
    async with loopback_slack() as slack, newsroom(store, tmp, PEOPLE) as room:
        room.settings = settings_of(tmp / "moss.toml")
        yield Lived(slack, room, SlackPeople(slack))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path) as store:
        yield store


@pytest.fixture
async def on(store: Store, tmp_path: Path) -> AsyncIterator[Lived]:
    async with a_room(store, tmp_path) as on, one_moss(store, on.slack.settings, on.room.settings) as on.adapter:
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
    await until(lambda: on.slack.opened == 2 and on.adapter.health[0].connected)
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


@pytest.mark.parametrize("kind", DATABASES)
async def test_two_processes_tell_everything_once_and_one_that_is_killed_is_not_missed(
    kind: str, tmp_path: Path
) -> None:
    async with database(kind, tmp_path) as url:
        store = await Store.open(url, system_clock)
        async with a_room(store, tmp_path) as on, two_processes(url, tmp_path, on.slack) as (one, _):
            flagged = await a_reply(on)
            event = on.slack.envelope(reaction(flagged, user="UMARY"), "Ev1")
            for n, socket in enumerate(list(on.slack.sockets)):
                await socket.send_json({"type": "events_api", "envelope_id": f"env-both-{n}", "payload": event})
            await until(lambda: on.slack.whispers)
            run = await on.room.begin(HERE)
            card = await on.card("a repair is under way")
            one.kill()
            asked = await on.room.offer(run.id)
            offered = await on.card("a repair waits for approval", "Approve")
            await until(lambda: len(on.slack.sockets) == 1)
            assert "You approved this" in await on.people.press("ben", offered, "Approve")
            await on.swapped(asked.id)
            last = await on.card("the repair is live as version 1")
            await until(lambda: any("desk is live as version 1" in one for one in on.milestones(card.id)))
            told = on.milestones(card.id)
            assert len(told) == len(set(told))
            assert on.cards() == [card.id] == [last.id]
            assert len(on.slack.whispers) == 1
            async with store.reading() as db:
                held = await batches.of_turn(db, DESK, HERE, flagged)
            assert [chunk.weight for _, chunk in held] == [1]
        await store.close()


@asynccontextmanager
async def two_processes(url: str, tmp: Path, slack: LoopbackSlack) -> AsyncIterator[list[Process]]:
    command = [sys.executable, "-m", "tests.support.slack_process", url, str(tmp / "moss.toml"), slack.url]
    with (tmp / "processes.log").open("wb") as log:
        made = [await create_subprocess_exec(*command, cwd=ROOT, stdout=log, stderr=log) for _ in range(2)]
    try:
        await until(lambda: len(slack.sockets) == 2, 40)
        yield made
    except BaseException:
        print((tmp / "processes.log").read_text()[-4000:])
        raise
    finally:
        for one in made:
            if one.returncode is None:
                one.kill()
            await one.wait()


async def a_reply(on: Lived) -> str:
    """Of the agent, as if it had answered through Moss."""
    stamp = on.slack.stamp()
    async with on.room.store.writing() as db:
        for role, words, id in (("user", "Refund?", f"q{stamp}"), ("assistant", "No.", stamp)):
            said = Message.model_validate({"role": role, "content": words, "id": id})
            await turns.keep(db, on.room.store.now(), DESK, HERE, said=said, seconds=0.5)
    return stamp
