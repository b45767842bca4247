"""What every host promises: the same tests on Docker and on plain processes."""

import asyncio
import os
import secrets
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from core.containers.host import Volume, label
from core.model.errors import AgentFailed, BadInput, BuildFailed, NotFound, Refused
from tests.support.containers import (
    EITHER,
    SERVE,
    Stage,
    a_host,
    about,
    context,
    docker_image,
    docker_stage,
    knocking,
    process_stage,
    python,
    recipe,
    until_log,
    unused_tcp_port,
)

__all__ = ["docker_image", "docker_stage", "process_stage", "unused_tcp_port"]


@pytest.fixture(params=EITHER)
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.getfixturevalue(request.param)
    return made


# Images


async def test_the_same_files_and_labels_give_the_same_digest(stage: Stage, tmp_path: Path) -> None:
    first = await stage.host.build(recipe(context(tmp_path / "one")))
    second = await stage.host.build(recipe(context(tmp_path / "two")))
    assert first == second == stage.image
    assert first.startswith("sha256:")


async def test_one_changed_file_gives_another_digest_that_is_built_and_runs(stage: Stage, tmp_path: Path) -> None:
    changed = await stage.host.build(recipe(context(tmp_path / "changed", **{"words.txt": "new"})))
    assert changed != stage.image
    assert await stage.ended(python("print(open('words.txt').read())"), image=changed) == "new\n"


async def test_an_image_is_found_by_its_labels_until_it_is_removed(stage: Stage, tmp_path: Path) -> None:
    image = await stage.host.build(recipe(context(tmp_path / "it"), labels={label.RUN: "run-7", label.TREE: "t7"}))
    assert await stage.host.images({label.RUN: "run-7"}) == [image]
    assert (await stage.host.image_labels(image))[label.TREE] == "t7"
    await stage.host.remove_image(image)
    await stage.host.remove_image(image)
    assert not await stage.host.has_image(image)
    assert await stage.host.images({label.RUN: "run-7"}) == []
    with pytest.raises(NotFound):
        await stage.host.image_labels(image)


async def test_an_image_is_not_removed_under_a_box(stage: Stage) -> None:
    await stage.host.create(stage.spec())
    with pytest.raises(Refused):
        await stage.host.remove_image(stage.image)
    assert await stage.host.has_image(stage.image)


async def test_a_failed_build_says_its_last_lines_and_logs_all(stage: Stage, tmp_path: Path) -> None:
    failing = "print('first line'); print('the compiler is unhappy'); raise SystemExit(3)"
    source = context(tmp_path / "bad", Dockerfile=f'FROM python:3.11-slim-bookworm\nRUN python3 -c "{failing}"\n')
    order = recipe(source, command=python(failing))
    with pytest.raises(BuildFailed, match="the compiler is unhappy"):
        await stage.host.build(order)
    assert "first line" in order.log.read_text()


async def test_a_build_that_takes_too_long_is_ended_with_all_it_started(stage: Stage, tmp_path: Path) -> None:
    mark, endless = _endless()
    source = context(tmp_path / "long", Dockerfile=f"FROM python:3.11-slim-bookworm\nRUN {endless}\n")
    limit_s = _enough_to_begin(stage)
    order = recipe(source, command=("sh", "-c", endless), timeout_s=limit_s)
    with pytest.raises(BuildFailed, match=f"within {limit_s} s"):
        await stage.host.build(order)
    assert "begun" in order.log.read_text()
    await until_nobody_runs(mark)


async def test_a_build_context_cannot_lead_out_of_the_repository(stage: Stage, tmp_path: Path) -> None:
    source = context(tmp_path / "sly")
    (source / "sub").symlink_to("/etc")
    with pytest.raises(BuildFailed, match=r"leads out|no directory"):
        await stage.host.build(recipe(source, context="sub"))


# The life of a box


