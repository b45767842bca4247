"""The only starter of programs: what they inherit, how long they run, how much they say, and that none is left behind.

Every program leads a session of its own and carries MOSS_TAG in its environment. SIGKILL to its process group misses
children that made a session of their own, as coding CLIs do with their shells, so that after it the process table is
swept for the tag. What wipes its environment *and* leaves the session escapes both: only a container holds that.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

from core.model.errors import Unavailable
from core.process_table import DEATH_S, PROC, TAG, carries, survivors, sweep, tagged

__all__ = ["Finished", "alive", "exit_code", "kill", "run", "safe_env", "start_detached", "survivors", "wait_gone"]

_AT_ONCE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Finished:
    exit_code: int
    """Negative: the signal that ended it."""
    timed_out: bool
    cut: bool
    """It said more than it may, and was killed for it."""
    seconds: float
    stdout: bytes
    stderr: bytes
    left_behind: bool = False
    """It ended by itself, and something that it had started lived on and had to be killed."""


def safe_env(*names: str, **extra: str) -> dict[str, str]:
    """What a program may know of Moss's environment: this list, the variables named by the caller, and nothing else."""
    allowed = ("PATH", "LANG", "LC_ALL", "TZ", *names)
    return {name: os.environ[name] for name in allowed if name in os.environ} | extra


