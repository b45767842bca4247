"""The `moss` command for tests that type it often: each call is a fork of one Python that has imported Moss already,
since importing it takes longer than most verbs.

As a program it answers each line on standard input: a call with its exit code; a `moss run`, which stays, with its
process id. A keeper waits for that one and writes down how it ended.
"""

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def call(words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> tuple[int, str, str]:
    """`moss WORDS...` in that directory, with that environment and no standard input: exit code, output, errors."""
    with tempfile.TemporaryDirectory(prefix="moss-said-") as directory:
        files = [Path(directory, name) for name in ("out", "err")]
        order = {"words": list(words), "cwd": str(cwd), "env": dict(env), "files": [str(file) for file in files]}
        code = _answer_to(order, timeout_s)
        out, err = (file.read_text() for file in files)
        return code, out, err


class Run:
    """A `moss run`, as if it were a child of this process."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        self._ended = Path(tempfile.mkdtemp(prefix="moss-run-"), "ended")
        order = {"words": list(words), "cwd": str(cwd), "env": dict(env), "files": [str(log)] * 2}
        self.pid = _answer_to(order | {"ended": str(self._ended)}, 60)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._ended.exists():
            self.returncode = int(self._ended.read_text())
            shutil.rmtree(self._ended.parent)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 600)
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("moss run", timeout or 600)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _answer_to(order: Mapping[str, object], timeout_s: float) -> int:
    parent = _parent()
    assert parent.stdin
    assert parent.stdout
    parent.stdin.write(json.dumps(order) + "\n")
    parent.stdin.flush()
    if not select.select([parent.stdout], [], [], timeout_s)[0]:
        _parent.cache_clear()
        os.killpg(parent.pid, signal.SIGKILL)
        raise TimeoutError(f"moss {order['words']} did not end within {timeout_s:g} s")
    return int(parent.stdout.readline())


@cache
def _parent() -> "subprocess.Popen[str]":
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    parent = subprocess.Popen(
        [sys.executable, __file__],
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(parent.communicate)  # closes its input, with which it ends
    return parent


def _answer() -> None:
    import bot.cli  # noqa: F401, PLC0415 (for the program only)

    for line in sys.stdin:
        order = json.loads(line)
        if "ended" in order:
            print(_kept(order), flush=True)
        else:
            print(_end_of(_begin(order)), flush=True)


def _begin(order: dict[str, Any]) -> int:
    """One call as a child of this process."""
    if child := os.fork():
        return child
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number, path in enumerate((os.devnull, *order["files"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), number)
    code = 0
    try:
        sys.modules["bot.cli"].main(order["words"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kept(order: dict[str, Any]) -> int:
    """The process id of what stays, once its keeper has begun it."""
    import bot.first_start  # noqa: PLC0415
    import bot.wiring  # noqa: F401, PLC0415

    hears, tells = os.pipe()
    if os.fork() == 0:
        # In a session of its own, and it holds nothing for whose end somebody waits.
        os.setsid()
        for number in (0, 1):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        child = _begin(order)
        os.write(tells, str(child).encode())
        code = _end_of(child)
        new = Path(order["ended"] + ".new")
        with contextlib.suppress(OSError):  # the test is over, and nobody asks any more
            new.write_text(str(code))
            new.rename(order["ended"])
        os._exit(0)
    os.close(tells)
    pid = os.read(hears, 32)
    os.close(hears)
    return int(pid)


def _end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _answer()
