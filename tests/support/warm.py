"""The `moss` command for tests that type it often: each call is a fork of one Python that has imported Moss already,
since importing it takes longer than most verbs.

As a program it answers each line on standard input, a call, with the exit code of that call.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def call(words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> tuple[int, str, str]:
    """`moss WORDS...` in that directory, with that environment and no standard input: exit code, output, errors."""
    parent = _parent()
    assert parent.stdin
    assert parent.stdout
    with tempfile.TemporaryDirectory(prefix="moss-said-") as directory:
        files = [Path(directory, name) for name in ("out", "err")]
        order = {"words": list(words), "cwd": str(cwd), "env": dict(env), "files": [str(file) for file in files]}
        parent.stdin.write(json.dumps(order) + "\n")
        parent.stdin.flush()
        if not select.select([parent.stdout], [], [], timeout_s)[0]:
            _parent.cache_clear()
            os.killpg(parent.pid, signal.SIGKILL)
            raise TimeoutError(f"moss {' '.join(words)} did not end within {timeout_s:g} s")
        code = int(parent.stdout.readline())
        out, err = (file.read_text() for file in files)
        return code, out, err


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
    from bot.cli import main as moss  # noqa: PLC0415 (for the program only)

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(order["cwd"])
            os.environ.clear()
            os.environ.update(order["env"])
            for number, path in enumerate((os.devnull, *order["files"])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
            code = 0
            try:
                moss(order["words"])
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _answer()