async def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float,
    limit_bytes: int = 8_000_000,
    stdout_to: Path | None = None,
    stderr_to: Path | None = None,
    tag: str | None = None,
    grace_s: float = 2.0,
    heard: Callable[[bytes], None] | None = None,
) -> Finished:
    """Run a program to its end, and end with it all that it started.

    `env` is all it gets, None being `safe_env()`. `limit_bytes` counts both outputs together; the files named by
    `stdout_to` and `stderr_to` are written as the output comes and hold the same bytes as the result. `heard` is told
    what comes on standard output, as it comes.
    """
    tag = tag or f"run-{secrets.token_hex(8)}"
    began = time.monotonic()
    left_behind = False
    with contextlib.ExitStack() as files:
        said = _Output(stdin, limit_bytes, _open(stdout_to, stderr_to, files), heard)
        child = _start(argv, cwd, env, tag, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL)
        with _exit_of(child.pid, lambda: child.poll() is not None) as exited, said.listen(child):
            try:
                await asyncio.wait({exited, said.full}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                timed_out = not exited.done() and not said.full.done()
                if exited.done():  # many a program is a moment ahead of its children, and they may have the last word
                    until = time.monotonic() + min(grace_s, timeout_s)
                    await asyncio.wait({said.over}, timeout=until - time.monotonic())
                    left_behind = not said.full.done() and not await _all_gone(tag, until)
            finally:
                await _whatever_happens(_end(child, exited, tag, grace_s))
            await asyncio.wait({said.over}, timeout=1.0)
    if said.problem:
        raise Unavailable(f"The output of `{argv[0]}` cannot be kept: {said.problem.strerror}; free space on the disk.")
    code = child.returncode if child.returncode is not None else -signal.SIGKILL
    seconds = time.monotonic() - began
    return Finished(code, timed_out, said.full.done(), seconds, bytes(said.out), bytes(said.err), left_behind)


async def start_detached(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, tag: str) -> int:
    """Start a program that outlives Moss; both outputs are appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = _start(argv, cwd, env, tag, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    _detached[child.pid, tag] = child
    return child.pid


def alive(pid: int, tag: str) -> bool:
    """Whether `pid` is still the program started under this tag: numbers are reused, and a zombie is dead."""
    if child := _detached.get((pid, tag)):
        return child.poll() is None
    if PROC.is_dir():
        return carries(pid, tag)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # ours can always be signalled
        return False
    return True


def exit_code(pid: int, tag: str) -> int | None:
    """How a detached program ended; None while it runs, and for one that another Moss started."""
    child = _detached.get((pid, tag))
    return child.poll() if child else None


async def wait_gone(pid: int, tag: str, timeout_s: float) -> bool:
    with _exit_of(pid, lambda: not alive(pid, tag)) as exited:
        if alive(pid, tag):  # asked after the watch began, so that a reused number is never waited for
            await asyncio.wait({exited}, timeout=timeout_s)
    return not alive(pid, tag)


async def kill(pid: int, tag: str, grace_s: float) -> int | None:
    """SIGTERM, grace, SIGKILL, and all that carries the tag. The exit code, where this Moss started it."""
    if alive(pid, tag):
        _signal_group(pid, signal.SIGTERM)
        if not await wait_gone(pid, tag, grace_s):
            _signal_group(pid, signal.SIGKILL)
            await wait_gone(pid, tag, DEATH_S)
    await sweep(tag, looks=3)
    code = exit_code(pid, tag)
    _detached.pop((pid, tag), None)
    return code


_detached: dict[tuple[int, str], "subprocess.Popen[bytes]"] = {}
"""Children are a property of the process, so this is one too. Each is kept until killed, for its exit code."""


def _start(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    tag: str,
    *,
    stdin: int,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> "subprocess.Popen[bytes]":
    if cwd is not None and not cwd.is_dir():
        raise Unavailable(f"`{argv[0]}` cannot start in {cwd}: there is no such directory; create it first.")
    environment = {**(safe_env() if env is None else env), TAG: tag}
    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
        )
    except FileNotFoundError:
        where = "does not exist" if "/" in argv[0] else "was not found on PATH"
        raise Unavailable(f"`{argv[0]}` {where}; install it, or set its path.") from None
    except OSError as problem:
        raise Unavailable(f"`{argv[0]}` did not start: {problem.strerror}; check the file and its mode.") from None


async def _end(child: "subprocess.Popen[bytes]", exited: "asyncio.Future[None]", tag: str, grace_s: float) -> None:
    ended_alone = exited.done()
    if not ended_alone:
        _signal_group(child.pid, signal.SIGTERM)
        await asyncio.wait({exited}, timeout=grace_s)
    _signal_group(child.pid, signal.SIGKILL)  # before it is reaped, while its number cannot be anybody else's
    await asyncio.wait({exited}, timeout=DEATH_S)
    await sweep(tag, looks=1 if ended_alone else 3)
    child.poll()


async def _all_gone(tag: str, until: float) -> bool:
    while tagged(tag):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.02)
    return True


def _signal_group(pid: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, which)


@contextlib.contextmanager
def _exit_of(pid: int, ended: Callable[[], bool]) -> "Iterator[asyncio.Future[None]]":
    """A future that is done when the process has ended, reaped or not: an event where there is a pidfd."""
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[None] = loop.create_future()
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):
        watch = loop.create_task(_poll(ended, exited))
        try:
            yield exited
        finally:
            watch.cancel()
        return
    loop.add_reader(handle, _settle, exited)
    try:
        yield exited
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _poll(ended: Callable[[], bool], exited: "asyncio.Future[None]") -> None:
    while not ended():
        await asyncio.wait({exited}, timeout=0.05)
    _settle(exited)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _whatever_happens(ending: Coroutine[None, None, None]) -> None:
    """A second cancellation must not stop the killing, which is bounded anyway; it is passed on afterwards."""
    task = asyncio.ensure_future(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as again:
            cancelled = again
    task.result()
    if cancelled:
        raise cancelled


def _open(stdout_to: Path | None, stderr_to: Path | None, files: contextlib.ExitStack) -> list[FileIO | None]:
    opened: dict[Path, FileIO] = {}
    for path in filter(None, (stdout_to, stderr_to)):
        if path not in opened:
            path.parent.mkdir(parents=True, exist_ok=True)
            opened[path] = files.enter_context(path.open("wb", buffering=0))
    return [opened[path] if path else None for path in (stdout_to, stderr_to)]


class _Output:
    """What a program says, up to a limit; and what it is told. Callbacks of the event loop: nothing here waits."""

    def __init__(
        self, stdin: bytes, limit_bytes: int, files: list[FileIO | None], heard: Callable[[bytes], None] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.out, self.err = bytearray(), bytearray()
        self.full: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.problem: OSError | None = None
        self._left = limit_bytes
        self._to_tell = memoryview(stdin)
        self._files = files
        self._heard = heard
        self._open = 2

    @contextlib.contextmanager
    def listen(self, child: "subprocess.Popen[bytes]") -> Iterator[None]:
        assert child.stdout
        assert child.stderr
        loop = asyncio.get_running_loop()
        pipes = [pipe for pipe in (child.stdin, child.stdout, child.stderr) if pipe is not None]
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
        loop.add_reader(child.stdout.fileno(), self._hear, child.stdout.fileno(), self.out, self._files[0])
        loop.add_reader(child.stderr.fileno(), self._hear, child.stderr.fileno(), self.err, self._files[1])
        if child.stdin is not None:
            loop.add_writer(child.stdin.fileno(), self._tell, child.stdin)
        try:
            yield
        finally:
            for pipe in pipes:
                if not pipe.closed:
                    loop.remove_reader(pipe.fileno())
                    loop.remove_writer(pipe.fileno())
                    pipe.close()

    def _hear(self, fd: int, into: bytearray, file: FileIO | None) -> None:
        try:
            heard = os.read(fd, _AT_ONCE_BYTES)
        except BlockingIOError:
            return
        kept = heard[: self._left]
        self._left -= len(kept)
        into += kept
        if self._heard and kept and into is self.out:
            self._heard(kept)
        try:
            rest = memoryview(kept)
            while file and rest:
                rest = rest[file.write(rest) :]
        except OSError as problem:
            self.problem = problem
        if not heard:
            asyncio.get_running_loop().remove_reader(fd)
            self._open -= 1
        if len(kept) < len(heard) or self.problem:
            asyncio.get_running_loop().remove_reader(fd)
            _settle(self.full)
        if self._open == 0 or self.full.done():
            _settle(self.over)

    def _tell(self, pipe: IO[bytes]) -> None:
        try:
            told = os.write(pipe.fileno(), self._to_tell[:_AT_ONCE_BYTES])
        except BlockingIOError:
            return
        except OSError:  # it does not read to the end, which is its right
            told = len(self._to_tell)
        self._to_tell = self._to_tell[told:]
        if not self._to_tell:
            asyncio.get_running_loop().remove_writer(pipe.fileno())
            pipe.close()
