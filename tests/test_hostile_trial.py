"""A hostile agent in a trial as every run holds them: what it tries to reach and to take, and what comes of it.

Each attempt is made once more where nothing holds it, and succeeds there: otherwise it would show nothing.
"""

import asyncio
import contextlib
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest

from core import agent, process
from core.containers.docker_host import DockerHost
from core.containers.host import label
from core.gateway.gateway import Gateway
from core.model.errors import BuildFailed
from core.model.keypoints import Task, TaskKind
from core.model.substrate import Health, Substrate
from core.model.transcript import Message, Transcript
from core.pipeline.make import check_image
from core.pipeline.trial import Bench, replay_all
from tests.support import hostile_agent
from tests.support.containers import OWNER, recipe, until_log
from tests.support.needs import needs_engine
from tests.support.upstream import KEY, upstream

pytestmark = needs_engine

AGENT = Path(hostile_agent.__file__)
DOCKERFILE = """FROM python:3.11-slim-bookworm
WORKDIR /app
COPY hostile_agent.py .
CMD ["python3", "-S", "hostile_agent.py"]
"""
TURN = ("python3", "-S", "/app/hostile_agent.py", "turn")
LIMITS = {"memory_mb": 96, "pids": 24, "tmp_mb": 8, "timeout_s": 30}


class Watching(DockerHost):
    """Sees how much log a box has left, before it is removed."""

    log_bytes = 0

    async def remove(self, name: str) -> None:
        if await self.look(name):
            said = await self._about(name, lambda api: api.logs(name))
            self.log_bytes = max(self.log_bytes, len(said))
        await super().remove(name)


@dataclass
class Prison:
    bench: Bench
    image: str
    engine: docker.DockerClient
    tmp: Path

    @property
    def host(self) -> Watching:
        assert isinstance(self.bench.host, Watching)
        return self.bench.host

    async def on_trial(self, turn: dict[str, Any], **replay: object) -> Message:
        """What the agent replied, or what Moss says of it."""
        substrate = self.bench.substrate
        how = substrate.replay.model_copy(update={"turn_timeout_s": 10.0, **replay})
        bench = replace(self.bench, substrate=substrate.model_copy(update={"replay": how}))
        said = Transcript(messages=(Message(role="user", content=json.dumps(turn)),))
        [trial] = await replay_all(bench, self.image, [Task(id="t1", kind=TaskKind.batch, transcript=said)], 1)
        reply = trial.transcript.reply
        assert reply
        assert not await self.host.boxes({label.PURPOSE: "trial"})
        return reply

    async def careless(self, turn: dict[str, Any], **where: Any) -> str:
        """The same turn in a container that nobody locks."""

        def run() -> bytes:
            told = {"remove": True, "labels": {"moss-test": self.bench.prefix}, **where}
            env = {"MOSS_STATE_DIR": "/state", **told.pop("environment", {})}
            said: bytes = self.engine.containers.run(self.image, [*TURN, json.dumps(turn)], environment=env, **told)
            return said

        return (await asyncio.to_thread(run)).decode()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    source = tmp_path_factory.mktemp("hostile")
    (source / AGENT.name).write_bytes(AGENT.read_bytes())
    (source / "Dockerfile").write_text(DOCKERFILE)

    async def build() -> str:
        host = DockerHost(source, OWNER)
        try:
            return await host.build(recipe(source))
        finally:
            await host.close()

    async def remove(image: str) -> None:
        host = DockerHost(source, OWNER)
        await host.remove_image(image)
        await host.close()

    yield (made := asyncio.run(build()))
    asyncio.run(remove(made))


@pytest.fixture
async def prison(image: str, tmp_path: Path) -> AsyncIterator[Prison]:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory").write_bytes(hostile_agent.REAL)
    substrate = Substrate.model_validate(
        {
            "name": "hostile",
            "repository": "/srv/hostile",
            "run": {"port": 8000, "env_from": ["OPENAI_API_KEY"], "volume": str(memory)},
            "trials": LIMITS,
            "health": {"http": "/endless"},
        }
    )
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(upstream())
        gateway = Gateway(model.settings, {"openai": KEY}, lambda lines: asyncio.sleep(0))
        lanes = await stack.enter_async_context(gateway.serving())
        host = Watching(tmp_path / "data", OWNER)
        stack.push_async_callback(host.close)
        labels = {label.OWNER: OWNER, label.SUBSTRATE: "hostile", label.COMMIT: "c1"}
        bench = Bench(host, substrate, f"t-{secrets.token_hex(4)}", labels, tmp_path / "laid", lanes)
        engine = docker.from_env()
        stack.callback(engine.close)
        yield Prison(bench, image, engine, tmp_path)


