"""A container in which a coder answers one question: told on its standard input, heard as it speaks, then removed."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.containers import docker_plan as plan
from core.containers.docker_engine import Engine, if_there, inspect, remove
from core.model import errors
from core.process import Finished

_CHUNK_BYTES = 65_536
_FRAME = struct.Struct(">BxxxL")
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class CoderBox:
    name: str
    """Of the question, so that asking again replaces what a crash left."""
    image: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    env: Mapping[str, str]
    user: str
    shown: Mapping[Path, tuple[Path, bool]]
    """Path inside -> path of this machine, and whether it may be written to."""
    scratch: Mapping[Path, int]
    """Directories in memory, and how many megabytes they hold."""


class CoderBoxes:
    def __init__(self, url: str, silence_s: float) -> None:
        self._engine = Engine(url, silence_s)

    async def ping(self, image: str) -> str:
        about = await self._engine.do("Moss", lambda api: api.version(api_version=False))
        found = await self._engine.do(f"The image `{image}`", if_there(lambda api: api.inspect_image(image)["Id"]))
        if found is None:
            raise errors.Unavailable(
                f"The image `{image}` for coders is not on the engine; build or pull it, or correct `image` in [coder]."
            )
        return f"Docker Engine {about['Version']}, image `{image}`"

    async def run(
        self, box: CoderBox, stdin: bytes, *, timeout_s: float, limit_bytes: int, stdout_to: Path, stderr_to: Path
    ) -> Finished:
        """To its end. Whatever happens, the container is gone when this returns, and all that ran in it."""
        about = f"The container `{box.name}` for a coder"
        order = plan.coder(box)

        def work(api: Any) -> Finished:
            remove(api, box.name, volumes=True)
            api.create_container_from_config(order, name=box.name)
            return _converse(api, box.name, stdin, timeout_s, said)

        with _Said.into(stdout_to, stderr_to, limit_bytes) as said:
            try:
                return await self._engine.follow(about, work)
            finally:
                await self._engine.do(about, lambda api: remove(api, box.name, volumes=True))


def _converse(api: Any, name: str, stdin: bytes, timeout_s: float, said: "_Said") -> Finished:
    began = time.monotonic()
    with _attached(api, name) as plug:
        api.start(name)
        timed_out = not _talk(plug, stdin, began + timeout_s, said)
    seconds = time.monotonic() - began
    code = -9
    if not timed_out and not said.full:
        code = _code(api, name)
    return Finished(code, timed_out, said.full, seconds, bytes(said.out), bytes(said.err))


def _code(api: Any, name: str) -> int:
    """The engine hears of the end a moment after its last word."""
    until = time.monotonic() + _END_S
    while found := inspect(api, name):
        if not found["State"]["Running"]:
            return int(found["State"]["ExitCode"])
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    return -9


@contextlib.contextmanager
def _attached(api: Any, name: str) -> Iterator[socket.socket]:
    """Before it starts, so that no word is lost."""
    answers: list[Any] = []
    api.hooks["response"].append(lambda answer, *_, **__: answers.append(answer))
    plug = api.attach_socket(name, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})._sock
    attached = answers[-1]
    try:
        plug.setblocking(False)
        yield plug
    finally:
        with contextlib.suppress(OSError):
            plug.shutdown(socket.SHUT_RDWR)
        attached.close()


def _talk(plug: socket.socket, stdin: bytes, until: float, said: "_Said") -> bool:
    """Whether it said all it had to say, or more than it may, before the time was over."""
    to_tell = memoryview(stdin)
    poll = select.poll()
    poll.register(plug, select.POLLIN | select.POLLOUT)
    while (left_s := until - time.monotonic()) > 0:
        happened = 0
        for _, event in poll.poll(left_s * 1000):
            happened |= event
        if happened & select.POLLOUT:
            to_tell = to_tell[plug.send(to_tell[:_CHUNK_BYTES]) :] if to_tell else to_tell
            if not to_tell:
                with contextlib.suppress(OSError):
                    plug.shutdown(socket.SHUT_WR)
                poll.modify(plug, select.POLLIN)
        if happened & ~select.POLLOUT:
            heard = plug.recv(_CHUNK_BYTES)
            if not heard:
                return True
            said.feed(heard)
        if said.full:
            return True
    return False


@dataclass(slots=True)
class _Said:
    """Both outputs, told apart by the engine's frames, kept as they come and up to a limit."""

    files: tuple[BinaryIO, BinaryIO]
    left: int
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    full: bool = False
    _header: bytes = b""
    _frame_left: int = 0
    _to: int = 0

    @classmethod
    @contextlib.contextmanager
    def into(cls, stdout_to: Path, stderr_to: Path, limit_bytes: int) -> Iterator["_Said"]:
        stdout_to.parent.mkdir(parents=True, exist_ok=True)
        with stdout_to.open("wb", buffering=0) as out, stderr_to.open("wb", buffering=0) as err:
            yield cls((out, err), limit_bytes)

    def feed(self, heard: bytes) -> None:
        while heard:
            if self._frame_left == 0:
                wanted = _FRAME.size - len(self._header)
                self._header, heard = self._header + heard[:wanted], heard[wanted:]
                if len(self._header) == _FRAME.size:
                    kind, self._frame_left = _FRAME.unpack(self._header)
                    self._to, self._header = int(kind == 2), b""
                continue
            said, heard = heard[: self._frame_left], heard[self._frame_left :]
            self._frame_left -= len(said)
            self._keep(said)

    def _keep(self, said: bytes) -> None:
        kept = said[: self.left]
        self.full = self.full or len(kept) < len(said)
        self.left -= len(kept)
        (self.err if self._to else self.out).extend(kept)
        try:
            self.files[self._to].write(kept)
        except OSError as problem:
            raise errors.Unavailable(f"A coder's output cannot be kept: {problem.strerror}; free space.") from problem
