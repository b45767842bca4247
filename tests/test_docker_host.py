"""What only containers promise: isolation, digests, relays, and one sentence for each of the engine's many failures."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import docker
import httpx
import pytest
from docker.errors import APIError

from core import process
from core.containers import docker_calls
from core.containers import docker_plan as plan
from core.containers.docker_engine import remove_image
from core.containers.docker_host import DockerHost
from core.containers.host import BoxSpec, Limits, Strain, Volume, label
from core.model.errors import AgentFailed, BadInput, BuildFailed, Unavailable
from tests.support.containers import (
    DOCKERFILE,
    OWNER,
    SERVE,
    SLEEP,
    Stage,
    about,
    context,
    docker_image,
    docker_stage,
    knocking,
    python,
    recipe,
    unused_tcp_port,
)
from tests.support.engines import FAULTS, engine_that
from tests.support.needs import needs_engine

__all__ = ["docker_image", "docker_stage", "unused_tcp_port"]


@pytest.fixture
async def stage(docker_stage: Stage) -> Stage:
    return docker_stage


@pytest.fixture
async def engine() -> AsyncIterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


def the_host(stage: Stage) -> DockerHost:
    assert isinstance(stage.host, DockerHost)
    return stage.host


# Isolation


@needs_engine
async def test_an_isolated_box_has_no_way_to_anywhere(stage: Stage) -> None:
    code = """
import os, socket
print('interfaces', sorted(os.listdir('/sys/class/net')))
print('routes', len(open('/proc/net/route').read().splitlines()) - 1)
for where in (('172.17.0.1', 22), ('192.0.2.1', 80), ('1.1.1.1', 53)):
    try:
        socket.create_connection(where, timeout=2)
        print('reached', where)
    except OSError as refused:
        print(refused.strerror)
try:
    print('found', socket.getaddrinfo('example.org', 80))
except OSError:
    print('no names')
"""
    said = (await stage.ended(python(code))).splitlines()
    assert said == ["interfaces ['lo']", "routes 0", *["Network is unreachable"] * 3, "no names"]


@needs_engine
async def test_an_isolated_box_writes_to_its_state_and_tmp_only_and_not_too_much(stage: Stage) -> None:
    code = """
import os
for where in ('/tmp/x', '/state/x', '/app/x', '/x', '/dev/shm/../x'):
    try:
        with open(where, 'wb') as file:
            for _ in range(20):
                file.write(bytes(1 << 20))
                file.flush()
        print(where, 'all')
    except OSError as refused:
        print(where, refused.strerror, os.path.getsize(where) >> 20 if os.path.exists(where) else '')
"""
    said = (await stage.ended(python(code), user="4711")).splitlines()
    assert said[:2] == ["/tmp/x No space left on device 8", "/state/x No space left on device 8"]
    assert all("Read-only file system" in line or "Permission denied" in line for line in said[2:])


@needs_engine
async def test_root_in_an_isolated_box_has_no_powers(stage: Stage) -> None:
    code = """
