"""What runs on this machine, told by /proc: who carries a tag, and whether another Moss is dead.

Without /proc nobody carries a tag and nobody is known to be dead.
"""

import asyncio
import contextlib
import os
import platform
import secrets
import signal
import time
from pathlib import Path

import structlog

TAG = "MOSS_TAG"
PROC = Path("/proc")
DEATH_S = 5.0
"""How long a killed program may take to disappear; in an uninterruptible system call it may take for ever."""

_log = structlog.get_logger(__name__)


def survivors(tag_prefix: str) -> list[int]:
    """Every live process whose tag starts so. Empty where there is no /proc."""
    return [pid for pid in _pids() if (tag_of(pid) or "").startswith(tag_prefix)] if tag_prefix else []


def tagged(tag: str) -> list[int]:
    return [pid for pid in _pids() if tag_of(pid) == tag]


async def sweep(tag: str, looks: int) -> None:
    """Kill what carries the tag until `looks` looks in a row find nothing: it may fork between look and blow."""
    until = time.monotonic() + DEATH_S
    while looks:
        # The youngest first: what flees into new processes is at the end of the list, and must be hit at once.
        left = [pid for pid in sorted(_pids(), reverse=True) if tag_of(pid) == tag and _kill_tagged(pid, tag)]
        looks = 3 if left else looks - 1
        if left and time.monotonic() > until:
            _log.warning("processes survive SIGKILL", tag=tag, pids=left)
            return
        if looks:
            await asyncio.sleep(0.005)


def boot() -> str:
    """Which start of this machine it is; empty where nobody knows."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identity() -> str:
    """This process, in words that another on this machine can judge with `has_ended`."""
    try:
        return f"{boot()}.{os.readlink(PROC / 'self/ns/pid')}.{os.getpid()}.{_birth(os.getpid())}"
    except OSError:
        return f"{platform.node().replace('.', '-')}..{os.getpid()}.{secrets.token_hex(4)}"


def has_ended(identity_of_it: str) -> bool:
    """True only when it is certain: the same boot, the same table of processes, and no such process in it."""
    words = identity_of_it.split(".")
    if len(words) != 4 or not words[1] or words[:2] != identity().split(".")[:2]:
        return False
    pid, birth = words[2:]
    try:
        os.kill(int(pid), 0)
        return _birth(int(pid)) != birth
    except ProcessLookupError:
        return True
    except OSError:  # not ours to see, so it is there
        return False


def carries(pid: int, tag: str) -> bool:
    """Whether it is alive, under this tag. In the middle of an exec it has no environment for a moment."""
    for _ in range(10):
        found = tag_of(pid)
        if found is not None:
            return found == tag
        try:
            if not _birth(pid):
                return False
        except OSError:
            return False
        time.sleep(0.002)
    return False


def tag_of(pid: int) -> str | None:
    mark = TAG.encode() + b"="
    try:
        # Every program of the machine is asked, several times in each step of a run.
        with open(f"{PROC}/{pid}/environ", "rb", buffering=0) as environ:
            told = environ.read()
    except OSError:  # gone, or another user's
        return None
    if mark not in told:
        return None
    return next((e[len(mark) :].decode(errors="replace") for e in told.split(b"\0") if e.startswith(mark)), None)


def _kill_tagged(pid: int, tag: str) -> bool:
    handle = None
    with contextlib.suppress(OSError):  # some sandboxes forbid it
        handle = os.pidfd_open(pid)
    try:
        if tag_of(pid) != tag:  # looked at again through the handle, so that a reused number is never hit
            return False
        if handle is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _pids() -> list[int]:
    try:
        names = os.listdir(PROC)
    except FileNotFoundError:
        return []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _birth(pid: int) -> str:
    """When it was started, which no later process of this number shares; nothing for a zombie."""
    state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]
