"""What is left over on an engine goes, and what somebody changed there by hand is told: both with a real one."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from core import process
from core.clock import system_clock
from core.containers import docker_plan as plan
from core.containers.docker_host import DockerHost
from core.containers.host import BoxSpec, Portrait, Volume, label
from core.model.run import RunState
from core.model.swap import SwapState, Version
from core.pipeline.evolve import Evolution
from core.store import notices, substrates
from core.swap.drift import differences, looks_of
from core.swap.reconcile import Deed, reconcile
from tests.support.containers import SLEEP
from tests.support.databases import opened
from tests.support.house import House, a_free_port, a_house, little
from tests.support.needs import needs_engine
from tests.support.stored import DESK, OTHER_PLACE, run_in, with_substrate
from tests.support.swaps import asked_candidate


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house("docker", tmp_path) as house:
        yield house


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


async def told(house: House) -> list[tuple[str, str]]:
    async with house.store.reading() as db:
        return [(notice.kind, notice.text) for notice in await notices.listing(db, "little")]


async def look(house: House, times: int = 1) -> set[Deed]:
    found = [await reconcile(house.store, house.host, house.owner) for _ in range(times)]
    return {decision.deed for each in found for decision in each}


# What is left over


class Engine:
    """All that stands on it under one owner's label."""

    def __init__(self, client: docker.DockerClient, data: Path, owner: str) -> None:
        self.client, self.data = client, data
        self.ours = {"label": f"{label.OWNER}={owner}"}

    def shown(self) -> tuple[set[str], set[str], set[str], set[str]]:
        """Containers, images, volumes that nobody uses, sockets."""
        containers = {one.name for one in self.client.containers.list(all=True, filters=self.ours)}
        images = {one.id for one in self.client.images.list(filters=self.ours)}
        volumes = {one.name for one in self.client.volumes.list(filters={**self.ours, "dangling": True})}
        return containers, images, volumes, {path.name for path in (self.data / "s").glob("*")}


async def litter(house: House, host: DockerHost, owner: str, image: str, client: docker.DockerClient) -> None:
    """What deaths of Moss and hands of people leave: of a trial, of a look at a live box, of a coder, of files that
    were laid over a box, of a container that was removed by hand."""
    labels = {label.OWNER: owner, label.SUBSTRATE: "little", label.RUN: "run-0", label.PURPOSE: "trial"}
    trial = f"t-{secrets.token_hex(4)}"
    await host.create(BoxSpec(trial, image, labels, command=SLEEP, port=8000))
    await host.start(trial)
    relay = await host._relays.image()
    for name, more in (("door", {plan.RELAY_FOR: "box"}), ("coder", {label.PURPOSE: "coder", label.RUN: "check"})):
        client.containers.create(relay, ["-"], name=f"{trial}-{name}", labels={label.OWNER: owner, **more})
    made = client.containers.create(image, ["-"])
    made.commit(changes=f'LABEL "{label.OWNER}"="{owner}" "{plan.OVERLAY_FOR}"="{trial}-gone"')
    made.remove()
    client.volumes.create(labels={label.OWNER: owner})
    (house.tmp / f"data-{owner}" / "s" / "0123456789ab").mkdir()


@needs_engine
async def test_what_belongs_to_nobody_goes_and_nothing_else_does(house: House, engine: docker.DockerClient) -> None:
    owner, data = house.owner, house.tmp / f"data-{house.owner}"
    house.host = host = DockerHost(data, owner)
    old = await house.live()
    swap = await house.swap_to(await house.image("1", "well"))
    assert swap.state is SwapState.live, swap.problem
    offered, orphan = await house.image("2", "well"), await house.image("3", "well")
    await asked_candidate(house.store, "little", offered, "c2", swap.image)

    other = f"{owner}-other"
    theirs = DockerHost(house.tmp / f"data-{other}", other)
    image = await theirs.build(house.recipe(house.tmp / "sources" / "3-well"))
    try:
        await litter(house, theirs, other, image, engine)
        before = Engine(engine, house.tmp / f"data-{other}", other).shown()
        assert [len(each) for each in before] == [4, 2, 1, 2]
        await litter(house, host, owner, orphan, engine)
        mine = Engine(engine, data, owner)
        assert [len(each) for each in mine.shown()] == [5, 5, 1, 2]

        host.young_s = 3600
        await look(house)
        containers, *_, sockets = mine.shown()
        assert (len(containers), sockets) == (3, {"0123456789ab"}), "what is young may be under way"

        host.young_s = -1
        await look(house)
        assert mine.shown() == ({swap.new_box}, {old.image, swap.image, offered}, set(), set())
        assert await house.running() == [swap.new_box]
        assert Engine(engine, house.tmp / f"data-{other}", other).shown() == before
    finally:
        for box in await theirs.boxes({}):
            await theirs.remove(box.name)
        theirs.young_s = -1
        await theirs.tidy()
        await theirs.remove_image(image)
        await theirs.close()