async def test_a_box_is_created_started_stopped_started_again_and_removed(stage: Stage) -> None:
    spec = stage.spec(SERVE)
    await stage.host.create(spec)
    created = await stage.host.look(spec.name)
    assert created
    assert (created.running, created.exit_code, created.image) == (False, None, stage.image)

    await stage.host.start(spec.name)
    async with knocking(stage.host, spec.name) as client:
        assert (await client.post("/", content=b"hello")).text == "HELLO"
    running = await stage.host.look(spec.name)
    assert running
    assert (running.running, running.exit_code) == (True, None)
    assert running.labels[label.RUN] == "run-1"

    await stage.host.stop(spec.name, grace_s=5)
    await stage.host.stop(spec.name, grace_s=5)
    stopped = await stage.host.look(spec.name)
    assert stopped
    assert (stopped.running, stopped.exit_code) == (False, 143)

    await stage.host.start(spec.name)
    await stage.host.start(spec.name)
    async with knocking(stage.host, spec.name) as client:
        assert (await client.post("/", content=b"again")).text == "AGAIN"

    await stage.host.remove(spec.name)
    await stage.host.remove(spec.name)
    assert await stage.host.look(spec.name) is None
    assert await stage.host.boxes({}) == []


async def test_what_does_not_exist_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.host.start("t-nobody")
    with pytest.raises(NotFound):
        await stage.host.stop("t-nobody", 1)
    with pytest.raises(NotFound):
        await stage.host.create(stage.spec(image=f"sha256:{'0' * 64}"))
    assert await stage.host.read("t-nobody", "agent.py") is None
    assert await stage.host.portrait("t-nobody") is None


async def test_a_name_that_could_be_a_path_is_refused(stage: Stage) -> None:
    with pytest.raises(BadInput):
        await stage.host.create(replace(stage.spec(), name="../agent"))


async def test_a_second_box_of_our_name_replaces_the_first(stage: Stage) -> None:
    first = await stage.started(python("import time; print('one', flush=True); time.sleep(300)"))
    second = stage.spec(python("print('two')"), name=first.name)
    await stage.host.create(second)
    await stage.host.start(second.name)
    assert await stage.host.wait(second.name, 20) == 0
    assert await stage.host.logs(second.name) == "two\n"


async def test_a_box_of_somebody_else_is_neither_listed_nor_replaced(stage: Stage) -> None:
    spec = await stage.started()
    other = a_host(stage.host.name, stage.data, "another-moss")
    assert await other.boxes({}) == []
    assert await other.images({}) == []
    with pytest.raises(Refused, match=spec.name):
        await other.create(spec)
    still = await stage.host.look(spec.name)
    assert still
    assert still.running
    await other.close()


async def test_boxes_are_listed_by_their_labels(stage: Stage) -> None:
    one = stage.spec(labels={label.RUN: "run-1", label.STEP: "3"})
    two = stage.spec(labels={label.RUN: "run-1", label.STEP: "4"})
    for spec in (one, two):
        await stage.host.create(spec)
    assert {box.name for box in await stage.host.boxes({label.RUN: "run-1"})} == {one.name, two.name}
    assert [box.name for box in await stage.host.boxes({label.RUN: "run-1", label.STEP: "4"})] == [two.name]
    assert await stage.host.boxes({label.RUN: "run-2"}) == []


async def test_a_new_moss_finds_the_box_as_it_was(stage: Stage) -> None:
    spec = await stage.started(SERVE)
    async with knocking(stage.host, spec.name) as client:
        pid = (await about(client))["pid"]

    again = stage.again()
    [found] = await again.boxes({label.RUN: "run-1"})
    assert (found.name, found.running) == (spec.name, True)
    async with knocking(again, spec.name) as client:
        assert (await about(client))["pid"] == pid
    assert "the agent listens" in await again.logs(spec.name)
    await again.stop(spec.name, 5)
    assert await again.wait(spec.name, 5) == 143
    await again.close()


async def test_an_agent_that_does_not_hear_is_killed_after_the_grace(stage: Stage) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
    spec = await stage.started(python(deaf))
    await until_log(stage.host, spec.name, "deaf")
    began = time.monotonic()
    await stage.host.stop(spec.name, grace_s=1)
    assert 0.9 < time.monotonic() - began < 30
    found = await stage.host.look(spec.name)
    assert found
    assert (found.running, found.exit_code) == (False, 137)


