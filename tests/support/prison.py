"""A machine with secrets on it, and a hostile coder that is put to work there in one sandbox or another."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.coders.ask import ask
from core.coders.bubblewrap import Bubblewrap
from core.coders.coder import NOTES, STDERR, Account, Api, Lane, Sandbox
from core.coders.command import Command
from core.coders.container_sandbox import ContainerSandbox
from core.coders.host_sandbox import HostSandbox
from core.coders.program import Program
from core.coders.showing import Secret
from core.containers.docker_coder import CoderBoxes
from core.containers.docker_host import RELAY_BASE, SOCKET
from core.model.errors import CoderFailed, Misconduct
from core.model.run import Spend
from tests.support import hostile
from tests.support.bench import Bench

REAL = hostile.REAL
BRIDGE = "172.17.0.1"


@dataclass
class Prison:
    """Something real in every place that a coder must not reach."""

    bench: Bench
    secret: Secret
    key: str
    sleeper: "subprocess.Popen[bytes]"
    port: int
    mark: str

    def sandbox(self, kind: str) -> Sandbox:
        if kind == "container":
            return ContainerSandbox(CoderBoxes(SOCKET, 60), RELAY_BASE, self.secret, f"test-{self.mark}")
        return {"host": HostSandbox(), "bubblewrap": Bubblewrap(self.secret)}[kind]

    def python(self, kind: str) -> str:
        return "python3" if kind == "container" else sys.executable

    async def attempt(self, kind: str, *attempts: str, **different: object) -> tuple[dict[str, str], str]:
        """How each attempt went, and what Moss has to say about it."""
        targets = self.bench.where / "targets.json"
        to = {
            "home": str(self.secret.home),
            "data": str(self.secret.data),
            "settings": str(self.secret.settings),
            "mark": f"moss-hostile-{self.mark}",
            "port": self.port,
            "bridge": BRIDGE if _has_bridge() else "127.0.0.2",
            "key": self.key,
            "pid": self.sleeper.pid,
            "sleep": self.mark,
        }
        targets.write_text(json.dumps(to))
        argv = (self.python(kind), hostile.__file__, str(targets), *attempts)
        said = await self.complaint(Program("hostile", argv, Command(), sandbox=self.sandbox(kind)), **different)
        return self.outcomes(), said

    async def complaint(self, coder: Program, **different: object) -> str:
        try:
            await ask(coder, await self.bench.brief(**different))  # type: ignore[arg-type]
        except (Misconduct, CoderFailed) as problem:
            return f"{type(problem).__name__}: {problem.sentence}"
        return ""

    def outcomes(self) -> dict[str, str]:
        text = (self.bench.where / "artefacts" / STDERR).read_text()
        return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    def notes(self) -> str:
        path = self.bench.where / "artefacts" / NOTES
        return path.read_text() if path.exists() else ""

    def left(self) -> list[int]:
        """Processes of the machine that the hostile coder left, known by how long they sleep."""
        return sleeping(self.mark)


def _sleeper(key: str) -> "subprocess.Popen[bytes]":
    """Another program of this user, with keys in its environment."""
    return subprocess.Popen(["sleep", "3600"], env={"MODEL_KEY": key, "OTHER_LANE": f"other-{key}"})


def sleeping(mark: str) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{mark}\0".encode():
                found.append(int(pid))
    return found


def _has_bridge() -> bool:
    with socket.socket() as plug:
        try:
            plug.bind((BRIDGE, 0))
        except OSError:
            return False
    return True


@contextlib.asynccontextmanager
async def prison(where: Path, bench: Bench) -> AsyncIterator[Prison]:
    home, data, settings = where / "home", where / "data", where / "settings" / "moss.toml"
    for path in (home / ".ssh" / "id_ed25519", data / "moss.db", data / "runs" / "run-2" / "reply.json", settings):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(REAL)
    key = f"sk-{secrets.token_hex(16)}"
    mark = str(100_000 + secrets.randbelow(900_000))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REAL)
        writer.close()

    tcp = await asyncio.start_server(answer, "0.0.0.0", 0)
    with short_directory() as short:
        unix = await asyncio.start_unix_server(answer, short / "moss.sock")
        os.link(short / "moss.sock", data / "moss.sock")
        sleeper = _sleeper(key)
        port = tcp.sockets[0].getsockname()[1]
        try:
            yield Prison(bench, Secret(data, home, settings), key, sleeper, port, mark)
        finally:
            sleeper.kill()
            sleeper.wait()
            tcp.close()
            unix.close()
            for pid in sleeping(mark):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="m-") as short:
        yield Path(short)


@dataclass
class FakeLane:
    """As the gateway's, but what answers says who was asked."""

    token: str
    port: int
    socket: Path
    spend: Spend = field(default_factory=Spend)

    async def exhausted(self) -> str:
        await asyncio.Event().wait()
        return ""


@dataclass(frozen=True)
class Led:
    """Lanes to a model that listens on a port of this machine, as unix sockets too."""

    port: int
    token: str

    @contextlib.asynccontextmanager
    async def open(self, account: Account | None, api: Api | None) -> AsyncIterator[Lane]:
        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.gather(_copied(reader, far_writer), _copied(far_reader, writer), return_exceptions=True)

        with short_directory() as short:
            unix = await asyncio.start_unix_server(lead, short / "lane")
            try:
                yield FakeLane(self.token, self.port, short / "lane")
            finally:
                unix.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while heard := await reader.read(65536):
        writer.write(heard)
        await writer.drain()
    writer.close()


@dataclass
class FakeLanes:
    heard: list[bytes] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def open(self, account: Account | None, api: Api | None) -> AsyncIterator[Lane]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nmodel")
            await writer.drain()
            writer.close()

        with short_directory() as short:
            short.chmod(0o755)
            tcp = await asyncio.start_server(answer, "127.0.0.1", 0)
            unix = await asyncio.start_unix_server(answer, short / "lane")
            (short / "lane").chmod(0o666)
            try:
                yield FakeLane("lane-token", tcp.sockets[0].getsockname()[1], short / "lane")
            finally:
                tcp.close()
                unix.close()
