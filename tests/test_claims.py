"""What reconciliation does to live boxes, it does outside of every transaction, and nothing else begins meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core import deadline
from core.containers.host import BoxState, label
from core.deadline import Deadline
from core.model.errors import Busy, NotFound, Unavailable
from core.model.substrate import Substrate
from core.model.swap import SwapState, Version
from core.process_table import identity
from core.store import Store, claims, facts, notices
from core.swap import perform as room
from core.swap import reconcile as reconciliation
from core.swap import records
from core.swap.adopt import adopt
from core.swap.perform import perform
from core.swap.reconcile import Deed, reconcile
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.paper_host import Killed, PaperHost
from tests.support.stored import with_substrate
from tests.support.swaps import OWNER, granted_candidate, make_live

LIVE, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DESK = Substrate.model_validate(
    {
        "name": "desk",
        "repository": "/srv/desk",
        "trusted": True,
        "health": {"commands": [["check"]], "window_s": 0.04, "every_s": 0.02, "passes": 2},
    }
)
ZERO = Version(
    substrate="desk",
    number=0,
    commit="c0",
    image=LIVE,
    box="agent",
    boot_id="",
    swap=None,
    since=datetime(2026, 3, 1, tzinfo=UTC),
)


class SlowHost(PaperHost):
    """Its engine takes its time, until it is told to go on."""

    def __init__(self, moods: dict[str, str]) -> None:
        super().__init__(moods)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def start(self, name: str) -> None:
        self.begun.set()
        await self.go_on.wait()
        await super().start(name)

    async def remove(self, name: str) -> None:
        self.begun.set()
        await self.go_on.wait()
        await super().remove(name)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        await make_live(store, DESK, ZERO)
        yield store


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every deadline goes by the clock that the tests move."""
    monkeypatch.setattr(room, "RETRY_S", 0.01)
    monkeypatch.setattr(deadline, "boot", str)


def labels(purpose: str) -> dict[str, str]:
    return {label.OWNER: OWNER, label.SUBSTRATE: "desk", label.PURPOSE: purpose}


def fallen(host: PaperHost) -> PaperHost:
    host.boxes_["agent"] = BoxState("agent", LIVE, False, labels("live"))
    return host


def with_another(host: PaperHost) -> PaperHost:
    host.boxes_["agent"] = BoxState("agent", LIVE, True, labels("live"))
    host.boxes_["moss-desk-old"] = BoxState("moss-desk-old", NEW, False, labels("live"))
    return host


async def told(store: Store) -> list[str]:
    async with store.reading() as db:
        return [notice.kind for notice in await notices.listing(db, "desk")]


async def claimed(store: Store) -> list[tuple[str, str]]:
    async with store.reading() as db:
        found = await facts.chain(db, "desk")
    return [(fact.what, fact.detail["box"]) for fact in found if fact.what.startswith("box_")]


WORK = {"start": fallen, "remove": with_another}


@pytest.mark.parametrize("work", WORK)
async def test_while_an_engine_takes_its_time_others_write_and_no_swap_or_adoption_begins(
    store: Store, work: str, tmp_path: Path
) -> None:
    host = WORK[work](SlowHost(moods={LIVE: "well", NEW: "well"}))
    assert isinstance(host, SlowHost)
    working = asyncio.create_task(reconcile(store, host, OWNER))
    await host.begun.wait()
    async with asyncio.timeout(10):  # a lock would be waited for longer
        async with store.writing():
            pass  # a lease is renewed
        consent = await granted_candidate(store, "desk", NEW, "c1", live_image=LIVE)
    with pytest.raises(Busy, match="Moss is starting or removing the box"):
        await records.plan(store, consent)
    host.boxes_["agent"] = BoxState("agent", LIVE, False, labels("live"))  # so that there is something to adopt
    with pytest.raises(Busy, match="Moss is starting or removing the box"):
        await adopt(store, host, OWNER, DESK, "anna", clone=None, work=tmp_path)  # type: ignore[arg-type]
    swapping = asyncio.create_task(perform(store, host, OWNER, consent))
    host.go_on.set()
    await working
    swap = await swapping
    assert swap
    assert swap.state is SwapState.live
    assert host.running() == [swap.new_box]
    assert await claimed(store) == [(what, "agent" if work == "start" else "moss-desk-old") for what in CLAIM]


CLAIM = ("box_claimed", "box_released")


@pytest.mark.parametrize("work", WORK)
async def test_whenever_moss_dies_the_next_one_ends_it_right(store: Store, clock: HeldClock, work: str) -> None:
    calls, died = 1, True
    while died:
        host = WORK[work](PaperHost(moods={LIVE: "well", NEW: "well"}, die_at=calls))
        await until_over(store, clock)
        try:
            await reconcile(store, host, OWNER)
            died = False
        except Killed:
            host.die_at = None
            clock.advance(reconciliation.START_S + claims.CLAIM_S)
            await reconcile(store, host, OWNER)
        assert host.running() == ["agent"]
        assert list(host.boxes_) == ["agent"]
        calls += 1
        async with store.reading() as db:
            assert died or await claims.unfinished(db, "desk") is None
    assert calls > 4


