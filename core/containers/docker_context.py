"""The context of a build, packed as its `.dockerignore` says.

docker-py makes regular expressions of the patterns, which a candidate can let take for ever, and while one is matched
nothing else of its process goes on. So a process of its own does it, which can be ended.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from core import process
from core.containers.docker_plan import Json
from core.model import errors

_LIMIT_BYTES = 65_536
_PACK = """
import sys
from docker.api.build import process_dockerfile
from docker.utils.build import tar
context, dockerfile, into = sys.argv[1:]
with open(f"{context}/.dockerignore") as file:
    patterns = [line for line in map(str.strip, file.read().splitlines()) if line and line[0] != "#"]
named = process_dockerfile(dockerfile, context)
with open(into, "wb") as out:
    tar(context, exclude=patterns, dockerfile=named, fileobj=out)
print(named[0])
"""


@contextlib.asynccontextmanager
async def packed(context: Path, dockerfile: str, timeout_s: float) -> AsyncIterator[Json]:
    """What an order says of its context."""
    ignored = context / ".dockerignore"
    if not os.path.lexists(ignored):
        yield {"path": str(context), "dockerfile": dockerfile}
        return
    _check(ignored)
    with tempfile.TemporaryDirectory() as scratch:
        into = Path(scratch, "context.tar")
        argv = [sys.executable, "-P", "-X", "utf8", "-c", _PACK, str(context), dockerfile, str(into)]
        env = process.safe_env(PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        done = await process.run(argv, env=env, timeout_s=timeout_s)
        if done.timed_out:
            raise errors.BuildFailed(
                f"The files for the build were not picked within {timeout_s:.0f} s; simplify the patterns of "
                "`.dockerignore`, or raise `build.timeout_s`."
            )
        said = done.stderr.decode(errors="replace").strip()
        if "[Errno 28]" in said:
            raise errors.Unavailable("The files for the build found no space on Moss's disk; free space.")
        if done.exit_code:
            why = said.splitlines()[-1][-200:] if said else f"it ended with {done.exit_code}"
            raise errors.BuildFailed(f"The files for the build cannot be picked: {why}; correct `.dockerignore`.")
        with into.open("rb") as tar:  # noqa: ASYNC230 - the thread that builds reads it
            yield {"fileobj": tar, "custom_context": True, "dockerfile": done.stdout.decode().strip()}


def _check(ignored: Path) -> None:
    if ignored.is_symlink() or not ignored.is_file() or ignored.stat().st_size > _LIMIT_BYTES:
        raise errors.BuildFailed(
            f"`.dockerignore` is no plain file of at most {_LIMIT_BYTES // 1024} kB; make it one, or take it out."
        )
    try:
        ignored.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.BuildFailed("`.dockerignore` is not UTF-8; save it as such.") from None
