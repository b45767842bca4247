"""Volumes that a Dockerfile declares: on trial they are small and empty, live they go with their box."""

import asyncio
import re
import secrets
from pathlib import Path

import docker
import pytest

from core.containers import docker_plan as plan
from core.containers.host import Volume, label
from core.model.errors import AgentFailed
from tests.support.containers import OWNER, SLEEP, Stage, context, docker_image, docker_stage, python, recipe
from tests.support.needs import needs_engine

__all__ = ["docker_image", "docker_stage"]

pytestmark = needs_engine

BASE = "FROM python:3.11-slim-bookworm\nWORKDIR /app\nCOPY . .\n"
FILL = """
import os
for where in ('/data/x', '/data/deep/x', '/state/x'):
    try:
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, 'wb') as file:
            for _ in range(20):
                file.write(bytes(1 << 20))
                file.flush()
        print(where, 'all')
    except OSError as refused:
        print(where, refused.strerror, os.path.getsize(where) >> 20)
    os.remove(where)
"""


@pytest.fixture
def stage(docker_stage: Stage) -> Stage:
    return docker_stage


def nameless() -> set[str]:
    """The volumes that no container holds and nobody has named."""
    client = docker.from_env()
    found = {volume.id for volume in client.volumes.list(filters={"dangling": True})}
    client.close()
    return {name for name in found if re.fullmatch("[0-9a-f]{64}", name)}


async def nothing_leaked(before: set[str]) -> None:
    """Boxes of other tests may come and go meanwhile, and their volumes with them."""
    async with asyncio.timeout(20):
        while nameless() - before:  # noqa: ASYNC110 (no event tells that a leak did not happen)
            await asyncio.sleep(0.2)


def volumes_of(box: str) -> dict[str, str]:
    """Where a box has which volume."""
    client = docker.from_env()
    mounts = client.containers.get(box).attrs["Mounts"]
    client.close()
    return {mount["Destination"]: mount["Name"] for mount in mounts if mount["Type"] == "volume"}


def there(volume: str) -> bool:
    client = docker.from_env()
    try:
        return bool(client.volumes.get(volume))
    except docker.errors.NotFound:
        return False
    finally:
        client.close()


async def built(stage: Stage, where: Path, *lines: str, **files: str) -> str:
    dockerfile = BASE + "".join(f"{line}\n" for line in lines)
    return await stage.host.build(recipe(context(where / secrets.token_hex(4), Dockerfile=dockerfile, **files)))


async def test_a_declared_volume_is_no_way_around_the_disk_limit_of_a_trial(stage: Stage, tmp_path: Path) -> None:
    before = nameless()
    image = await built(stage, tmp_path, "RUN mkdir -p /data/old", "VOLUME /data /data/deep /state/deep /tmp/deep")
    said = (await stage.ended(python(FILL), image=image, user="4711")).splitlines()
    assert said == [f"{where} No space left on device 8" for where in ("/data/x", "/data/deep/x", "/state/x")]
    [box] = await stage.host.boxes({})
    await stage.host.remove(box.name)
    await nothing_leaked(before)


async def test_an_image_that_hides_files_in_a_volume_is_refused_with_the_reason(stage: Stage, tmp_path: Path) -> None:
    before = nameless()
    image = await built(stage, tmp_path, "VOLUME /app")
    spec = stage.spec(image=image)
    with pytest.raises(AgentFailed, match="declares the volume `/app` and holds files in it") as refused:
        await stage.host.create(spec)
    assert "\n" not in refused.value.sentence
    await stage.host.remove(spec.name)
    assert await stage.host.boxes({}) == []
    await nothing_leaked(before)


async def test_what_a_death_leaves_while_an_image_is_looked_into_is_shown_and_removed(
    stage: Stage, tmp_path: Path
) -> None:
    image = await built(stage, tmp_path, "VOLUME /data")
    spec = stage.spec(image=image)
    client = docker.from_env()
    order = plan.probe(image, {**spec.labels, label.OWNER: OWNER}, spec.name, ("/data",))
    client.api.create_container_from_config(order, name=f"{spec.name}-look")
    again = stage.again()
    [left] = await again.boxes(spec.labels)
    assert (left.name, left.running) == (spec.name, False)
    await again.remove(left.name)
    assert await again.boxes({}) == []
    await again.close()
    client.close()


async def test_a_volume_where_none_can_be_is_refused(stage: Stage, tmp_path: Path) -> None:
    image = await built(stage, tmp_path, "VOLUME /sys/fs")
    with pytest.raises(AgentFailed, match="declares the volume `/sys/fs`, where none can be"):
        await stage.host.create(stage.spec(image=image))


