"""Many at once: one unbroken chain, one winner; and what somebody wrote past the store is found."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, text
from sqlalchemy.exc import IntegrityError

from core.consent import ask_for_rollback
from core.model.batch import BatchState
from core.model.errors import Busy, IllegalMove, Unavailable
from core.model.events import Noun
from core.model.run import RunState
from core.store import Store, batches, facts, leases, outbox, runs, swaps, tables
from core.store.engine import OnceStopped
from tests.support import stored
from tests.support.databases import DATABASES, HeldClock, database, opened
from tests.support.stored import DESK, with_substrate


@pytest.fixture(params=DATABASES)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Store]]:
    """One database as several processes see it."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database(request.param, tmp_path))
        found = [await Store.open(url, HeldClock()) for _ in range(4)]
        for store in found:
            stack.push_async_callback(store.close)
        await with_substrate(found[0])
        yield found


async def test_fifty_moves_at_once_leave_one_unbroken_chain(stores: list[Store]) -> None:
    places = [stored.PLACE.model_copy(update={"thread": str(n)}) for n in range(50)]
    async with stores[0].changing(DESK) as change:
        opened = [(await batches.open_batch(change, place, "anna")).id for place in places]

    async def seal(n: int, id: str) -> None:
        async with stores[n % len(stores)].changing(DESK) as change:
            await batches.move(change, id, BatchState.sealed, "anna")

    async with asyncio.TaskGroup() as group:
        for n, id in enumerate(opened):
            group.create_task(seal(n, id))
    async with stores[0].reading() as db:
        assert await facts.verify(db, DESK) is None
        chain = await facts.chain(db, DESK)
        assert [fact.seq for fact in chain] == list(range(1, 102))
        assert sorted(fact.id for fact in chain if fact.after == BatchState.sealed) == sorted(opened)
        assert {batch.state for batch in await batches.listing(db)} == {BatchState.sealed}


async def test_of_twenty_that_want_the_same_move_one_makes_it(stores: list[Store]) -> None:
    async with stores[0].changing(DESK) as change:
        run = await stored.queued_run(change)

    async def start(store: Store) -> bool:
        try:
            await _start(store, run.id)
        except IllegalMove:
            return False
        return True

    won = await asyncio.gather(*(start(stores[n % len(stores)]) for n in range(20)))
    assert sum(won) == 1
    async with stores[0].reading() as db:
        assert [fact.after for fact in await facts.about(db, Noun.run, run.id)] == ["queued", "running"]


WAITS_FOR_US = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"


async def test_a_move_fails_when_somebody_changed_the_row_without_the_lock(tmp_path: Path) -> None:
    """On PostgreSQL only can a statement from elsewhere come between the look at a row and its move."""
    async with opened("postgresql", tmp_path) as store:
        await with_substrate(store)
        async with store.changing(DESK) as change:
            run = await stored.queued_run(change)
        async with store.writing() as db:
            await db.execute(tables.runs.update().values(state="stopped"))
            late = asyncio.create_task(_start(store, run.id))
            async with asyncio.timeout(10):  # until it has seen `queued`, and waits for the row
                while not await db.scalar(text(WAITS_FOR_US)):
                    continue
        with pytest.raises(IllegalMove, match="no longer queued"):
            await late


async def _start(store: Store, run: str) -> None:
    async with store.changing(DESK) as change:
        await runs.move(change, run, RunState.running, "moss")


async def test_of_two_that_queue_at_once_one_is_told_that_the_other_is_busy(stores: list[Store]) -> None:
    async with stores[0].changing(DESK) as change:
        waiting = [await stored.sealed_batch(change) for _ in range(2)]

    async def queue(store: Store, batch: str) -> bool:
        try:
            async with store.changing(DESK) as change:
                await stored.queued_run(change, batch=batch)
        except Busy:
            return False
        return True

    won = await asyncio.gather(*(queue(store, batch) for store, batch in zip(stores, waiting, strict=False)))
    assert sorted(won) == [False, True]
    async with stores[0].reading() as db:
        assert len(await runs.listing(db, DESK)) == 1
        assert len(await outbox.waiting(db)) == 1


