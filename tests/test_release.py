"""Letting go of an agent: what Moss made around it is gone, what is its own or its owner's stays."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import docker
import pytest

from core import deadline
from core.containers.docker_host import SOCKET
from core.containers.host import BoxState, label
from core.model.consent import ConsentState
from core.model.errors import Busy, Unavailable
from core.model.events import Fact, Noun
from core.model.run import RunState
from core.model.swap import SwapState
from core.store import claims, consents, facts, runs, substrates, swaps
from core.swap.adopt import survey
from core.swap.plan import box_spec
from core.swap.reconcile import reconcile
from core.swap.release import Released, release, what_lives
from tests.support.containers import NO_ENGINE
from tests.support.house import BLUE, House, a_house
from tests.support.needs import needs_engine
from tests.support.swaps import asked_candidate, granted_candidate, granted_rollback

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


async def moves(house: House) -> list[Fact]:
    """All that is written down, but for the claims."""
    async with house.store.reading() as db:
        return [fact for fact in await facts.chain(db, "little") if not fact.what.startswith("box_")]


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
    (told,) = [fact for fact in chain if fact.what == "released"]
    assert (told.who, told.detail) == ("anna", {"number": 1, "stopped": False})
    assert chain[-1].what == "box_released"


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
    before = await moves(process_house)
    finished = await let_go(process_house, stop=True)
    assert finished.stopped == (live.box,)
    nothing = await let_go(process_house, stop=True)
    assert (nothing.running, nothing.stopped, nothing.boxes, nothing.images) == ((), (), (), ())
    assert await moves(process_house) == before


async def test_what_was_asked_is_withdrawn(process_house: House) -> None:
    live = await process_house.live()
    image = await process_house.image("1", "well")
    asked = await asked_candidate(process_house.store, "little", image, "c1", live.image)
    await let_go(process_house)
    async with process_house.store.reading() as db:
        consent = await consents.get(db, asked)
        assert consent.state is ConsentState.void
        assert (await runs.get(db, str(consent.run))).state is RunState.superseded


async def test_a_rollback_that_was_allowed_does_not_outlive_the_release(process_house: House) -> None:
    live = await process_house.live()
    assert (await process_house.swap_to(await process_house.image("1", "well"))).state is SwapState.live
    granted = await granted_rollback(process_house.store, live)
    await let_go(process_house)
    async with process_house.store.reading() as db:
        consent = await consents.get(db, granted)
        assert await consents.unused(db, "little") == []
        about = await facts.about(db, Noun.consent, granted)
    assert consent.state is ConsentState.void
    assert about[-1].detail["reason"] == "little was released by anna"


async def test_what_was_claimed_while_it_worked_is_left_to_whoever_claimed_it(
    process_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Moss that was silent for too long goes no further, and does not end the claim of the other."""
    live = await process_house.live()
    stop = process_house.host.stop

    async def slowly(name: str, grace_s: float) -> None:
        await stop(name, grace_s)
        async with process_house.store.changing("little") as change:
            await claims.take(change, "another", "the first one seems to be dead")

    monkeypatch.setattr(process_house.host, "stop", slowly)
    with pytest.raises(Busy, match="Another Moss works on the boxes of little"):
        await let_go(process_house, stop=True)
    assert [box.name for box in await process_house.boxes()] == [live.box], "it was not removed any more"
    async with process_house.store.reading() as db:
        kept = await claims.unfinished(db, "little")
    assert kept
    assert kept.box == "another"


async def test_a_box_that_an_engine_stops_late_is_claimed_until_then(
    process_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process_house.live()
    host, late_s = process_house.host, 0.0
    monkeypatch.setattr(host, "silence_s", 60.0)
    monkeypatch.setattr(deadline, "monotonic", lambda: monotonic() + late_s)
    stop, claimed = host.stop, []

    async def late(name: str, grace_s: float) -> None:
        nonlocal late_s
        late_s = 2 * 60.0 + grace_s
        await stop(name, grace_s)
        async with process_house.store.changing("little") as change:
            with pytest.raises(Busy):
                await claims.check_free(change)
        claimed.append(name)

    monkeypatch.setattr(host, "stop", late)
    released = await let_go(process_house, stop=True)
    assert claimed == list(released.stopped) == list(released.boxes)


async def test_boxes_are_listed_under_the_claim_and_it_ends_also_when_the_engine_fails(
    process_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process_house.live()
    seen: list[bool] = []

    async def away(labels: object) -> list[BoxState]:
        async with process_house.store.reading() as db:
            seen.append(await claims.unfinished(db, "little") is not None)
        raise Unavailable("The engine is away; start it.")

    monkeypatch.setattr(process_house.host, "boxes", away)
    with pytest.raises(Unavailable):
        await let_go(process_house)
    monkeypatch.undo()
    assert seen == [True]
    async with process_house.store.reading() as db:
        assert await claims.unfinished(db, "little") is None


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
async def test_copies_that_somebody_made_by_hand_and_what_they_renamed_are_left_to_them(tmp_path: Path) -> None:
    async with a_house("docker", tmp_path) as house:
        engine = docker.DockerClient(base_url=SOCKET)
        with contextlib.closing(engine), contextlib.ExitStack() as theirs:
            live, candidate = await house.live(), await house.image("1", "well")
            evidence = engine.containers.get(live.box).commit(pause=False).id
            theirs.callback(engine.images.remove, evidence)
            old = f"{live.box}-old"
            await house.host.create(house.spec(old, live.image))
            engine.containers.get(old).rename(f"{live.box}-renamed")
            theirs.callback(engine.containers.get(f"{live.box}-renamed").remove, force=True)
            for name, image in {"candidate": candidate, "running": evidence, "stopped": evidence}.items():
                copy = engine.containers.create(image, ["sleep", "60"], name=f"{live.box}-{name}", network_mode="none")
                theirs.callback(copy.remove, force=True)
                if name != "stopped":
                    copy.start()
            ours = {"label": f"{label.OWNER}={house.owner}"}
            before = {one.name: one.status for one in engine.containers.list(all=True, filters=ours)}

            released = await let_go(house, stop=True)

            assert released.stopped == released.boxes == (live.box,)
            after = {one.name: one.status for one in engine.containers.list(all=True, filters=ours)}
            assert after == {name: status for name, status in before.items() if name != live.box}
            told = " ".join(released.left)
            names = [f"{live.box}-{name}" for name in ("candidate", "running", "stopped", "renamed")]
            assert all(f"{name} is somebody's copy of ours, or was renamed" in told for name in names), told
            assert {image.id for image in engine.images.list()} >= {candidate, evidence, live.image}
            found = await survey(house.store, house.host, house.owner, house.substrate)
            assert found.box is None, "a copy by hand is not adopted as ours"


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
