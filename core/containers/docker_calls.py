"""What is said to the engine where one request is not enough. It blocks; `api` is docker-py's low-level client."""

import contextlib
import io
import select
import socket
import struct
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from core.containers import docker_plan as plan
from core.containers import inside
from core.containers.docker_engine import begin_unheard, if_there, inspect, kill, remove, remove_image, remove_volume
from core.containers.docker_plan import Json
from core.containers.host import Output, Strain, label
from core.model import errors

LOG_BYTES = 64_000_000
"""A build that says more is ended: its log lies on Moss's disk."""
_TAIL_LINES = 15
_CHUNK_BYTES = 65_536
_FRAME = struct.Struct(">BxxxL")
_KILLED = 137
_TOLD_S = 1.0
ENDING_S = 5.0
_KILL = 'for p in /proc/[0-9]*; do if grep -qs "MOSS_EXEC=$0" "$p/environ"; then kill -9 "${p#/proc/}"; fi; done'


def build(api: Any, order: Json, log: Path | None, limits: Json | None = None) -> str:
    """The image's digest; what the builder says goes to the log as it comes. `limits` are parameters of the request,
    of which docker-py knows only some."""
    image, tail, said_bytes = None, "", 0
    api.params = limits or {}
    with log.open("ab", buffering=0) if log else contextlib.nullcontext(io.BytesIO()) as out:
        for said in api.build(**order, rm=True, forcerm=True, pull=False, decode=True, use_config_proxy=False):
            text = said.get("stream") or said.get("error") or said.get("status", "") + "\n"
            _write(out, text)
            said_bytes += len(text)
            if said_bytes > LOG_BYTES:
                raise errors.BuildFailed(
                    f"The build was ended, because it said more than {LOG_BYTES // 1_000_000} MB; let it say less."
                )
            tail = (tail + text)[-2000:]
            image = (said.get("aux") or {}).get("ID") or image
            if problem := said.get("error"):
                raise _build_problem(problem, tail, (said.get("errorDetail") or {}).get("code"))
    if image is None:
        raise errors.Unavailable("The engine broke off the build without a word; see that it runs, and try again.")
    return str(image)


def _write(out: IO[bytes], text: str) -> None:
    try:
        out.write(text.encode(errors="replace"))
    except OSError as problem:
        raise errors.Unavailable(f"The build's log cannot be written: {problem.strerror}; free space.") from problem


def _build_problem(problem: str, tail: str, exit_code: int | None) -> errors.MossError:
    if "no space left on device" in problem:
        return errors.Unavailable("The build filled the engine's disk; free space, such as by `docker image prune`.")
    if "no space left on device" in tail.lower():
        return errors.Unavailable(
            "A step of the build found its disk full; free space, such as by `docker image prune`, or let it need less."
        )
    what, advice = "a step failed", "correct it"
    if "BuildKit" in problem:
        advice = "use what the classic builder knows"
    elif exit_code == _KILLED:
        what, advice = "a step was killed", "let it need less memory, or raise `build.memory_mb`"
    lines = "\n".join(tail.strip().splitlines()[-_TAIL_LINES:])
    return errors.BuildFailed(f"The image was not built, because {what}; {advice}. Its log ends:\n{lines}")


def scratch_volumes(api: Any, image: str, labels: Mapping[str, str], box: str) -> tuple[str, ...]:
    """The volumes that an image declares, each an empty directory of it: in an isolated box they begin empty, so that
    files in one would be missing there, which nobody would guess from what comes of it."""
    declared = plan.declared_volumes(api.inspect_image(image))
    if not declared:
        return ()
    made = api.create_container_from_config(plan.probe(image, labels, box, declared), name=f"{box}-look")["Id"]
    try:
        for path in declared:
            if _holds_files(api, made, path):
                raise errors.AgentFailed(
                    f"The image declares the volume `{path}` and holds files in it, which no trial would see; take the "
                    "VOLUME line out, or declare an empty directory."
                )
    finally:
        api.remove_container(made, v=True)
    return declared


def _holds_files(api: Any, container: str, path: str) -> bool:
    found = if_there(lambda api: api.get_archive(container, path))(api)
    if found is None:
        return False
    with tarfile.open(fileobj=_Chunks(found[0]), mode="r|") as tar:
        return any(not member.isdir() for member in tar)


