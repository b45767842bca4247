"""What only plain processes must hold: they outlive Moss, and no kill -9 leaves two of them or loses one."""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core import process
from core.containers import boxed
from core.containers.choose import choose
from core.containers.docker_host import DockerHost
from core.containers.host import BoxSpec, Volume
from core.containers.process_box import Box
from core.containers.process_host import ProcessHost
from core.containers.process_images import TREE, directory_of
from core.model.errors import BadInput, Refused, Unavailable
from tests.support.containers import (
    OWNER,
    SERVE,
    Stage,
    about,
    context,
    knocking,
    process_stage,
    python,
    recipe,
    until_log,
    unused_tcp_port,
)
from tests.support.needs import needs_engine

__all__ = ["process_stage", "unused_tcp_port"]
ROOT = Path(__file__).parents[1]
NEVER = -1


@pytest.fixture
async def stage(process_stage: Stage) -> AsyncIterator[Stage]:
    yield process_stage
    await process_stage.host.remove("t-live")


def box_of(stage: Stage, name: str) -> Box:
    return Box(stage.data / "boxes" / name, stage.data / "volumes")


# Outliving Moss

MOSS = """
import asyncio, os, signal, sys, threading
from pathlib import Path
from core.containers.host import BoxSpec, Volume
from core.containers.process_host import ProcessHost
data, image, lines = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
passed = 0
def watch(frame, event, _):
    global passed
    if "core/containers/process" not in frame.f_code.co_filename:
        return None
    passed += event == "line"
    if passed == lines:
        os.kill(os.getpid(), signal.SIGKILL)
    return watch
async def main():
    host = ProcessHost(data, "{owner}")
    spec = BoxSpec("t-live", image, {}, command=("python3", "-S", "agent.py"), volume=Volume("memory", "/state"))
    sys.settrace(watch)
    threading.settrace(watch)
    await host.create(spec)
    await host.start("t-live")
    sys.settrace(None)
    print("through after", passed)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def moss_killed_after(stage: Stage, lines: int) -> bytes:
    argv = [sys.executable, "-c", MOSS.replace("{owner}", OWNER), str(stage.data), stage.image, str(lines)]
    env = process.safe_env(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
    # With a tag of its own the box is not swept away together with this Moss.
    done = await process.run(argv, cwd=ROOT, env=env, timeout_s=30)
    assert done.exit_code == -signal.SIGKILL, done.stderr.decode()
    return done.stdout


async def test_an_agent_outlives_moss_and_is_found_stopped_and_asked_for_its_end(stage: Stage) -> None:
    assert await moss_killed_after(stage, NEVER) != b""
    found = await stage.host.look("t-live")
    assert found
    assert found.running
    async with knocking(stage.host, "t-live") as client:
        assert (await client.post("/", content=b"still here")).text == "STILL HERE"
    await stage.host.stop("t-live", 5)
    assert await stage.host.wait("t-live", 5) == 143
    await stage.host.remove("t-live")


async def one_agent_whenever_moss_is_killed(stage: Stage, moments: range) -> None:
    """A swap's next step after a crash: look, and start unless it runs. There must be one agent then, never two."""
    for lines in moments:
        await moss_killed_after(stage, lines)
        again = stage.again()
        found = await again.look("t-live")
        if found is None:
            await again.create(BoxSpec("t-live", stage.image, {}, SERVE, volume=Volume("memory", "/state")))
        if found is None or not found.running:
            await again.start("t-live")
        async with knocking(again, "t-live"):
            pass
        running = process.survivors("box-t-live-")
        assert len(running) == 2, f"after {lines} lines: {running}"  # the agent, and what boxes it
        assert [box.name for box in await again.boxes({})] == ["t-live"]
        await again.remove("t-live")
        assert process.survivors("box-t-live-") == []
        assert list((stage.data / "boxes").iterdir()) == []