@pytest.mark.parametrize(
    ("table", "there", "allowed", "refused"),
    [
        (tables.batches, "state = 'open'", {"state": "sealed"}, {"state": "open"}),
        (tables.runs, "state = 'queued'", {"state": "stopped"}, {"state": "approved"}),
        (tables.consents, "run IS NOT NULL", {"state": "void"}, {"state": "asked"}),
        (tables.swaps, "state = 'planned'", {"state": "live"}, {"state": "probing"}),
        (tables.versions, "until IS NULL", {"number": 1, "until": stored.AT}, {"number": 2, "until": None}),
    ],
    ids=["batches", "runs", "consents", "swaps", "versions"],
)
async def test_the_database_itself_refuses_a_second_where_there_may_be_one(
    stores: list[Store], table: Table, there: str, allowed: dict[str, Any], refused: dict[str, Any]
) -> None:
    """Even if the code that asks first were wrong."""
    past = stored.version(9).model_copy(update={"until": stored.AT})
    async with stores[0].changing(DESK) as change:
        consent = await stored.offered(change)
        rollbacks = [
            (await ask_for_rollback(change, past.model_copy(update={"number": n}), stored.POLICY, "anna")).id
            for n in (8, 9)
        ]
        await swaps.plan(change, stored.swap_of(consent))
        await swaps.add_version(change, stored.version(0))
        await batches.open_batch(change, stored.PLACE, "anna")
        await stored.queued_run(change, batch=await stored.sealed_batch(change, stored.OTHER_PLACE))
        row = dict((await change.db.execute(select(table).where(text(there)))).one()._mapping)

    async def another(id: str, fields: dict[str, Any]) -> None:
        values = row | fields | ({"id": id} if "id" in row else {})
        if table is tables.swaps:
            values["consent"] = rollbacks.pop()
        async with stores[0].changing(DESK) as change:
            await change.db.execute(insert(table).values(**values))

    await another("second", allowed)
    with pytest.raises(IntegrityError):
        await another("third", refused)


async def test_processes_that_start_together_get_different_slots(stores: list[Store]) -> None:
    slots = await asyncio.gather(*(leases.claim(store, f"process-{n}", 15) for n, store in enumerate(stores)))
    assert sorted(slots) == ["executor-0", "executor-1", "executor-2", "executor-3"]


async def test_substrates_do_not_share_a_chain(stores: list[Store]) -> None:
    await with_substrate(stores[0], "lab")
    async with stores[0].reading() as db:
        for name in (DESK, "lab"):
            assert [fact.seq for fact in await facts.chain(db, name)] == [1]
            assert await facts.verify(db, name) is None


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE facts SET who = 'nobody' WHERE seq = 3", 3),
        ("UPDATE facts SET detail = '{\"approvers\": []}' WHERE seq = 2", 2),
        ("UPDATE facts SET noun = 'nonsense' WHERE seq = 4", 4),
        ("DELETE FROM facts WHERE seq = 2", 3),
        ("DELETE FROM facts WHERE seq > 3", 4),
        ("DELETE FROM facts", 1),
    ],
)
async def test_a_fact_that_somebody_changed_or_removed_is_found(stores: list[Store], statement: str, seq: int) -> None:
    async with stores[0].changing(DESK) as change:
        await stored.run_in(change, RunState.running)
    async with stores[0].reading() as db:
        assert await facts.verify(db, DESK) is None
    async with stores[0].writing() as db:
        await db.exec_driver_sql(statement)
    async with stores[1].reading() as db:
        broken = await facts.verify(db, DESK)
    assert broken is not None
    assert broken.seq == seq
    assert DESK in broken.sentence


