"""A host of plain processes, for a machine without an engine. It isolates nothing, and enforces no limits.

An image is a read-only directory named after its content. A box is a directory with a copy of it, what is known of the
box, its log and its scratch state; each start begins with a fresh copy. Agents outlive Moss: they are found again by
the tag in their environment, whatever has become of their number.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path

import httpx

from core import process
from core.containers import inside
from core.containers import process_images as images
from core.containers.host import BoxSpec, BoxState, Output, Portrait, Recipe, Strain, label
from core.containers.process_box import KILLED, Box, write
from core.folders import clear, to_its_end
from core.model import errors

_BOXED = Path(__file__).with_name("boxed.py")
_DEATH_S = 5.0
_BUILD_LOG_BYTES = 64_000_000


class ProcessHost:
    name = "process"
    isolates = False
    silence_s = 0.0
    lane_port: int | None = None

    def __init__(self, data: Path, owner: str) -> None:
        self._owner = owner
        self._images = data.resolve() / "images"
        self._boxes = data.resolve() / "boxes"
        self._volumes = data.resolve() / "volumes"

    async def ping(self) -> str:
        return f"Plain processes of this machine, isolated from nothing, in {self._boxes}."

    async def tidy(self) -> list[str]:
        return []

    async def remove_volume(self, name: str) -> None:
        if "/" in name:
            raise errors.Refused(f"The directory {name} is its owner's; remove it by hand.")
        if users := [box.spec.name for box in self._all() if box.spec.volume and box.spec.volume.name == name]:
            raise errors.Refused(f"The volume `{name}` is in use by the box `{users[0]}`; remove that first.")
        await to_its_end(lambda: clear(self._volumes / name))

    async def pack_up(self) -> None:
        """Nothing serves all boxes here."""

    async def close(self) -> None:
        """Its agents live on."""

    # Images

    async def build(self, recipe: Recipe) -> str:
        context = (recipe.source / recipe.context).resolve()
        if not context.is_relative_to(recipe.source.resolve()) or not context.is_dir():
            raise errors.BuildFailed(
                f"The build context `{recipe.context}` is no directory of the repository; mend it."
            )
        labels = {**recipe.labels, label.OWNER: self._owner}
        recipe.log.parent.mkdir(parents=True, exist_ok=True)
        with images.building(self._images) as place:
            tree = place / images.TREE
            await to_its_end(lambda: shutil.copytree(context, tree, symlinks=True))
            if recipe.command:
                await self._make(recipe, recipe.command, tree)
            else:
                recipe.log.write_text("Nothing was to be done but to copy the files.\n")
            return await to_its_end(lambda: images.finish(self._images, place, labels))

    async def _make(self, recipe: Recipe, command: tuple[str, ...], tree: Path) -> None:
        try:
            done = await process.run(
                command,
                cwd=tree,
                timeout_s=recipe.timeout_s,
                limit_bytes=_BUILD_LOG_BYTES,
                stdout_to=recipe.log,
                stderr_to=recipe.log,
            )
        except errors.Unavailable as problem:
            raise errors.BuildFailed(problem.sentence) from problem
        if done.timed_out:
            raise errors.BuildFailed(
                f"The build did not end within {recipe.timeout_s:.0f} s; shorten it, or raise `build.timeout_s`."
            )
        if done.exit_code != 0:
            lines = "\n".join((done.stdout + done.stderr)[-2000:].decode(errors="replace").strip().splitlines()[-15:])
            raise errors.BuildFailed(f"`{command[0]}` ended with {done.exit_code}; correct it. Its log ends:\n{lines}")

    async def has_image(self, image: str) -> bool:
        return images.labels_of(self._images, image) is not None

    async def image_labels(self, image: str) -> Mapping[str, str]:
        labels = images.labels_of(self._images, image)
        if labels is None:
            raise errors.NotFound(f"The image `{image}` is not on this host; build it again.")
        return labels

    async def images(self, labels: Mapping[str, str]) -> list[str]:
        wanted = {**labels, label.OWNER: self._owner}
        return [one for one in images.listed(self._images) if _match(images.labels_of(self._images, one) or {}, wanted)]

    async def remove_image(self, image: str) -> None:
        if users := [box.spec.name for box in self._all() if box.spec.image == image]:
            raise errors.Refused(f"The image `{image}` is in use by the box `{users[0]}`; remove that first.")
        await to_its_end(lambda: images.remove(self._images, image))

    # Boxes

    async def create(self, spec: BoxSpec) -> None:
        inside.check_name(spec.name)
        if not spec.command:
            raise errors.BadInput(f"The box `{spec.name}` has no command, and a process needs one; set `run.command`.")
        if spec.user:
            raise errors.BadInput("Plain processes run as the user of Moss; leave out `run.user`.")
        if not await self.has_image(spec.image):
            raise errors.NotFound(f"The image `{spec.image}` is not on this host; build it again.")
        there = self._find(spec.name)
        if there and there.owner != self._owner:
            raise errors.Refused(f"The box `{spec.name}` in {self._boxes} is not ours; choose another data directory.")
        await self.remove(spec.name)
        making = self._boxes / f".making-{secrets.token_hex(8)}"
        making.mkdir(mode=0o700, parents=True)
        about = {"owner": self._owner, "tag": f"box-{spec.name}-{secrets.token_hex(8)}", "spec": asdict(spec)}
        write(making / "box.json", about)
        making.rename(self._boxes / spec.name)

    async def put(self, name: str, source: Path) -> None:
        box = self._must_find(name)
        await to_its_end(lambda: shutil.copytree(source, box.laid, symlinks=True, dirs_exist_ok=True))

    async def start(self, name: str) -> None:
        box = self._must_find(name)
        if box.pid() is not None:
            return
        await to_its_end(lambda: self._prepare(box))
        port = box.spec.publish or _free_port(box.port)
        if box.spec.publish and not _is_free(port):
            raise errors.Unavailable(
                f"The box `{name}` needs port {port}, which is taken; free it, or change `publish`."
            )
        for stale in ("exit", "pid"):
            (box.directory / stale).unlink(missing_ok=True)
        write(box.directory / "run.json", {"port": port})
        command = inside.filled(box.spec.command or (), port=port, state=str(box.state))
        argv = [sys.executable, "-I", "-S", str(_BOXED), str(box.directory), *command]
        pid = await process.start_detached(
            argv, cwd=box.tree, env=box.env(port), log=box.directory / "log", tag=box.tag
        )
        write(box.directory / "pid", pid)  # it writes the same itself, in case we do not come to this line

    def _prepare(self, box: Box) -> None:
        images.copy(self._images, box.spec.image, box.tree)
        if box.laid.is_dir():
            shutil.copytree(box.laid, box.tree, symlinks=True, dirs_exist_ok=True)
        for directory in (box.state, box.home):
            directory.mkdir(parents=True, exist_ok=True)

    async def stop(self, name: str, grace_s: float) -> None:
        await self._end(self._must_find(name), grace_s)

    async def _end(self, box: Box, grace_s: float) -> None:
        started = box.port is not None
        await process.kill(box.pid() or 0, box.tag, grace_s)
        for _ in range(int(_DEATH_S / 0.02)):  # commands run in the box have a tag of their own, which begins alike
            if not (left := process.survivors(box.tag)):
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)
        if started and box.exit_code() is None:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, as it was to be
                write(box.directory / "exit", KILLED)

    async def remove(self, name: str) -> None:
        inside.check_name(name)
        if box := self._find(name):
            await self._end(box, 0)
        gone = self._boxes / f".gone-{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            (self._boxes / name).rename(gone)
        await to_its_end(self._sweep)

    def _sweep(self) -> None:
        for path in self._boxes.glob(".gone-*"):
            clear(path)

    async def look(self, name: str) -> BoxState | None:
        box = self._find(name)
        return box.look() if box else None

    async def strain(self, name: str) -> Strain:
        return Strain()

    async def boxes(self, labels: Mapping[str, str]) -> list[BoxState]:
        for path in self._boxes.glob(".making-*"):
            clear(path)
        wanted = {**labels, label.OWNER: self._owner}
        return [box.look() for box in self._all() if _match(box.labels, wanted)]

    async def writers(self, volume: str) -> list[str]:
        using = [box for box in self._all() if box.spec.volume and box.spec.volume.name == volume]
        return [box.spec.name for box in using if box.pid() is not None]

    async def portrait(self, name: str) -> Portrait | None:
        box = self._find(name)
        if box is None:
            return None
        spec = box.spec
        return Portrait(
            name=name,
            image=spec.image,
            command=spec.command,
            env=spec.env,
            volumes=(spec.volume,) if spec.volume else (),
            ports={spec.port: spec.publish} if spec.port else {},
            user=None,
            restart=None,
        )

    async def set_restart(self, name: str, policy: str) -> None:
        """Nobody watches a process but Moss."""

    async def wait(self, name: str, timeout_s: float) -> int | None:
        box = self._must_find(name)
        if box.port is None:
            raise errors.AgentFailed(f"The box `{name}` was never started, so that it cannot end; start it first.")
        until = time.monotonic() + timeout_s
        while (pid := box.pid()) is not None:
            if not await process.wait_gone(pid, box.tag, max(0.0, until - time.monotonic())):
                return None
        return box.look().exit_code

    async def logs(self, name: str, limit_bytes: int = 65_536) -> str:
        box = self._must_find(name)
        parts = [path.read_bytes() for path in (box.directory / "log.1", box.directory / "log") if path.exists()]
        return b"".join(parts)[-limit_bytes:].decode(errors="replace")

    async def run(
        self, name: str, command: tuple[str, ...], *, stdin: str = "", timeout_s: float, limit_bytes: int = 262_144
    ) -> Output:
        box = self._must_find(name)
        if box.pid() is None or box.port is None:
            raise errors.AgentFailed(f"The box `{name}` is not running, so that nothing runs in it; see its log.")
        try:
            done = await process.run(
                inside.filled(command, port=box.port, state=str(box.state)),
                cwd=box.tree,
                env=box.env(box.port),
                stdin=stdin.encode(),
                timeout_s=timeout_s,
                limit_bytes=limit_bytes + inside.FLOOD_BYTES,
                tag=f"{box.tag}-run-{secrets.token_hex(4)}",
            )
        except errors.Unavailable as problem:  # no such program: for the box, that is an answer
            return Output(127, problem.sentence)
        said = done.stdout + done.stderr
        code = done.exit_code if done.exit_code >= 0 else 128 - done.exit_code
        return Output(code, inside.shown(said, limit_bytes), timed_out=done.timed_out, cut=len(said) > limit_bytes)

    async def read(self, name: str, path: str, limit_bytes: int = 65_536) -> bytes | None:
        box = self._find(name)
        if box is None:
            return None
        file, root = box.place_of(path)
        try:
            if file is None or not file.resolve().is_relative_to(root.resolve()):
                return None
            handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would make us wait for its writer
        except (OSError, RuntimeError):  # the second for a link that leads to itself
            return None
        try:
            return os.read(handle, limit_bytes) if stat.S_ISREG(os.fstat(handle).st_mode) else None
        finally:
            os.close(handle)

    @contextlib.asynccontextmanager
    async def door(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        box = self._must_find(name)
        if box.pid() is None:
            raise errors.AgentFailed(f"The box `{name}` is not running, so that nobody can talk to it; see its log.")
        # Plain HTTP: without `verify` httpx would load the certificates of the world, 20 ms for each door.
        url = f"http://127.0.0.1:{box.port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=30) as client:
            yield client

    def _find(self, name: str) -> Box | None:
        try:
            return Box(self._boxes / name, self._volumes)
        except FileNotFoundError:
            return None

    def _must_find(self, name: str) -> Box:
        box = self._find(name)
        if box is None:
            raise errors.NotFound(f"There is no box `{name}`; create it first.")
        return box

    def _all(self) -> list[Box]:
        names = sorted(path.parent.name for path in self._boxes.glob("*/box.json"))
        return [box for name in names if not name.startswith(".") and (box := self._find(name))]


def _match(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


def _free_port(before: int | None) -> int:
    if before and _is_free(before):
        return before
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port: int = any_port.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            plug.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
