"""Nothing that Moss starts inherits its secrets, outlives its limits, or is left behind."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core import process, process_table
from core.model.errors import Unavailable

UNRULY = (sys.executable, "-I", "-S", str(Path(__file__).parent / "support" / "unruly.py"))


@pytest.fixture
async def tag() -> AsyncIterator[str]:
    """Also the assertion of this file: after every test nothing with its tag is alive, and no child is a zombie."""
    tag = f"test-{os.urandom(4).hex()}"
    before = zombies()  # a browser that other tests of this process started may have some
    yield tag
    left = process.survivors(tag)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    assert zombies() <= before


def zombies() -> set[int]:
    """Children of this process that ended, and that nobody asked how."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone while we looked
            pid, _, rest = stat.read_text().partition(" (")
            state, parent, *_ = rest.rpartition(") ")[2].split()
            if state == "Z" and int(parent) == os.getpid():
                found.add(int(pid))
    return found


async def appears(condition: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (another process tells no event)
            await asyncio.sleep(0.01)


async def test_a_program_gets_the_given_environment_and_its_tag_and_nothing_else(tag: str) -> None:
    done = await process.run(["/usr/bin/env"], env={"A": "1"}, timeout_s=5, tag=tag)
    assert sorted(done.stdout.decode().split()) == ["A=1", f"MOSS_TAG={tag}"]


async def test_without_an_environment_only_the_allow_list_is_inherited(
    tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    done = await process.run(["env"], timeout_s=5, tag=tag)
    names = {line.split("=")[0] for line in done.stdout.decode().splitlines()}
    assert {"PATH", "LANG"} <= names <= {"PATH", "LANG", "LC_ALL", "TZ", "MOSS_TAG"}


def test_safe_env_adds_the_named_variables_and_skips_the_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("UNWANTED", "no")
    env = process.safe_env("WANTED", "ABSENT", HOME="/fresh")
    assert env["WANTED"] == "yes"
    assert env["HOME"] == "/fresh"
    assert not {"UNWANTED", "ABSENT"} & env.keys()


async def test_exit_code_outputs_and_working_directory_are_told(tag: str, tmp_path: Path) -> None:
    done = await process.run(["sh", "-c", "pwd; echo oops >&2; exit 3"], cwd=tmp_path, timeout_s=5, tag=tag)
    assert (done.exit_code, done.stdout, done.stderr) == (3, f"{tmp_path}\n".encode(), b"oops\n")
    assert not done.timed_out
    assert not done.cut


async def test_standard_input_arrives_whole_and_is_closed(tag: str) -> None:
    text = os.urandom(1_000_000)
    done = await process.run(["cat"], stdin=text, timeout_s=10, tag=tag)
    assert done.stdout == text
    silent = await process.run(["cat"], timeout_s=5, tag=tag)
    assert (silent.exit_code, silent.stdout) == (0, b"")


async def test_a_program_that_never_reads_its_input_does_not_block(tag: str) -> None:
    text = b"x" * 1_000_000
    assert (await process.run(["true"], stdin=text, timeout_s=5, tag=tag)).exit_code == 0
    closes = await process.run(["sh", "-c", "exec 0<&-; sleep 0.1"], stdin=text, timeout_s=5, tag=tag)
    assert closes.exit_code == 0
    sleeps = await process.run(["sleep", "300"], stdin=text, timeout_s=0.2, tag=tag)
    assert sleeps.timed_out


async def test_a_flood_is_cut_at_the_limit_and_its_program_killed(tag: str, tmp_path: Path) -> None:
    out, err = tmp_path / "logs" / "out", tmp_path / "logs" / "err"
    flood = ["sh", "-c", "yes & yes >&2"]
    done = await process.run(flood, limit_bytes=100_000, stdout_to=out, stderr_to=err, timeout_s=20, tag=tag)
    assert done.cut
    assert not done.timed_out
    assert done.seconds < 5
    assert len(done.stdout) + len(done.stderr) == 100_000
    assert out.read_bytes() == done.stdout
    assert err.read_bytes() == done.stderr


async def test_both_outputs_may_go_to_one_file(tag: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    await process.run(
        ["sh", "-c", "echo a; sleep 0.1; echo b >&2; sleep 0.1; echo c"],
        stdout_to=log,
        stderr_to=log,
        timeout_s=5,
        tag=tag,
    )
    assert log.read_text() == "a\nb\nc\n"


async def test_output_that_cannot_be_kept_is_said_and_not_lost_in_silence(tag: str) -> None:
    with pytest.raises(Unavailable, match="cannot be kept"):
        await process.run(["sh", "-c", "echo a; sleep 300"], stdout_to=Path("/dev/full"), timeout_s=5, tag=tag)


async def test_a_hanging_program_is_asked_then_killed(tag: str) -> None:
    asked = await process.run(["sleep", "300"], timeout_s=0.1, grace_s=5, tag=tag)
    assert (asked.timed_out, asked.exit_code) == (True, -signal.SIGTERM)
    assert asked.seconds < 4, "the grace was not waited for"
    killed = await process.run([*UNRULY, "deaf"], timeout_s=1, grace_s=0.2, tag=tag)
    assert (killed.timed_out, killed.exit_code, killed.stdout) == (True, -signal.SIGKILL, b"ready\n")


async def test_a_grandchild_in_its_own_session_dies_too(tag: str) -> None:
    done = await process.run([*UNRULY, "family"], timeout_s=1, grace_s=0.1, tag=tag)
    assert (done.timed_out, done.stdout) == (True, b"ready\n")
    assert process.survivors(tag) == []


async def test_a_grandchild_that_flees_from_process_to_process_is_caught(tag: str) -> None:
    done = await process.run([*UNRULY, "respawn"], timeout_s=0.5, grace_s=0.1, tag=tag)
    assert (done.timed_out, done.stdout) == (True, b"ready\n")
    await asyncio.sleep(1)  # by now one that was missed would have stopped fleeing, and be seen
    assert process.survivors(tag) == []


async def test_what_a_program_leaves_behind_when_it_ends_well_dies_too(tag: str) -> None:
    done = await process.run([*UNRULY, "leave-one-behind"], timeout_s=20, grace_s=0.3, tag=tag)
    assert (done.exit_code, done.stdout, done.timed_out, done.left_behind) == (0, b"done\n", False, True)
    assert done.seconds < 15
    assert process.survivors(tag) == []


async def test_the_last_words_of_a_background_child_are_still_heard(tag: str) -> None:
    done = await process.run([*UNRULY, "late-word"], timeout_s=5, tag=tag)
    assert (done.exit_code, done.stdout, done.left_behind) == (3, b"the end of it\n", False)


async def test_cancelling_kills_the_whole_family_even_when_cancelled_twice(tag: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    argv = [*UNRULY, "deaf-family"]
    task = asyncio.create_task(process.run(argv, timeout_s=60, grace_s=0.3, tag=tag, stdout_to=said))
    await appears(lambda: said.exists() and said.read_text() == "ready\nready\n")
    task.cancel()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process.survivors(tag) == []


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["no-such-program"], "`no-such-program` was not found on PATH; install it, or set its path."),
        (["/no/such"], "`/no/such` does not exist; install it, or set its path."),
        (["/etc/passwd"], "`/etc/passwd` did not start: Permission denied; check the file and its mode."),
    ],
)
async def test_a_program_that_cannot_start_is_unavailable_in_one_sentence(argv: list[str], sentence: str) -> None:
    with pytest.raises(Unavailable) as refused:
        await process.run(argv, timeout_s=5)
    assert refused.value.sentence == sentence


async def test_a_missing_working_directory_is_not_blamed_on_the_program(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such directory"):
        await process.run(["true"], cwd=tmp_path / "gone", timeout_s=5)


async def test_many_at_once_leave_no_descriptor_open(tag: str, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    runs = (
        process.run(["cat"], stdin=b"x", stdout_to=tmp_path / str(n), timeout_s=20, tag=tag + str(n)) for n in range(20)
    )
    assert [done.exit_code for done in await asyncio.gather(*runs)] == [0] * 20
    assert len(os.listdir("/proc/self/fd")) == before


async def test_without_proc_and_pidfd_the_group_is_still_killed(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as bare:
        for module in (process, process_table):
            bare.setattr(module, "PROC", Path("/no/proc"))
        bare.delattr(os, "pidfd_open")
        assert process.survivors(tag) == []
        assert (await process.run(["echo", "hi"], timeout_s=5, tag=tag)).stdout == b"hi\n"
        done = await process.run([*UNRULY, "deaf-child"], timeout_s=1, tag=tag)
        assert (done.timed_out, done.stdout) == (True, b"ready\n")
    assert process.survivors(tag) == []


async def test_where_a_sandbox_forbids_pidfd_the_sweep_still_works(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    done = await process.run([*UNRULY, "family"], timeout_s=1, grace_s=0.1, tag=tag)
    assert (done.timed_out, done.exit_code, done.stdout) == (True, -signal.SIGTERM, b"ready\n")
    assert process.survivors(tag) == []


async def test_a_detached_program_outlives_the_moss_that_started_it(tag: str, tmp_path: Path) -> None:
    starter = (
        "import asyncio, sys; from pathlib import Path; from core import process\n"
        "here, tag = Path(sys.argv[1]), sys.argv[2]\n"
        "argv = ['sh', '-c', 'echo $GREETING; sleep 300']\n"
        "env = process.safe_env(GREETING='hello')\n"
        "print(asyncio.run(process.start_detached(argv, cwd=here, env=env, log=here / 'box' / 'log', tag=tag)))\n"
    )
    env = process.safe_env(PYTHONPATH=str(Path(__file__).parent.parent))
    argv = [sys.executable, "-c", starter, str(tmp_path), tag]
    done = await process.run(argv, env=env, timeout_s=20, tag="starter-" + tag)
    pid = int(done.stdout)
    assert process.alive(pid, tag)
    assert not process.alive(pid, tag + "-of-another"), "a reused number is not our program"
    assert not await process.wait_gone(pid, tag, 0.1)
    log = tmp_path / "box" / "log"
    await appears(lambda: log.read_text() == "hello\n")
    assert await process.kill(pid, tag, grace_s=5) is None, "another Moss started it, so its code is not ours to know"
    assert not process.alive(pid, tag)


async def test_the_log_of_a_detached_program_is_appended_and_its_exit_code_kept(tag: str, tmp_path: Path) -> None:
    for word, code in (("one", 3), ("two", 4)):
        argv = ["sh", "-c", f"echo {word}; echo {word} >&2; exit {code}"]
        pid = await process.start_detached(argv, cwd=tmp_path, env=process.safe_env(), log=tmp_path / "log", tag=tag)
        assert await process.wait_gone(pid, tag, 5)
        assert process.exit_code(pid, tag) == code
        assert await process.kill(pid, tag, grace_s=1) == code
        assert await process.kill(pid, tag, grace_s=1) is None, "killing what is gone is fine"
    assert (tmp_path / "log").read_text() == "one\none\ntwo\ntwo\n"


@pytest.mark.parametrize(("what", "code"), [("deaf", -signal.SIGKILL), ("family", -signal.SIGTERM)])
async def test_killing_a_detached_program_spares_none_of_its_family(
    tag: str, tmp_path: Path, what: str, code: int
) -> None:
    argv = [*UNRULY, what]
    log = tmp_path / "log"
    pid = await process.start_detached(argv, cwd=tmp_path, env=process.safe_env(), log=log, tag=tag)
    await appears(lambda: "ready" in log.read_text())
    assert await process.kill(pid, tag, grace_s=0.3) == code
    assert process.survivors(tag) == []


async def test_a_detached_program_that_died_alone_is_dead_even_as_a_zombie(tag: str, tmp_path: Path) -> None:
    pid = await process.start_detached(["true"], cwd=tmp_path, env=process.safe_env(), log=tmp_path / "log", tag=tag)
    await appears(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    assert not process.alive(pid, tag)
    assert await process.kill(pid, tag, grace_s=1) == 0


async def test_survivors_are_found_by_the_beginning_of_their_tag(tag: str, tmp_path: Path) -> None:
    names = [f"{tag}/run-1/plan", f"{tag}/run-1/locate", f"{tag}/run-2/plan"]
    pids = [
        await process.start_detached(["sleep", "300"], cwd=tmp_path, env={}, log=tmp_path / "log", tag=name)
        for name in names
    ]
    assert sorted(process.survivors(f"{tag}/run-1/")) == sorted(pids[:2])
    assert process.survivors("") == [], "an empty beginning would name every process of the machine"
    for pid, name in zip(pids, names, strict=True):
        await process.kill(pid, name, grace_s=1)


async def test_waiting_for_an_end_is_an_event_and_not_a_poll(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, alive = [], process.alive
    monkeypatch.setattr(process, "alive", lambda pid, tag: looks.append(pid) or alive(pid, tag))
    pid = await process.start_detached(
        ["sleep", "0.3"], cwd=tmp_path, env=process.safe_env(), log=tmp_path / "log", tag=tag
    )
    began = time.monotonic()
    assert await process.wait_gone(pid, tag, 60)
    assert time.monotonic() - began < 30
    assert looks == [pid, pid], "once before the event, and once after it"
    with contextlib.suppress(ProcessLookupError):
        await process.kill(pid, tag, 0)


async def test_that_another_process_has_ended_is_said_only_when_it_is_certain(tag: str) -> None:
    who = [sys.executable, "-c", "from core import process_table; print(process_table.identity(), end='')"]
    env = process.safe_env(PYTHONPATH=str(Path(__file__).parent.parent))
    ended = (await process.run(who, env=env, timeout_s=20, tag=tag)).stdout.decode()
    me = process_table.identity()
    boot, table, pid, birth = me.split(".")
    assert process_table.has_ended(ended)
    assert not process_table.has_ended(me)
    assert process_table.has_ended(f"{boot}.{table}.{pid}.1{birth}"), "the number was reused"
    assert not process_table.has_ended(ended.replace(boot, "another-machine"))
    assert not process_table.has_ended(ended.replace(table, "another-container"))
    assert not process_table.has_ended("nonsense")


async def test_a_stopped_process_has_not_ended_and_a_zombie_has() -> None:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    boot, table = process_table.identity().split(".")[:2]
    identity = f"{boot}.{table}.{child}.{Path(f'/proc/{child}/stat').read_text().rpartition(')')[2].split()[19]}"
    await appears(lambda: Path(f"/proc/{child}/stat").read_text().split()[2] == "T")
    assert not process_table.has_ended(identity)
    os.kill(child, signal.SIGCONT)
    await appears(lambda: process_table.has_ended(identity))
    assert os.waitpid(child, 0) == (child, 0)  # noqa: ASYNC222 (a zombie already)