@needs_engine
async def test_what_a_person_secured_of_a_live_box_stays_whatever_its_labels_say(
    house: House, engine: docker.DockerClient
) -> None:
    live, name = await house.live(), f"evidence-{secrets.token_hex(4)}"
    evidence = engine.containers.get(live.box).commit(repository=name, tag="1", pause=False)
    nameless = engine.containers.get(live.box).commit(pause=False, message=name)
    # From now on no version has the boot id on it any more.
    assert (await house.swap_to(await house.image("1", "well"))).state is SwapState.live
    copy = engine.containers.run(evidence.id, ["sleep", "60"], name=name, detach=True, network_mode="none")
    try:
        await look(house, 2)
        assert engine.containers.get(name).status == "running"
        copy.remove(force=True)
        await look(house, 2)
        assert engine.images.get(f"{name}:1").id == evidence.id
        assert engine.images.get(nameless.id)
    finally:
        for left in engine.containers.list(all=True, filters={"name": name}):
            left.remove(force=True)
        engine.images.remove(f"{name}:1")
        engine.images.remove(nameless.id)


async def test_a_checkout_and_the_coders_of_a_run_that_is_over_go_and_those_of_one_at_work_stay(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as store:
        await with_substrate(store)
        async with store.changing(DESK) as change:
            over = await run_in(change, RunState.running, RunState.failed)
            at_work = await run_in(change, RunState.running, place=OTHER_PLACE)
        evolution: Any = Evolution
        coders = SimpleNamespace(secrets={"MODEL_KEY": "shapeless phrase"})
        evolution = evolution(store, None, coders, None, "test", tmp_path, system_clock, None, str)
        started, printed = {}, {}
        for run in (at_work.id, over.id):
            printed[run] = tmp_path / "runs" / run / "iter-1" / "plan-1" / "repair" / "stdout.txt"
            printed[run].parent.mkdir(parents=True)
            printed[run].write_text("It is shapeless phrase.")
            closed = evolution.work(run) / "checkout" / "closed"
            closed.mkdir(parents=True)
            (closed / "left").touch()
            closed.chmod(0)
            log, tag = tmp_path / "log", f"{run}/plan-1/1"
            started[run] = await process.start_detached(("sleep", "300"), cwd=tmp_path, env={}, log=log, tag=tag)
            async with asyncio.timeout(5):
                while not process.survivors(tag):  # noqa: ASYNC110 - a program shows its tag a moment after its start
                    await asyncio.sleep(0.01)
        await evolution.sweep_all()
        assert [path.name for path in (tmp_path / "work").iterdir()] == [at_work.id]
        assert not process.alive(started[over.id], f"{over.id}/plan-1/1")
        assert process.alive(started[at_work.id], f"{at_work.id}/plan-1/1")
        assert printed[over.id].read_text() == "It is [MODEL_KEY].", "it was at work when Moss was killed"
        await evolution._begin(at_work.id)
        assert not process.alive(started[at_work.id], f"{at_work.id}/plan-1/1")
        assert printed[at_work.id].read_text() == "It is [MODEL_KEY]."
        await evolution.clear_away(at_work.id)
        assert list((tmp_path / "work").iterdir()) == []


# What was changed by hand


def by_the_engine(engine: docker.DockerClient, house: House, live: Version) -> Iterator[tuple[str, ...]]:
    """Each change, and the words for it."""
    box = engine.containers.get(live.box)
    box.update(restart_policy={"Name": "always"})
    yield ("has the restart policy `always` instead of `unless-stopped`",)
    box.update(mem_limit="256m", memswap_limit="256m", restart_policy={"Name": "unless-stopped"})
    yield ("has a memory limit",)
    network = engine.networks.create(f"{live.box}-net", labels={label.OWNER: house.owner})
    try:
        network.connect(box)
        yield "has a memory limit", f"is also on the network `{network.name}`"
        network.disconnect(box)
    finally:
        network.remove()
    box.pause()
    yield "has a memory limit", "is paused"
    box.unpause()


def made_anew(engine: docker.DockerClient, house: House, live: Version) -> Iterator[tuple[str, ...]]:
    run, port = house.substrate.run, a_free_port()
    box = engine.containers.get(live.box)
    env = dict(entry.split("=", 1) for entry in box.attrs["Config"]["Env"])
    box.remove(force=True)
    engine.containers.run(
        live.image,
        name=live.box,
        environment={**env, "SECRET": "swordfish"},
        ports={"8000/tcp": port},
        volumes=[f"{house.tmp}/elsewhere:/state"],
        restart_policy={"Name": "unless-stopped"},
        detach=True,
    )
    yield (
        f"has the limit of processes `none` instead of `{run.pids}`",
        f"has the port 8000 `published as {port}` instead of `published as {run.publish}`",
        f"has the volume at /state `{house.tmp}/elsewhere` instead of `{run.volume}`",
        "has the variable SECRET",
    )


@needs_engine
@pytest.mark.parametrize("by_hand", [by_the_engine, pytest.param(made_anew, marks=pytest.mark.sweep)])
async def test_a_live_box_that_was_changed_by_hand_is_told_once_and_left_as_it_is(
    house: House, engine: docker.DockerClient, by_hand: Any
) -> None:
    live = await house.live()
    await look(house)
    await house.host.set_restart(live.box, "unless-stopped")
    assert await look(house, 3) == set(), "the last stroke of a swap is no change by hand"
    for changes in by_hand(engine, house, live):
        is_now, had = engine.containers.get(live.box).attrs, len(await told(house))
        assert await look(house, 4) == {Deed.report_drift}
        [(kind, text)] = (await told(house))[had:]
        assert kind == "live-drifted"
        assert text == (
            f"little is not what went live as version 0: its box {live.box} {', '.join(changes)}; "
            "undo that, or run `moss adopt`."
        )
        still = engine.containers.get(live.box).attrs
        assert (still["Id"], still["HostConfig"]) == (is_now["Id"], is_now["HostConfig"])
    assert "swordfish" not in str(await told(house))


def test_each_difference_is_named_and_no_value_of_the_environment() -> None:
    def box(**more: Any) -> Portrait:
        usual: dict[str, Any] = {
            "name": "agent",
            "image": "sha256:1",
            "command": ("serve",),
            "env": {"MODE": "live", "OLD": "1"},
            "volumes": (Volume("memory", "/state"),),
            "ports": {8000: 8080, 9000: None},
            "user": None,
            "restart": "always",
        }
        return Portrait(**{**usual, **more})

    def named(**more: Any) -> list[str]:
        return differences(looks_of(box()), looks_of(box(**more)))

    assert named() == []
    assert named(command=("serve", "--all")) == ["has the command `serve --all` instead of `serve`"]
    assert named(user="root") == ["has the user `root` instead of `that of its image`"]
    assert named(restart="no") == ["has the restart policy `no` instead of `always`"]
    assert named(volumes=()) == ["lacks the volume at /state (`memory`)"]
    assert named(volumes=(Volume("other", "/state"),)) == ["has the volume at /state `other` instead of `memory`"]
    assert named(ports={8000: 8080, 9000: 9000}) == ["has the port 9000 (`published as 9000`)"]
    assert named(env={"MODE": "secret", "NEW": "1"}) == [
        "has another value in the variable MODE",
        "has the variable NEW",
        "lacks the variable OLD",
    ]
    assert named(beyond=("is privileged",)) == ["is privileged"]
    assert differences(looks_of(box(beyond=("is privileged",))), looks_of(box())) == ["no longer is privileged"]
    kept = looks_of(box(env={"MODE": "secret"})).model_dump_json()
    assert "secret" not in kept


# A live box that ends


@needs_engine
async def test_a_live_box_that_ended_is_started_or_only_told_of_as_its_owner_wants(
    tmp_path: Path, engine: docker.DockerClient
) -> None:
    async with a_house("docker", tmp_path, little("docker", run={"restart": "no"})) as house:
        live = await house.live()
        await asyncio.to_thread(engine.containers.get(live.box).kill)
        assert await look(house, 3) == {Deed.report_down}
        assert await house.running() == []
        assert await told(house) == [
            (
                "live-down",
                f'The box {live.box} of little ended with exit code 137, and by `restart = "no"` nobody starts it; '
                "start it again, or change that setting.",
            )
        ]
        run = house.substrate.run.model_copy(update={"restart": "unless-stopped"})
        async with house.store.changing("little") as change:
            await substrates.save(change, house.substrate.model_copy(update={"run": run}), "moss.toml")
        assert await look(house) == {Deed.start_live}
        assert await house.running() == [live.box]
