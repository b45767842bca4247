"""The sandbox `bubblewrap`: namespaces of its own for processes, mounts, network and users, and no rights in them.

Inside there is what is shown, under the same path as outside, and nothing else: the root is an empty read-only tmpfs.
When whoever started it dies, the kernel ends all processes in there, whatever they did to their session, their
environment or their parents.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core import process
from core.coders import post
from core.coders.coder import STDERR, STDOUT, Ended, Lane, Order
from core.coders.showing import SYSTEM, Secret, Shown, needed
from core.containers.docker_plan import CODER_MB, CODER_PIDS
from core.model.errors import Unavailable

PROGRAM = "bwrap"
MOST = {"megabytes": CODER_MB, "processes": CODER_PIDS}
"""As a container gives it, but held by looking ten times a second: whoever owns no control group has no other way to
limit the sum. What the kernel limits for each process adds up, and its limit of a user's processes does not hold root
and, before Linux 5.14, counts all that the user runs anywhere."""
_SCRATCH_BYTES = 512 << 20
_TRAP_BYTES = 1 << 20
_TRY_S = 20.0

_CONFINED = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
    *("--hostname", "moss"),
)
_OF_ETC = ("ld.so.cache", "alternatives", "localtime", "ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust")
"""What many programs read of `/etc`, besides what is written for the occasion."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """A Sandbox."""

    secret: Secret
    name: str = "bubblewrap"
    confines: bool = True
    has_programs: bool = False

    async def ping(self) -> str:
        """By trying it: where it is installed it may be forbidden."""
        bwrap = _found()
        argv = (*_start(bwrap), *_mounted(_system(), ()), "--", *_python(), "-I", "-S", "-c", "")
        done = await process.run(argv, timeout_s=_TRY_S)
        if done.exit_code != 0 or done.timed_out:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][-200:]
            why = said or f"it ended with {done.exit_code}"
            raise Unavailable(f"bubblewrap does not work here ({why}); {MEND}.")
        return f"bubblewrap: coders see their question and no more of this machine, and have no network ({bwrap})"

    def url(self, lane: Lane) -> str:
        return post.url(lane)

    async def run(self, order: Order) -> Ended:
        brief = order.brief
        homes = (self.secret.home,) if post.may_be_covered(self.secret.home) else ()
        traps = post.traps(self.secret, homes)
        async with post.opened(order, order.env, traps, most=MOST) as office:
            argv = (*_start(_found()), *command(order, office.where, traps, self.secret))
            finished = await process.run(
                argv,
                env=process.safe_env(),
                stdin=brief.prompt.encode(),
                timeout_s=brief.timeout_s,
                limit_bytes=brief.output_limit_bytes,
                stdout_to=brief.artefacts / STDOUT,
                stderr_to=brief.artefacts / STDERR,
                tag=brief.tag,
            )
            return post.ended(order, finished, await office.heard_out(), self.name)


MEND = 'let this user make namespaces (see docs/sandbox.md), or ask for no sandbox with `sandbox = "host"`'
_INSTALL = 'install the package `bubblewrap`, or ask for no sandbox with `sandbox = "host"`'


def _found() -> str:
    bwrap = shutil.which(PROGRAM, path=process.safe_env().get("PATH"))
    if bwrap is None:
        raise Unavailable(f"`{PROGRAM}` was not found on PATH; {_INSTALL}.")
    return str(Path(bwrap).absolute())


def _start(bwrap: str) -> tuple[str, ...]:
    return (bwrap, *_CONFINED)


def _python() -> tuple[str, ...]:
    """Our own, outside of any virtual environment."""
    return (os.path.realpath(sys.executable),)


@dataclass(frozen=True, slots=True)
class _Mount:
    at: Path
    words: tuple[str, ...]
    rank: int
    """Of two at one place the higher one is seen."""
    same: bool = False
    """It shows what stands there outside, so that nothing below it needs to be shown again."""


_GROUND, _TRAP, _SHOWN, _OWN = range(4)


def command(order: Order, office: Path, traps: post.Traps, secret: Secret) -> tuple[str, ...]:
    """All that follows the program `bwrap` and what it always gets."""
    brief = order.brief
    seen = needed(order.argv, order.env.get("PATH", ""), secret)
    seen += [Shown(path) for path in order.shows if not any(path.is_relative_to(place) for place in SYSTEM)]
    mounts = [*_system(), *(_tmpfs(at, _TRAP, "0755", _TRAP_BYTES) for at in traps.folders)]
    mounts += [_bind(brief.checkout, writable=brief.may_write), _bind(brief.evidence), _bind(order.home, writable=True)]
    mounts.append(_Mount(post.WITHIN, ("--ro-bind", str(office), str(post.WITHIN)), _OWN))
    if order.lane:
        lane = post.WITHIN / "lane"
        mounts.append(_Mount(lane, ("--ro-bind", str(order.lane.socket), str(lane)), _OWN))
    mounts += [_Mount(at, ("--ro-bind", str(office / at.name), str(at)), _OWN) for at in _written()]
    return (*_mounted(mounts, seen), "--chdir", str(brief.checkout), "--", *_python(), *post.STARTER)


def _written() -> Iterator[Path]:
    for name in post.FILES:
        yield Path("/etc", name)


def _system() -> list[_Mount]:
    """What every program sees."""
    mounts = [
        _Mount(Path("/proc"), ("--proc", "/proc"), _GROUND),
        _Mount(Path("/dev"), ("--dev", "/dev"), _GROUND),
        _tmpfs(Path("/dev/shm"), _GROUND, "1777"),
        _tmpfs(Path("/tmp"), _GROUND, "1777"),
        _tmpfs(Path("/var/tmp"), _GROUND, "1777"),
        _tmpfs(Path("/run"), _GROUND, "0755", _TRAP_BYTES),
        _Mount(Path("/var/run"), ("--symlink", "../run", "/var/run"), _GROUND),
    ]
    for path in SYSTEM:
        if path.is_symlink():
            mounts.append(_Mount(path, ("--symlink", os.readlink(path), str(path)), _GROUND))
        elif path.exists():
            mounts.append(_Mount(path, ("--ro-bind", str(path), str(path)), _GROUND, same=True))
    for path in (Path("/etc", name) for name in _OF_ETC):
        if path.exists():
            mounts.append(_Mount(path, ("--ro-bind", str(path), str(path)), _GROUND))
    own = needed((*_python(),), "", Secret(Path("/"), Path("/")))
    return [*mounts, *(_Mount(shown.path, _words(shown), _GROUND, same=True) for shown in own)]


def _mounted(mounts: Iterable[_Mount], seen: Iterable[Shown]) -> tuple[str, ...]:
    """In the order in which they have to be made: what lies deeper, later."""
    every = [*mounts, *(_Mount(shown.path, _words(shown), _SHOWN, same=True) for shown in seen)]
    made: dict[Path, _Mount] = {}
    for mount in sorted(every, key=lambda one: (len(one.at.parts), one.rank)):
        above = next((made[path] for path in (mount.at, *mount.at.parents) if path in made), None)
        if not (mount.same and above and above.same):
            made[mount.at] = mount
    return (*(word for mount in made.values() for word in mount.words), "--remount-ro", "/dev", "--remount-ro", "/")


def _words(shown: Shown) -> tuple[str, ...]:
    if shown.link is not None:
        return ("--symlink", shown.link, str(shown.path))
    return ("--ro-bind", str(shown.path), str(shown.path))


def _bind(path: Path, *, writable: bool = False) -> _Mount:
    return _Mount(path, ("--bind" if writable else "--ro-bind", str(path), str(path)), _OWN)


def _tmpfs(at: Path, rank: int, mode: str, size_bytes: int = _SCRATCH_BYTES) -> _Mount:
    return _Mount(at, ("--perms", mode, "--size", str(size_bytes), "--tmpfs", str(at)), rank)
