"""A small agent for the tests of hosts: its context, recipes and boxes, on Docker and as a process alike."""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.containers.docker_host import SOCKET, DockerHost
from core.containers.host import BoxSpec, Host, Limits, Recipe, label
from core.containers.process_host import ProcessHost
from tests.support.needs import needs_engine

AGENT = """
import http.server, json, os, pathlib
STATE = pathlib.Path(os.environ["MOSS_STATE_DIR"])
STATE.mkdir(exist_ok=True)
class Agent(http.server.BaseHTTPRequestHandler):
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_GET(self):
        about = {"env": dict(os.environ), "pid": os.getpid(), "state": sorted(p.name for p in STATE.iterdir())}
        self.answer(json.dumps(about).encode())
    def do_POST(self):
        said = self.rfile.read(int(self.headers["Content-Length"]))
        with open(STATE / "notes", "ab") as notes:
            notes.write(said)
        self.answer(said.upper())
    def log_message(self, *words):
        pass
print("the agent listens", flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Agent).serve_forever()
"""
DOCKERFILE = 'FROM python:3.11-slim-bookworm\nWORKDIR /app\nCOPY . .\nCMD ["python3", "-c", "pass"]\n'
SERVE = ("python3", "-S", "agent.py")
SLEEP = ("python3", "-S", "-c", "import time; time.sleep(300)")


def python(code: str) -> tuple[str, ...]:
    return ("python3", "-S", "-c", code)


def context(where: Path, **files: str) -> Path:
    where.mkdir(parents=True)
    for name, text in {"agent.py": AGENT, "Dockerfile": DOCKERFILE, **files}.items():
        (where / name).write_text(text)
    return where


def recipe(source: Path, **changes: Any) -> Recipe:
    usual: dict[str, Any] = {
        "source": source,
        "dockerfile": "Dockerfile",
        "context": ".",
        "command": None,
        "network": False,
        "timeout_s": 60,
        "labels": {label.SUBSTRATE: "desk", label.PURPOSE: "candidate", label.COMMIT: "c1"},
        "log": source.parent / f"{source.name}.log",
    }
    return Recipe(**{**usual, **changes})


class Stage:
    """One host, an image of the agent, and boxes that are removed in the end whatever happens."""

    def __init__(self, host: Host, data: Path, image: str) -> None:
        self.host = host
        self.data = data
        self.image = image
        self._names: list[str] = []

    def again(self) -> Host:
        """What a new Moss would see after the death of the first."""
        return a_host(self.host.name, self.data)

    def spec(self, command: tuple[str, ...] = SLEEP, **changes: Any) -> BoxSpec:
        name = changes.pop("name", f"t-{secrets.token_hex(4)}")
        self._names.append(name)
        usual: dict[str, Any] = {
            "image": self.image,
            "labels": {label.SUBSTRATE: "desk", label.PURPOSE: "trial", label.RUN: "run-1"},
            "port": 8080,
            "limits": Limits(memory_mb=128, tmp_mb=8),
        }
        return BoxSpec(name=name, command=command, **{**usual, **changes})

    async def started(self, command: tuple[str, ...] = SLEEP, **changes: Any) -> BoxSpec:
        spec = self.spec(command, **changes)
        await self.host.create(spec)
        await self.host.start(spec.name)
        return spec

    async def ended(self, command: tuple[str, ...], **changes: Any) -> str:
        """What a box said that runs to its end."""
        spec = await self.started(command, **changes)
        await self.host.wait(spec.name, timeout_s=20)
        return await self.host.logs(spec.name)

    async def close(self) -> None:
        for name in self._names:
            await self.host.remove(name)
        for image in await self.host.images({}):
            if image != self.image:
                await self.host.remove_image(image)
        await self.host.close()


OWNER = f"test-{secrets.token_hex(4)}"


def a_host(kind: str, data: Path, owner: str = OWNER, url: str = SOCKET) -> Host:
    return DockerHost(data, owner, url=url) if kind == "docker" else ProcessHost(data, owner)


@pytest.fixture(scope="session")
def docker_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One for all tests, since the engine keeps it; removed in the end."""
    tmp = tmp_path_factory.mktemp("docker")

    async def build() -> str:
        host = a_host("docker", tmp)
        image = await host.build(recipe(context(tmp / "agent")))
        await host.close()
        return image

    async def clean() -> None:
        host = a_host("docker", tmp)
        for image in await host.images({}):
            await host.remove_image(image)
        await host.close()

    yield asyncio.run(build())
    asyncio.run(clean())


@pytest.fixture
async def docker_stage(docker_image: str, tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(a_host("docker", tmp_path), tmp_path, docker_image)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def process_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    host = a_host("process", tmp_path)
    made = Stage(host, tmp_path, await host.build(recipe(context(tmp_path / "agent"))))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        port: int = plug.getsockname()[1]
        return port


NO_ENGINE = [needs_engine] if isinstance(needs_engine, pytest.MarkDecorator) else []
EITHER = [
    pytest.param("docker_stage", marks=[pytest.mark.engine, *NO_ENGINE], id="docker"),
    pytest.param("process_stage", id="process"),
]


@contextlib.asynccontextmanager
async def knocking(host: Host, name: str) -> AsyncIterator[httpx.AsyncClient]:
    """Through the door, once the agent behind it answers."""
    async with asyncio.timeout(60), host.door(name) as client:
        while True:
            try:
                await client.get("/")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.02)
        yield client


async def until_log(host: Host, name: str, words: str) -> None:
    async with asyncio.timeout(60):
        while words not in await host.logs(name):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.02)


async def about(client: httpx.AsyncClient) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await client.get("/")).content)
    return answer
