"""Where the demo plays: a directory of its own with a real `moss run` in it, and nothing left of either afterwards.

A demo that is killed leaves its directory, which says who made it: the next one finds that process dead and removes
what it left, here and on the engine.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bot import built_in
from bot.data import installation
from bot.demo.script import Coder
from bot.moss_toml import OPENCODE_MODEL
from core import process
from core.coders.ask import end_leftovers
from core.containers.docker_host import RELAY_BASE, DockerHost
from core.containers.host import Host
from core.containers.process_host import ProcessHost
from core.folders import clear
from core.model.errors import MossError, NotFound, Unavailable
from core.process_table import has_ended, identity, sweep

HostName = Literal["docker", "process"]
Fix = Literal["recorded", "none", "wrong"]

PREFIX = "moss-demo-"
ABOUT, LOG, DATA = "demo.json", "moss.log", "moss-data"
START_S = 60.0
END_S = 30.0
"""What `moss run` may take to end in order: its inbox, its card, its agent."""
MOSS = (sys.executable, "-c", "from bot.cli import main; main()")
KEYS = ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY")
HEEDED = (
    *(f"CODER__{name}" for name in ("ARGV", "MODEL", "BASE_URL", "ENV_FROM", "SANDBOX", "IMAGE", "SHOWS")),
    *(f"GATEWAY__{api}__URL" for api in ("ANTHROPIC", "GEMINI", "OPENAI")),
)
"""What of these sections may be set in the environment of a demo with a real coder."""
PATCHES: dict[Fix, tuple[str, ...]] = {"recorded": ("fix.patch",), "wrong": ("wrong.patch",), "none": ()}


@dataclass(frozen=True, slots=True)
class About:
    """Of one demo, for the one that comes after it."""

    by: str
    """The process that plays it, as core/process_table.py tells one from another."""
    tag: str
    """On the `moss run` that it started."""
    host: HostName
    volume: str
    relay_was_there: bool


@dataclass(frozen=True, slots=True)
class Stage:
    root: Path
    url: str
    tokens: dict[str, str]
    sandbox: str = ""
    """Where the coder works."""

    @property
    def data(self) -> Path:
        return self.root / DATA

    def way_in(self, channel: str) -> Path:
        """A page that leads the operator into the room. The token stands in a file of ours, since the process table
        shows everybody what a browser is called with."""
        page, address = self.root / "room.html", f"{self.url}/enter?next=/c/{channel}"
        page.write_text(f'<meta http-equiv="refresh" content="0; url={address}#{self.tokens[built_in.OPERATOR]}">')
        return page

    async def ask(self, *words: str) -> Any:
        """What a verb of the `moss` command prints with --json."""
        done = await process.run((*MOSS, *words, "--json"), cwd=self.root, env=_environment(), timeout_s=60)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise Unavailable(f"`moss {' '.join(words)}` printed no JSON; {self.root / LOG} may say why.") from None
        if done.exit_code != 0:
            raise Unavailable(str(answer.get("error", f"`moss {words[0]}` ended with {done.exit_code}.")))
        return answer


async def choose(wanted: Literal["auto", "docker", "process"]) -> tuple[HostName, str]:
    """And a sentence why. An engine that cannot build the desk is of no use to `auto`."""
    if wanted == "process":
        return "process", "Agents run as plain processes, as asked; nothing isolates them."
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        host = DockerHost(Path(scratch), "moss-demo")
        try:
            engine = await host.ping()
            if wanted == "docker" or await host.has_image(RELAY_BASE):
                return "docker", f"Agents run in containers: {engine}"
            why = f"the image {RELAY_BASE} is not on the Docker engine"
        except Unavailable as problem:
            if wanted == "docker":
                raise
            why = problem.sentence[:1].lower() + problem.sentence[1:].rstrip(".")
        finally:
            await host.close()
    return "process", f"Agents run as plain processes, which nothing isolates, since {why}."


@asynccontextmanager
async def stage(host: HostName, fix: Fix, coder: Coder = "recorded", *, keep: bool) -> AsyncIterator[Stage]:
    """Up when the desk is live and the room listens. Whatever happens inside, nothing is left; or with `keep` the
    directory is, and what the engine holds for it, and no process."""
    await reap()
    relay_was_there = await _relay_is_there(host)
    root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    about = About(identity(), root.name, host, built_in.volume(root / DATA), relay_was_there)
    (root / ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")
    try:
        async with _moss(root, about, fix, coder) as ready:
            yield Stage(root, ready["room"], ready["tokens"], ready["sandbox"])
    finally:
        if not keep:
            await asyncio.shield(_strike(root, about))


@asynccontextmanager
async def _moss(root: Path, about: About, fix: Fix, coder: Coder) -> AsyncIterator[dict[str, Any]]:
    """`moss run`, from its first word to its end."""
    said = bytearray()
    spoken = asyncio.Event()

    def hear(piece: bytes) -> None:
        said.extend(piece)
        if b"\n" in said:
            spoken.set()

    running = asyncio.create_task(
        process.run(
            (*MOSS, "run", "--json"),
            cwd=root,
            env=_environment() | settings(about.host, fix) | thinking(coder),
            timeout_s=24 * 3600,
            limit_bytes=1_000_000_000,
            stderr_to=root / LOG,
            tag=about.tag,
            grace_s=END_S,
            heard=hear,
        )
    )
    begun = asyncio.create_task(spoken.wait())
    try:
        await asyncio.wait({running, begun}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            raise Unavailable(f"`moss run` did not come up; the end of its log: {_tail(root / LOG)}")
        ready = json.loads(said.partition(b"\n")[0])
        if ready.get("error"):
            raise Unavailable(ready["error"])
        if ready.get("problem"):
            raise Unavailable(f"The desk did not go live: {ready['problem']}")
        yield ready
    finally:
        begun.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def settings(host: HostName, fix: Fix) -> dict[str, str]:
    """What is different from a plain `moss run`, by the variables that anybody may set."""
    owners = built_in.examples() / built_in.OWNERS
    coder = [*built_in.THIS_PYTHON, str(owners / "recorded_coder.py"), *(str(owners / name) for name in PATCHES[fix])]
    different = {"MOSS_HOST": host, "MOSS_ROOM__PORT": "0", "MOSS_CODER__ARGV": json.dumps(coder)}
    if host == "docker":
        # A port of the engine leads to the desk at once; without one each turn has to be let in through a container.
        different["MOSS_SUBSTRATE__RUN__PUBLISH"] = str(_free_port())
    return different


def thinking(coder: Coder) -> dict[str, str]:
    """A real coder in place of the recording, with its key, and whatever else of HEEDED is set here."""
    if coder == "recorded":
        return {}
    different = {"MOSS_CODER__PROVIDER": coder, "MOSS_CODER__NAME": coder, "MOSS_CODER__ARGV": json.dumps([coder])}
    if coder == "opencode":
        different["MOSS_CODER__MODEL"] = OPENCODE_MODEL
    return different | process.safe_env(*KEYS, *(f"MOSS_{name}" for name in HEEDED))


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port: int = any_port.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """As in a fresh terminal of the same person: none of the MOSS_ variables that may be set in this one."""
    return process.safe_env("HOME", "TMPDIR", "DOCKER_HOST", "PYTHONPATH", "USER", "LOGNAME")


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return " ".join(log.read_text("utf-8", "replace").splitlines()[-3:])[-600:]
    return "there is none."


# Striking the stage


async def reap() -> list[Path]:
    """What demos left that were killed: each directory is ours by owner, mode and content, and its maker is dead."""
    reaped = []
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        about = _left_by_a_dead_one(root)
        if about is not None:
            with contextlib.suppress(MossError):  # its engine is away; the next demo tries again
                await _strike(root, about)
                reaped.append(root)
    return reaped


def _left_by_a_dead_one(root: Path) -> About | None:
    try:
        seen = root.lstat()
        if root.is_symlink() or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
            return None
        about = About(**json.loads((root / ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return about if about.tag == root.name and has_ended(about.by) else None


async def _strike(root: Path, about: About) -> None:
    """Processes, boxes, images, the volume, the directory: in this order, since each may hold the next."""
    await sweep(about.tag, looks=3)  # Moss itself had its time to end in order
    data = root / DATA
    for run in (data / "runs").glob("run-*"):
        await end_leftovers(f"{run.name}/")
    if owner := installation(data):
        await _clear_host(_host(data, owner, about.host), about)
    await asyncio.to_thread(clear, root)


async def _clear_host(host: Host, about: About) -> None:
    try:
        for box in await host.boxes({}):
            await host.remove(box.name)
        for image in await host.images({}):
            with contextlib.suppress(NotFound):
                await host.remove_image(image)
        await host.remove_volume(about.volume)
        if not about.relay_was_there:
            await host.pack_up()
    finally:
        await host.close()


async def _relay_is_there(host: HostName) -> bool:
    if host == "process":
        return True
    engine = DockerHost(Path(tempfile.gettempdir()), "moss-demo")
    try:
        return await engine.has_relay()
    finally:
        await engine.close()


def _host(data: Path, owner: str, name: HostName) -> Host:
    return DockerHost(data, owner) if name == "docker" else ProcessHost(data, owner)
