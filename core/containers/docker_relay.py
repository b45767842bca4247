"""The relays of a Docker host: containers of our own that lead from unix sockets into the networks of boxes."""

import asyncio
import contextlib
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import httpx

from core.containers import docker_calls as calls
from core.containers import docker_plan as plan
from core.containers.docker_engine import Engine, if_there, remove
from core.containers.docker_plan import Json
from core.containers.host import TAKEN, BoxSpec, label
from core.model import errors

_NAME = f"moss/{TAKEN}"
_READY_S = 15.0
_BUILD_S = 300.0
_LENT_S = 3600
"""A relay for a moment ends by itself after this, should Moss die before it removes it."""
_DOCKERFILE = """FROM {base}
COPY relay.py /relay.py
USER 65534:65534
ENTRYPOINT ["python3", "-I", "-S", "/relay.py"]
"""


class _Elsewhere(errors.Unavailable):
    pass


class Relays:
    def __init__(self, engine: Engine, data: Path, owner: str, base: str) -> None:
        self._engine = engine
        self._data = data
        self._owner = owner
        self._base = base
        self._image: str | None = None
        self._image_is_sought = asyncio.Lock()

    async def create(self, spec: BoxSpec) -> str:
        """The id of a container without a network, whose place in the world the box will share."""
        name = plan.relay_name(spec.name)
        labels = {**spec.labels, plan.RELAY_FOR: spec.name}
        routes = (*plan.inward(spec.port), *plan.outward(spec.lane))
        return await self._create(name, labels, "none", spec.name, routes, spec.lane)

    async def start(self, name: str) -> None:
        """Returns when it listens: what it serves is taken before any code of the agent's runs beside it."""

        def work(api: Any) -> bytes:
            api.start(name)
            said = b""
            for chunk in api.logs(name, stream=True, follow=True):
                said += chunk
                if b"ready" in said:
                    break
            return said

        try:
            async with asyncio.timeout(_READY_S):
                said = await self._engine.follow(f"The relay `{name}`", work)
        except TimeoutError:
            said = b"it said nothing"
        if b"ready" not in said:
            why = said.decode(errors="replace").strip()[-300:]
            raise errors.Unavailable(f"The relay `{name}` did not come up: {why}; look at `docker logs {name}`.")

    @contextlib.asynccontextmanager
    async def door(self, box: str) -> AsyncIterator[httpx.AsyncClient]:
        """Through the relay that the box was created with."""
        with _way_to(self._sockets(box) / plan.DOOR) as way:
            async with client(httpx.AsyncHTTPTransport(uds=way, verify=False)) as inside:
                yield inside

    @contextlib.asynccontextmanager
    async def lent_door(self, box: str, container: str, port: int) -> AsyncIterator[httpx.AsyncClient]:
        """Through a relay made for the occasion, into the network of a box that has none of its own."""
        relay = f"{box}-door-{secrets.token_hex(4)}"
        routes = (f"--for={_LENT_S}", *plan.inward(port))
        try:
            await self._create(relay, {plan.RELAY_FOR: box}, f"container:{container}", relay, routes)
            await self.start(relay)
            async with self.door(relay) as inside:
                yield inside
        finally:
            await self._engine.do(f"The relay `{relay}`", lambda api: remove(api, relay, volumes=True))
            self.forget(relay)

    async def data_path_problem(self) -> str | None:
        """One sentence when the engine sees another data directory than Moss does, as it may when Moss runs in a
        container, or the engine on another machine: then no socket of a relay can be reached."""
        probe = f"moss-probe-{secrets.token_hex(4)}"
        try:
            routes = (f"--for={_LENT_S}", *plan.inward(9))
            await self._create(probe, {plan.RELAY_FOR: probe}, "none", probe, routes)
            await self.start(probe)
            async with self.door(probe) as inside:
                with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):  # nobody listens behind it
                    await inside.get("/")
        except (_Elsewhere, httpx.ConnectError):
            return self._elsewhere().sentence
        finally:
            await self._engine.do("The probe", lambda api: remove(api, probe, volumes=True))
            self.forget(probe)
        return None

    def forget(self, box: str) -> None:
        shutil.rmtree(self._sockets(box), ignore_errors=True)

    def tidy(self, boxes: Iterable[str], before: float) -> list[str]:
        """Sockets that lead to none of these boxes. The data directory is one installation's alone."""
        used, gone = {self._sockets(box) for box in boxes}, []
        for where in (self._data / "s").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if where not in used and where.stat().st_mtime < before:
                    shutil.rmtree(where)
                    gone.append(f"the sockets in {where.name}")
        return gone

    async def _create(  # noqa: PLR0917 - what it is, and what it leads to
        self,
        name: str,
        labels: Mapping[str, str],
        network: str,
        box: str,
        routes: tuple[str, ...],
        lane: Path | None = None,
    ) -> str:
        where = self._sockets(box)
        # Open to whoever the relay is in its container; the directory above lets nobody else of this machine in.
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        where.mkdir(exist_ok=True)
        where.chmod(0o777)
        order = plan.relay(await self.image(), {**labels, label.OWNER: self._owner}, network, where, routes, lane)
        about = f"The relay `{name}`"
        try:
            made = await self._engine.do(about, lambda api: api.create_container_from_config(order, name=name))
        except errors.BadInput as problem:  # of all that was asked for, only the directory can be unknown
            raise self._elsewhere() from problem
        return cast(str, made["Id"])

    def _elsewhere(self) -> "_Elsewhere":
        return _Elsewhere(
            f"The engine does not see the data directory {self._data} as Moss does, so that boxes cannot be reached; "
            f"mount it under the same path on both sides, such as `-v {self._data}:{self._data}`."
        )

    def _sockets(self, box: str) -> Path:
        return plan.socket_directory(self._data, self._owner, box)

    async def image(self) -> str:
        """The digest of the relay's image, which is built from our own file on first use."""
        files, content = self._recipe()
        async with self._image_is_sought:
            return await self._found(f"{_NAME}:{content}") or await self._build(files, content)

    async def lacks(self) -> str | None:
        _, content = self._recipe()
        there = await self._found(f"{_NAME}:{content}") or await self._found(self._base)
        return None if there else self._base

    def _recipe(self) -> tuple[Mapping[str, bytes], str]:
        """The files of the relay's image, and its tag. A stage of a candidate's may carry any label, but no tag."""
        source = Path(__file__).with_name("relay.py").read_bytes()
        dockerfile = _DOCKERFILE.format(base=self._base).encode()
        return {"relay.py": source, "Dockerfile": dockerfile}, sha256(source + dockerfile).hexdigest()[:16]

    async def _found(self, image: str) -> str | None:
        asked = if_there(lambda api: cast(Json, api.inspect_image(image)))
        found = await self._engine.do("The relay's image", asked)
        return cast(str, found["Id"]) if found else None

    async def has_image(self) -> bool:
        return bool(await self._engine.do("The relay's image", lambda api: api.images(name=_NAME)))

    async def remove_image(self) -> None:
        """Other Moss on this engine may use it, and then it stays."""

        def work(api: Any) -> None:
            for image in api.images(name=_NAME):
                for tag in image.get("RepoTags") or ():
                    api.remove_image(tag)

        with contextlib.suppress(errors.Refused, errors.NotFound):
            await self._engine.do("The relay's image", work)
        self._image = None

    async def _build(self, files: Mapping[str, bytes], content: str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text), 0o644
                tar.addfile(entry, io.BytesIO(text))
        packed.seek(0)
        order = {
            "fileobj": packed,
            "custom_context": True,
            "labels": {plan.RELAY: content},
            "network_mode": "none",
            "tag": f"{_NAME}:{content}",
            "timeout": _BUILD_S,
        }
        try:
            async with asyncio.timeout(_BUILD_S):
                return await self._engine.follow("The relay's image", lambda api: calls.build(api, order, None))
        except (errors.BuildFailed, TimeoutError) as problem:
            raise errors.Unavailable(
                f"The relay's image cannot be built from `{self._base}`; pull that image onto the engine, or name "
                "another one that has python3."
            ) from problem


def client(transport: httpx.AsyncHTTPTransport | None = None, url: str = "http://localhost") -> httpx.AsyncClient:
    """Deaf to the proxies of Moss's own environment."""
    # Plain HTTP: without `verify` httpx would load the certificates of the world, 20 ms for each door.
    return httpx.AsyncClient(transport=transport, base_url=url, trust_env=False, verify=False, timeout=30)


@contextlib.contextmanager
def _way_to(door: Path) -> Iterator[str]:
    """The path of a socket, or one short enough to be spoken to."""
    if plan.speakable(door):
        yield str(door)
        return
    handle = os.open(door.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{door.name}"
    finally:
        os.close(handle)