async def test_there_is_one_agent_whenever_moss_is_killed(stage: Stage) -> None:
    last = int((await moss_killed_after(stage, NEVER)).split()[-1])
    await stage.host.remove("t-live")
    await one_agent_whenever_moss_is_killed(stage, range(7, last, last // 3))
    await one_agent_whenever_moss_is_killed(stage, range(last - 1, last + 1))


@pytest.mark.sweep
async def test_there_is_one_agent_whenever_moss_is_killed_after_any_line(stage: Stage) -> None:
    last = int((await moss_killed_after(stage, NEVER)).split()[-1])
    await stage.host.remove("t-live")
    await one_agent_whenever_moss_is_killed(stage, range(1, last + 1))


async def test_a_reused_number_is_not_taken_for_the_agent(stage: Stage) -> None:
    spec = await stage.started(SERVE)
    async with knocking(stage.host, spec.name):
        pass
    box = box_of(stage, spec.name)
    for pid in process.survivors(box.tag):
        os.kill(pid, signal.SIGKILL)
    await stage.host.wait(spec.name, 5)
    (box.directory / "pid").write_text(str(os.getpid()))
    found = await stage.host.look(spec.name)
    assert found
    assert (found.running, found.exit_code) == (False, 137)
    await stage.host.stop(spec.name, 1)  # and we are still here


async def test_an_agent_whose_number_was_never_written_down_is_found_all_the_same(stage: Stage) -> None:
    spec = await stage.started(SERVE)
    async with knocking(stage.host, spec.name):
        pass
    (box_of(stage, spec.name).directory / "pid").unlink()
    found = await stage.again().look(spec.name)
    assert found
    assert found.running
    await stage.host.remove(spec.name)
    assert process.survivors(f"box-{spec.name}-") == []


async def test_an_agent_that_lost_what_boxed_it_runs_on_and_gets_no_second_beside_it(stage: Stage) -> None:
    spec = await stage.started(SERVE)
    async with knocking(stage.host, spec.name):
        pass
    box, again = box_of(stage, spec.name), stage.again()
    boxing = box.pid()
    assert boxing
    os.kill(boxing, signal.SIGKILL)
    assert await process.wait_gone(boxing, box.tag, 5)
    (agent,) = process.survivors(box.tag)
    found = await again.look(spec.name)
    assert found
    assert found.running
    await again.start(spec.name)
    assert process.survivors(box.tag) == [agent]
    assert await again.wait(spec.name, 0.1) is None
    os.kill(agent, signal.SIGKILL)
    assert await again.wait(spec.name, 5) == 137


async def test_commands_of_a_dead_moss_end_with_their_box(stage: Stage) -> None:
    spec = await stage.started()
    box = box_of(stage, spec.name)
    left = f"{box.tag}-run-0"
    argv = [sys.executable, "-c", "import time; time.sleep(300)"]
    pid = await process.start_detached(argv, cwd=box.tree, env={}, log=stage.data / "log", tag=left)
    await stage.host.remove(spec.name)
    assert await process.wait_gone(pid, left, 5)


# Images


async def test_an_image_that_was_altered_on_the_disk_does_not_start(stage: Stage) -> None:
    spec = stage.spec(SERVE)
    await stage.host.create(spec)
    file = directory_of(stage.data / "images", stage.image) / TREE / "agent.py"
    assert file.stat().st_mode & 0o222 == 0
    file.chmod(0o600)
    file.write_text("print('evil')")
    with pytest.raises(Refused, match="altered"):
        await stage.host.start(spec.name)


async def test_what_an_agent_does_to_its_own_code_is_gone_at_the_next_start(stage: Stage) -> None:
    spec = await stage.started(python("print(open('Dockerfile').read()); open('Dockerfile', 'w').write('evil')"))
    await stage.host.wait(spec.name, 10)
    await stage.host.start(spec.name)
    await stage.host.wait(spec.name, 10)
    assert "evil" not in await stage.host.logs(spec.name)


async def test_what_a_killed_build_left_is_removed_but_not_what_still_grows(stage: Stage, tmp_path: Path) -> None:
    images = stage.data / "images"
    (images / "building-of-the-dead").mkdir()
    (images / "gone-but-not-quite" / TREE).mkdir(parents=True)
    (images / "gone-but-not-quite" / TREE).chmod(0o500)
    slow = python("import time; open('made', 'w').close(); time.sleep(1.5)")
    growing = asyncio.create_task(stage.host.build(recipe(context(tmp_path / "slow"), command=slow)))
    async with asyncio.timeout(10):
        while not list(images.glob("building-*/tree/made")):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
    await stage.again().build(recipe(context(tmp_path / "other", **{"new.txt": "new"})))
    assert await stage.host.has_image(await growing)
    assert [path.name for path in images.iterdir() if not path.name.startswith("sha256-")] == []


async def test_a_build_runs_its_command_in_the_copy_and_not_in_the_source(stage: Stage, tmp_path: Path) -> None:
    source = context(tmp_path / "it")
    order = recipe(source, command=python("open('made', 'w').write('compiled'); print('made it')"))
    image = await stage.host.build(order)
    assert order.log.read_text() == "made it\n"
    assert not (source / "made").exists()
    assert await stage.ended(python("print(open('made').read())"), image=image) == "compiled\n"


# Around a process


async def test_an_agent_that_floods_its_log_does_not_fill_the_disk(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await stage.started(python("line = 'z' * 999\nfor n in range(30_000): print(line)\nprint('the end')"))
    assert await stage.host.wait(spec.name, 30) == 0
    directory = box_of(stage, spec.name).directory
    size = sum((directory / name).stat().st_size for name in ("log", "log.1"))
    assert size <= 2 * boxed.LOG_BYTES + 65_536
    assert (await stage.host.logs(spec.name)).endswith("the end\n")


async def test_a_public_port_that_is_taken_is_named(stage: Stage, unused_tcp_port: int) -> None:
    spec = stage.spec(SERVE, isolated=False, publish=unused_tcp_port)
    await stage.host.create(spec)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", unused_tcp_port))
        taken.listen()
        with pytest.raises(Unavailable, match=str(unused_tcp_port)):
            await stage.host.start(spec.name)
    await stage.host.start(spec.name)
    async with knocking(stage.host, spec.name):
        pass


async def test_a_box_keeps_its_port_when_it_is_started_again(stage: Stage) -> None:
    spec = await stage.started(SERVE)
    ports = set()
    for _ in range(2):
        async with knocking(stage.host, spec.name) as client:
            ports.add((await about(client))["env"]["PORT"])
        await stage.host.stop(spec.name, 5)
        await stage.host.start(spec.name)
    assert len(ports) == 1


async def test_what_a_process_cannot_have_is_refused_in_words(stage: Stage) -> None:
    with pytest.raises(BadInput, match=r"run\.user"):
        await stage.host.create(stage.spec(user="nobody"))
    with pytest.raises(BadInput, match=r"run\.command"):
        await stage.host.create(stage.spec(command=()))


async def test_keys_on_the_disk_are_for_nobody_else_to_read(stage: Stage) -> None:
    spec = await stage.started(env={"KEY": "secret"})
    directory = box_of(stage, spec.name).directory
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "box.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((directory / "box.json").read_text())["spec"]["env"] == {"KEY": "secret"}


async def test_no_file_outside_of_the_agents_places_is_read(stage: Stage) -> None:
    secret = stage.data / "secret"
    secret.write_text("no")
    spec = await stage.started(
        python(f"import os, time; os.symlink({str(secret)!r}, os.environ['MOSS_STATE_DIR'] + '/link');"
               "print('ready', flush=True); time.sleep(300)")
    )  # fmt: skip
    await until_log(stage.host, spec.name, "ready")
    for path in (str(secret), "/state/link", "/state/../../../secret", "../../../secret"):
        assert await stage.host.read(spec.name, path) is None, path


# Which host


async def test_without_an_engine_agents_are_processes_and_the_sentence_says_what_that_means(tmp_path: Path) -> None:
    host, why = await choose("auto", tmp_path, OWNER, engine_url=f"unix://{tmp_path}/none.sock")
    assert isinstance(host, ProcessHost)
    assert "nothing isolates" in why
    assert "none.sock" in why


async def test_an_engine_that_was_asked_for_is_not_replaced_when_it_is_down(tmp_path: Path) -> None:
    host, why = await choose("docker", tmp_path, OWNER, engine_url=f"unix://{tmp_path}/none.sock")
    assert isinstance(host, DockerHost)
    assert "start it" in why
    await host.close()


@needs_engine
async def test_an_engine_that_was_once_taken_is_not_replaced_when_it_is_down(tmp_path: Path) -> None:
    taken, why = await choose("auto", tmp_path, OWNER)
    assert isinstance(taken, DockerHost)
    assert "answers" in why
    again, why = await choose("auto", tmp_path, OWNER, engine_url=f"unix://{tmp_path}/none.sock")
    assert isinstance(again, DockerHost)
    assert "as until now" in why
    for host in (taken, again):
        await host.close()


async def test_the_name_of_a_box_may_hold_no_secret_of_another(stage: Stage) -> None:
    """The tags of `a` and `a-b` begin alike up to the random part, and the end of one must not be the other's."""
    short, long = f"t-{secrets.token_hex(2)}", ""
    long = f"{short}-b"
    one, two = await stage.started(name=short), await stage.started(name=long)
    await stage.host.remove(one.name)
    found = await stage.host.look(two.name)
    assert found
    assert found.running
