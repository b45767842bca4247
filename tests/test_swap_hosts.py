"""Swaps of a real agent: as a process always, in a container where an engine answers.

What may go wrong on an engine has a table of its own: tests/test_fault_table.py.
"""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.model.run import RunState
from core.model.swap import Swap, SwapState
from core.store import notices, runs, substrates
from core.swap import perform as room
from core.swap.perform import perform
from core.swap.reconcile import reconcile
from core.swap.rollback import version_to_restore
from tests.support.containers import NO_ENGINE
from tests.support.house import BLUE, SHORT_S, House, a_house
from tests.support.swaps import granted_candidate, granted_rollback

ROOT = Path(__file__).parents[1]
KINDS = ["process", pytest.param("docker", marks=[pytest.mark.engine, *NO_ENGINE])]


@pytest.fixture
async def process_house(tmp_path: Path) -> AsyncIterator[House]:
    """For what does not depend on the kind of host."""
    async with a_house("process", tmp_path) as house:
        yield house


@pytest.fixture(params=KINDS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(request.param, tmp_path) as house:
        yield house


@pytest.fixture
def squatter() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def run_state(house: House, swap: Swap) -> RunState:
    assert swap.run
    async with house.store.reading() as db:
        return (await runs.get(db, swap.run)).state


async def is_back(house: House, swap: Swap) -> None:
    """The box that was live runs again, remembers, and says so."""
    live = await house.now_live()
    assert (swap.state, await run_state(house, swap)) == (SwapState.restored, RunState.rolled_back)
    assert (live.number, await house.running()) == (0, [live.box])
    assert [box.name for box in await house.boxes()] == [live.box]
    assert await house.ask(live.box, "Who are you?") == "version 0 hears you"
    assert (await house.memory())[0] == BLUE
    assert not await house.had_two_writers()


async def test_a_good_candidate_goes_live_with_the_old_ones_memory(house: House) -> None:
    before = await house.live()
    memory = await house.memory_hash(lines=1)
    swap = await house.swap_to(await house.image("1", "well"))
    live = await house.now_live()
    assert (swap.state, await run_state(house, swap)) == (SwapState.live, RunState.applied)
    assert (live.number, live.box) == (1, swap.new_box)
    assert await house.running() == [live.box]
    assert await house.host.look(before.box) is None
    assert await house.ask(live.box, "Who are you?") == "version 1 hears you"
    assert (await house.memory())[0] == BLUE
    assert await house.memory_hash(lines=1) == memory
    assert (await house.state_file("starts")).split() == ["0", "1"]
    assert not await house.had_two_writers()
    assert 0 < (swap.outage_ms or 0) < 20_000


@pytest.mark.parametrize(("mood", "said"), [("sick", "503"), ("impostor", "heartbeat")])
async def test_a_candidate_that_fails_its_probes_is_never_live(process_house: House, mood: str, said: str) -> None:
    house = process_house
    house.expects(window_s=SHORT_S)
    await house.live()
    swap = await house.swap_to(await house.image("1", mood))
    await is_back(house, swap)
    assert said in str(swap.problem).lower()


@pytest.mark.parametrize(("mood", "said"), [("frozen", "heartbeat"), ("confused", "canary")])
async def test_a_heart_that_stands_still_and_a_wrong_canary_fail_as_well(
    process_house: House, mood: str, said: str
) -> None:
    house = process_house
    house.expects(window_s=SHORT_S)
    await house.live()
    swap = await house.swap_to(await house.image("1", mood))
    await is_back(house, swap)
    assert said in str(swap.problem).lower()


async def test_a_candidate_that_dies_at_once_fails_at_once_and_not_after_the_window(process_house: House) -> None:
    house = process_house
    house.expects(window_s=60)
    await house.live()
    image = await house.image("1", "dying")
    began = time.monotonic()
    swap = await house.swap_to(image)
    assert time.monotonic() - began < 40
    await is_back(house, swap)
    assert "ended with exit code 1" in str(swap.problem)


async def test_a_candidate_that_dies_while_it_is_probed_fails_at_once(process_house: House) -> None:
    house = process_house
    house.expects(window_s=60, passes=8)  # eight passes take longer than it lives
    await house.live()
    image = await house.image("1", "fading")
    began = time.monotonic()
    swap = await house.swap_to(image)
    assert time.monotonic() - began < 40
    await is_back(house, swap)
    assert "ended with exit code 3" in str(swap.problem)


async def test_an_agent_that_ignores_sigterm_is_swapped_after_its_grace(process_house: House) -> None:
    house = process_house
    await house.live(mood="stubborn")
    swap = await house.swap_to(await house.image("1", "well"))
    assert swap.state is SwapState.live
    assert (swap.outage_ms or 0) >= 900
    assert await house.running() == [swap.new_box]
    assert not await house.had_two_writers()


async def test_a_candidate_whose_port_is_taken_gives_way_to_the_old_one(
    process_house: House, squatter: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner has changed `publish` to a port that somebody else holds; the old box still has its own."""
    house = process_house
    monkeypatch.setattr(room, "RETRY_S", 0.1)
    await house.live()
    house.substrate = house.substrate.model_copy(
        update={"run": house.substrate.run.model_copy(update={"publish": squatter})}
    )
    async with house.store.changing("little") as change:
        await substrates.save(change, house.substrate, "anna")
    swap = await house.swap_to(await house.image("1", "well"))
    await is_back(house, swap)


async def test_a_candidate_whose_image_was_deleted_is_void_and_nothing_stops(process_house: House) -> None:
    house = process_house
    await house.live()
    image = await house.image("1", "well")
    await house.host.remove_image(image)
    swap = await house.swap_to(image)
    await is_back(house, swap)
    assert "is gone" in str(swap.problem)
    assert (await house.state_file("starts")).split() == ["0"], "the live box was restarted"


async def test_an_old_box_that_was_deleted_mid_swap_is_made_again_from_the_last_good_image(
    process_house: House,
) -> None:
    house = process_house
    house.expects(window_s=SHORT_S)
    before = await house.live()
    consent = await granted_candidate(
        house.store, "little", await house.image("1", "sick"), "c1", live_image=before.image
    )
    performing = asyncio.create_task(perform(house.store, house.host, house.owner, consent))
    await house.until(SwapState.probing)
    await house.host.remove(before.box)
    swap = await performing
    live = await house.now_live()
    assert swap
    assert swap.state is SwapState.restored
    assert (live.number, live.restores, live.image) == (1, 0, before.image)
    assert await house.running() == [live.box]
    assert await house.ask(live.box, "Who are you?") == "version 0 hears you"
    assert (await house.memory())[0] == BLUE


async def test_a_rollback_and_the_rollback_of_it_bring_the_versions_back_with_the_memory_of_all(house: House) -> None:
    await house.live()
    await house.swap_to(await house.image("1", "well"))
    for number, restored, says in ((2, 0, "version 0"), (3, 1, "version 1")):
        version = await version_to_restore(house.store, house.host, "little", None)
        await perform(house.store, house.host, house.owner, await granted_rollback(house.store, version))
        live = await house.now_live()
        assert (live.number, live.restores) == (number, restored)
        assert await house.ask(live.box, f"Turn {number}") == f"{says} hears you"
        assert await house.running() == [live.box]
    memory = await house.memory()
    assert [turn for turn in memory if turn != "Are you there?"] == [BLUE, "Turn 2", "Turn 3"]
    assert (await house.state_file("starts")).split() == ["0", "1", "0", "1"]
    assert not await house.had_two_writers()


MOSS = """
import asyncio, sys
from pathlib import Path
from core.clock import system_clock
from core.store import Store
from core.swap import perform as room
from core.swap.perform import perform
from tests.support.containers import a_host

async def main(kind, data, owner, url, consent):
    await perform(await Store.open(url, system_clock), a_host(kind, Path(data), owner), owner, consent)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("state", [SwapState.stopping, SwapState.starting, SwapState.probing, SwapState.restoring])
async def test_after_kill_9_in_the_middle_the_next_moss_ends_the_swap(process_house: House, state: SwapState) -> None:
    house = process_house
    house.expects(window_s=SHORT_S)
    before = await house.live("stubborn")  # its stop takes a while, so that `stopping` can be hit
    mood = "sick" if state is SwapState.restoring else "well"
    consent = await granted_candidate(
        house.store, "little", await house.image("1", mood), "c1", live_image=before.image
    )
    arguments = (house.host.name, str(house.tmp / "data"), house.owner, house.url, consent)
    moss = await asyncio.create_subprocess_exec(sys.executable, "-c", MOSS, *arguments, cwd=ROOT)
    try:
        await house.until(state)
    finally:
        moss.kill()
        await moss.wait()
    swap = await perform(house.store, house.host, house.owner, consent)
    assert swap
    if mood == "sick":
        await is_back(house, swap)
    else:
        assert swap.state is SwapState.live
        assert await house.running() == [swap.new_box]
        assert await house.ask(swap.new_box, "Who are you?") == "version 1 hears you"
        assert (await house.memory())[0] == BLUE
        assert not await house.had_two_writers()


async def test_a_tidying_that_runs_all_the_while_disturbs_no_swap(process_house: House) -> None:
    house = process_house
    house.expects(window_s=SHORT_S)
    await house.live()

    async def tidy() -> None:
        while True:
            await reconcile(house.store, house.host, house.owner)

    for version, mood, ends in (("1", "well", SwapState.live), ("2", "sick", SwapState.restored)):
        image, live = await house.image(version, mood), await house.now_live()
        consent = await granted_candidate(house.store, "little", image, f"c{version}", live_image=live.image)
        tidying = asyncio.create_task(tidy())
        swap = await perform(house.store, house.host, house.owner, consent)
        assert swap
        assert swap.state is ends, swap.problem
        tidying.cancel()
        await asyncio.wait({tidying})
        assert tidying.cancelled(), tidying
    live = await house.now_live()
    assert (live.number, await house.running()) == (1, [live.box])
    assert not await house.had_two_writers()
    async with house.store.reading() as db:
        told = [notice.kind for notice in await notices.listing(db, "little")]
    assert told == ["apply-complete", "swap-restored"]