# What it tries to reach


@contextlib.asynccontextmanager
async def surroundings(prison: Prison) -> AsyncIterator[tuple[dict[str, Any], str]]:
    """All that is to be had around a trial: its targets, and a network that leads to them."""
    mark = prison.bench.prefix

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hostile_agent.REAL)
        await writer.drain()
        writer.close()

    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(await asyncio.start_server(tell, "0.0.0.0", 0))
        await stack.enter_async_context(await asyncio.start_unix_server(tell, f"\0{mark}-machine"))
        network = prison.engine.networks.create(mark, driver="bridge", labels={"moss-test": mark})
        stack.callback(network.remove)
        network.reload()
        default = prison.engine.networks.get("bridge")
        gateways = [each.attrs["IPAM"]["Config"][0]["Gateway"] for each in (default, network)]

        other = prison.bench.box("other", prison.image, "check", ("python3", "-S", "hostile_agent.py", "wait", mark))
        stack.push_async_callback(prison.host.remove, other.name)
        await prison.host.create(other)
        await prison.host.start(other.name)
        await until_log(prison.host, other.name, "waits")
        targets = {
            "name": f"{mark}-careless",
            "addresses": ["127.0.0.1", *gateways],
            "port": listener.sockets[0].getsockname()[1],
            "abstract": f"{mark}-machine",
            "neighbour": mark,
            "neighbours port": 9999,
            "memory": "/state/memory",
            "key": KEY,
        }
        yield targets, mark


IN_A_CARELESS_CONTAINER = {
    "has an address",
    "has a route",
    "asks for a name",
    "reaches a listener of this machine",
    "reaches it through the gateway",
    "speaks to the engine",
    "reads the memory of the live agent",
    "finds the key",
    "writes to its own image",
    "writes where the engine keeps its names",
}
BESIDE_THE_OTHER_TRIAL = {"speaks to another trial", "reaches a port of another trial", "sees another trial"}
ON_THE_MACHINE = {"reaches a listener of this machine", "speaks to an abstract socket of this machine"}


def done(report: str) -> set[str]:
    return {name for name, came in json.loads(report).items() if came == "done"}


async def test_nothing_can_be_reached_from_a_trial(prison: Prison) -> None:
    async with surroundings(prison) as (targets, network):
        reply = await prison.on_trial({"try": targets})
        assert reply.error is None, reply.error
        there = json.loads(reply.content)
        assert {name: came for name, came in there.items() if not came.startswith("failed")} == {}

        def only(attempts: set[str]) -> dict[str, Any]:
            return {"try": {**targets, "only": sorted(attempts)}}

        listener = f"http://{targets['addresses'][2]}:{targets['port']}"
        careless = await prison.careless(
            only(IN_A_CARELESS_CONTAINER),
            name=targets["name"],
            network=network,
            environment={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": listener},
            volumes=["/var/run/docker.sock:/var/run/docker.sock", f"{prison.tmp}/memory:/state:ro"],
        )
        assert done(careless) == IN_A_CARELESS_CONTAINER
        other = f"container:{prison.bench.prefix}-other"
        beside = await prison.careless(only(BESIDE_THE_OTHER_TRIAL), network_mode=other, pid_mode=other)
        assert done(beside) == BESIDE_THE_OTHER_TRIAL
        argv = (sys.executable, "-S", str(AGENT), "turn", json.dumps(only(ON_THE_MACHINE)))
        here = await process.run(argv, timeout_s=60)
        assert done(here.stdout.decode()) == ON_THE_MACHINE
    assert there.keys() == IN_A_CARELESS_CONTAINER | BESIDE_THE_OTHER_TRIAL | ON_THE_MACHINE


# What it takes of the machine


@contextlib.contextmanager
def unshaken() -> Iterator[None]:
    """Meanwhile Moss answers, and holds no more than before."""
    status = Path("/proc/self/status")

    def highest_mb() -> int:
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) >> 10

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            pauses_s.append(now - last)
            last = now

    Path("/proc/self/clear_refs").write_text("5")
    before_mb, pauses_s = highest_mb(), list[float]()
    ticking = asyncio.create_task(tick())
    yield
    ticking.cancel()
    assert max(pauses_s) < 5
    assert highest_mb() - before_mb < 64


@dataclass(frozen=True)
class Bomb:
    name: str
    much: int
    """Of what it wants; more than it may have."""
    outcome: str
    """What Moss says of it, or the agent itself."""
    elsewhere: str
    """What it gets where nothing holds it."""

    def __str__(self) -> str:
        return self.name


