"""What the sandboxes have in common: the order that `inside.py` gets in there, and what it tells.

Where secrets lie on this machine, decoys lie inside. Whoever reads one of them, or speaks to a socket that could end
Moss's own rules, tried to get out: a deed, which is misconduct. What an honest program may also do, such as asking for
another machine, is a note among the artefacts.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from core import process
from core.coders.coder import NOTES, Ended, Lane, Order
from core.coders.events import spelt_out
from core.coders.showing import SYSTEM, Secret
from core.folders import clear
from core.model.errors import Unavailable
from core.redact import without_values

_log = structlog.get_logger(__name__)

PORT = 4100
"""On 127.0.0.1 inside, where the lane begins."""
WITHIN = Path("/run/moss")
"""Where the post lies inside."""
STARTER = ("-I", "-S", "-B", str(WITHIN / "inside.py"), str(WITHIN / "post"))
"""What Python is told there."""
FILES = ("passwd", "group", "hosts", "nsswitch.conf")
"""Of `/etc`, written for the occasion."""
ENGINE = Path("/run/docker.sock")

_GRACE_S = 2.0
_LAST_WORDS_S = 2.0
_LINES = 100
_LINE_BYTES = 65_536
"""Room for a path of 8192 bytes of which each is written as `\\udcff`."""

_NOTHING = "Nothing is kept here. Moss, which started you, is told of everybody who opens this file.\n"
_OF_HOME = (".ssh/id_ed25519", ".aws/credentials", ".netrc", ".git-credentials", ".bash_history")
_OF_DATA = ("moss.db", "first-tokens.json", "runs/run-0000000a/iter-1/plan-1/reply.json")


@dataclass(frozen=True, slots=True)
class Traps:
    """Directories of a sandbox that stand for secret ones outside, and what lies in them."""

    home: Path
    folders: tuple[Path, ...]
    decoys: tuple[Path, ...]
    doors: Mapping[Path, str]


def traps(secret: Secret, homes: tuple[Path, ...]) -> Traps:
    """`homes` are the directories that stand for the home: the whole of it, or those in it that hold keys."""
    data = secret.data
    decoys = [secret.home / name for name in _OF_HOME if any((secret.home / name).is_relative_to(at) for at in homes)]
    decoys += [data / name for name in _OF_DATA]
    return Traps(
        secret.home,
        (*homes, data),
        tuple(decoys),
        {data / "moss.sock": "Moss's control socket", ENGINE: "the Docker engine"},
    )


def may_be_covered(home: Path) -> bool:
    """Whether nothing that programs need lies in this directory."""
    return not any(home.is_relative_to(place) for place in SYSTEM) and not Path("/tmp").is_relative_to(home)


@dataclass(slots=True)
class Told:
    """By the starter."""

    began: bool = False
    cannot: int | None = None
    """The error for which the program did not start."""
    code: int | None = None
    left: bool = False
    deeds: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    excess: str | None = None
    """What it took too much of, for which it was ended."""
    starved: bool = False
    """It failed, and the kernel had ended something of it for the memory of the whole container."""


@dataclass(slots=True)
class Post:
    where: Path
    """The directory that is shown inside as WITHIN."""
    told: Told = field(default_factory=Told)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def heard_out(self) -> Told:
        """Once nobody is left who could say more."""
        if self.told.began:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self.over.wait()
        return self.told


@asynccontextmanager
async def opened(
    order: Order,
    env: Mapping[str, str],
    traps: Traps,
    *,
    beside: bool = False,
    most: Mapping[str, int] | None = None,
) -> AsyncIterator[Post]:
    """A directory beside the fresh home, where nobody else on this machine comes to, with a socket at which one caller
    gets the order: the starter, since it calls before the program exists. `beside` an environment that the image has,
    the program gets this one. `most` is what the starter lets it take, where nobody else limits it."""
    where = order.home.with_name("post")
    await asyncio.to_thread(_lay, where, order)
    post = Post(where)
    brief = order.brief
    said = {
        "argv": list(order.argv),
        "env": dict(env),
        "beside": beside,
        "most": most,
        "writable": {str(path): may for path, may in _writable(order, traps).items()},
        "cwd": str(brief.checkout),
        "port": PORT,
        "lane": str(WITHIN / "lane") if order.lane else None,
        "traps": [str(path) for path in traps.folders],
        "decoys": {str(path): _NOTHING for path in traps.decoys},
        "doors": {str(path): what for path, what in traps.doors.items()},
        "grace_s": min(_GRACE_S, brief.timeout_s),
        "lifetime_s": brief.timeout_s + 10,  # should nobody be left who ends it
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if post.told.began:
            writer.close()
            return
        post.told.began = True
        door.close()
        writer.write(json.dumps(said).encode() + b"\n")
        try:
            for _ in range(_LINES):
                _hear(post.told, await reader.readuntil(b"\n"), order.secrets)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it has ended, or was ended
        finally:
            post.over.set()
            writer.close()

    with _bound(where, "post") as plug:
        door = await asyncio.start_unix_server(answer, sock=plug, limit=_LINE_BYTES)
        try:
            yield post
        finally:
            door.close()
            await asyncio.to_thread(_remove, where)


def _writable(order: Order, traps: Traps) -> dict[Path, bool]:
    """Where writing is nothing to tell, or is told by the traps; the nearest place above a path decides. Git looks
    whether it may write to its own directory also where it only reads."""
    brief = order.brief
    may = dict.fromkeys(map(Path, ("/tmp", "/var/tmp", "/run", "/dev", "/proc")), True)
    may |= {traps.home: False, **dict.fromkeys(traps.folders, True)}
    return may | {
        order.home: True,
        brief.evidence: False,
        brief.checkout: brief.may_write,
        brief.checkout / ".git": True,
    }


def _hear(told: Told, line: bytes, secrets: Mapping[str, str]) -> None:
    match json.loads(line):
        case {"cannot": int(number)}:
            told.cannot = number
        case {"deed": str(what)}:
            told.deeds.append(spelt_out(without_values(what, secrets)))
        case {"note": str(what)}:
            told.notes.append(spelt_out(without_values(what, secrets)))
        case {"excess": str(what)}:
            told.excess = what
        case {"starved": True}:
            told.starved = True
        case {"ended": int(code), "left": bool(left)}:
            told.code, told.left = code, left


def ended(order: Order, finished: process.Finished, told: Told, sandbox: str) -> Ended:
    """How it went, of what was seen outside and what was told inside. Raises Unavailable when it never began."""
    brief, stopped = order.brief, finished.timed_out or finished.cut
    if not told.began and not stopped:
        why = finished.stderr.decode(errors="replace").strip().rpartition("\n")[2][-300:]
        raise Unavailable(f"The sandbox {sandbox} did not start ({why or 'it said nothing'}); see `moss doctor`.")
    if told.cannot is not None:
        why = os.strerror(told.cannot)
        mend = "see that it is there, and name under `shows` what else it needs"
        raise Unavailable(f"`{order.argv[0]}` did not start in the sandbox {sandbox}: {why}; {mend}.")
    deeds = list(dict.fromkeys(told.deeds))
    if told.began and told.code is None and told.excess is None and not stopped:
        deeds.append("ended what watched over it")
    if seen := [*deeds, *dict.fromkeys(told.notes)]:
        _log.info("a coder met the walls of its sandbox", tag=brief.tag, sandbox=sandbox, what=seen)
        with contextlib.suppress(OSError):  # the log has them; that the disk is full makes no deed undone
            (brief.artefacts / NOTES).write_text("".join(f"It {what}.\n" for what in seen), encoding="utf-8")
    code = finished.exit_code if told.code is None else told.code
    left = finished.left_behind or told.left
    return Ended(replace(finished, exit_code=code, left_behind=left), tuple(deeds), told.excess)


def _lay(where: Path, order: Order) -> None:
    clear(where)
    where.mkdir(mode=0o755)
    here = Path(__file__)
    for source in (
        here.with_name("inside.py"),
        here.with_name("witness.py"),
        here.parents[1] / "containers" / "relay.py",
    ):
        shutil.copyfile(source, where / source.name)
    owner = order.brief.checkout.stat()
    user, group = owner.st_uid, owner.st_gid
    people = {0: "root", 65534: "nobody", user: "coder"}
    texts_of_people = (
        f"{name}:x:{number}:{group if number == user else number}:{name}:{order.home}:/bin/sh"
        for number, name in people.items()
    )
    groups = {0: "root", 65534: "nogroup", group: "coder"}
    texts_of_groups = (f"{name}:x:{number}:" for number, name in groups.items())
    texts = (texts_of_people, texts_of_groups, ("127.0.0.1 localhost", "::1 localhost"), _NAMES)
    for name, lines in zip(FILES, texts, strict=True):
        (where / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (where / "lane").touch()


_NAMES = ("passwd: files", "group: files", "hosts: files dns")


@contextlib.contextmanager
def _bound(folder: Path, name: str) -> Iterator[socket.socket]:
    """A unix socket in a directory whose path may be longer than one may be."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    plug = socket.socket(socket.AF_UNIX)
    try:
        plug.bind(f"/proc/self/fd/{handle}/{name}")
        os.chmod(folder / name, 0o666)
        yield plug
    finally:
        plug.close()
        os.close(handle)


def _remove(where: Path) -> None:
    with contextlib.suppress(OSError):
        clear(where)


def url(lane: Lane) -> str:
    return f"http://127.0.0.1:{PORT}"
