"""A little agent that is really live, on Docker or as a process, and images of it in every mood."""

import asyncio
import contextlib
import hashlib
import json
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import docker

from core.clock import Clock, system_clock
from core.containers.docker_host import SOCKET
from core.containers.host import BoxSpec, Host, Recipe, label
from core.model.events import Noun
from core.model.substrate import Substrate
from core.model.swap import Swap, SwapState, Version
from core.store import Store, facts, swaps
from core.swap.perform import perform
from core.swap.plan import box_spec
from tests.support.containers import a_host
from tests.support.databases import database
from tests.support.swaps import granted_candidate, make_live

SHORT_S = 3.0
"""A window that something well passes in on a busy machine, and something sick does not keep a test waiting in."""
BLUE = "Remember the blue door."
DOCKERFILE = """\
FROM python:3.11-slim-bookworm
WORKDIR /app
COPY . .
CMD ["python3", "-S", "agent.py"]
"""


def lay_agent(where: Path, version: str, mood: str) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("little_agent.py"), where / "agent.py")
    (where / "version").write_text(version)
    (where / "mood").write_text(mood)
    (where / "Dockerfile").write_text(DOCKERFILE)
    return where


def little(host: str, repository: str = "/srv/little", **more: object) -> Substrate:
    """Fast windows, all kinds of probes."""
    health = {
        "http": "/",
        "heartbeat": "/state/heartbeat.json",
        "canary": "Are you there?",
        "canary_expect": "hears you",
        "window_s": 5,
        "every_s": 0.1,
        "timeout_s": 2,
    }
    run: dict[str, object] = {"port": 8000, "volume": f"little-{secrets.token_hex(4)}", "stop_grace_s": 1}
    if host == "process":
        run["command"] = ["python3", "-S", "agent.py"]
    else:
        run["publish"] = a_free_port()
    return Substrate.model_validate(
        {
            "name": "little",
            "repository": repository,
            "trusted": True,
            "run": run | dict(more.pop("run", {})),  # type: ignore[call-overload]
            "health": health | dict(more.pop("health", {})),  # type: ignore[call-overload]
            **more,
        }
    )


def a_free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


@dataclass
class House:
    host: Host
    store: Store
    owner: str
    tmp: Path
    substrate: Substrate
    url: str
    images: dict[str, str] = field(default_factory=dict)
    """Each with the version that it says it is."""
    foreigners: set[str] = field(default_factory=set)
    """Boxes that are somebody else's."""

    def expects(self, **health: object) -> None:
        """From the next swap or adoption on: other probes."""
        changed = self.substrate.health.model_copy(update=health)
        self.substrate = self.substrate.model_copy(update={"health": changed})

    async def image(self, version: str, mood: str) -> str:
        source = lay_agent(self.tmp / "sources" / f"{version}-{mood}", version, mood)
        image = await self.host.build(self.recipe(source, version))
        self.images[image] = version
        return image

    def recipe(self, source: Path, version: str = "1") -> Recipe:
        labels = {label.OWNER: self.owner, label.SUBSTRATE: "little", label.COMMIT: f"c{version}"}
        return Recipe(source, "Dockerfile", ".", None, False, 60, labels, self.tmp / "build.log")

    def spec(self, name: str, image: str) -> BoxSpec:
        """Of a box that no swap made."""
        return box_spec(
            self.substrate,
            name=name,
            image=image,
            commit="c0",
            boot_id="boot-0",
            owner=self.owner,
            swap=None,
            secrets={},
        )

    async def live(self, mood: str = "well", greet: str = BLUE) -> Version:
        """Version 0 runs and has said a word that must never be lost."""
        image = await self.image("0", mood)
        spec = self.spec(f"little-{secrets.token_hex(4)}", image)
        version = Version(
            substrate="little",
            number=0,
            commit="c0",
            image=image,
            box=spec.name,
            boot_id="boot-0",
            swap=None,
            since=datetime.now(UTC),
        )
        await self.host.create(spec)
        await self.host.start(spec.name)
        await make_live(self.store, self.substrate, version)
        await self.ask(spec.name, greet)
        return version

    async def swap_to(self, image: str) -> Swap:
        """Offered, allowed, performed."""
        live = await self.now_live()
        consent = await granted_candidate(
            self.store, "little", image, f"c{self.images.get(image, '?')}", live_image=live.image
        )
        swap = await perform(self.store, self.host, self.owner, consent)
        assert swap
        return swap

    async def now_live(self) -> Version:
        async with self.store.reading() as db:
            live = await swaps.live_version(db, "little")
        assert live
        return live

    async def ask(self, box: str, words: str) -> str:
        """What the agent answers, once it does."""
        body = {"messages": [{"role": "user", "content": words}]}
        async with asyncio.timeout(60), self.host.door(box) as client:
            while True:
                try:
                    answer = await client.post("/v1/chat/completions", json=body)
                    return str(answer.json()["choices"][0]["message"]["content"])
                except Exception:
                    await asyncio.sleep(0.03)

    async def running(self) -> list[str]:
        return [box.name for box in await self.boxes() if box.running]

    async def boxes(self) -> list:  # type: ignore[type-arg]
        return await self.host.boxes({label.OWNER: self.owner})

    async def state_file(self, name: str) -> str:
        content = await self.host.read((await self.now_live()).box, f"/state/{name}")
        return content.decode() if content else ""

    async def memory(self) -> list[str]:
        return [json.loads(line) for line in (await self.state_file("memory.jsonl")).splitlines()]

    async def memory_hash(self, lines: int) -> str:
        kept = (await self.state_file("memory.jsonl")).splitlines(keepends=True)[:lines]
        return hashlib.sha256("".join(kept).encode()).hexdigest()

    async def until(self, state: SwapState) -> None:
        """A swap came to this state, and may be a moment past it: facts stay, while a state may be too short to see."""
        async with asyncio.timeout(90):
            while True:
                async with self.store.reading() as db:
                    chain = await facts.chain(db, "little")
                if any(fact.noun is Noun.swap and fact.after == state for fact in chain):
                    return
                await asyncio.sleep(0.005)

    async def had_two_writers(self) -> bool:
        return bool(await self.state_file("two-writers"))


@asynccontextmanager
async def a_house(
    kind: str, tmp: Path, substrate: Substrate | None = None, engine: str = SOCKET, clock: Clock = system_clock
) -> AsyncIterator[House]:
    owner = f"test-{secrets.token_hex(4)}"
    host = a_host(kind, tmp / "data", owner, engine)
    async with database("sqlite", tmp) as url:
        store = await Store.open(url, clock)
        house = House(host, store, owner, tmp, substrate or little(kind), url)
        try:
            yield house
        finally:
            await store.close()
            for box in await house.boxes():
                await host.remove(box.name)
            for image in await host.images({label.OWNER: owner}):
                await host.remove_image(image)
            await host.close()
            if kind == "docker":
                await asyncio.to_thread(_remove_volume, engine, house.substrate.run.volume)


def _remove_volume(url: str, name: str | None) -> None:
    """No host ever does: it is the agent's memory."""
    with contextlib.closing(docker.DockerClient(base_url=url)) as engine, contextlib.suppress(docker.errors.NotFound):
        engine.volumes.get(name).remove()