def slow(value: object) -> object:
    return pytest.param(value, marks=pytest.mark.sweep)


BROKE_OFF, MET = r" The agent broke off the turn: [^.]*\.", r"It met a limit: "
MEMORY = r"the kernel ended what took more than 96 MB of memory \(`trials\.memory_mb`\)\."
BOMBS = [
    slow(Bomb("memory", 200, MET + MEMORY + BROKE_OFF, "200 MB")),
    Bomb("memory of a child", 200, MET + MEMORY + BROKE_OFF, "the child ended well"),
    Bomb(
        "processes",
        100,
        rf"{MET}it had 2\d of its 24 processes \(`trials\.pids`\)\. The agent did not answer a turn within 2 s\.",
        "100 processes",
    ),
    slow(
        Bomb(
            "needed disk",
            40,
            rf"{MET}a directory of its was full at 8 MB \(`trials\.tmp_mb`\)\.{BROKE_OFF}",
            "40 MB",
        )
    ),
    slow(Bomb("disk", 40, r'\{"/tmp": 8, "/state": 8, "/dev/shm": 8\}', '{"/tmp": 40, "/state": 40, "/dev/shm": 40}')),
    slow(Bomb("log", 30, "30 MB", "30 MB")),
]


@pytest.mark.parametrize("bomb", BOMBS, ids=str)
async def test_what_a_trial_takes_has_an_end_and_is_named(prison: Prison, bomb: Bomb) -> None:
    turn = {"bomb": bomb.name, "much": bomb.much}
    with unshaken():
        reply = await prison.on_trial(turn, turn_timeout_s=2 if bomb.name == "processes" else 30)
    assert re.fullmatch(bomb.outcome, reply.error or reply.content)
    assert prison.host.log_bytes < 9_000_000
    state = f"t-{secrets.token_hex(4)}"
    try:
        free = await prison.careless(turn, volumes=[f"{state}:/state"], stderr=True)
    finally:
        prison.engine.volumes.get(state).remove()
    assert bomb.elsewhere in (line.strip() for line in free.splitlines())
    assert bomb.name != "log" or len(free) > 25_000_000


BY_COMMAND = {"kind": "exec", "command": TURN}
BY_HTTP = {"kind": "http", "body": {"messages": [{"content": "{message}"}]}, "reply": "text"}


@pytest.mark.parametrize("kind", [{}, slow(BY_HTTP), slow(BY_COMMAND)], ids=["openai", "http", "exec"])
async def test_a_reply_of_ten_gigabytes_is_cut_off_and_named(prison: Prison, kind: dict[str, Any]) -> None:
    with unshaken():
        reply = await prison.on_trial({"bomb": "reply", "much": 10 << 10}, **kind)
    assert reply.error == "The agent's answer is longer than 262144 bytes."
    assert len(await prison.careless({"bomb": "reply", "much": 2})) == 2 << 20


@pytest.mark.sweep
async def test_probes_read_no_more_than_they_must(prison: Prison) -> None:
    box, replay = prison.bench.box("probed", prison.image, "check"), prison.bench.substrate.replay
    http, beat = Health(http="/endless"), Health(heartbeat="{state}/beat")
    try:
        await prison.host.create(box)
        await prison.host.start(box.name)
        await agent.wait_ready(prison.host, box.name, prison.bench.substrate)
        turn = json.dumps({"bomb": "heartbeat", "much": 10 << 10})
        await agent.say(None, prison.host, box.name, replay, (), message=turn, session="s")
        with unshaken():
            assert (await agent.probe(prison.host, box.name, http, replay, boot_id="b", last_beat=None)).passed
            found = await agent.probe(prison.host, box.name, beat, replay, boot_id="b", last_beat=None)
        assert "is not `boot_id` and `beat` in JSON" in found.sentence
    finally:
        await prison.host.remove(box.name)


@pytest.mark.sweep
async def test_a_smoke_test_that_takes_too_much_names_the_limit_too(prison: Prison) -> None:
    smoke = (*TURN, json.dumps({"bomb": "memory", "much": 200}))
    bench = replace(prison.bench, substrate=prison.bench.substrate.model_copy(update={"smoke": smoke}))
    clone: Any = None  # there are no tests to be taken from it
    with pytest.raises(BuildFailed, match=rf"ended with exit code 137\. {MET}{MEMORY} Its last words:"):
        await check_image(bench, clone, prison.image, "c1", prison.tmp / "checks.log")