def lay_over(api: Any, name: str, found: Json, where: str, tar: IO[bytes]) -> None:
    """Make a created box again, from its image with files laid over it: the engine itself lays none over a read-only
    root. Whatever is left when this ends halfway carries a label by which `remove` finds it."""
    hidden = plan.scratch_of(found)
    if any(where == path or where.startswith(f"{path}/") for path in hidden):
        raise errors.AgentFailed(f"The image works in `{where}`, which begins empty in a box; name another WORKDIR.")
    labels = {label.OWNER: found["Config"]["Labels"][label.OWNER]}
    declared = plan.declared_volumes(api.inspect_image(found["Image"]))
    made = api.create_container_from_config(plan.probe(found["Image"], labels, name, declared), name=f"{name}-put")[
        "Id"
    ]
    api.put_archive(made, where, tar)
    overlay = api.commit(made, pause=False, changes=[f'LABEL "{plan.OVERLAY_FOR}"="{name}"'])["Id"]
    api.remove_container(made, v=True)
    scratch_volumes(api, overlay, labels, name)  # what was laid must be seen
    api.remove_container(name, v=True)
    api.create_container_from_config(plan.laid_over(found, overlay), name=name)


def labels_of(api: Any, container: Json) -> dict[str, str]:
    """Of its image, which it has inherited."""
    image = if_there(lambda api: cast(Json, api.inspect_image(container["Image"])))(api) or {}
    return cast(dict[str, str], (image.get("Config") or {}).get("Labels") or {})


def tidy(api: Any, ours: Json, before: float) -> tuple[list[str], set[str]]:
    """What of ours no box needs was removed, and the names of the boxes that are there or may come."""
    gone, there = [], set()
    for one in api.containers(all=True, filters=ours):
        name, labels = one["Names"][0].lstrip("/") if one["Names"] else one["Id"], one["Labels"]
        if label.SUBSTRATE not in labels and one["State"] != "running" and one["Created"] < before:
            remove(api, one["Id"], volumes=True)  # of a question, or a look at a live box, that a death has cut off
            gone.append(name)
        else:
            there |= {name, labels.get(plan.RELAY_FOR, name)}
    for image in api.images(filters=ours):
        box = (image["Labels"] or {}).get(plan.OVERLAY_FOR)
        if box and box not in there and image["Created"] < before and not plan.is_kept(image):
            remove_image(api, image["Id"])
            gone.append(f"the files laid over {box}")
    for volume in api.volumes(filters={**ours, "dangling": True})["Volumes"] or ():
        if remove_volume(api, volume["Name"]):
            gone.append(f"the volume {volume['Name']}")
    return gone, there


@contextlib.contextmanager
def packed(source: Path) -> Iterator[IO[bytes]]:
    """A directory's content as a tar, in which everything is root's to write and everybody's to read."""

    def entry(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode |= 0o755 if member.isdir() else 0o444
        return member

    with tempfile.TemporaryFile() as tar:
        with tarfile.open(fileobj=tar, mode="w") as into:
            for path in sorted(source.iterdir()):
                into.add(path, arcname=path.name, filter=entry)
        tar.seek(0)
        yield tar


def file(api: Any, name: str, path: str, limit_bytes: int) -> bytes | str | None:
    """A file's content; of a link, where it leads; of anything else, None."""
    chunks, about = api.get_archive(name, path)
    if about and about["linkTarget"]:
        return str(about["linkTarget"])
    with tarfile.open(fileobj=_Chunks(chunks), mode="r|") as tar:
        member = tar.next()
        content = tar.extractfile(member) if member and member.isfile() else None
        return content.read(limit_bytes) if content else None


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._chunks, b"")
        given, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


def strain(api: Any, name: str) -> Strain:
    """Of a process that the kernel ended for its memory the engine tells an event, a moment later. It keeps the last
    few hundred events of all containers."""
    found = api.inspect_container(name)
    began, now = (_unix(moment) for moment in (found["State"]["StartedAt"], api.info()["SystemTime"]))
    wanted = {"container": found["Id"], "event": "oom"}
    told = any(api.events(since=f"{began:.6f}", until=f"{now + _TOLD_S:.6f}", filters=wanted))
    counted = api.stats(name, stream=False, one_shot=True).get("pids_stats") or {}
    return Strain(memory_ended=told, processes=counted.get("current", 0))


def _unix(moment: str) -> float:
    """By the engine's clock."""
    return datetime.fromisoformat(moment).timestamp()


