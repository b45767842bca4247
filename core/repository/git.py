"""Running git so that it runs nothing else: no hooks, no helpers, nobody's settings, an environment from an allow list.

The only module that imports GitPython. It gives a program all of its parent's environment, which for Moss holds keys;
`env -i` in front takes that away again.
"""

import asyncio
import contextlib
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.folders import to_its_end
from core.model.errors import MossError, Unavailable
from core.process import safe_env
from core.redact import Redactor

LOCAL_S = 120.0
NETWORK_S = 900.0
OLDEST = (2, 32)
"""From here on it lets GIT_CONFIG_GLOBAL take a person's own settings away."""

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.symlinks": "true",
    "core.fileMode": "true",
    "core.autocrlf": "false",
    "core.quotePath": "false",
    "credential.helper": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "commit.gpgSign": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "base",
}

_NAMES = ("HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_ASKPASS", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")

_NO_GIT = "`git` was not found on PATH; install git and start Moss again."

_STALE_LOCK_S = 10.0
"""Git holds its locks for milliseconds. One as old as this was left by a git that was killed."""
_LOCKS = 3
"""As many locks one command may find in its way."""
_LOCK = re.compile(r"Unable to create '(?P<path>[^'\n]+\.lock)': File exists")

RAW = "* !text !eol !crlf !ident !filter !working-tree-encoding !diff !merge !export-ignore !export-subst\n"
"""For `info/attributes`, which wins over every .gitattributes: files are bytes, converted by nothing."""


@dataclass(frozen=True, slots=True)
class Said:
    exit_code: int
    out: bytes
    error: str
    """Without passwords."""

    @property
    def text(self) -> str:
        return self.out.decode(errors="backslashreplace").strip()


async def ask(
    git_dir: Path,
    *words: str,
    work_tree: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout_s: float = LOCAL_S,
) -> Said:
    """Run git in a repository of our own. A bad exit code is an answer; git missing or too slow is Unavailable."""
    where = [f"--git-dir={git_dir}", *([f"--work-tree={work_tree}"] if work_tree else [])]
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    argv = ["env", "-i", *_environment(env or {}), "git", *settings, *where, *words]
    start = to_its_end if work_tree else asyncio.to_thread
    said = await start(_run, argv, git_dir, stdin, timeout_s)
    for _ in range(_LOCKS):
        if not (lock := _left_lock(said, git_dir)):
            break
        await _break_lock(lock)
        said = await start(_run, argv, git_dir, stdin, timeout_s)
    return said


async def must(
    git_dir: Path,
    *words: str,
    work_tree: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Said:
    """As `ask`, where a bad exit code means that something is broken rather than that somebody asked for too much."""
    said = await ask(git_dir, *words, work_tree=work_tree, stdin=stdin, env=env)
    if said.exit_code != 0:
        raise failure(f"Git could not {words[0]}", said)
    return said


def failure(what: str, said: Said, kind: type[MossError] = Unavailable, mend: str = "") -> MossError:
    return kind(f"{what}: {first_line(said.error) or f'exit code {said.exit_code}'}{f'; {mend}' if mend else ''}.")


def first_line(error: str) -> str:
    """The line of git's complaint that says most, without its prefix and full stop."""
    lines = [line.strip() for line in error.splitlines() if line.strip() and not line.startswith(("hint:", "To "))]
    said = next((line for line in lines if line.startswith(("fatal:", "error:", "!"))), lines[0] if lines else "")
    return said.removeprefix("fatal:").removeprefix("error:").removeprefix("!").strip().rstrip(".")


async def ping() -> str:
    """`git 2.39.5`. Raises Unavailable when there is none, or one too old."""
    said = await must(Path("/"), "version")
    found = re.search(r"(\d+)\.(\d+)\S*", said.text)
    if not found or (int(found[1]), int(found[2])) < OLDEST:
        raise Unavailable(f"Found {said.text}, which is too old; install git {OLDEST[0]}.{OLDEST[1]} or newer.")
    return f"git {found[0]}"


def _environment(extra: Mapping[str, str]) -> list[str]:
    env = {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        **safe_env(*_NAMES, *_PROXIES),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:https:http:ssh:git",
        **extra,
    }
    return [f"{name}={value}" for name, value in env.items()]


def _run(argv: list[str], git_dir: Path, stdin: bytes, timeout_s: float) -> Said:
    try:
        # Here, since to import it is to run `git version`: without git, Moss must still start.
        from git import Git  # noqa: PLC0415
    except ImportError:
        raise Unavailable(_NO_GIT) from None
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        code, out, error = Git(git_dir).execute(
            argv,
            istream=file,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            kill_after_timeout=timeout_s,
        )
    if code == 127:
        raise Unavailable(_NO_GIT)
    if error.startswith("Timeout:"):
        raise Unavailable(f"Git did not answer within {timeout_s:.0f} s and was stopped; try again later.")
    assert isinstance(out, bytes)
    return Said(code, out, Redactor().text(error))


def _left_lock(said: Said, git_dir: Path) -> Path | None:
    """A lock in our own repository that stood in the way; one in somebody else's is not ours to break."""
    found = _LOCK.search(said.error) if said.exit_code else None
    path = Path(found["path"]) if found else None
    return path if path and path.is_relative_to(git_dir) else None


async def _break_lock(lock: Path) -> None:
    """Wait until the lock is gone; remove it when it is the same one all the while."""
    with contextlib.suppress(FileNotFoundError):
        stood, until = lock.stat(), time.monotonic() + _STALE_LOCK_S
        while time.monotonic() < until:
            now = lock.stat()
            if (now.st_ino, now.st_mtime_ns) != (stood.st_ino, stood.st_mtime_ns):
                return
            await asyncio.sleep(0.1)
        lock.unlink()
