"""The inbox: each delivery once, in lanes, by one process, whatever dies; and nothing in it that is not redacted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from bot import inbox as rooms
from bot.chat import Commanded, Reacted, Said
from bot.inbox import Delivery, Inbox, NotYet, lane, redacted
from bot.patience import Away
from core.model.errors import Unavailable
from core.store import Store, leases
from core.store import inbox as letters
from core.store.tables import inbox as table
from tests.support.databases import DATABASES, START, HeldClock, database
from tests.support.paper_chat import PAPER
from tests.support.until import until

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def stores(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[list[Store]]:
    """One database as two processes see it."""
    async with database(request.param, tmp_path) as url:
        found = [await Store.open(url, clock) for _ in range(2)]
        yield found
        for store in found:
            await store.close()


@pytest.fixture
def store(stores: list[Store]) -> Store:
    return stores[0]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "PAUSES_S", (0.01, 0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(rooms, "LOOK_S", 0.1)


def said(n: int, text: str = "Hello", thread: str = "", **more: object) -> Said:
    place = PAPER.model_copy(update={"thread": thread})
    values = {"id": f"e{n}", "place": place, "person": "paper:eve", "at": START, "message": f"m{n}", "text": text}
    return Said.model_validate({"addressed": True, **values, **more})


class Worker:
    """Works an inbox until everything that was taken is done, and notes in which order."""

    def __init__(self, store: Store, holder: str = "one") -> None:
        self.inbox = Inbox(store, lambda: holder)
        self.store = store
        self.began: list[str] = []
        self.ended: list[str] = []
        self.gone: list[tuple[str, str]] = []
        self.at_once = self.most = 0
        self.fails: dict[str, int] = {}
        self.takes_s = 0.0

    async def is_idle(self) -> bool:
        return not await waiting(self.store)

    async def perform(self, delivery: Delivery) -> None:
        id = delivery.event.id
        self.began.append(id)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.takes_s)
            if self.fails.get(id, 0):
                self.fails[id] -= 1
                raise Unavailable("It is away.")
        finally:
            self.at_once -= 1
        self.ended.append(id)

    async def give_up(self, delivery: Delivery, problem: Exception) -> None:
        self.gone.append((delivery.event.id, str(problem)))

    def start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.inbox.work(self.perform, self.give_up, ["paper"]))

    async def work(self) -> None:
        working = self.start()
        await until(self.is_idle)
        await self.inbox.finish(1)
        await working


async def waiting(store: Store) -> int:
    async with store.reading() as db:
        return await letters.waiting(db, "", 1 << 30)


async def bodies(store: Store) -> list[dict[str, object]]:
    async with store.reading() as db:
        return list((await db.execute(select(table.c.body).order_by(table.c.id))).scalars())


async def test_the_same_delivery_is_taken_once(store: Store) -> None:
    inbox = Inbox(store, lambda: "one")
    assert [await inbox.take(said(1)), await inbox.take(said(1)), await inbox.take(said(2))] == [True, False, True]
    taken = await asyncio.gather(*(inbox.take(said(3)) for _ in range(10)))
    assert sum(taken) == 1


async def test_the_same_id_in_another_workspace_is_another_event(store: Store) -> None:
    inbox = Inbox(store, lambda: "one")
    other = said(1).model_copy(update={"place": PAPER.model_copy(update={"workspace": "other"})})
    assert [await inbox.take(said(1)), await inbox.take(other)] == [True, True]


async def test_an_event_that_was_done_is_not_taken_again(store: Store) -> None:
    worker = Worker(store)
    await worker.inbox.take(said(1))
    await worker.work()
    assert not await Inbox(store, lambda: "two").take(said(1))


async def test_what_an_adapter_writes_beside_its_own_comes_with_it_or_not_at_all(store: Store) -> None:
    inbox = Inbox(store, lambda: "one")
    with contextlib.suppress(RuntimeError):
        async with store.writing() as db:
            assert await inbox.add(db, said(1))
            raise RuntimeError
    assert await inbox.take(said(1))


async def test_a_lane_is_worked_in_order_and_several_lanes_at_a_time(store: Store) -> None:
    worker = Worker(store)
    worker.takes_s = 0.02
    for n in range(12):
        await worker.inbox.take(said(n, thread=f"t{n % 3}", person=f"paper:{n % 3}"))
    await worker.work()
    assert sorted(worker.ended) == sorted(f"e{n}" for n in range(12))
    for thread in range(3):
        assert [id for id in worker.began if int(id[1:]) % 3 == thread] == [f"e{n}" for n in range(thread, 12, 3)]
    assert worker.most == 3


async def test_no_more_is_under_way_than_there_is_room_for(store: Store) -> None:
    worker = Worker(store)
    worker.takes_s = 0.02
    for n in range(20):
        await worker.inbox.take(said(n, thread=f"t{n}", person=f"paper:{n % 5}"))
    await worker.work()
    assert worker.most == rooms.AT_ONCE[rooms.TALK]


async def test_whoever_asks_much_leaves_room_for_others_and_is_heard_in_the_end(store: Store) -> None:
    worker = Worker(store)
    worker.takes_s = 0.05
    for n in range(12):
        await worker.inbox.take(said(n, thread=f"t{n}", person="paper:eve"))
    for n in range(12, 14):
        await worker.inbox.take(said(n, thread=f"t{n}", person="paper:bob"))
    await worker.work()
    assert worker.most == 2 * rooms.OF_ONE_PERSON[rooms.TALK]
    assert set(worker.began[:4]) == {"e0", "e1", "e12", "e13"}
    assert sorted(worker.ended) == sorted(f"e{n}" for n in range(14))


async def test_what_takes_too_long_is_ended_and_told_and_not_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "LONGEST_S", 0.05)
    worker = Worker(store)
    worker.takes_s = 30
    await worker.inbox.take(said(1))
    await worker.work()
    assert worker.began == ["e1"]
    (gone,) = worker.gone
    assert gone[0] == "e1"
    assert "took longer than" in gone[1]


async def test_a_time_limit_of_its_own_is_a_failure_like_any_other(store: Store) -> None:
    worker, tries = Worker(store), []

    async def perform(delivery: Delivery) -> None:
        tries.append(delivery.tries)
        if delivery.tries < 2:
            raise TimeoutError

    worker.perform = perform  # type: ignore[method-assign]
    await worker.inbox.take(said(1))
    await worker.work()
    assert (tries, worker.gone) == ([0, 1, 2], [])


async def test_what_one_moss_has_begun_no_other_begins_and_it_may_itself(store: Store) -> None:
    began: list[tuple[str, bool, bool]] = []

    def performing(worker: Worker, name: str) -> None:
        async def perform(delivery: Delivery) -> None:
            began.append((name, await worker.inbox.is_begun(delivery), await worker.inbox.begins(delivery)))
            if len(began) == 1:
                raise Unavailable("Later.")
            if len(began) == 2:
                await asyncio.sleep(30)  # it dies in the middle

        worker.perform = perform  # type: ignore[method-assign]

    first, second = Worker(store, "first"), Worker(store, "second")
    performing(first, "first")
    performing(second, "second")
    await first.inbox.take(said(1))
    working = first.start()
    await until(lambda: len(began) == 2)
    await first.inbox.finish(0)
    await working
    await second.work()
    assert began == [("first", False, True), ("first", True, True), ("second", True, False)]


async def test_an_inbox_that_ends_while_it_looks_takes_up_nothing_that_it_let_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(store)
    worker.takes_s = 60
    await worker.inbox.take(said(1))
    working = worker.start()
    await until(lambda: worker.began)
    looks, ended = asyncio.Event(), asyncio.Event()

    async def looking(platforms: object) -> None:
        looks.set()
        await ended.wait()

    monkeypatch.setattr(worker.inbox, "_take_over", looking)
    await looks.wait()
    await worker.inbox.finish(0)
    ended.set()
    await working
    assert worker.began == ["e1"]


async def test_what_waits_for_the_agent_does_not_hold_up_what_is_asked_of_moss(store: Store) -> None:
    worker = Worker(store)
    worker.takes_s = 0.3
    for n in range(9):
        await worker.inbox.take(said(n, thread=f"t{n}"))
    asked = Commanded(id="status", place=PAPER, person="paper:eve", at=START, words="status")
    await worker.inbox.take(asked)
    await worker.work()
    assert worker.began.index("status") < worker.began.index("e8")


async def test_an_event_that_fails_is_tried_again_and_holds_up_its_lane_only(store: Store) -> None:
    worker = Worker(store)
    worker.fails = {"e1": 3}
    for event in (said(1, thread="a"), said(2, thread="a"), said(3, thread="b")):
        await worker.inbox.take(event)
    await worker.work()
    assert worker.began.count("e1") == 4
    assert worker.ended.index("e1") < worker.ended.index("e2")
    assert worker.ended[0] == "e3"
    assert worker.gone == []


async def test_an_event_that_always_fails_is_given_up_and_its_lane_goes_on(store: Store) -> None:
    worker = Worker(store)
    worker.fails = {"e1": 99}
    for event in (said(1, thread="a"), said(2, thread="a")):
        await worker.inbox.take(event)
    await worker.work()
    assert worker.began.count("e1") == 1 + len(rooms.PAUSES_S)
    assert worker.gone == [("e1", "It is away.")]
    assert worker.ended == ["e2"]


async def test_what_has_to_be_said_where_the_platform_is_away_waits_for_an_hour_and_holds_nobody_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rooms.TRIES_AWAY * 60 == 3600
    monkeypatch.setattr(rooms, "AT_ONCE", dict.fromkeys(rooms.AT_ONCE, 1))
    monkeypatch.setattr(rooms, "TRIES_AWAY", 20)
    monkeypatch.setattr(rooms, "PAUSES_S", (0.05,) * len(rooms.PAUSES_S))
    worker, away = Worker(store), {"e1": 15, "e2": 99}
    perform = worker.perform

    async def where_it_is_away(delivery: Delivery) -> None:
        id = delivery.event.id
        if away.get(id, 0):
            away[id] -= 1
            raise Away("It is away.")
        await perform(delivery)

    worker.perform = where_it_is_away  # type: ignore[method-assign]
    for event in (said(1, thread="a"), said(2, thread="b"), said(3, thread="c")):
        await worker.inbox.take(event)
    await worker.work()
    assert worker.ended == ["e3", "e1"]
    assert (worker.gone, away["e2"]) == ([("e2", "It is away.")], 99 - 1 - len(rooms.PAUSES_S) - 20)


async def test_giving_up_ends_even_when_nobody_can_be_told(store: Store) -> None:
    worker = Worker(store)
    worker.fails = {"e1": 99}

    async def silent(delivery: Delivery, problem: Exception) -> None:
        raise Unavailable("Nobody listens.")

    worker.give_up = silent  # type: ignore[method-assign]
    await worker.inbox.take(said(1))
    await worker.work()
    assert worker.began.count("e1") == 1 + len(rooms.PAUSES_S)


async def test_what_is_not_there_yet_is_looked_for_again(store: Store) -> None:
    worker, looks = Worker(store), []

    async def perform(delivery: Delivery) -> None:
        looks.append(delivery.tries)
        if delivery.tries < 2:
            raise NotYet

    worker.perform = perform  # type: ignore[method-assign]
    await worker.inbox.take(said(1))
    await worker.work()
    assert looks == [0, 1, 2]


async def test_tries_are_counted_across_restarts(store: Store) -> None:
    first = Worker(store, "first")
    first.fails = {"e1": 99}
    await first.inbox.take(said(1))
    working = first.start()
    await until(lambda: first.began.count("e1") >= 3)
    await first.inbox.finish(0)
    await working
    second = Worker(store, "second")
    second.fails = {"e1": 99}
    await second.work()
    assert 1 <= second.began.count("e1") <= 4
    assert second.gone


async def test_what_a_dead_process_held_is_taken_over_and_what_a_live_one_holds_is_not(stores: list[Store]) -> None:
    alive, dead, heir = "machine.alive", "machine.dead", "machine.heir"
    for holder in (alive, heir):
        await leases.claim(stores[0], holder, 60)
    await Inbox(stores[0], lambda: alive).take(said(1, thread="a"))
    await Inbox(stores[0], lambda: dead).take(said(2, thread="b"))
    worker = Worker(stores[1], heir)
    working = worker.start()
    await until(lambda: worker.ended)
    await asyncio.sleep(0.3)
    await worker.inbox.finish(1)
    await working
    assert worker.ended == ["e2"]


async def test_two_processes_never_work_on_one_event_and_keep_the_order_of_a_lane(stores: list[Store]) -> None:
    workers = [Worker(store, f"machine.{n}") for n, store in enumerate(stores)]
    for n in range(2):
        await leases.claim(stores[0], f"machine.{n}", 60)
    tasks = [worker.start() for worker in workers]
    order: list[str] = []
    for worker in workers:
        worker.began = order  # one journal
        worker.takes_s = 0.005
    for n in range(24):
        await workers[n % 2].inbox.take(said(n, thread=f"t{n % 4}"))
    await until(workers[0].is_idle, within_s=60)
    for worker, task in zip(workers, tasks, strict=True):
        await worker.inbox.finish(1)
        await task
    assert sorted(order) == sorted(f"e{n}" for n in range(24))
    for thread in range(4):
        assert [id for id in order if int(id[1:]) % 4 == thread] == [f"e{n}" for n in range(thread, 24, 4)]


async def test_ending_lets_what_is_under_way_end_and_loses_nothing(store: Store) -> None:
    worker = Worker(store)
    worker.takes_s = 0.2
    await worker.inbox.take(said(1, thread="a"))
    working = worker.start()
    await until(lambda: worker.began)
    await worker.inbox.finish(5)
    await worker.inbox.take(said(2, thread="b"))
    await working
    assert worker.ended == ["e1"]
    slow = Worker(store, "slow")
    slow.takes_s = 30
    working = slow.start()
    await until(lambda: slow.began)
    await slow.inbox.finish(0.05)
    await working
    last = Worker(store, "last")
    await last.work()
    assert last.ended == ["e2"]


async def test_nothing_is_written_down_before_it_is_redacted_and_no_word_is_kept_of_what_is_done(store: Store) -> None:
    worker = Worker(store)
    event = said(1, f"My key is {TOKEN}, write to anna@example.org.")
    await worker.inbox.take(event)
    await worker.inbox.take(
        Commanded(id="c", place=PAPER, person="p", at=START, words=f"flag {TOKEN}", answer_to="url")
    )
    stored = str(await bodies(store))
    assert TOKEN not in stored
    assert "anna@example.org" not in stored
    assert "My key is ghp_REDACTED" in stored
    assert worker.inbox.heard.get(PAPER, "m1") == event.text
    await worker.work()
    first, second = await bodies(store)
    assert (first["text"], first["message"], second["words"], second["answer_to"]) == ("", "m1", "", "")


async def test_a_message_without_secrets_is_remembered_nowhere_but_in_the_inbox(store: Store) -> None:
    inbox = Inbox(store, lambda: "one")
    await inbox.take(said(1))
    assert inbox.heard.get(PAPER, "m1") is None


async def test_what_an_event_means_is_found_once(store: Store) -> None:
    worker, found = Worker(store), []

    async def find() -> str:
        found.append(len(found))
        return f"reply {len(found)}"

    meanings = []

    async def perform(delivery: Delivery) -> None:
        meanings.append(await worker.inbox.settled(delivery, find))
        if delivery.tries < 2:
            raise Unavailable("Later.")

    worker.perform = perform  # type: ignore[method-assign]
    await worker.inbox.take(said(1))
    await worker.work()
    assert (meanings, found) == (["reply 1"] * 3, [0])


async def test_what_is_older_than_a_week_is_forgotten(store: Store, clock: HeldClock) -> None:
    worker = Worker(store)
    await worker.inbox.take(said(1))
    await worker.work()
    clock.advance(6 * 86400)
    await worker.inbox.take(said(2))
    await worker.inbox.prune()
    assert not await worker.inbox.take(said(1))
    clock.advance(2 * 86400)
    await worker.inbox.prune()
    async with store.reading() as db:
        assert await db.scalar(select(func.count()).select_from(table)) == 1
    assert not await worker.inbox.take(said(2))


async def test_a_letter_of_a_newer_moss_holds_up_nothing(store: Store) -> None:
    async with store.writing() as db:
        await letters.add(
            db, store.now(), "one", platform="paper", workspace="acme", event="strange",
            lane=lane(said(1)), body={"kind": "sung"}, altered=False,
        )  # fmt: skip
    worker = Worker(store)
    await worker.inbox.take(said(1))
    await worker.work()
    assert worker.ended == ["e1"]


def test_complaints_of_one_person_about_one_message_share_a_lane_and_others_do_not() -> None:
    def reacted(message: str, person: str) -> str:
        return lane(Reacted(id="r", place=PAPER, person=person, at=START, message=message, emoji="x", added=True))

    assert reacted("m1", "eve") == reacted("m1", "eve")
    assert len({reacted("m1", "eve"), reacted("m1", "bob"), reacted("m2", "eve")}) == 3
    assert lane(said(1)) != lane(said(2))
    assert lane(said(1)) == lane(said(2, thread="m1"))


def test_an_event_without_words_is_the_same_after_redaction() -> None:
    event = Reacted(id="r", place=PAPER, person="eve", at=START, message="m", emoji="x", added=True)
    assert redacted(event) is event


async def test_what_ends_while_the_inbox_reads_is_not_begun_a_second_time(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads is a state in which that was not done yet."""
    worker, release = Worker(stores[0]), asyncio.Event()
    read, lanes_read = letters.next_letters, 0

    async def perform(delivery: Delivery) -> None:
        worker.began.append(delivery.event.id)
        await release.wait()

    async def next_letters(db: Any, holder: str, platforms: Any, lanes: str, **more: Any) -> list[letters.Letter]:
        nonlocal lanes_read
        found = await read(db, holder, platforms, lanes, **more)
        if worker.began and (lanes_read := lanes_read + 1) == 1:
            release.set()
            await until(lambda: not worker.inbox._at_work)
        return found

    worker.perform = perform  # type: ignore[method-assign]
    monkeypatch.setattr(letters, "next_letters", next_letters)
    place, more = PAPER, {"person": "paper:eve", "at": START, "message": "m1", "emoji": "thumbsdown"}
    await worker.inbox.take(Reacted.model_validate({"id": "on", "place": place, "added": True, **more}))
    working = worker.start()
    await until(lambda: worker.began)
    await worker.inbox.take(Reacted.model_validate({"id": "off", "place": place, "added": False, **more}))
    await until(worker.is_idle)
    await worker.inbox.finish(1)
    await working
    assert worker.began == ["on", "off"]