def test_a_declared_volume_is_read_however_it_is_written() -> None:
    def declared(*names: str) -> tuple[str, ...]:
        return plan.declared_volumes({"Config": {"Volumes": {name: {} for name in names}}})

    assert declared("/data/", "data", "//data", "/a/../b", "/with space") == ("/b", "/data", "/with space")
    assert plan.declared_volumes({"Config": {"Volumes": None}}) == plan.declared_volumes({}) == ()
    for name in ("/", "//", "..", "/data/..", "/proc", "proc/self", "/sys/fs", "/dev", "/dev/shm"):
        with pytest.raises(AgentFailed, match="where none can be"):
            declared(name)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("RUN rm -r tests", "VOLUME /app/tests"), "declares the volume `/app/tests` and holds files in it"),
        (("WORKDIR /tmp",), "works in `/tmp`, which begins empty"),
        (("WORKDIR /state/app",), "works in `/state/app`, which begins empty"),
        (("WORKDIR /data", "VOLUME /data"), "works in `/data`, which begins empty"),
    ],
)
async def test_a_candidate_cannot_hide_the_tests_that_are_laid_over_it(
    stage: Stage, tmp_path: Path, lines: tuple[str, ...], sentence: str
) -> None:
    """With none to be found, many a test runner says that all passed."""
    before = nameless()
    (tmp_path / "laid" / "tests").mkdir(parents=True)
    (tmp_path / "laid" / "tests" / "test_price.py").write_text("assert False")
    image = await built(stage, tmp_path, "RUN mkdir tests && touch tests/test_own.py", *lines)
    spec = stage.spec(image=image)
    await stage.host.create(spec)
    with pytest.raises(AgentFailed, match=sentence):
        await stage.host.put(spec.name, tmp_path / "laid")
    await stage.host.remove(spec.name)
    await nothing_leaked(before)


async def test_files_are_laid_beside_a_declared_volume(stage: Stage, tmp_path: Path) -> None:
    before = nameless()
    (tmp_path / "laid").mkdir()
    (tmp_path / "laid" / "extra.py").write_text("print('laid')")
    image = await built(stage, tmp_path, "VOLUME /data")
    spec = stage.spec(("python3", "-S", "extra.py"), image=image)
    await stage.host.create(spec)
    await stage.host.put(spec.name, tmp_path / "laid")
    await stage.host.start(spec.name)
    assert await stage.host.wait(spec.name, 20) == 0
    assert await stage.host.logs(spec.name) == "laid\n"
    await stage.host.remove(spec.name)
    await nothing_leaked(before)


async def test_the_nameless_volumes_of_a_live_box_go_with_it_and_its_named_one_stays(
    stage: Stage, tmp_path: Path
) -> None:
    image = await built(stage, tmp_path, "RUN mkdir /data && touch /data/x", "VOLUME /data /state")
    name = f"moss-test-{secrets.token_hex(4)}"
    client = docker.from_env()
    try:
        spec = await stage.started(SLEEP, image=image, isolated=False, volume=Volume(name, "/state"))
        found = volumes_of(spec.name)
        assert set(found) == {"/data", "/state"}, "as the image asks"
        assert found["/state"] == name
        await stage.host.remove(spec.name)
        assert not there(found["/data"])
        assert there(name)
    finally:
        client.volumes.get(name).remove()
        client.close()


async def test_the_nameless_volume_of_an_agent_that_others_started_outlives_its_box(
    stage: Stage, tmp_path: Path
) -> None:
    """It may be the agent's memory."""
    image = await built(stage, tmp_path, "VOLUME /state")
    client = docker.from_env()
    name = f"moss-test-{secrets.token_hex(4)}"
    client.containers.create(image, ["-"], name=name)
    found = volumes_of(name)["/state"]
    await stage.host.remove(name)
    assert there(found)
    client.volumes.get(found).remove()
    client.close()


async def test_whoever_has_a_directory_by_any_path_above_or_below_writes_to_it_too(
    stage: Stage, tmp_path: Path
) -> None:
    state = tmp_path / "agents" / "desk"
    (state / "notes").mkdir(parents=True)
    (tmp_path / "link").symlink_to(state)
    (tmp_path / "agents" / "desk-2").mkdir()
    boxes = {}
    for where in (state, state.parent, state / "notes", tmp_path / "link", tmp_path / "agents" / "desk-2"):
        boxes[where.name] = (await stage.started(isolated=False, volume=Volume(str(where), "/state"))).name
    beside = boxes.pop("desk-2")
    for path in (str(state), f"{state}/", str(tmp_path / "link")):
        assert await stage.host.writers(path) == sorted(boxes.values())
    assert await stage.host.writers(str(tmp_path / "agents" / "desk-2")) == sorted([beside, boxes["agents"]])


async def test_whoever_has_the_directory_of_a_volume_or_another_volume_of_it_writes_to_it_too(
    stage: Stage, tmp_path: Path
) -> None:
    state, mark = tmp_path / "state", f"moss-test-{secrets.token_hex(4)}"
    state.mkdir()
    client = docker.from_env()
    bound = {"type": "none", "o": "bind", "device": str(state)}
    names = [f"{mark}-{which}" for which in ("own", "another", "plain")]
    for name in names:
        client.volumes.create(name, driver_opts=None if name.endswith("plain") else bound)
    own, another, plain = names
    try:
        boxes = [
            (await stage.started(isolated=False, volume=Volume(source, "/state"))).name
            for source in (own, another, str(state), str(state.parent), plain)
        ]
        beside = boxes.pop()
        for source in (own, another, str(state)):
            assert await stage.host.writers(source) == sorted(boxes)
        assert await stage.host.writers(plain) == [beside]
        for name in (*boxes, beside):
            await stage.host.remove(name)
    finally:
        for name in names:
            client.volumes.get(name).remove()
        client.close()


def test_who_only_reads_a_directory_does_not_write_to_it() -> None:
    def found(**mount: object) -> plan.Json:
        return {"Mounts": [{"Type": "bind", "Source": "/srv", "RW": True, **mount}]}

    assert plan.writes_to(found(), "/srv/desk", {}, str)
    assert not plan.writes_to(found(RW=False), "/srv/desk", {}, str)
    assert not plan.writes_to(found(Type="tmpfs", Source=""), "/srv/desk", {}, str)
    assert plan.writes_to(found(Name="desk", Source="/var/lib/docker/volumes/desk/_data"), "desk", {}, str)
