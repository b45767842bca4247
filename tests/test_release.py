"""Letting go of an agent: what Moss made around it is gone, what is its own or its owner's stays."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.containers.host import label
from core.model.consent import ConsentState
from core.model.errors import Busy
from core.model.run import RunState
from core.model.swap import SwapState
from core.store import claims, consents, facts, runs, substrates, swaps
from core.swap.plan import box_spec
from core.swap.reconcile import reconcile
from core.swap.release import Released, release, what_lives
from tests.support.containers import NO_ENGINE
from tests.support.house import BLUE, House, a_house
from tests.support.needs import needs_engine
from tests.support.swaps import asked_candidate, granted_candidate

KINDS = ["process", pytest.param("docker", marks=[pytest.mark.engine, *NO_ENGINE])]


@pytest.fixture
async def process_house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house("process", tmp_path) as house:
        yield house


@pytest.fixture(params=KINDS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(request.param, tmp_path) as house:
        yield house


async def let_go(house: House, *, stop: bool = False) -> Released:
    return await release(house.store, house.host, house.owner, house.substrate, "anna", stop=stop)


async def images(house: House) -> list[str]:
    return await house.host.images({label.OWNER: house.owner})


async def test_a_released_agent_runs_on_and_all_around_it_is_gone(house: House) -> None:
    first = await house.live()
    assert (await house.swap_to(await house.image("1", "well"))).state is SwapState.live
    live = await house.now_live()
    await house.image("2", "well")  # a candidate of some run
    assert len(await images(house)) == 3

    released = await let_go(house)

    assert released.running == (live.box,)
    assert (released.stopped, released.left) == ((), ())
    assert len(released.images) == 2
    assert await images(house) == [live.image]
    assert [box.name for box in await house.boxes()] == [live.box]
    assert await house.ask(live.box, "Who are you?") == "version 1 hears you"
    async with house.store.reading() as db:
        assert await swaps.live_version(db, "little") is None
        assert await substrates.needs_adoption(db, "little")
        versions = await swaps.versions(db, "little")
        chain = await facts.chain(db, "little")
        assert await facts.verify(db, "little") is None
    assert [version.number for version in versions] == [0, 1], "history stays"
    assert versions[0].image == first.image
    assert (chain[-1].what, chain[-1].who, chain[-1].detail) == ("released", "anna", {"number": 1, "stopped": False})


async def test_a_stopped_agent_is_gone_and_its_memory_is_not(house: House) -> None:
    live = await house.live()
    released = await let_go(house, stop=True)
    assert released.stopped == released.boxes == (live.box,)
    assert await house.boxes() == []
    assert await images(house) == []
    image = await house.image("1", "well")
    again = box_spec(
        house.substrate, name=f"{live.box}-again", image=image, commit="c1", boot_id="b", owner=house.owner, swap=None,
        secrets={},
    )  # fmt: skip
    await house.host.create(again)
    await house.host.start(again.name)
    await house.ask(again.name, "Are you there?")
    assert BLUE in str(await house.host.read(again.name, "/state/memory.jsonl"))


async def test_what_was_released_is_left_alone_by_every_later_tick(process_house: House) -> None:
    live = await process_house.live()
    await let_go(process_house)
    assert await reconcile(process_house.store, process_house.host, process_house.owner) == []
    await process_house.host.stop(live.box, 1)
    assert await reconcile(process_house.store, process_house.host, process_house.owner) == []
    assert await process_house.running() == [], "Moss no longer answers for it"


async def test_releasing_again_changes_nothing_and_finishes_what_a_crash_left(process_house: House) -> None:
    live = await process_house.live()
    await let_go(process_house)  # and here Moss might have died before it stopped the box
    async with process_house.store.reading() as db:
        before = await facts.chain(db, "little")
    finished = await let_go(process_house, stop=True)
    assert finished.stopped == (live.box,)
    nothing = await let_go(process_house, stop=True)
    assert (nothing.running, nothing.stopped, nothing.boxes, nothing.images) == ((), (), (), ())
    async with process_house.store.reading() as db:
        assert await facts.chain(db, "little") == before


async def test_what_was_asked_is_withdrawn(process_house: House) -> None:
    live = await process_house.live()
    image = await process_house.image("1", "well")
    asked = await asked_candidate(process_house.store, "little", image, "c1", live.image)
    await let_go(process_house)
    async with process_house.store.reading() as db:
        consent = await consents.get(db, asked)
        assert consent.state is ConsentState.void
        assert (await runs.get(db, str(consent.run))).state is RunState.superseded


async def test_a_run_under_way_must_be_ended_first(process_house: House) -> None:
    live = await process_house.live()
    consent = await granted_candidate(process_house.store, "little", live.image, "c0", live.image)
    async with process_house.store.reading() as db:
        run = (await consents.get(db, consent)).run
    with pytest.raises(Busy, match=f"{run} of little is approved; end it first with `moss stop {run}`."):
        await let_go(process_house, stop=True)
    assert await process_house.running() == [live.box]


async def test_a_claim_on_its_box_is_waited_for(process_house: House) -> None:
    live = await process_house.live()
    async with process_house.store.changing("little") as change:
        await claims.take(change, live.box, "it was not running")
    with pytest.raises(Busy, match="try again in a moment"):
        await let_go(process_house)


@needs_engine
async def test_the_owners_own_container_is_stopped_and_not_removed(tmp_path: Path) -> None:
    async with a_house("docker", tmp_path) as house:
        live = await house.live()
        inspected = await house.host.look(live.box)
        assert inspected
        name = f"{live.box}-own"
        command = ["docker", "run", "--detach", "--init", "--name", name, "python:3.11-slim-bookworm", "sleep", "600"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        try:
            theirs = await house.host.look(name)
            assert theirs
            async with house.store.changing("little") as change:
                await swaps.add_version(change, live.model_copy(update={"number": 1, "box": name, "since": change.now}))
            assert name in {box.name for box in await what_lives(house.store, house.host, house.owner, "little")}
            released = await let_go(house, stop=True)
            assert name in released.stopped
            assert name not in released.boxes
            seen = await house.host.look(name)
            assert seen
            assert not seen.running
        finally:
            await asyncio.to_thread(subprocess.run, ["docker", "rm", "-f", name], capture_output=True, check=False)
