"""A built-in Moss wakes its agent and lays it to rest: under a claim, and never in the middle of something else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core import deadline
from core.containers.host import BoxState
from core.model.errors import Busy, Refused, Unavailable
from core.model.substrate import Substrate
from core.model.swap import SwapState
from core.store import Store, claims, substrates, swaps
from core.swap import records
from core.swap import wake as room
from core.swap.wake import lay_to_rest, wake
from tests.support.databases import HeldClock, opened
from tests.support.paper_host import PaperHost
from tests.support.stored import version
from tests.support.swaps import granted_rollback, make_live

DESK = Substrate.model_validate(
    {
        "name": "desk",
        "repository": "/srv/desk",
        "trusted": True,
        "run": {"restart": "always"},
        "health": {"commands": [["check"]]},
    }
)
ONE = version(1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path, HeldClock()) as store:
        await make_live(store, DESK, version(0))
        async with store.changing("desk") as change:
            await swaps.add_version(change, ONE)
        yield store


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.01)


def a_host(*, running: bool, image: str = ONE.image) -> PaperHost:
    host = PaperHost(moods={image: "well"})
    host.boxes_[ONE.box] = BoxState(ONE.box, image, running, {})
    return host


async def is_free(store: Store) -> bool:
    async with store.reading() as db:
        return await claims.unfinished(db, "desk") is None


async def test_the_live_box_is_woken_and_laid_to_rest(store: Store) -> None:
    host = a_host(running=False)
    assert await wake(store, host, DESK)
    assert (host.running(), host.policies) == ([ONE.box], {ONE.box: "always"})
    assert await lay_to_rest(store, host, DESK)
    assert (host.running(), host.policies) == ([], {ONE.box: "no"})
    assert await is_free(store)


@pytest.mark.parametrize("running", [True, False])
async def test_in_the_middle_of_a_swap_both_leave_the_box_alone(store: Store, running: bool) -> None:
    host = a_host(running=running)
    swap = await records.plan(store, await granted_rollback(store, version(0)))
    assert swap
    for state in (None, SwapState.stopping, SwapState.restoring):
        if state:
            await records.move(store, swap, state)
        assert not await wake(store, host, DESK)
        assert not await lay_to_rest(store, host, DESK)
        assert host.deeds == []


async def test_while_a_human_has_to_come_both_leave_the_box_alone(store: Store) -> None:
    host = a_host(running=False)
    async with store.changing("desk") as change:
        await substrates.set_needs_adoption(change, True, "moss", "it is stuck")
    assert not await wake(store, host, DESK)
    assert not await lay_to_rest(store, host, DESK)
    assert host.deeds == []


async def test_a_box_that_is_not_what_went_live_is_neither_started_nor_stopped(store: Store) -> None:
    host = a_host(running=False, image="sha256:" + "e" * 64)
    with pytest.raises(Refused, match=r"instead of .*, which went live; run `moss adopt`\."):
        await wake(store, host, DESK)
    assert not await lay_to_rest(store, host, DESK)
    assert host.running() == []
    assert host.policies == {}
    host.boxes_.clear()
    with pytest.raises(Refused, match="is gone"):
        await wake(store, host, DESK)
    assert await is_free(store)


async def test_nothing_is_swapped_while_the_box_is_woken_and_the_claim_ends_when_that_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = a_host(running=False)
    granted = await granted_rollback(store, version(0))
    seen: list[str] = []

    async def away(name: str) -> None:
        with pytest.raises(Busy) as busy:
            await records.plan(store, granted)
        seen.append(busy.value.sentence)
        raise Unavailable("The engine is away; start it.")

    monkeypatch.setattr(host, "start", away)
    with pytest.raises(Unavailable):
        await wake(store, host, DESK)
    assert "Moss is starting or removing the box" in seen[0]
    assert await is_free(store)


async def test_a_claim_of_another_is_waited_for_and_not_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    host = a_host(running=False)
    async with store.changing("desk") as change:
        other = await claims.take(change, ONE.box, "it was not running")
    waking = asyncio.create_task(wake(store, host, DESK))
    await asyncio.sleep(0.1)
    assert host.running() == []
    async with store.changing("desk") as change:
        await claims.release(change, other, "not started")
    async with asyncio.timeout(5):
        assert await waking
    assert host.running() == [ONE.box]
    monkeypatch.setattr(room, "PATIENCE_S", 0.05)
    async with store.changing("desk") as change:
        await claims.take(change, ONE.box, "it was not running")
    with pytest.raises(Busy):
        await lay_to_rest(store, host, DESK)
    assert host.running() == [ONE.box]


@pytest.mark.parametrize("deed", ["start", "set_restart", "stop"])
async def test_nothing_is_swapped_however_late_the_engine_does_what_it_was_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    clock = store.clock
    assert isinstance(clock, HeldClock)
    monkeypatch.setattr(deadline, "boot", str)
    host = a_host(running=deed == "stop")
    host.silence_s = 60.0
    granted = await granted_rollback(store, version(0))
    look, late = host.look, getattr(host, deed)
    claimed: list[str] = []

    async def slow(name: str) -> BoxState | None:
        clock.advance(2 * host.silence_s - 1)
        return await look(name)

    async def slower(*asked: object) -> None:
        clock.advance(2 * host.silence_s - 1)
        await late(*asked)
        with pytest.raises(Busy):
            await records.plan(store, granted)
        claimed.append(deed)

    monkeypatch.setattr(host, "look", slow)
    monkeypatch.setattr(host, deed, slower)
    await (lay_to_rest if deed == "stop" else wake)(store, host, DESK)
    assert claimed == [deed]
    assert await is_free(store)