def run(
    api: Any,
    name: str,
    argv: tuple[str, ...],
    stdin: bytes,
    *,
    mark: str,
    begun: list[str],
    deadline: float,
    limit_bytes: int,
) -> Output:
    """`begun` is told the engine's name of the command, so that it can be ended when this is cut off."""
    made = api.exec_create(name, list(argv), stdin=bool(stdin), environment={"MOSS_EXEC": mark})["Id"]
    begun.append(made)
    with _conversation(api, made) as (plug, early):
        frames = _Frames(limit_bytes, early)
        ended = _converse(plug, frames, stdin, deadline)
    state = api.exec_inspect(made)
    while ended and state["Running"] and time.monotonic() < deadline:
        time.sleep(0.02)  # the engine has no event to wait for that could not have happened already
        state = api.exec_inspect(made)
    if state["Running"]:
        end(api, name, begun, mark)
    code, text = state["ExitCode"], inside.shown(bytes(frames.text), limit_bytes)
    if code == 126 and "executable file not found" in text:
        code = 127  # as everywhere else
    cut = frames.said_bytes > limit_bytes
    return Output(137 if code is None else code, text, timed_out=code is None and not frames.flooded, cut=cut)


def end(api: Any, name: str, begun: list[str], mark: str) -> None:
    """The engine cannot end an exec, so a shell in the box must: the image's own, which may be anything. It has a few
    seconds, and nobody hears it. What lives on then takes its box along where that is isolated."""
    deadline = time.monotonic() + ENDING_S
    shell = begin_unheard(api, name, ("/bin/sh", "-c", _KILL, mark))
    at_work = [*begun, shell] if shell else begun
    while lives_on := any(api.exec_inspect(one)["Running"] for one in at_work):
        if shell is None or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    found = inspect(api, name) if lives_on else None
    if found and plan.RELAY in (found["Config"].get("Labels") or {}):
        kill(api, name)


@contextlib.contextmanager
def _conversation(api: Any, command: str) -> Iterator[tuple[socket.socket, bytes]]:
    """The socket of a command, and what the reader of the answer's head had read on into what the command said."""
    answers: list[Any] = []
    api.hooks["response"].append(lambda answer, *_, **__: answers.append(answer))
    plug = api.exec_start(command, socket=True)._sock
    try:
        plug.setblocking(False)
        yield plug, answers[0].raw._fp.fp.peek()
    finally:
        with contextlib.suppress(OSError):
            plug.shutdown(socket.SHUT_RDWR)  # or the engine waits for somebody to hear the rest
        answers[0].close()


def _converse(plug: socket.socket, frames: "_Frames", stdin: bytes, deadline: float) -> bool:
    """Whether the command has said all it had to say: no deadline came first, and no flood."""
    to_tell = memoryview(stdin)
    poll = select.poll()
    poll.register(plug, select.POLLIN | (select.POLLOUT if stdin else 0))
    while (left_s := deadline - time.monotonic()) > 0 and not frames.flooded:
        happened = 0
        for _, event in poll.poll(left_s * 1000):
            happened |= event
        if to_tell and happened & select.POLLOUT:
            to_tell = to_tell[plug.send(to_tell[:_CHUNK_BYTES]) :]
            if not to_tell:
                plug.shutdown(socket.SHUT_WR)
                poll.modify(plug, select.POLLIN)
        if happened & ~select.POLLOUT:
            heard = plug.recv(_CHUNK_BYTES)
            if not heard:
                return True
            frames.feed(heard)
    return False


class _Frames:
    """Both outputs of a command, in frames. What is said beyond the limit is counted and dropped."""

    def __init__(self, limit_bytes: int, early: bytes) -> None:
        self.text = bytearray()
        self.said_bytes = 0
        self._limit_bytes = limit_bytes
        self._header = b""
        self._left = 0
        self.feed(early)

    @property
    def flooded(self) -> bool:
        return self.said_bytes > self._limit_bytes + inside.FLOOD_BYTES

    def feed(self, heard: bytes) -> None:
        while heard:
            if self._left == 0:
                wanted = _FRAME.size - len(self._header)
                self._header, heard = self._header + heard[:wanted], heard[wanted:]
                if len(self._header) == _FRAME.size:
                    self._left, self._header = _FRAME.unpack(self._header)[1], b""
                continue
            said, heard = heard[: self._left], heard[self._left :]
            self._left -= len(said)
            self.said_bytes += len(said)
            self.text += said[: max(0, self._limit_bytes - len(self.text))]
