"""The Protocol of a host: what builds an agent's image and runs it, live or on trial.

A *box* is a container on Docker and a process on a host without an engine. An *image* is named by its digest only:
tags can be moved, and on a host of processes an image is a directory named after its content.
Every box and image carries labels, and `label.OWNER` says that it is ours to reap.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from core.model.substrate import Build, Substrate

TAKEN = "relay"
"""The name of the one image that a host makes for itself; those of agents are named after their substrates."""


class label:
    """Labels on every image and box that Moss makes."""

    OWNER = "moss.owner"
    """The id of the Moss installation."""
    SUBSTRATE = "moss.substrate"
    PURPOSE = "moss.purpose"
    """`candidate`, `trial`, `check`, `live`, `relay` or `coder`."""
    RUN = "moss.run"
    ITERATION = "moss.iteration"
    STEP = "moss.step"
    COMMIT = "moss.commit"
    TREE = "moss.tree"
    SWAP = "moss.swap"
    BOOT_ID = "moss.boot-id"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a checkout becomes an image."""

    source: Path
    """A clean export of the commit; read, never written."""
    dockerfile: str
    context: str
    command: tuple[str, ...] | None
    network: bool
    timeout_s: float
    labels: Mapping[str, str]
    log: Path
    """Build output is streamed here as it comes."""
    memory_mb: int = 2048
    cpus: float = 2.0
    """Both of each step; a host of processes enforces neither."""
    approved: str = ""
    """The text of a Dockerfile that people stand by: what it names, the engine may fetch."""

    @classmethod
    def of(cls, build: Build, source: Path, labels: Mapping[str, str], log: Path, approved: str = "") -> "Recipe":
        """As the substrate's owner wants it built."""
        return cls(
            source=source,
            dockerfile=build.dockerfile,
            context=build.context,
            command=build.command,
            network=build.network,
            timeout_s=build.timeout_s,
            labels=labels,
            log=log,
            memory_mb=build.memory_mb,
            cpus=build.cpus,
            approved=approved,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    memory_mb: int = 512
    cpus: float = 1.0
    pids: int = 128
    tmp_mb: int = 64


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    """A volume of the engine, or a directory for processes."""
    target: str


@dataclass(frozen=True, slots=True)
class BoxSpec:
    name: str
    image: str
    labels: Mapping[str, str]
    command: tuple[str, ...] | None = None
    """Instead of the image's own. `{port}` and `{state}` are filled in."""
    entrypoint: bool = True
    """Whether the image's entrypoint stays before the command; a check's command runs as it stands."""
    env: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    """Where the agent listens inside. A process is told its own free port in PORT instead."""
    publish: int | None = None
    volume: Volume | None = None
    user: str | None = None
    isolated: bool = True
    """No network, read-only root, no capabilities, limits, state on a scratch directory. Only the live box is not."""
    state_path: str = "/state"
    fixture: Volume | None = None
    """A directory of this machine that an isolated box sees, read-only. A process is told where it is."""
    limits: Limits = Limits()
    """Of an isolated box; the live one has only the one on processes."""
    lane: Path | None = None
    """A unix socket of this machine, the only way out of an isolated box."""


@dataclass(frozen=True, slots=True)
class BoxState:
    name: str
    image: str
    running: bool
    labels: Mapping[str, str]
    exit_code: int | None = None
    out_of_memory: bool = False
    by_hand: bool = False
    """It has our labels from its image only: somebody else made it, be it the engine for a step of a build."""


@dataclass(frozen=True, slots=True)
class Strain:
    """What a box has met of its limits since it started. On a host that enforces none: nothing."""

    memory_ended: bool = False
    """The kernel ended it, or one of its processes, for the memory that they took."""
    processes: int = 0
    """Now."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """Everything about a box that its replacement must have too. Only adoption asks for it."""

    name: str
    image: str
    command: tuple[str, ...] | None
    """None when it is the image's own."""
    env: Mapping[str, str] = field(repr=False)
    """Without what the image sets itself. Values may be secret: names may be shown, values never."""
    volumes: tuple[Volume, ...]
    """Named volumes, and directories of this machine by their path."""
    ports: Mapping[int, int | None]
    """Ports inside, each with the port of this machine that leads there."""
    user: str | None
    restart: str | None
    """None on a host that watches nothing."""
    pids: int | None = None
    """How many processes it may have. None where there is no limit."""
    beyond: tuple[str, ...] = ()
    """What no BoxSpec can say, each in a few words, such as "is privileged" or "is on the network `shop_default`"."""


@dataclass(frozen=True, slots=True)
class Output:
    exit_code: int
    text: str
    """Standard output and error, as one text, cut at the limit."""
    timed_out: bool = False
    cut: bool = False


class Host(Protocol):
    name: str
    """`docker` or `process`."""
    isolates: bool

    @property
    def silence_s(self) -> float:
        """How long a call that was cancelled may yet go on, and so do what it was asked for."""

    @property
    def lane_port(self) -> int | None:
        """Where an isolated box finds its lane, on 127.0.0.1. None where it shares this machine's."""

    async def ping(self) -> str:
        """One line that says what answers. Raises Unavailable with the mend."""

    async def build(self, recipe: Recipe) -> str:
        """The image's digest. Raises BuildFailed with the last lines of the log."""

    async def has_image(self, image: str) -> bool: ...

    async def image_labels(self, image: str) -> Mapping[str, str]: ...

    async def images(self, labels: Mapping[str, str]) -> list[str]:
        """Without those that somebody gave a name of their own, to keep them."""

    async def remove_image(self, image: str) -> None: ...

    async def create(self, spec: BoxSpec) -> None:
        """Idempotent by name only in this sense: a box of that name, if there is one, is removed first when it
        carries our owner label, and refused otherwise."""

    async def put(self, name: str, source: Path) -> None:
        """Lay the files below `source` over the working directory of a created box, before it starts."""

    async def start(self, name: str) -> None: ...

    async def stop(self, name: str, grace_s: float) -> None:
        """SIGTERM, grace, SIGKILL. The box stays and can be started again. Stopping a stopped box is fine."""

    async def remove(self, name: str) -> None:
        """With its relay and its scratch directories. Removing what is gone is fine."""

    async def look(self, name: str) -> BoxState | None: ...

    async def strain(self, name: str) -> Strain:
        """To be asked when something went wrong in a box, so that it can be said why. Of one that is gone: none."""

    async def boxes(self, labels: Mapping[str, str]) -> list[BoxState]: ...

    async def writers(self, volume: str) -> list[str]:
        """The running boxes that may write to this volume, whoever made them."""

    async def portrait(self, name: str) -> Portrait | None: ...

    async def set_restart(self, name: str, policy: str) -> None:
        """`no`, `on-failure`, `unless-stopped` or `always`: what the engine does when the box ends. A new box has `no`.
        A host that watches nothing itself ignores it. A box that is gone is fine."""

    async def wait(self, name: str, timeout_s: float) -> int | None:
        """The exit code, or None when it still runs after the time. Waits on an event, not on a poll."""

    async def logs(self, name: str, limit_bytes: int = 65_536) -> str: ...

    async def run(
        self, name: str, command: tuple[str, ...], *, stdin: str = "", timeout_s: float, limit_bytes: int = 262_144
    ) -> Output:
        """A command inside a running box."""

    async def read(self, name: str, path: str, limit_bytes: int = 65_536) -> bytes | None:
        """A file inside a box, or None."""

    def door(self, name: str) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """A client whose base URL is the agent's port, over whatever leads there."""

    async def tidy(self) -> list[str]:
        """Remove what stands for no box and no image any more, whatever became of those, and say what that was: empty
        volumes, sockets, helpers. What is so young that its box may be under way stays. Nothing of another Moss."""

    async def remove_volume(self, name: str) -> None:
        """With all that an agent remembers. Of a volume that is gone it is fine, of one in use it is refused."""

    async def pack_up(self) -> None:
        """Remove what serves all boxes, such as the image of a relay, unless somebody uses it: it is made again."""

    async def close(self) -> None: ...


def untrusted(host: Host, substrate: Substrate) -> str | None:
    """Why this agent must not be built or run here: a sentence, or None."""
    if host.isolates or substrate.trusted:
        return None
    return (
        f"Nothing isolates {substrate.name} from this machine; run a Docker engine, or vouch for its code and every "
        "change to it with `trusted = true`."
    )