async def until_over(store: Store, clock: HeldClock) -> None:
    """Another hour, so that a fall is a new one."""
    clock.advance(3600)


async def test_a_start_that_moss_died_in_is_tried_again_within_the_hour_and_one_that_it_saw_is_not(
    store: Store, clock: HeldClock
) -> None:
    host = fallen(PaperHost(moods={LIVE: "well"}))
    host.die_at = 3
    with pytest.raises(Killed):
        await reconcile(store, host, OWNER)
    assert host.running() == []
    host.die_at = None
    await reconcile(store, host, OWNER)
    assert host.running() == [], "the other Moss may still be at it"
    clock.advance(reconciliation.START_S + claims.CLAIM_S)
    await reconcile(store, host, OWNER)
    assert host.running() == ["agent"]
    fallen(host)
    assert [decision.deed for decision in await reconcile(store, host, OWNER)] == [Deed.start_live]
    assert host.running() == [], "it fell again at once, and needs a person"
    assert await told(store) == ["live-down"]


async def test_a_box_that_cannot_be_started_is_told_loudly_once(store: Store) -> None:
    host = fallen(PaperHost(moods={LIVE: "refuses"}))
    for _ in range(2):
        await reconcile(store, host, OWNER)
    assert await told(store) == ["live-down", "live-lost"]
    assert await claimed(store) == [(what, "agent") for what in CLAIM]


async def test_a_start_that_comes_late_is_claimed_until_then_and_not_told_as_a_failure(
    store: Store, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "START_S", 0.01)
    host = fallen(PaperHost(moods={LIVE: "well"}, silence_s=60.0))
    start = host.start

    async def late(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # what the engine was asked for, it does all the same
            clock.advance(host.silence_s + claims.CLAIM_S - 1)
            async with store.changing("desk") as change:
                with pytest.raises(Busy, match="Moss is starting or removing the box"):
                    await claims.check_free(change)
            await start(name)
            raise

    host.start = late  # type: ignore[method-assign]
    await reconcile(store, host, OWNER)
    assert host.running() == ["agent"]
    assert await told(store) == ["live-down"]
    assert await claimed(store) == [(what, "agent") for what in CLAIM]


async def test_a_removal_that_fails_is_tried_again_at_the_next_look(store: Store) -> None:
    host = with_another(PaperHost(moods={LIVE: "well", NEW: "well"}))
    remove = host.remove

    async def away(name: str) -> None:
        raise Unavailable("The engine is away; start it.")

    host.remove = away  # type: ignore[method-assign]
    await reconcile(store, host, OWNER)
    assert "moss-desk-old" in host.boxes_
    host.remove = remove  # type: ignore[method-assign]
    await reconcile(store, host, OWNER)
    assert list(host.boxes_) == ["agent"]


async def test_an_image_that_goes_while_we_look_keeps_nothing_else_from_being_done(store: Store) -> None:
    host = fallen(PaperHost(moods={LIVE: "well"}))

    async def listed(_: object) -> list[str]:
        return [NEW]

    async def gone(_: object) -> dict[str, str]:
        raise NotFound("The image is gone; build it again.")

    host.images, host.image_labels = listed, gone  # type: ignore[method-assign,assignment]
    await reconcile(store, host, OWNER)
    assert host.running() == ["agent"]


async def test_a_claim_holds_for_a_short_while_and_not_beyond_its_holder(store: Store, clock: HeldClock) -> None:
    name = await with_substrate(store, "other")
    async with store.changing(name) as change:
        await claims.check_free(change)
        await claims.take(change, "box-1", "it was not running")
    async with store.changing(name) as change:
        with pytest.raises(Busy):
            await claims.check_free(change)
    boot, table, _, birth = identity().split(".")
    ended = claims.Claim(1, "box-1", f"{boot}.{table}.{2**22 + 1}.{birth}", Deadline(clock.time.replace(year=2027)))
    assert not ended.holds(clock.time), "its holder is dead"
    clock.advance(claims.CLAIM_S)
    async with store.changing(name) as change:
        await claims.check_free(change)
        found = await claims.unfinished(change.db, name)
        assert found
        assert found.box == "box-1"
        await claims.release(change, found, "started")
        assert await claims.unfinished(change.db, name) is None


async def test_only_its_own_claim_is_ended_by_whoever_took_it(store: Store, clock: HeldClock) -> None:
    async with store.changing("desk") as change:
        first = await claims.take(change, "agent", "it was not running")
    clock.advance(claims.CLAIM_S)
    async with store.changing("desk") as change:
        await claims.check_free(change)
        second = await claims.take(change, "agent", "it was not running")
        await claims.release(change, first, "started, at last")
        assert await claims.unfinished(change.db, "desk") == second
        with pytest.raises(Busy, match="took too long"):
            await claims.renew(change, first, "agent")
        third = await claims.renew(change, second, "agent")
        await claims.release(change, third, "started")
        assert await claims.unfinished(change.db, "desk") is None
        with pytest.raises(Busy):
            await claims.renew(change, third, "agent")