async def test_a_change_that_fails_or_is_cancelled_leaves_nothing_and_blocks_nobody(stores: list[Store]) -> None:
    inside = asyncio.Event()

    async def hold() -> None:
        async with stores[0].changing(DESK) as change:
            await stored.queued_run(change)
            inside.set()
            await asyncio.sleep(60)

    holder = asyncio.create_task(hold())
    await inside.wait()
    waiter = asyncio.create_task(_seal_one(stores[1]))
    await asyncio.sleep(0.2)  # by now it waits for the lock, inside the driver
    waiter.cancel()
    holder.cancel()
    await asyncio.gather(waiter, holder, return_exceptions=True)
    async with asyncio.timeout(60):
        for store in stores:
            await _seal_one(store)
    async with stores[0].reading() as db:
        assert await runs.listing(db) == []
        assert len(await batches.listing(db)) == len(stores)
        assert await facts.verify(db, DESK) is None


async def test_a_change_that_is_cancelled_within_a_statement_keeps_no_lock(stores: list[Store]) -> None:
    """The garbage collector would open the lock some time later, so it is kept away."""
    gc.disable()
    try:
        for n in range(60):
            changing = asyncio.create_task(_seal_one(stores[0]))
            await asyncio.sleep(n / 4000)
            changing.cancel()
            await asyncio.gather(changing, return_exceptions=True)
            async with asyncio.timeout(60):
                await _seal_one(stores[1])
    finally:
        gc.enable()


async def _seal_one(store: Store) -> None:
    async with store.changing(DESK) as change:
        await stored.sealed_batch(change)


ENDLESS = """
import asyncio, sys
from core.store import Store, batches
from tests.support import stored
from tests.support.databases import HeldClock

async def main():
    store = await Store.open(sys.argv[1], HeldClock())
    for n in range(1_000_000):
        async with store.changing(stored.DESK) as change:
            place = stored.PLACE.model_copy(update={"thread": str(n)})
            batch = await batches.open_batch(change, place, "anna")
            await batches.add_chunk(change, stored.chunk(batch.id, "turn-1", stored.flag("anna")), "anna")
        print(batch.id, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", DATABASES)
async def test_what_was_said_to_be_stored_is_there_after_a_kill(kind: str, tmp_path: Path) -> None:
    async with database(kind, tmp_path) as url:
        store = await Store.open(url, HeldClock())
        await with_substrate(store)
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ENDLESS, url, cwd=Path(__file__).parents[1], stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        async with asyncio.timeout(90):
            told = [(await writer.stdout.readline()).decode().strip() for _ in range(40)]
        writer.kill()
        told += (await writer.stdout.read()).decode().split()
        await writer.wait()
        async with store.reading() as db:
            kept = await batches.listing(db)
            assert {batch.id for batch in kept} >= set(told)
            assert all([await batches.chunks(db, batch.id) for batch in kept])
            assert await facts.verify(db, DESK) is None
        async with asyncio.timeout(60):
            await _seal_one(store)
        await store.close()


async def test_a_reading_sees_one_state_while_others_write(stores: list[Store]) -> None:
    async with stores[0].reading() as db:
        before = await facts.chain(db, DESK)
        await _seal_one(stores[1])
        assert await facts.chain(db, DESK) == before
        assert await facts.verify(db, DESK) is None
    async with stores[0].reading() as db:
        assert len(await facts.chain(db, DESK)) > len(before)


async def test_a_lock_held_too_long_ends_in_a_sentence(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.store.store.LOCK_WAIT_S", 0.2)
    async with stores[0].changing(DESK):
        with pytest.raises(Unavailable, match="try again later"):
            async with stores[0].changing(DESK):
                pass


async def test_a_connection_that_is_ended_twice_at_once_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """SQLAlchemy does so when what was cancelled is cancelled again in its clean-up, as when Moss stops."""
    slow = "with recursive n(x) as (select 1 union all select x + 1 from n where x < 1000000) select count(*) from n"
    db = await OnceStopped(tmp_path / "some.db")
    busy = asyncio.create_task(db.execute_fetchall(slow))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0.05)
    closing.cancel()
    db.stop()
    _, left = await asyncio.wait({busy, closing}, timeout=20)
    assert left == set()