async def test_a_box_that_ends_by_itself_is_waited_for_and_tells_its_exit_code(stage: Stage) -> None:
    code = "import os, time\nwhile not os.path.exists('{state}/end'): time.sleep(0.02)\nraise SystemExit(7)"
    spec = await stage.started(python(code))
    assert await stage.host.wait(spec.name, timeout_s=0.05) is None
    await stage.host.run(spec.name, python("open('{state}/end', 'w')"), timeout_s=20)
    assert await stage.host.wait(spec.name, timeout_s=60) == 7
    assert await stage.host.wait(spec.name, timeout_s=60) == 7
    found = await stage.again().look(spec.name)
    assert found
    assert (found.running, found.exit_code) == (False, 7)


async def test_waiting_for_a_box_that_was_never_started_is_an_error(stage: Stage) -> None:
    spec = stage.spec()
    await stage.host.create(spec)
    with pytest.raises(AgentFailed, match="never started"):
        await stage.host.wait(spec.name, 1)


async def test_a_cancelled_wait_ends_at_once(stage: Stage) -> None:
    spec = await stage.started()
    began = time.monotonic()
    waiting = asyncio.create_task(stage.host.wait(spec.name, timeout_s=60))
    await asyncio.sleep(0.2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.monotonic() - began < 30


# Inside


async def test_an_agent_is_told_its_port_state_and_settings_and_nothing_of_moss(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_SLACK_TOKEN", "xoxb-secret")
    spec = await stage.started((*SERVE, "{port}", "{state}"), env={"MODEL": "small", "MOSS_BOOT_ID": "boot-1"})
    async with knocking(stage.host, spec.name) as client:
        env = (await about(client))["env"]
    assert (env["MODEL"], env["MOSS_BOOT_ID"]) == ("small", "boot-1")
    assert int(env["PORT"]) > 1023
    assert env["MOSS_STATE_DIR"].startswith("/")
    assert "MOSS_SLACK_TOKEN" not in env
    told = (await stage.host.run(spec.name, ("echo", "{port} {state}"), timeout_s=10)).text
    assert told == f"{env['PORT']} {env['MOSS_STATE_DIR']}\n"


async def test_trials_share_no_state(stage: Stage) -> None:
    for _ in range(2):
        spec = await stage.started(SERVE)
        async with knocking(stage.host, spec.name) as client:
            assert (await about(client))["state"] == []
            await client.post("/", content=b"remember me")
            assert (await about(client))["state"] == ["notes"]


async def test_two_agents_run_side_by_side_behind_their_own_doors(stage: Stage) -> None:
    specs = [await stage.started(SERVE, env={"WHO": str(number)}) for number in range(2)]
    for number, spec in enumerate(specs):
        async with knocking(stage.host, spec.name) as client:
            assert (await about(client))["env"]["WHO"] == str(number)


async def test_nobody_talks_to_a_box_that_stands_still(stage: Stage) -> None:
    spec = stage.spec(SERVE)
    await stage.host.create(spec)
    with pytest.raises(AgentFailed, match="not running"):
        async with stage.host.door(spec.name):
            pass
    with pytest.raises(AgentFailed, match="not running"):
        await stage.host.run(spec.name, ("echo",), timeout_s=5)


async def test_a_door_where_nobody_listens_is_a_transport_error(stage: Stage) -> None:
    spec = await stage.started()
    async with stage.host.door(spec.name) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/")


async def test_files_laid_over_a_box_are_there_and_its_image_stays_as_it_is(stage: Stage, tmp_path: Path) -> None:
    laid = tmp_path / "laid"
    (laid / "tests").mkdir(parents=True)
    (laid / "tests" / "test_it.py").write_text("print('from the base commit')")
    (laid / "agent.py").write_text("print('covered')")
    command = python("exec(open('tests/test_it.py').read()); exec(open('agent.py').read())")
    spec = stage.spec(command)
    await stage.host.create(spec)
    await stage.host.put(spec.name, laid)
    await stage.host.start(spec.name)
    assert await stage.host.wait(spec.name, 20) == 0
    assert await stage.host.logs(spec.name) == "from the base commit\ncovered\n"
    found = await stage.host.look(spec.name)
    assert found
    assert found.image == stage.image
    await stage.host.remove(spec.name)

    assert await stage.ended(python("import os; print(os.path.exists('tests'))")) == "False\n"
    assert await stage.host.images({}) == [stage.image]


async def test_the_end_of_a_long_log_is_read(stage: Stage) -> None:
    spec = await stage.started(python("[print('line', n) for n in range(50_000)]"))
    await stage.host.wait(spec.name, 20)
    said = await stage.host.logs(spec.name, limit_bytes=1000)
    assert len(said) <= 1000
    assert said.endswith("line 49999\n")


async def test_a_program_that_does_not_exist_ends_the_box(stage: Stage) -> None:
    spec = stage.spec(("no-such-program",))
    await stage.host.create(spec)
    try:
        await stage.host.start(spec.name)
    except AgentFailed as failed:
        assert "no-such-program" in failed.sentence  # noqa: PT017 - an engine says it at the start, a process at its end
    else:
        assert await stage.host.wait(spec.name, 20) == 127
        assert "no-such-program" in await stage.host.logs(spec.name)


async def test_what_a_box_leaves_in_the_background_ends_with_it(stage: Stage) -> None:
    mark = secrets.token_hex(8)
    flee = f"import os, time; os.fork() or ({{flee}}, '{mark}', time.sleep(300)); print('done', flush=True)"
    for means in ("0", "os.setsid()"):
        await stage.ended(python(flee.format(flee=means)))
        await until_nobody_runs(mark)


# Commands


async def test_a_command_gets_its_input_and_gives_its_output_and_exit_code(stage: Stage) -> None:
    spec = await stage.started()
    code = "import sys; said = sys.stdin.read(); print(said[::-1]); print('oops', file=sys.stderr); sys.exit(5)"
    answer = await stage.host.run(spec.name, python(code), stdin="olleh", timeout_s=20)
    assert (answer.exit_code, answer.timed_out, answer.cut) == (5, False, False)
    assert set(answer.text.splitlines()) == {"hello", "oops"}
    where = await stage.host.run(spec.name, python("import os; print(os.listdir('.'))"), timeout_s=20)
    assert "agent.py" in where.text


async def test_a_lot_of_input_passes_a_command_that_says_a_lot_meanwhile(stage: Stage) -> None:
    spec = await stage.started()
    echo = "import sys; [sys.stdout.write(line) for line in sys.stdin]"
    said = "".join(f"{number:063}\n" for number in range(40_000))
    answer = await stage.host.run(spec.name, python(echo), stdin=said, timeout_s=30, limit_bytes=4_000_000)
    assert answer.text == said


async def test_a_command_that_does_not_exist_is_127(stage: Stage) -> None:
    spec = await stage.started()
    answer = await stage.host.run(spec.name, ("no-such-program",), timeout_s=20)
    assert answer.exit_code == 127
    assert "no-such-program" in answer.text


async def test_a_command_is_ended_after_its_time_and_its_words_are_kept(stage: Stage) -> None:
    spec = await stage.started()
    mark, endless = _endless()
    answer = await stage.host.run(spec.name, ("sh", "-c", endless), timeout_s=_enough_to_begin(stage))
    assert answer.timed_out
    assert answer.exit_code != 0
    assert answer.text == "begun\n"
    await until_nobody_runs(mark)


async def test_a_cancelled_command_is_ended(stage: Stage) -> None:
    spec = await stage.started()
    mark = secrets.token_hex(8)
    code = f"import time; open('{{state}}/begun', 'w').close(); '{mark}'; time.sleep(300)"
    running = asyncio.create_task(stage.host.run(spec.name, python(code), timeout_s=60))
    async with asyncio.timeout(15):
        while await stage.host.read(spec.name, "{state}/begun") is None:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_nobody_runs(mark)


async def test_a_talkative_command_is_cut_but_keeps_its_exit_code(stage: Stage) -> None:
    spec = await stage.started()
    answer = await stage.host.run(spec.name, python("print('x' * 3_000_000)"), timeout_s=30, limit_bytes=1000)
    assert (answer.exit_code, answer.cut, answer.text) == (0, True, "x" * 1000)


async def test_an_endless_flood_is_stopped_long_before_its_time(stage: Stage) -> None:
    spec = await stage.started()
    mark = secrets.token_hex(8)
    began = time.monotonic()
    flood = python(f"'{mark}'\nwhile True: print('y' * 60_000)")
    answer = await stage.host.run(spec.name, flood, timeout_s=60, limit_bytes=1000)
    assert answer.cut
    assert not answer.timed_out
    assert answer.exit_code != 0
    assert time.monotonic() - began < 30
    await until_nobody_runs(mark)


# Files


async def test_files_are_read_from_where_the_agent_works_and_from_its_state(stage: Stage) -> None:
    code = """
import os, time
state = os.environ['MOSS_STATE_DIR']
open(state + '/beat.json', 'w').write('{"beat": 1}')
os.symlink('beat.json', state + '/link')
os.symlink('nowhere', state + '/broken')
os.symlink('ring', state + '/ring')
os.mkfifo(state + '/pipe')
print('ready', flush=True)
time.sleep(300)
"""
    spec = await stage.started(python(code))
    await until_log(stage.host, spec.name, "ready")

    async def read(path: str, limit_bytes: int = 65_536) -> bytes | None:
        return await stage.host.read(spec.name, path, limit_bytes)

    assert await read("{state}/beat.json") == await read("/state/beat.json") == b'{"beat": 1}'
    assert await read("/state/link") == b'{"beat": 1}'
    assert await read("/state/beat.json", 4) == b'{"be'
    assert (await read("Dockerfile") or b"").startswith(b"FROM ")
    for nothing in ("/state/none", "/state/broken", "/state/ring", "/state/pipe", "/state", "none/none"):
        assert await read(nothing) is None, nothing


# The live box


async def test_a_live_agent_keeps_its_volume_from_box_to_box(stage: Stage, tmp_path: Path) -> None:
    volume = Volume(str(tmp_path / "memory"), "/memory")
    (tmp_path / "memory").mkdir()
    for already in ([], ["notes"]):
        spec = await stage.started(SERVE, isolated=False, volume=volume, state_path="/memory")
        async with knocking(stage.host, spec.name) as client:
            assert (await about(client))["state"] == already
            await client.post("/", content=b"remember me")
        assert await stage.host.read(spec.name, "/memory/notes") is not None
        assert await stage.host.writers(volume.name) == [spec.name]
        await stage.host.stop(spec.name, 5)
        assert await stage.host.writers(volume.name) == []
        await stage.host.remove(spec.name)
    assert (tmp_path / "memory" / "notes").read_bytes() == b"remember meremember me"


async def test_a_live_agent_is_reached_at_its_published_port(stage: Stage, unused_tcp_port: int) -> None:
    spec = await stage.started(SERVE, isolated=False, publish=unused_tcp_port)
    async with knocking(stage.host, spec.name) as client:
        assert client.base_url == f"http://127.0.0.1:{unused_tcp_port}"
    async with httpx.AsyncClient(trust_env=False, verify=False) as outside:
        assert (await outside.post(f"http://127.0.0.1:{unused_tcp_port}/", content=b"hi")).text == "HI"


async def test_a_portrait_of_a_live_box_says_what_it_was_made_with(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    volume = Volume(str(tmp_path / "memory"), "/state")
    env = {"MODEL": "small"}
    spec = stage.spec(SERVE, isolated=False, volume=volume, env=env, labels={label.PURPOSE: "live"})
    await stage.host.create(spec)
    await stage.host.set_restart(spec.name, "unless-stopped")
    await stage.host.set_restart("t-nobody", "unless-stopped")
    portrait = await stage.host.portrait(spec.name)
    assert portrait
    assert (portrait.name, portrait.image, portrait.command) == (spec.name, stage.image, SERVE)
    assert (portrait.env, portrait.volumes, portrait.user, portrait.beyond) == (env, (volume,), None, ())
    assert "small" not in repr(portrait)


def _endless() -> tuple[str, str]:
    """A mark by which `until_nobody_runs` knows it, and what to type in a shell."""
    mark = f"300.{secrets.randbelow(10**12):012}"
    return mark, f"echo begun; sleep {mark}"


def _enough_to_begin(stage: Stage) -> int:
    """Seconds within which a shell says its first word, on a busy machine too."""
    return 5 if stage.host.name == "docker" else 1


async def until_nobody_runs(mark: str) -> None:
    """Containers' processes are seen in this machine's process table too."""

    def somebody() -> bool:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in command and int(pid) != os.getpid():
                return True
        return False

    async with asyncio.timeout(15):
        while somebody():  # noqa: ASYNC110 - nor has a process of somebody else's
            await asyncio.sleep(0.05)
