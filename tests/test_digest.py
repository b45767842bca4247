"""The digest: what it says, and that it says it exactly once per period and place, whatever dies, stalls or is set."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bot import posting
from bot.chat import Card, Tone
from bot.digest import Digests, compose
from core.model.errors import Refused
from core.model.run import RunState
from core.model.swap import SwapState
from core.model.transcript import Message
from core.store import Store, runs, turns
from flags.raise_flag import withdraw
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.newsroom import DESK, NEWS, Newsroom, newsroom, text
from tests.support.paper_chat import PAPER, PaperChat, Shown

DAY = 24 * 3600.0


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock(datetime.fromisoformat("2026-01-05T10:00:00+00:00"))


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        yield store


@pytest.fixture
async def room(store: Store, tmp_path: Path) -> AsyncIterator[Newsroom]:
    """Ten o'clock on a Monday; a digest is due every day at nine."""
    async with newsroom(store, tmp_path) as room:
        await room.digests().tick()
        room.chat.shown.clear()
        yield room


def posted(room: Newsroom) -> list[Shown]:
    return [one for one in room.chat.shown if one.key.startswith("digest:")]


def line(card: Card, name: str) -> str:
    (found,) = [one.text for one in card.lines if one.name == name]
    return found


def section(card: Card, heading: str) -> list[str]:
    (found,) = [part.text for part in card.body if part.heading == heading]
    return found.splitlines()


async def last(room: Newsroom) -> Card:
    """The digest of a day later."""
    await room.digests().tick()
    what = posted(room)[-1].what
    assert isinstance(what, Card)
    return what


# Once


async def test_it_is_posted_once_a_period_where_news_goes(room: Newsroom, clock: HeldClock) -> None:
    for _ in range(5 * 24):
        clock.advance(3600)
        await room.digests().tick()
    assert [one.place for one in posted(room)] == [NEWS] * 5
    assert len({one.key for one in posted(room)}) == 5


async def test_each_named_place_gets_its_own(store: Store, tmp_path: Path, clock: HeldClock) -> None:
    async with newsroom(store, tmp_path, 'places = ["paper/acme/one", "paper/acme/two"]\n') as room:
        await room.digests().tick()
        clock.advance(DAY)
        await room.digests().tick()
        assert [one.place.channel for one in posted(room)] == ["one", "two"]


async def test_after_days_away_there_is_one_digest_for_all_of_them(room: Newsroom, clock: HeldClock) -> None:
    await room.flag(0)
    clock.advance(3 * DAY)
    await room.flag(1, "dora")
    clock.advance(2 * DAY)
    card = await last(room)
    await room.digests().tick()
    assert len(posted(room)) == 1
    assert card.title == "desk: what happened since 2026-01-05 10:00 UTC"
    assert line(card, "Flags") == "2 by 2 people; 0 in the same time before"


async def test_two_processes_post_it_once(room: Newsroom, clock: HeldClock) -> None:
    """Also where the platform cannot tell one key from another."""

    class Forgetful(PaperChat):
        async def post(self, place, what, key, *, as_agent=""):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.01)
            self.shown.append(Shown(place, what, key, "moss", f"m{len(self.shown)}"))
            return self.shown[-1].message

    room.chat = Forgetful()
    for _ in range(3):
        clock.advance(DAY)
        await asyncio.gather(*(room.digests().tick() for _ in range(4)))
        await room.digests().tick()
    assert len(posted(room)) == 3


