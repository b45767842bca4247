"""Clocks on walls jump: what counts for a while goes by one that nobody sets. A swap under one: test_fault_table.py."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot import schedule
from core import deadline
from core.deadline import Deadline
from core.durable import Durable
from core.model.errors import Busy
from core.store import Store, asking, claims, leases
from tests.support.databases import HeldClock, database, opened
from tests.support.stored import with_substrate
from tests.support.until import until

DAY_S = 86_400.0
LEASE_S = 4.0
NOW = datetime(2026, 3, 1, tzinfo=UTC)
JUMPS = pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["ahead", "back"])


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path, clock) as store:
        await with_substrate(store)
        yield store


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass by the clock that nobody sets."""
    now = [1000.0]
    monkeypatch.setattr(deadline, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


@JUMPS
async def test_a_claim_lasts_as_long_as_it_should(
    store: Store, clock: HeldClock, steady: Callable[[float], None], jump_s: float
) -> None:
    async with store.changing("desk") as change:
        await claims.take(change, "agent", "it is started")
    clock.advance(jump_s)
    steady(claims.CLAIM_S - 1)
    async with store.changing("desk") as change:
        with pytest.raises(Busy):
            await claims.check_free(change)
    steady(1)
    async with store.changing("desk") as change:
        await claims.check_free(change)


@JUMPS
async def test_a_turn_holds_a_swap_up_as_long_as_it_should(
    store: Store, clock: HeldClock, steady: Callable[[float], None], jump_s: float
) -> None:
    async with store.changing("desk") as change:
        assert await asking.begin(change, "reply:1", 60)
    clock.advance(jump_s)
    steady(59)
    async with store.reading() as db:
        assert await asking.any_left(db, "desk", store.now())
        steady(1)
        assert not await asking.any_left(db, "desk", store.now())


def test_a_deadline_survives_its_words_and_goes_by_the_wall_where_nothing_else_is_known(
    steady: Callable[[float], None],
) -> None:
    ours = Deadline.after(60, NOW)
    assert Deadline.read(str(ours)) == ours
    for elsewhere in (Deadline(ours.wall, "another-machine", 0.0), Deadline.read(ours.wall.isoformat())):
        assert not elsewhere.has_passed(NOW + timedelta(seconds=59))
        assert elsewhere.has_passed(NOW + timedelta(seconds=60))


async def test_a_clock_that_jumps_ahead_takes_no_lease_away_and_begins_no_job_twice(
    tmp_path: Path, clock: HeldClock
) -> None:
    began: list[str] = []
    ends = asyncio.Event()

    async def job(subject: str, n: int) -> None:
        began.append(subject)
        await ends.wait()

    async with database("sqlite", tmp_path) as url:
        store = await Store.open(url, clock)
        durable = Durable(url, store, clock=clock, lease_ttl_s=LEASE_S)
        durable.job("slow", job)
        await durable.start()
        try:
            mine = durable.holder
            await durable.submit("slow", "a")
            await until(lambda: bool(began))
            # As of another machine, where nobody knows whether its holder has ended.
            theirs = await leases.claim(store, "another-machine.of.somebody.else", LEASE_S)
            clock.advance(DAY_S)
            for _ in range(3):
                await asyncio.sleep(LEASE_S / 4)
                await leases.renew(store, theirs, "another-machine.of.somebody.else", LEASE_S)
            assert (began, durable.holder) == (["a"], mine)
            async with store.reading() as db:
                assert set((await leases.holders(db)).values()) == {mine, "another-machine.of.somebody.else"}
        finally:
            ends.set()
            await durable.close(5)
            await store.close()


async def test_a_schedule_whose_clock_was_set_back_goes_on_ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LOOK_S", 0.05)
    ticks: list[datetime] = []

    async def tick() -> None:
        ticks.append(schedule.system_clock())

    ticking = schedule.Schedule()
    ticking.add("digest", tick, "0 9 1 1 *", "UTC")
    ticking.start()
    try:
        await until(lambda: len(ticks) >= 2)
        set_back_the_wall_clock(monkeypatch)
        seen = len(ticks)
        await until(lambda: len(ticks) >= seen + 3, 5)
    finally:
        ticking.stop()


def set_back_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For APScheduler, which looks at its own, and for ours."""

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(days=1)  # type: ignore[arg-type]

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Yesterday)
    monkeypatch.setattr("apscheduler.executors.base.datetime", Yesterday)
    monkeypatch.setattr(schedule, "system_clock", lambda: Yesterday.now(UTC))