import os
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(os.getuid(), *(status[name].strip() for name in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')))
print(os.path.exists('/var/run/docker.sock'), ' /s ' in open('/proc/mounts').read())
"""
    assert (await stage.ended(python(code))).splitlines() == [f"0 {'0' * 16} {'0' * 16} 1 2", "False False"]


@needs_engine
async def test_a_box_that_eats_all_its_memory_is_said_to_have_done_so(stage: Stage) -> None:
    spec = await stage.started(
        python("eaten = [bytearray(1 << 20) for _ in range(400)]"), limits=Limits(memory_mb=48, tmp_mb=8)
    )
    assert await stage.host.wait(spec.name, 20) == 137
    found = await stage.host.look(spec.name)
    assert found
    assert found.out_of_memory


@needs_engine
async def test_a_box_that_never_ran_or_is_gone_has_met_no_limit(stage: Stage) -> None:
    spec = stage.spec()
    await stage.host.create(spec)
    assert await stage.host.strain(spec.name) == Strain()
    assert await stage.host.strain("t-nobody") == Strain()


@needs_engine
async def test_a_box_cannot_fork_without_end(stage: Stage) -> None:
    code = """
import os, time
count = 0
try:
    while os.fork():
        count += 1
    time.sleep(60)
except OSError as refused:
    print(refused.strerror, count < 20)
"""
    assert await stage.ended(python(code), limits=Limits(pids=20, memory_mb=128)) == (
        "Resource temporarily unavailable True\n"
    )


@needs_engine
async def test_the_log_of_a_box_is_bounded(stage: Stage, engine: docker.DockerClient) -> None:
    spec = stage.spec()
    await stage.host.create(spec)
    config = engine.containers.get(spec.name).attrs["HostConfig"]["LogConfig"]
    assert config == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "4m"}}


@needs_engine
async def test_a_build_has_no_network_unless_its_recipe_says_so(stage: Stage, tmp_path: Path) -> None:
    code = "import os; print('sees', sorted(os.listdir('/sys/class/net')))"
    for network, seen in ((False, "sees ['lo']"), (True, "eth0")):
        dockerfile = f'FROM python:3.11-slim-bookworm\nRUN python3 -c "{code}" # {network}\n'
        order = recipe(context(tmp_path / str(network), Dockerfile=dockerfile), network=network)
        await stage.host.build(order)
        assert seen in order.log.read_text()


# Relays


@needs_engine
async def test_only_the_relay_sees_the_sockets_and_no_other_box_reaches_it(
    stage: Stage, engine: docker.DockerClient
) -> None:
    spec = await stage.started(SERVE)
    async with knocking(stage.host, spec.name):
        relay = engine.containers.get(plan.relay_name(spec.name))
        assert [mount["Destination"] for mount in relay.attrs["Mounts"]] == [plan.SOCKETS]
        assert relay.attrs["HostConfig"]["NetworkMode"] == "none"
        assert relay.attrs["Config"]["User"] == "65534:65534"
        mounted = engine.containers.get(spec.name).attrs["Mounts"]
        assert [mount["Destination"] for mount in mounted] == ["/state"]
        code = """
import os, socket
print(os.path.exists('/s'))
try:
    socket.create_connection(('127.0.0.1', 8080), timeout=2)
except OSError as refused:
    print(refused.strerror)
"""
        assert (await stage.ended(python(code), port=None)).splitlines() == ["False", "Connection refused"]


@needs_engine
async def test_no_stage_of_a_dockerfile_can_take_the_place_of_the_relay(
    stage: Stage, engine: docker.DockerClient, tmp_path: Path
) -> None:
    """What an early stage is labelled with nobody looks at, and the engine lists the newest image first."""
    base = f"moss-test-{secrets.token_hex(4)}"
    engine.images.get("python:3.11-slim-bookworm").tag(base, "1")
    host = DockerHost(tmp_path, OWNER, relay_base=f"{base}:1")
    ours = await host._relays.image()
    forged = f"{plan.RELAY}={engine.images.get(ours).labels[plan.RELAY]}"
    stages = f"FROM {base}:1 AS early\nLABEL {forged}\nCOPY agent.py /relay.py\nFROM {base}:1\nCOPY agent.py /x\n"
    try:
        await host.build(recipe(context(tmp_path / "forged", Dockerfile=stages)))
        assert len(engine.images.list(filters={"label": forged})) == 2
        assert await host._relays.image() == ours
    finally:
        for image in engine.images.list(filters={"label": forged}):
            engine.images.remove(image.id, force=True)
        engine.images.remove(f"{base}:1")
        await host.close()


@needs_engine
async def test_the_relay_listens_before_any_code_of_the_agents_runs(stage: Stage, engine: docker.DockerClient) -> None:
    spec = await stage.started()
    relay, box = engine.containers.get(plan.relay_name(spec.name)), engine.containers.get(spec.name)
    assert relay.logs() == b"ready\n"
    assert relay.attrs["State"]["StartedAt"] < box.attrs["State"]["StartedAt"]
    assert box.attrs["HostConfig"]["NetworkMode"] == f"container:{relay.id}"


@needs_engine
async def test_a_relay_passes_large_bodies_and_more_callers_than_it_has_places_for(stage: Stage) -> None:
    spec = await stage.started(SERVE)
    async with knocking(stage.host, spec.name) as client:
        large = b"abcdefgh" * 500_000
        assert (await client.post("/", content=large)).content == large.upper()
    async with stage.host.door(spec.name) as client:
        client.timeout = httpx.Timeout(30)
        answers = await asyncio.gather(*(client.post("/", content=b"%d" % number) for number in range(160)))
    assert [answer.content for answer in answers] == [b"%d" % number for number in range(160)]


@needs_engine
async def test_a_data_directory_with_a_very_long_path_has_doors_too(stage: Stage, tmp_path: Path) -> None:
    far = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 6)
    far.mkdir(parents=True)
    host = DockerHost(far, OWNER)
    spec = stage.spec(SERVE)
    await host.create(spec)
    await host.start(spec.name)
    async with knocking(host, spec.name) as client:
        assert (await client.post("/", content=b"far")).text == "FAR"
    await host.remove(spec.name)
    assert list((far / "s").iterdir()) == []
    await host.close()


@needs_engine
async def test_what_a_death_in_the_middle_of_a_creation_leaves_is_shown_and_removed(
    stage: Stage, engine: docker.DockerClient
) -> None:
    spec = stage.spec(labels={label.RUN: "run-9", label.PURPOSE: "trial"})
    await the_host(stage)._relays.create(spec)
    again = stage.again()
    [left] = await again.boxes({label.RUN: "run-9", label.PURPOSE: "trial"})
    assert (left.name, left.running, left.image) == (spec.name, False, "")
    await again.remove(left.name)
    assert await again.boxes({}) == []
    assert engine.containers.list(all=True, filters={"label": f"{label.OWNER}={OWNER}"}) == []
    assert list((stage.data / "s").iterdir()) == []
    await again.close()


@needs_engine
async def test_a_cancelled_creation_is_over_when_its_caller_hears_of_it(stage: Stage) -> None:
    for moment_s in (0.0, 0.01, 0.05, 0.1, 0.2):
        spec = stage.spec(SERVE)
        creating = asyncio.create_task(stage.host.create(spec))
        await asyncio.sleep(moment_s)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        await stage.host.remove(spec.name)
        assert await stage.host.boxes({}) == []


@needs_engine
async def test_a_live_box_without_a_published_port_is_reached_through_a_relay_that_is_gone_afterwards(
    stage: Stage, engine: docker.DockerClient
) -> None:
    spec = await stage.started(SERVE, isolated=False)
    async with knocking(stage.host, spec.name) as client:
        assert (await client.post("/", content=b"hello")).text == "HELLO"
        assert [box.name for box in await stage.host.boxes({})] == [spec.name]
    assert [found.name for found in engine.containers.list(filters={"label": f"{label.OWNER}={OWNER}"})] == [spec.name]
    assert list((stage.data / "s").iterdir()) == []


@needs_engine
async def test_the_data_directory_is_found_to_be_the_engines_too(stage: Stage) -> None:
    assert await the_host(stage).data_path_problem() is None


INSIDE = """
import asyncio, pathlib, sys
from core.containers.docker_host import DockerHost
from core.model.errors import Unavailable
async def main(data, box):
    host = DockerHost(pathlib.Path(data), "{owner}")
    print(await host.data_path_problem())
    try:
        async with host.door(box) as client:
            print(client.base_url, (await client.post("/", content=b"hello")).text)
    except Unavailable as problem:
        print(problem.sentence)
    await host.close()
asyncio.run(main(*sys.argv[1:]))
"""


@needs_engine
async def test_a_moss_in_a_container_says_when_its_data_directory_is_not_the_engines(
    stage: Stage, engine: docker.DockerClient, tmp_path: Path, unused_tcp_port: int
) -> None:
    live = await stage.started(SERVE, isolated=False, publish=unused_tcp_port)
    async with knocking(stage.host, live.name):
        pass
    code, packages = Path(__file__).parents[1], Path(httpx.__file__).parents[1]
    shared = tmp_path / "shared"
    shared.mkdir()

    def moss(data: Path, *volumes: str) -> list[str]:
        said = engine.containers.run(
            stage.image,
            ["python3", "-c", INSIDE.replace("{owner}", OWNER), str(data), live.name],
            volumes=["/var/run/docker.sock:/var/run/docker.sock", f"{code}:{code}:ro", f"{packages}:/sp:ro", *volumes],
            environment={"PYTHONPATH": f"{code}:/sp"},
            labels={label.OWNER: "a-test"},
            remove=True,
            stderr=True,
        )
        return str(said.decode()).splitlines()

    # Also: 127.0.0.1 is not the engine's machine for it, so that it takes a relay to the published port.
    said = await asyncio.to_thread(moss, shared, f"{shared}:{shared}")
    assert said == ["None", "http://localhost HELLO"]
    said = await asyncio.to_thread(moss, Path("/elsewhere"))
    assert said[0] == said[1]
    assert "does not see the data directory /elsewhere" in said[0]


# Commands


@needs_engine
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_shell_that_ends_nothing_and_talks_without_end_holds_nobody_up(
    stage: Stage, tmp_path: Path, cancelled: bool
) -> None:
    """The shell that is to end a command is the image's own."""
    source = context(tmp_path / "odd", Dockerfile=f"{DOCKERFILE}COPY --chown=0:0 sh /bin/sh\n")
    (source / "sh").write_text("#!/usr/bin/env -S python3 -S\nwhile True: print('y' * 60_000)\n")
    (source / "sh").chmod(0o755)
    image = await stage.host.build(recipe(source))
    for isolated in (True, False):
        spec = await stage.started(image=image, isolated=isolated)
        running = asyncio.create_task(stage.host.run(spec.name, SLEEP, timeout_s=60 if cancelled else 1))
        if cancelled:
            await asyncio.sleep(1)
            running.cancel()
        done, _ = await asyncio.wait({running}, timeout=docker_calls.ENDING_S + 10)
        assert done
        assert running.cancelled() if cancelled else running.result().timed_out
        found = await stage.host.look(spec.name)
        assert found
        assert found.running is not isolated
        await stage.host.remove(spec.name)


@needs_engine
async def test_a_box_whose_command_was_ended_goes_on(stage: Stage) -> None:
    spec = await stage.started()
    assert (await stage.host.run(spec.name, SLEEP, timeout_s=1)).timed_out
    assert (await stage.host.run(spec.name, python("print('here')"), timeout_s=20)).text == "here\n"


# Digests


@needs_engine
async def test_a_box_runs_the_digest_it_was_given_whatever_became_of_the_tag(
    stage: Stage, engine: docker.DockerClient, tmp_path: Path
) -> None:
    tag = f"moss-test-{secrets.token_hex(4)}"
    first, second = [
        await stage.host.build(recipe(context(tmp_path / word, **{"words.txt": word}))) for word in ("good", "evil")
    ]
    engine.images.get(first).tag(tag, "live")
    spec = stage.spec(python("print(open('words.txt').read())"), image=first)
    await stage.host.create(spec)
    engine.images.get(second).tag(tag, "live")
    await stage.host.start(spec.name)
    await stage.host.wait(spec.name, 20)
    assert await stage.host.logs(spec.name) == "good\n"
    engine.images.remove(f"{tag}:live")
    with pytest.raises(BadInput, match="tag"):
        await stage.host.create(stage.spec(image=f"{tag}:live"))


@needs_engine
async def test_a_built_image_has_a_tag_for_people_so_that_no_prune_takes_it(
    stage: Stage, engine: docker.DockerClient
) -> None:
    assert engine.images.get(stage.image).tags == [f"moss/desk:{stage.image[7:19]}"]


@needs_engine
async def test_a_build_without_a_readable_dockerfile_is_a_failed_build(stage: Stage, tmp_path: Path) -> None:
    source = context(tmp_path / "odd", Dockerfile="FORM nothing\n")
    for dockerfile in ("Dockerfile", "None"):
        with pytest.raises(BuildFailed):
            await stage.host.build(recipe(source, dockerfile=dockerfile))


@needs_engine
async def test_an_entrypoint_stays_before_a_command_but_not_before_a_check(stage: Stage, tmp_path: Path) -> None:
    dockerfile = 'FROM python:3.11-slim-bookworm\nENTRYPOINT ["echo", "entered"]\n'
    image = await stage.host.build(recipe(context(tmp_path / "it", Dockerfile=dockerfile)))
    assert await stage.ended(("echo", "checked"), image=image) == "entered echo checked\n"
    assert await stage.ended(("echo", "checked"), image=image, entrypoint=False) == "checked\n"


# The live box and adoption


@needs_engine
async def test_a_live_box_keeps_a_named_volume_and_has_no_restart_policy_until_told(
    stage: Stage, engine: docker.DockerClient
) -> None:
    volume = Volume(f"moss-test-{secrets.token_hex(4)}", "/memory")
    for already in ([], ["notes"]):
        spec = await stage.started(SERVE, isolated=False, volume=volume, state_path="/memory")
        assert engine.containers.get(spec.name).attrs["HostConfig"]["RestartPolicy"]["Name"] == "no"
        async with knocking(stage.host, spec.name) as client:
            assert (await about(client))["state"] == already
            await client.post("/", content=b"remember me")
        await stage.host.set_restart(spec.name, "unless-stopped")
        portrait = await stage.host.portrait(spec.name)
        assert portrait
        assert (portrait.restart, portrait.volumes) == ("unless-stopped", (volume,))
        await stage.host.remove(spec.name)
    engine.volumes.get(volume.name).remove()


@needs_engine
async def test_a_taken_port_is_named_and_the_box_starts_once_it_is_free(stage: Stage, unused_tcp_port: int) -> None:
    first = await stage.started(SERVE, isolated=False, publish=unused_tcp_port)
    second = stage.spec(SERVE, isolated=False, publish=unused_tcp_port)
    await stage.host.create(second)
    with pytest.raises(Unavailable, match=str(unused_tcp_port)):
        await stage.host.start(second.name)
    await stage.host.stop(first.name, 5)
    await stage.host.start(second.name)
    found = await stage.host.look(second.name)
    assert found
    assert found.running


@needs_engine
async def test_a_portrait_names_what_no_box_of_ours_could_have(
    stage: Stage, engine: docker.DockerClient, unused_tcp_port: int
) -> None:
    name = f"t-{secrets.token_hex(4)}"
    stage.spec(name=name)
    engine.containers.create(
        stage.image,
        list(SLEEP),
        name=name,
        environment={"KEY": "secret"},
        ports={"8080/tcp": ("127.0.0.1", unused_tcp_port), "53/udp": unused_tcp_port},
        privileged=True,
        mem_limit="64m",
        cpuset_cpus="0",
        user="4711",
        entrypoint=["env"],
        tmpfs={"/scratch": "size=1m"},
        restart_policy={"Name": "always"},
        auto_remove=False,
    )
    portrait = await stage.host.portrait(name)
    assert portrait
    assert (portrait.image, portrait.command, portrait.env) == (stage.image, SLEEP, {"KEY": "secret"})
    assert (portrait.user, portrait.restart, portrait.ports) == ("4711", "always", {8080: unused_tcp_port})
    assert set(portrait.beyond) >= {
        "is privileged",
        "has a memory limit",
        "is bound to some processors",
        "has a tmpfs",
        "has an entrypoint of its own",
        "publishes port 8080 on 127.0.0.1 only",
        "uses port 53/udp",
    }
    assert "secret" not in repr(portrait)


@needs_engine
async def test_a_plain_container_of_somebody_else_can_be_portrayed_talked_to_and_stopped(
    stage: Stage, engine: docker.DockerClient
) -> None:
    name = f"t-{secrets.token_hex(4)}"
    stage.spec(name=name)
    engine.containers.run(
        stage.image, list(SERVE), name=name, environment={"PORT": "9000", "MOSS_STATE_DIR": "/state"},
        ports={"9000/tcp": None}, volumes=["/state"], detach=True,
    )  # fmt: skip
    portrait = await stage.host.portrait(name)
    assert portrait
    assert [volume.target for volume in portrait.volumes] == ["/state"]
    assert portrait.beyond == ("publishes port 9000 in another way",)
    async with knocking(stage.host, name) as client:
        assert (await client.post("/", content=b"hello")).text == "HELLO"
    await stage.host.stop(name, 1)
    await stage.host.remove(name)
    kept = engine.volumes.get(portrait.volumes[0].name)
    kept.remove()


# The engine's failures


METHODS: dict[str, Callable[[DockerHost, Path], Awaitable[object]]] = {
    "ping": lambda host, _: host.ping(),
    "build": lambda host, tmp: host.build(recipe(tmp / "source")),
    "has_image": lambda host, _: host.has_image("sha256:0"),
    "image_labels": lambda host, _: host.image_labels("sha256:0"),
    "images": lambda host, _: host.images({}),
    "remove_image": lambda host, _: host.remove_image("sha256:0"),
    "create": lambda host, _: host.create(BoxSpec(name="t-box", image="sha256:0", labels={})),
    "put": lambda host, tmp: host.put("t-box", tmp),
    "start": lambda host, _: host.start("t-box"),
    "stop": lambda host, _: host.stop("t-box", 0),
    "remove": lambda host, _: host.remove("t-box"),
    "look": lambda host, _: host.look("t-box"),
    "tidy": lambda host, _: host.tidy(),
    "strain": lambda host, _: host.strain("t-box"),
    "boxes": lambda host, _: host.boxes({}),
    "writers": lambda host, _: host.writers("t-volume"),
    "portrait": lambda host, _: host.portrait("t-box"),
    "set_restart": lambda host, _: host.set_restart("t-box", "no"),
    "wait": lambda host, _: host.wait("t-box", 5),
    "logs": lambda host, _: host.logs("t-box"),
    "run": lambda host, _: host.run("t-box", ("true",), timeout_s=5),
    "read": lambda host, _: host.read("t-box", "/etc/passwd"),
    "door": lambda host, _: host.door("t-box").__aenter__(),
    "data_path_problem": lambda host, _: host.data_path_problem(),
    "relay_lacks": lambda host, _: host.relay_lacks(),
    "lacks": lambda host, _: host.lacks("FROM python"),
    "clock": lambda host, _: host.clock(),
    "has_relay": lambda host, _: host.has_relay(),
    "running": lambda host, _: host.running(),
    "remove_volume": lambda host, _: host.remove_volume("t-volume"),
    "pack_up": lambda host, _: host.pack_up(),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_the_engine_does_wrong_is_one_sentence_with_its_mend(fault: str, tmp_path: Path) -> None:
    context(tmp_path / "source")
    async with engine_that(fault, tmp_path) as url:
        host = DockerHost(tmp_path, OWNER, url=url, silence_s=0.5 if fault == "mute" else 20)

        async def outcome(method: str) -> tuple[str, str]:
            try:
                return method, f"no error but {await METHODS[method](host, tmp_path)}"
            except Unavailable as problem:
                return method, problem.sentence
            except Exception as problem:
                return method, repr(problem)

        fine = {"dies": {"ping"}, "empty": {"ping", "stop", "remove_volume"}, "full": {"ping"}, "angry": {"ping"}}.get(
            fault, set()
        )
        said = dict(await asyncio.gather(*map(outcome, METHODS.keys() - fine)))
        await host.close()
    mend = {"mute": "restart it", "full": "free space", "angry": "see the engine's log"}.get(fault, "start it")
    assert {method: text for method, text in said.items() if mend not in text} == {}


async def test_every_method_of_a_host_is_tried_on_a_bad_engine() -> None:
    public = {name for name in vars(DockerHost) if not name.startswith("_")}
    assert public - {"name", "isolates", "lane_port", "young_s", "spare_bytes", "silence_s", "close"} == set(METHODS)


@needs_engine
async def test_a_box_that_cannot_start_is_the_agents_fault_and_not_the_engines(stage: Stage) -> None:
    spec = stage.spec(user="nobody-knows-him")
    await stage.host.create(spec)
    with pytest.raises(AgentFailed, match="nobody-knows-him"):
        await stage.host.start(spec.name)


@needs_engine
async def test_a_host_closed_in_the_middle_of_a_wait_holds_nobody_up(stage: Stage) -> None:
    spec = await stage.started()
    code = f"""
import asyncio, pathlib
from core.containers.docker_host import DockerHost
async def main():
    host = DockerHost(pathlib.Path({str(stage.data)!r}), {OWNER!r})
    waiting = asyncio.create_task(host.wait({spec.name!r}, 300))
    await asyncio.sleep(0.5)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await host.close()
asyncio.run(main())
"""
    root = Path(__file__).parents[1]
    done = await process.run([sys.executable, "-c", code], cwd=root, timeout_s=20)
    assert (done.exit_code, done.timed_out) == (0, False), done.stderr.decode()


async def test_a_relay_that_is_forgotten_ends_by_itself(tmp_path: Path) -> None:
    relay = str(Path(plan.__file__).with_name("relay.py"))
    route = f"unix:{tmp_path}/in.sock=tcp:127.0.0.1:9"
    done = await process.run([sys.executable, "-I", "-S", relay, "--for=0.1", route], timeout_s=20)
    assert (done.exit_code, done.timed_out, done.stdout) == (0, False, b"ready\n")


@pytest.mark.parametrize("said", [(404, "No such image"), (500, "unrecognized image ID sha256:1")])
def test_an_image_that_another_one_has_just_removed_is_removed(said: tuple[int, str]) -> None:
    def engine(status: int, words: str) -> SimpleNamespace:
        def removing(_: str) -> None:
            raise APIError(words, SimpleNamespace(status_code=status), words)

        return SimpleNamespace(remove_image=removing)

    remove_image(engine(*said), "sha256:1")
    with pytest.raises(APIError):
        remove_image(engine(409, "it is in use"), "sha256:1")


@needs_engine
async def test_a_note_of_a_build_that_another_moss_clears_away_meanwhile_ends_no_tidying(stage: Stage) -> None:
    host = the_host(stage)
    host._built.mkdir(exist_ok=True)
    (host._built / "listed").symlink_to("gone-when-it-is-read")
    await host.tidy()
    (host._built / "listed").unlink()


def test_an_orphans_purpose_is_not_asked_for_and_a_relays_is_not_shown() -> None:
    def found(name: str, **labels: str) -> plan.Json:
        state = {"Running": True, "Status": "running"}
        return {"Name": f"/{name}", "Image": "sha256:1", "Config": {"Labels": labels}, "State": state}

    listed = [
        found("a", **{label.PURPOSE: "trial", label.RUN: "1"}),
        found("a-relay", **{label.PURPOSE: "relay", label.RUN: "1", plan.RELAY_FOR: "a"}),
        found("b-relay", **{label.PURPOSE: "relay", label.RUN: "1", plan.RELAY_FOR: "b"}),
        found("c", **{label.PURPOSE: "live"}),
    ]
    assert [box.name for box in plan.boxes_among(listed, {label.PURPOSE: "trial"})] == ["a", "b"]
    assert [box.name for box in plan.boxes_among(listed, {label.RUN: "2"})] == []
    assert [box.name for box in plan.boxes_among(listed, {})] == ["a", "c", "b"]


@pytest.mark.parametrize("own", [True, False])
def test_moss_knows_its_own_container_and_takes_no_other_for_it(own: bool) -> None:
    """While it copies into a container, the engine mounts that one's files on its own machine too."""
    file, where = f"/var/lib/docker/containers/{'ab' * 32}/hostname", "" if own else "/var/lib/docker/overlay2/1/merged"
    mountinfo = (
        f"97 27 0:4 net:[1] /run/docker/netns/7c rw - nsfs nsfs rw\n137 119 254:0 {file} {where}/etc/hostname rw"
    )
    assert plan.own_container(mountinfo) == ("ab" * 32 if own else None)
