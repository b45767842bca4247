"""A host of containers on a Docker engine.

Isolated boxes have no network: a relay of ours, whose network namespace they join, leads in from a unix socket on a
directory that only the relay sees. A live box is an ordinary container that the engine keeps when Moss is gone.
"""

import asyncio
import contextlib
import os
import posixpath
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

from core.containers import docker_calls as calls
from core.containers import docker_context, docker_fetches, inside
from core.containers import docker_plan as plan
from core.containers.content import digest
from core.containers.docker_engine import Engine, if_there, inspect, remove, remove_image
from core.containers.docker_plan import Json
from core.containers.docker_relay import Relays, client
from core.containers.host import BoxSpec, BoxState, Output, Portrait, Recipe, Strain, label
from core.model import errors

T = TypeVar("T")

SOCKET = "unix:///var/run/docker.sock"
RELAY_BASE = "python:3.11-slim-bookworm"
SILENCE_S = 60.0
_LOOK_S = 0.2
_REASON_S = 0.3
"""The engine hears that a box ended, and that memory was the reason, on two ways of which the second may be longer."""


class DockerHost:
    name = "docker"
    isolates = True
    lane_port: int | None = plan.LANE_PORT
    spare_bytes = 1_000_000_000
    """What no build may take of the engine's disk."""
    young_s = 600.0
    """What is younger may be in the middle of being made."""

    def __init__(
        self, data: Path, owner: str, *, url: str = SOCKET, relay_base: str = RELAY_BASE, silence_s: float = SILENCE_S
    ) -> None:
        """`data` is where the sockets stand, under the same path for the engine; `owner` is this installation's id."""
        self._owner = owner
        self._engine = Engine(url, silence_s)
        self._relay_base = relay_base
        self._relays = Relays(self._engine, data.resolve(), owner, relay_base)
        self._outside: bool | None = None
        self._built = data.resolve() / "built"
        self._volumes: dict[str, tuple[str, ...]] = {}

    @property
    def silence_s(self) -> float:
        return self._engine.silence_s

    async def ping(self) -> str:
        about = await self._engine.do("Moss", lambda api: api.version(api_version=False))
        return f"Docker Engine {about['Version']} (API {about['ApiVersion']}) answers at {self._engine.url}."

    async def clock(self) -> datetime:
        """What time it is for the engine."""
        said = await self._engine.do("The engine's clock", lambda api: str(api.info()["SystemTime"]))
        return datetime.fromisoformat(said)

    async def data_path_problem(self) -> str | None:
        return await self._relays.data_path_problem()

    async def has_relay(self) -> bool:
        """Whether the image of relays is there, made by this Moss or by another one."""
        return await self._relays.has_image()

    async def relay_lacks(self) -> str | None:
        """The image that has to be fetched before there can be relays."""
        return await self._relays.lacks()

    async def lacks(self, dockerfile: str) -> dict[str, int]:
        """The images that a build of this Dockerfile has to fetch, and in which line each is named. Raises BuildFailed
        when that cannot be said."""
        named = await asyncio.to_thread(docker_fetches.images, dockerfile)
        return {image: line for image, line in named.items() if not await self.has_image(image)}

    async def tidy(self) -> list[str]:
        before = (await self.clock()).timestamp() - self.young_s
        gone, boxes = await self._engine.do("The tidying", lambda api: calls.tidy(api, self._ours({}), before))
        gone += await asyncio.to_thread(self._relays.tidy, boxes, before)
        there = set(await self.images({}))
        for note in self._built.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another Moss tidies the same data directory
                if note.suffix != ".new" and note.read_text() not in there:
                    note.unlink()
        return gone

    async def remove_volume(self, name: str) -> None:
        await self._engine.do(f"The volume `{name}`", if_there(lambda api: api.remove_volume(name)))

    async def pack_up(self) -> None:
        await self._relays.remove_image()

    async def close(self) -> None:
        await self._engine.close()

    # Images

    async def build(self, recipe: Recipe) -> str:
        context = (recipe.source / recipe.context).resolve()
        if not context.is_relative_to(recipe.source.resolve()):
            raise errors.BuildFailed(f"The build context `{recipe.context}` leads out of the repository; correct it.")
        if not (context / recipe.dockerfile).is_file():
            raise errors.BuildFailed(
                f"There is no `{recipe.dockerfile}` in `{recipe.context}`; set `build.dockerfile`."
            )
        recipe.log.parent.mkdir(parents=True, exist_ok=True)
        # What is asked for again, as after a crash, gets the same digest: the builder's cache does not promise that.
        asked = {**recipe.labels, "dockerfile": recipe.dockerfile, "network": str(recipe.network)}
        content = await asyncio.to_thread(digest, context, asked)
        # Kept by us and not as a label: what a Dockerfile labels its images with is the candidate's own word.
        remembered = self._built / content.partition(":")[2]
        if remembered.exists() and await self.has_image(image := remembered.read_text()):
            recipe.log.write_text(f"The same was built before: {image}\n")
            return image
        labels = {**recipe.labels, label.OWNER: self._owner}
        order = {
            "labels": labels,
            "network_mode": None if recipe.network else "none",
            "timeout": recipe.timeout_s,
        }
        limits = plan.build_limits(recipe.memory_mb, recipe.cpus)
        try:
            async with asyncio.timeout(recipe.timeout_s):
                if not recipe.network:
                    await self._refuse_fetches(context, recipe)
                async with docker_context.packed(context, recipe.dockerfile, recipe.timeout_s / 2) as files:
                    image = await self._watched(lambda api: calls.build(api, order | files, recipe.log, limits))
        except errors.BadInput as problem:  # the Dockerfile is not one
            raise errors.BuildFailed(problem.sentence) from problem
        except TimeoutError:
            raise errors.BuildFailed(
                f"The build did not end within {recipe.timeout_s:.0f} s; shorten it, or raise `build.timeout_s`."
            ) from None
        await self._refuse_labels_of_ours(image, labels)
        # For people, and so that a routine prune of untagged images leaves the versions that one may roll back to.
        name = f"moss/{recipe.labels.get(label.SUBSTRATE, 'image')}"
        await self._engine.do("The image", lambda api: api.tag(image, name, tag=image.partition(":")[2][:12]))
        self._built.mkdir(parents=True, exist_ok=True)
        new = remembered.with_suffix(".new")
        new.write_text(image)
        new.replace(remembered)
        return image

    async def _refuse_fetches(self, context: Path, recipe: Recipe) -> None:
        """The engine keeps the network from the steps of a build, and fetches for itself what a Dockerfile names."""
        path = Path(posixpath.normpath(context / recipe.dockerfile))
        if path.is_relative_to(context) and path != path.resolve():  # for the engine, links lead elsewhere
            raise errors.BuildFailed(f"The way to `{recipe.dockerfile}` leads over a link; make it a plain file.")

        def named() -> Mapping[str, int]:
            return docker_fetches.images(path.read_text(errors="replace"))

        wanted = await asyncio.to_thread(named)
        # Moss fetches the base of its relays on first use anyhow, and no candidate chose its name.
        chosen = {self._relay_base, *docker_fetches.approved(recipe.approved)}
        for image, line in wanted.items():
            if image not in chosen and await self._image(image) is None:
                raise errors.BuildFailed(
                    f"The image `{image}` in line {line} of the Dockerfile is not on this engine, and builds have no "
                    "network; pull it first, or set `build.network = true`."
                )

    async def _watched(self, build: Callable[[Any], str]) -> str:
        """The engine takes no limit of disk for a build, so one that fills it up is ended before others suffer."""
        root = Path(await self._engine.do("The engine", lambda api: str(api.info()["DockerRootDir"])))
        if not root.is_dir():  # it is the disk of another machine
            return await self._engine.follow("The build", build)
        spare = f"{self.spare_bytes / 1e9:.1f} GB of the engine's disk"
        if shutil.disk_usage(root).free < self.spare_bytes:
            raise errors.Unavailable(f"Nothing is built while less than {spare} is free; free space.")
        building = asyncio.ensure_future(self._engine.follow("The build", build))
        try:
            while not (await asyncio.wait({building}, timeout=_LOOK_S))[0]:
                if shutil.disk_usage(root).free < self.spare_bytes:
                    raise errors.BuildFailed(
                        f"The build was ended, because less than {spare} was left; let it write less, or free space."
                    )
            return building.result()
        finally:
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)

    async def _refuse_labels_of_ours(self, image: str, ordered: Mapping[str, str]) -> None:
        """Everything made from an image inherits its labels, and by ours we tell what we may remove."""
        forged = {
            name
            for name, value in (await self.image_labels(image)).items()
            if name in plan.OURS and ordered.get(name) != value
        }
        if forged:
            await self.remove_image(image)
            raise errors.BuildFailed(f"The Dockerfile sets the label `{min(forged)}`, which is Moss's own; remove it.")

    async def has_image(self, image: str) -> bool:
        return await self._image(image) is not None

    async def image_labels(self, image: str) -> Mapping[str, str]:
        found = await self._image(image)
        if found is None:
            raise errors.NotFound(f"The image `{image}` is not on this engine; build it again.")
        return cast(dict[str, str], (found.get("Config") or {}).get("Labels") or {})

    async def images(self, labels: Mapping[str, str]) -> list[str]:
        found = await self._engine.do("The list of images", lambda api: api.images(filters=self._ours(labels)))
        own = [image for image in found if not plan.is_kept(image)]
        return [image["Id"] for image in own if plan.OVERLAY_FOR not in (image.get("Labels") or {})]

    async def remove_image(self, image: str) -> None:
        found = await self._image(image)
        if found is None:
            return
        own_tags = [tag for tag in found.get("RepoTags") or () if tag.startswith("moss/")]

        def work(api: Any) -> None:
            for tag in own_tags:
                remove_image(api, tag)  # the last tag takes the image along
            remove_image(api, image)

        await self._engine.do(f"The image `{image}`", work)

    # Boxes

    async def create(self, spec: BoxSpec) -> None:
        inside.check_name(spec.name)
        plan.check_digest(spec.image)
        there = await self._inspect(spec.name)
        if there and (there["Config"].get("Labels") or {}).get(label.OWNER) != self._owner:
            raise errors.Refused(f"A container named `{spec.name}` is there and is not ours; rename or remove it.")
        await self.remove(spec.name)
        declared = await self._declared(spec) if spec.isolated else ()
        relay = await self._relays.create(spec) if spec.isolated else None
        order = plan.box(spec, self._owner, relay, declared)
        await self._about(spec.name, lambda api: api.create_container_from_config(order, name=spec.name))

    async def _declared(self, spec: BoxSpec) -> tuple[str, ...]:
        """The volumes that an image declares, looked up once: a digest never changes what it stands for."""
        if spec.image not in self._volumes:
            labels = {**spec.labels, label.OWNER: self._owner}
            self._volumes[spec.image] = await self._about(
                spec.name, lambda api: calls.scratch_volumes(api, spec.image, labels, spec.name)
            )
        return self._volumes[spec.image]

    async def put(self, name: str, source: Path) -> None:
        found = await self._must_inspect(name)
        where = found["Config"].get("WorkingDir") or "/"
        with calls.packed(source) as tar:
            if found["HostConfig"].get("ReadonlyRootfs"):
                await self._about(name, lambda api: calls.lay_over(api, name, found, where, tar))
            else:
                await self._about(name, lambda api: api.put_archive(name, where, tar))

    async def start(self, name: str) -> None:
        if relay := plan.ways_to(await self._must_inspect(name)).relay:
            await self._relays.start(relay)
        await self._about(name, lambda api: api.start(name))

    async def stop(self, name: str, grace_s: float) -> None:
        whole_s = int(-(-grace_s // 1))
        await self._about(name, lambda api: api.stop(name, timeout=whole_s), longer_s=whole_s)

    async def remove(self, name: str) -> None:
        found = await self._inspect(name)
        # Nameless volumes go with a box that we made; one of somebody else's agent may be its memory.
        ours = found is not None and plan.STATE in (found["Config"].get("Labels") or {})

        def work(api: Any) -> list[str]:
            remove(api, name, volumes=ours)
            helpers = api.containers(all=True, filters=self._ours({plan.RELAY_FOR: name}))
            for helper in helpers:
                remove(api, helper["Id"], volumes=True)
            for overlay in api.images(filters=self._ours({plan.OVERLAY_FOR: name})):
                if not plan.is_kept(overlay):
                    remove_image(api, overlay["Id"])
            return [helper["Names"][0].lstrip("/") for helper in helpers if helper["Names"]]

        for gone in [name, *await self._about(name, work)]:
            self._relays.forget(gone)

    async def look(self, name: str) -> BoxState | None:
        found = await self._inspect(name)
        if found and plan.was_killed(found):
            await asyncio.sleep(_REASON_S)
            found = await self._inspect(name)
        return plan.state_of(found) if found else None

    async def strain(self, name: str) -> Strain:
        return await self._about(name, if_there(lambda api: calls.strain(api, name))) or Strain()

    async def boxes(self, labels: Mapping[str, str]) -> list[BoxState]:
        """A helper whose box is gone is shown in its place, so that somebody removes it."""

        def work(api: Any) -> tuple[list[Json], set[str]]:
            ids = [one["Id"] for one in api.containers(all=True, filters=self._ours({}))]
            found = [one for id in ids if (one := inspect(api, id))]
            return found, {one["Name"].lstrip("/") for one in found if plan.by_hand(one, calls.labels_of(api, one))}

        found, by_hand = await self._engine.do("The list of boxes", work)
        return [replace(box, by_hand=box.name in by_hand) for box in plan.boxes_among(found, labels)]

    async def writers(self, volume: str) -> list[str]:
        me = self._own_container()  # to have the agents' sockets it may have a directory above, and it writes to none

        def work(api: Any) -> list[str]:
            devices = plan.devices(api.volumes()["Volumes"] or ())
            # By a path the engine finds only who has the very same one.
            filters = {} if devices.get(volume, volume).startswith("/") else {"volume": volume}
            found = [inspect(api, one["Id"]) for one in api.containers(filters=filters) if one["Id"] != me]
            using = [one for one in found if one and plan.writes_to(one, volume, devices, os.path.realpath)]
            return sorted(one["Name"].lstrip("/") for one in using)

        return await self._engine.do(f"The volume `{volume}`", work)

    async def running(self) -> list[tuple[str, str, Mapping[str, str]]]:
        """Whatever runs on this engine, whoever started it: name, image as it was named, labels."""

        def work(api: Any) -> list[tuple[str, str, Mapping[str, str]]]:
            found = [one for one in api.containers() if one.get("Names")]
            return [(one["Names"][0].lstrip("/"), one["Image"], one.get("Labels") or {}) for one in found]

        return await self._engine.do("The list of containers", work)

    async def portrait(self, name: str) -> Portrait | None:
        found = await self._inspect(name)
        return plan.portrait(found, await self._image(found["Image"]) or {}) if found else None

    async def set_restart(self, name: str, policy: str) -> None:
        def work(api: Any) -> None:
            api.update_container(name, restart_policy={"Name": policy})

        await self._about(name, if_there(work))

    async def wait(self, name: str, timeout_s: float) -> int | None:
        if (await self._must_inspect(name))["State"]["Status"] == "created":
            raise errors.AgentFailed(f"The box `{name}` was never started, so that it cannot end; start it first.")
        longest_s = timeout_s + self._engine.silence_s

        def work(api: Any) -> int:
            return cast(int, api.wait(name, timeout=longest_s)["StatusCode"])

        try:
            async with asyncio.timeout(timeout_s):
                return await self._engine.follow(f"The box `{name}`", work)
        except TimeoutError:
            return None

    async def logs(self, name: str, limit_bytes: int = 65_536) -> str:
        said = await self._about(name, lambda api: api.logs(name, tail=2000))
        return cast(bytes, said)[-limit_bytes:].decode(errors="replace")

    async def run(
        self, name: str, command: tuple[str, ...], *, stdin: str = "", timeout_s: float, limit_bytes: int = 262_144
    ) -> Output:
        found = await self._must_inspect(name)
        if not found["State"]["Running"]:
            raise errors.AgentFailed(f"The box `{name}` is not running, so that nothing runs in it; see its log.")
        labels = found["Config"].get("Labels") or {}
        argv = inside.filled(command, port=plan.ways_to(found).port, state=labels.get(plan.STATE, ""))
        mark = secrets.token_hex(8)
        deadline = time.monotonic() + timeout_s
        begun: list[str] = []

        def work(api: Any) -> Output:
            return calls.run(
                api, name, argv, stdin.encode(), mark=mark, begun=begun, deadline=deadline, limit_bytes=limit_bytes
            )

        try:
            return await self._engine.follow(f"`{argv[0]}` in the box `{name}`", work)
        except asyncio.CancelledError:
            with contextlib.suppress(errors.MossError):  # the box may be gone, and the command with it
                await self._about(name, lambda api: calls.end(api, name, begun, mark))
            raise

    async def read(self, name: str, path: str, limit_bytes: int = 65_536) -> bytes | None:
        found = await self._inspect(name)
        if found is None:
            return None
        state = (found["Config"].get("Labels") or {}).get(plan.STATE, "")
        path = posixpath.join(found["Config"].get("WorkingDir") or "/", path.replace("{state}", state))

        def work(api: Any) -> bytes | None:
            what = calls.file(api, name, path, limit_bytes)
            if isinstance(what, str):  # a link, of which the engine says where it ends
                what = calls.file(api, name, what, limit_bytes)
            return what if isinstance(what, bytes) else None

        return await self._engine.follow(f"The box `{name}`", if_there(work))

    @contextlib.asynccontextmanager
    async def door(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        found = await self._must_inspect(name)
        if not found["State"]["Running"]:
            raise errors.AgentFailed(f"The box `{name}` is not running, so that nobody can talk to it; see its log.")
        ways = plan.ways_to(found)
        if ways.port is None:
            raise errors.BadInput(f"Nobody said where the agent in `{name}` listens; set `run.port`.")
        door: AbstractAsyncContextManager[httpx.AsyncClient]
        if ways.relay:
            door = self._relays.door(name)
        elif ways.published and await self._is_outside():
            door = client(url=f"http://127.0.0.1:{ways.published}")
        else:
            door = self._relays.lent_door(name, found["Id"], ways.port)
        async with door as through:
            yield through

    async def _is_outside(self) -> bool:
        """Whether a port of the engine's machine is ours to call: not so when Moss itself runs in a container."""
        if self._outside is None:
            me = self._own_container()
            found = await self._inspect(me) if me else None
            self._outside = found is None or found["HostConfig"].get("NetworkMode") == "host"
        return self._outside

    @staticmethod
    def _own_container() -> str | None:
        try:
            return plan.own_container(Path("/proc/self/mountinfo").read_text())
        except OSError:
            return None

    async def _image(self, image: str) -> Json | None:
        return await self._engine.do("The image", if_there(lambda api: cast(Json, api.inspect_image(image))))

    async def _inspect(self, name: str) -> Json | None:
        return await self._about(name, lambda api: inspect(api, name))

    async def _must_inspect(self, name: str) -> Json:
        found = await self._inspect(name)
        if found is None:
            raise errors.NotFound(f"There is no box `{name}`; create it first.")
        return found

    async def _about(self, name: str, work: Callable[[Any], T], longer_s: float = 0) -> T:
        return await self._engine.do(f"The box `{name}`", work, longer_s)

    def _ours(self, labels: Mapping[str, str]) -> Json:
        return {"label": [f"{name}={value}" for name, value in {**labels, label.OWNER: self._owner}.items()]}
