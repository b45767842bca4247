"""A host on paper, for one kind of failure that no real one shows on demand: Moss dies before or after any call to it.

It holds what a host must hold, and fails the test when two boxes would run on one volume.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from core.containers.host import BoxSpec, BoxState, Output, Portrait, Recipe, Strain
from core.model.errors import BadInput, Unavailable

BUILT = "sha256:" + "f" * 64
"""What every recipe comes to on paper."""


class Killed(BaseException):
    """kill -9, as near as an exception comes to it: nothing in Moss catches it."""


@dataclass
class PaperHost:
    moods: dict[str, str]
    """What boxes of an image do, or one box by its name: `well`, `sick`, `dies`, `refuses` to start, `unstoppable`,
    `undead` (starts again whenever nobody looks)."""
    die_at: int | None = None
    """The number of the edge at which Moss dies: one before each call, and one after each that changes something."""
    away_at: int | None = None
    """The number of the edge at which the engine is away for a moment."""
    edges: int = 0
    boxes_: dict[str, BoxState] = field(default_factory=dict)
    specs: dict[str, BoxSpec] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)
    deeds: list[str] = field(default_factory=list)
    says: str = ""
    strangers: list[str] = field(default_factory=list)
    """Boxes of somebody else on the one volume."""
    name: str = "paper"
    isolates: bool = True
    silence_s: float = 0.0

    def edge(self) -> None:
        self.edges += 1
        if self.edges == self.die_at:
            raise Killed
        if self.edges == self.away_at:
            raise Unavailable("The engine is away for a moment; try again.")

    @asynccontextmanager
    async def call(self, deed: str = "") -> AsyncIterator[None]:
        self.edge()
        yield
        if deed:
            self.deeds.append(deed)
            self.edge()

    def running(self) -> list[str]:
        return sorted(name for name, box in self.boxes_.items() if box.running)

    def mood(self, name: str) -> str:
        return self.moods.get(name) or self.moods[self.boxes_[name].image]

    async def has_image(self, image: str) -> bool:
        async with self.call():
            return image in self.moods

    async def image_labels(self, image: str) -> Mapping[str, str]:
        return {}

    async def images(self, labels: Mapping[str, str]) -> list[str]:
        return []

    async def remove_image(self, image: str) -> None:
        del self.moods[image]

    async def create(self, spec: BoxSpec) -> None:
        async with self.call(f"create {spec.name}"):
            if spec.image not in self.moods:
                raise BadInput(f"There is no image {spec.image}.")
            self.boxes_[spec.name] = BoxState(spec.name, spec.image, False, spec.labels)
            self.specs[spec.name] = spec
            self.policies[spec.name] = "no"

    async def start(self, name: str) -> None:
        async with self.call(f"start {name}"):
            box = self.boxes_[name]
            others = [other for other in self.running() if other != name]
            assert not others, f"{name} starts while {others} runs on the same volume"
            if self.mood(name) == "refuses":
                raise Unavailable(f"The box {name} needs port 8000, which is taken; free it.")
            dies = self.mood(name) == "dies"
            self.boxes_[name] = replace(box, running=not dies, exit_code=3 if dies else None)

    async def stop(self, name: str, grace_s: float) -> None:
        async with self.call(f"stop {name}"):
            if name in self.boxes_ and self.boxes_[name].running and self.mood(name) != "unstoppable":
                self.boxes_[name] = replace(self.boxes_[name], running=False, exit_code=0)

    async def remove(self, name: str) -> None:
        async with self.call(f"remove {name}"):
            self.boxes_.pop(name, None)

    async def look(self, name: str) -> BoxState | None:
        async with self.call():
            box = self.boxes_.get(name)
            if box and not box.running and self.mood(name) == "undead" and self.deeds[-1:] != [f"stop {name}"]:
                box = self.boxes_[name] = replace(box, running=True, exit_code=None)
            self.deeds.append(f"look {name}")
            return box

    async def tidy(self) -> list[str]:
        return []

    async def strain(self, name: str) -> Strain:
        return Strain()

    async def boxes(self, labels: Mapping[str, str]) -> list[BoxState]:
        async with self.call():
            return [box for box in self.boxes_.values() if labels.items() <= dict(box.labels).items()]

    async def writers(self, volume: str) -> list[str]:
        return [*self.running(), *self.strangers]

    async def set_restart(self, name: str, policy: str) -> None:
        async with self.call(f"restart {policy} {name}"):
            if name in self.boxes_:
                self.policies[name] = policy

    async def wait(self, name: str, timeout_s: float) -> int | None:
        if name in self.boxes_ and self.boxes_[name].running:
            await asyncio.sleep(timeout_s)
        return self.boxes_[name].exit_code

    async def logs(self, name: str, limit_bytes: int = 65_536) -> str:
        async with self.call():
            return self.says

    async def run(
        self, name: str, command: tuple[str, ...], *, stdin: str = "", timeout_s: float, limit_bytes: int = 262_144
    ) -> Output:
        async with self.call():
            return Output(exit_code=0 if self.mood(name) in ("well", "unstoppable", "undead") else 1, text="")

    async def ping(self) -> str:
        self.edge()
        return "paper"

    async def build(self, recipe: Recipe) -> str:
        async with self.call("build"):
            return BUILT

    async def put(self, name: str, source: Path) -> None:
        raise AssertionError("nothing is laid on paper")

    async def portrait(self, name: str) -> Portrait | None:
        box, spec = self.boxes_.get(name), self.specs.get(name)
        if box is None or spec is None:
            return None
        ports = {spec.port: spec.publish} if spec.port else {}
        return Portrait(name, box.image, spec.command, spec.env, (), ports, spec.user, self.policies[name])

    async def read(self, name: str, path: str, limit_bytes: int = 65_536) -> bytes | None:
        return None

    @asynccontextmanager
    async def door(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(verify=False) as client:
            yield client

    async def close(self) -> None:
        pass