class Died(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("where", ["before", "after"])
async def test_killed_around_the_posting_it_is_posted_once(
    room: Newsroom, clock: HeldClock, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    life = ["first"]
    monkeypatch.setattr(posting, "identity", lambda: life[0])
    monkeypatch.setattr(posting, "has_ended", lambda who: who == "first" and life[0] != "first")

    def die(what: str) -> None:
        raise Died(what)

    setattr(room.chat, where, die)
    clock.advance(DAY)
    with pytest.raises(Died):
        await room.digests().tick()
    room.chat.before = room.chat.after = lambda what: None
    life[0] = "second"
    await room.digests().tick()
    await room.digests().tick()
    assert len(posted(room)) == 1


@pytest.mark.parametrize("line_of", ["_begun", "_ended"])
async def test_killed_between_two_transactions_it_is_posted_once_and_tells_everything(
    room: Newsroom, clock: HeldClock, monkeypatch: pytest.MonkeyPatch, line_of: str
) -> None:
    await room.flag(0)
    clock.advance(DAY)
    real = getattr(Digests, line_of)

    async def dying(self: Digests, *words: object) -> None:
        if line_of == "_begun":
            await real(self, *words)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Digests, line_of, dying)
        with pytest.raises(Died):
            await room.digests().tick()
    await room.flag(1, "dora")  # after what was fixed to be told
    card = await last(room)
    assert len(posted(room)) == 1
    assert line(card, "Flags").startswith("1 by 1 person")
    clock.advance(DAY)
    assert line(await last(room), "Flags").startswith("1 by 1 person")


async def test_while_the_platform_is_away_it_waits_and_then_comes_once(room: Newsroom, clock: HeldClock) -> None:
    clock.advance(DAY)
    room.chat.away = 3
    for _ in range(5):
        await room.digests().tick()
    assert len(posted(room)) == 1


async def test_what_a_place_refused_is_told_with_the_next_one(room: Newsroom, clock: HeldClock) -> None:
    def closed(what: str) -> None:
        raise Refused("Moss is not in that channel.")

    await room.flag(0)
    clock.advance(DAY)
    room.chat.before = closed
    await room.digests().tick()
    await room.digests().tick()
    room.chat.before = lambda what: None
    await room.digests().tick()
    assert posted(room) == []
    clock.advance(DAY)
    assert line(await last(room), "Flags").startswith("1 by 1 person")


async def test_a_stall_over_the_tick_makes_it_late_and_not_double(room: Newsroom, clock: HeldClock) -> None:
    clock.advance(DAY - 3600 - 60)  # a minute before nine
    await room.digests().tick()
    assert posted(room) == []
    clock.advance(1800)
    await room.digests().tick()
    await room.digests().tick()
    clock.advance(DAY - 1800 + 30)  # half a minute before nine
    await room.digests().tick()
    assert len(posted(room)) == 1


@pytest.mark.parametrize("back_s", [600.0, 3600.0, 20 * 3600.0])
async def test_a_clock_that_is_set_back_brings_no_second_digest_and_no_gap(
    room: Newsroom, clock: HeldClock, back_s: float
) -> None:
    clock.advance(DAY)
    await room.digests().tick()
    clock.advance(-back_s)
    await room.flag(0)
    for _ in range(int(back_s // 600) + 6):
        await room.digests().tick()
        clock.advance(600)
    assert len(posted(room)) == 1
    clock.advance(DAY)
    assert line(await last(room), "Flags").startswith("1 by 1 person"), "flagged at a time that came twice"
    assert len(posted(room)) == 2


async def test_a_clock_that_was_far_ahead_does_not_silence_the_digest_for_as_long(
    room: Newsroom, clock: HeldClock
) -> None:
    clock.advance(365 * DAY)
    await room.digests().tick()
    clock.advance(-364 * DAY)
    await room.flag(0)
    for _ in range(3 * 24):
        await room.digests().tick()
        clock.advance(3600)
    assert len(posted(room)) == 1 + 3


async def test_on_the_days_when_clocks_are_set_it_comes_once(store: Store, tmp_path: Path, clock: HeldClock) -> None:
    clock.time = datetime.fromisoformat("2026-10-23T12:00:00+00:00")
    config = 'timezone = "Europe/Berlin"\n'
    async with newsroom(store, tmp_path, config) as room:
        digest = room.settings.digest.model_copy(update={"cron": "30 2 * * *"})
        room.settings = room.settings.model_copy(update={"digest": digest})
        await room.digests().tick()
        for _ in range(4 * 24 * 4):
            clock.advance(900)
            await room.digests().tick()
        assert len(posted(room)) == 4


# Nothing to say


async def test_nothing_to_say_is_one_line(room: Newsroom, clock: HeldClock) -> None:
    clock.advance(DAY)
    await room.digests().tick()
    (said,) = posted(room)
    assert said.what == "desk: nothing was flagged, repaired or decided since 2026-01-05 10:00 UTC."


async def test_or_silence_as_configured(store: Store, tmp_path: Path, clock: HeldClock) -> None:
    async with newsroom(store, tmp_path, 'nothing = "silence"\n') as room:
        await room.digests().tick()
        clock.advance(DAY)
        await room.digests().tick()
        assert posted(room) == []
        await room.flag(0)
        clock.advance(DAY)
        assert "since 2026-01-06 10:00" in (await last(room)).title


# Content


async def test_it_tells_flags_runs_versions_and_cost(room: Newsroom, clock: HeldClock) -> None:
    clock.advance(60)
    await room.flag(0, "dora", PAPER.model_copy(update={"channel": "old"}), kind="routing")
    clock.advance(DAY)
    await last(room)
    clock.advance(60)
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.swap(asked.id)
    await _replies(room, 0, 7)
    await room.told()
    clock.advance(DAY + 60)
    card = await last(room)
    assert card.tone is Tone.calm
    assert line(card, "Flags") == "2 by 2 people; 1 in the same time before"
    assert line(card, "Batches") == "1 opened, 1 sealed; 1 open now with 1 flagged reply"
    assert line(card, "Runs") == "1 started; 1 applied"
    assert section(card, "Flags by kind") == [
        "incomplete: 2, more than before (0)",
        "routing: 0, fewer than before (1)",
    ]
    (went,) = section(card, "Went live")
    assert went.startswith("version 1 at 2026-01-06 10:02 UTC: a repair, commit bbbbbbbbbbbb")
    assert section(card, "Runs that ended")[0].startswith(f"{run.id} is applied: desk now runs version 1")
    received = section(card, "Flags by version")
    assert received[0].startswith("version 0, was live for 24 h 2 min: 3 flags to 7 replies")
    assert received[1].startswith("version 1, live for 24 h 1 min: 0 flags")


async def _replies(room: Newsroom, version: int, count: int) -> None:
    async with room.store.writing() as db:
        for n in range(count):
            said = Message(role="assistant", content="Yes.", id=f"a{n}")
            await turns.keep(db, room.store.now(), DESK, PAPER, said=said, version=version, seconds=1.0)


async def test_what_waits_for_approval_is_told_with_a_link_until_it_is_decided(
    room: Newsroom, clock: HeldClock
) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.told()
    for _ in range(2):
        clock.advance(DAY)
        card = await last(room)
        (waits,) = section(card, "Waits for approval")
        assert waits.startswith(
            f"the repair of {run.id}, until 2026-01-12 10:00 UTC, for anna, ben: https://paper.example/"
        )
        assert card.tone is Tone.asking
    await room.decide(asked.id, approve=False, reason="No.")
    clock.advance(DAY)
    assert section(await last(room), "Runs that ended") == [f"{run.id} is declined: ben declined: No."]


@pytest.mark.parametrize("end", [SwapState.restored, SwapState.stuck])
async def test_what_did_not_go_live_is_told_and_what_is_down_loudly(
    room: Newsroom, clock: HeldClock, end: SwapState
) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.swap(asked.id, end)
    clock.advance(DAY)
    card = await last(room)
    (failed,) = section(card, "Went live")
    assert ("got stuck" if end is SwapState.stuck else "did not hold") in failed
    assert (card.tone is Tone.bad) == (end is SwapState.stuck)
    assert any(part.heading == "desk needs a person" for part in card.body) == (end is SwapState.stuck)


async def test_a_flag_counts_once_and_not_when_it_was_taken_back(room: Newsroom, clock: HeldClock) -> None:
    clock.advance(60)
    await room.flag(0)
    await room.flag(1, "dora")
    await withdraw(room.store, DESK, PAPER, "r1", "dora")
    clock.advance(DAY)
    assert line(await last(room), "Flags") == "1 by 1 person; 0 in the same time before"
    await room.flag(0, kind="routing")  # says more about the flag of yesterday
    await room.flag(2, "eve")
    clock.advance(DAY + 60)
    assert line(await last(room), "Flags") == "1 by 1 person; 1 in the same time before"


async def test_any_time_can_be_asked_for(room: Newsroom, clock: HeldClock) -> None:
    await room.flag(0)
    clock.advance(DAY)
    await room.flag(1, "dora")
    now = room.store.now()
    day = await compose(room.store, DESK, now - timedelta(hours=1), now)
    week = await compose(room.store, DESK, now - timedelta(days=7), now)
    assert [line(card, "Flags").partition(";")[0] for card in (day, week)] == ["1 by 1 person", "2 by 2 people"]
    assert posted(room) == []


async def test_hostile_words_in_a_digest_are_inert(room: Newsroom, clock: HeldClock) -> None:
    run = await room.begin()
    async with room.store.changing(DESK) as change:
        words = "It said @everyone\x1b[31m\u202e " + "word " * 5_000
        await runs.move(change, run.id, RunState.failed, "moss", words)
    clock.advance(DAY)
    card = await last(room)
    assert not {"\x1b", "\u202e"} & set(text(card))
    assert len(text(card)) < 5_500
