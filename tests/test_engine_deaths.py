"""The engine itself is killed in the middle of things: afterwards exactly one agent runs, the right one.

On an engine of the test's own. Its restart takes half a minute, so most of this runs in `make sweep` only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from core.containers.host import label
from core.model.errors import MossError, Unavailable
from core.model.keypoints import Task, TaskKind
from core.model.swap import SwapState
from core.model.transcript import Message, Transcript
from core.pipeline.trial import Bench, replay_all
from core.swap import perform as room
from core.swap.perform import perform
from core.swap.reconcile import reconcile
from tests.support.aftermath import End, before, problems_after
from tests.support.containers import NO_ENGINE
from tests.support.house import House, a_house, little
from tests.support.own_engine import NEEDS_ROOT, OwnEngine, own_engine
from tests.support.swaps import granted_candidate

T = TypeVar("T")

pytestmark = [pytest.mark.engine, *NO_ENGINE, NEEDS_ROOT]


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine() as engine:
        yield engine


@pytest.fixture
async def house(engine: OwnEngine, tmp_path: Path) -> AsyncIterator[House]:
    if not engine.answers():
        engine.start()
    probes = {"canary": None, "canary_expect": None}
    substrate = little("docker", run={"publish": None}, health=probes)
    async with a_house("docker", tmp_path, substrate, engine.url) as house:
        yield house


async def die_and_come_back(engine: OwnEngine) -> None:
    await asyncio.to_thread(engine.kill)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(engine.start)


@pytest.mark.parametrize(
    "state",
    [
        SwapState.probing,
        pytest.param(SwapState.stopping, marks=pytest.mark.sweep),
        pytest.param(SwapState.starting, marks=pytest.mark.sweep),
    ],
)
async def test_an_engine_killed_in_a_swap_leaves_one_agent_the_right_one(
    engine: OwnEngine, house: House, state: SwapState
) -> None:
    live = await house.live("stubborn")  # its stop takes a while, so that `stopping` can be hit
    await house.host.set_restart(live.box, house.substrate.run.restart)
    image = await house.image("1", "well")
    consent = await granted_candidate(house.store, "little", image, "c1", live_image=live.image)
    was, began = await before(house), time.monotonic()
    swapping = asyncio.create_task(perform(house.store, house.host, house.owner, consent))
    await house.until(state)
    await die_and_come_back(engine)
    async with asyncio.timeout(room.PATIENCE_S):
        swap = await swapping
    assert swap
    end, took_s = End.committed if swap.state is SwapState.live else End.restored, time.monotonic() - began
    assert not (found := await problems_after(house, engine.url, was, swap, end, took_s)), found


@pytest.mark.sweep
async def test_a_live_agent_is_started_again_when_its_engine_is_back(engine: OwnEngine, house: House) -> None:
    live = await house.live()
    await die_and_come_back(engine)
    await reconcile(house.store, house.host, house.owner)
    assert await house.running() == [live.box]
    assert await house.ask(live.box, "Who are you?") == "version 0 hears you"
    assert not await house.had_two_writers()


async def refused(work: Awaitable[T]) -> MossError:
    with pytest.raises(MossError) as problem:
        await work
    return problem.value


@pytest.mark.sweep
async def test_an_engine_killed_in_a_build_is_waited_for_and_the_build_done_again(
    engine: OwnEngine, house: House, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "Dockerfile").write_text('FROM python:3.11-slim-bookworm\nRUN sleep 3\nCMD ["true"]\n')
    recipe = house.recipe(slow)
    building = asyncio.create_task(refused(house.host.build(recipe)))
    await asyncio.sleep(1.5)
    await die_and_come_back(engine)
    assert isinstance(await building, Unavailable)
    assert await house.host.has_image(await house.host.build(recipe))
    with_build = await asyncio.to_thread(lambda: [one.name for one in engine.client().containers.list(all=True)])
    await reconcile(house.store, house.host, house.owner)
    assert len(with_build) <= 1, f"builds left {with_build}"


@pytest.mark.sweep
async def test_an_engine_killed_in_a_trial_ends_it_in_a_sentence_and_leaves_nothing(
    engine: OwnEngine, house: House, tmp_path: Path
) -> None:
    await house.live()
    image = await house.image("1", "slow")
    said = Transcript(messages=(Message(role="user", content="60"), Message(role="assistant", content="")))
    task = Task(id="t1", kind=TaskKind.batch, transcript=said)
    labels = {label.OWNER: house.owner, label.RUN: "run-1", label.STEP: "1"}
    bench = Bench(house.host, house.substrate, "moss-run-1-1", labels, tmp_path / "laid")
    trying = asyncio.create_task(refused(replay_all(bench, image, [task], 1)))
    async with asyncio.timeout(30):
        while len(await house.running()) < 2:  # noqa: ASYNC110 - the live one, and the one on trial
            await asyncio.sleep(0.1)
    await die_and_come_back(engine)
    assert isinstance(await trying, Unavailable)
    await reconcile(house.store, house.host, house.owner)
    live = await house.now_live()
    assert [box.name for box in await house.boxes()] == [live.box]
