"""A `moss run` that dies at durable writes, or has a planted bug in it. For the kill sweep.

As a program, `python mortal_moss.py FD`, it is where lives begin: each is a fork of it, since starting Python anew for
hundreds of deaths would take longer than all the rest. A message on the socket FD is a story, with a socket of its own
attached. Each line from there, `{"moments": [...], "bug": ...}`, begins a life, and what happens goes back in lines:
`born PID`, `dead CODE`, and `before WRITE` and `after WRITE` of each durable write. Moments are such lines: at the
first that comes the process says `killed MOMENT` and kills itself with SIGKILL, and so dies at that very line of Moss.
"""

import asyncio
import contextlib
import inspect
import json
import os
import re
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import docker
from dbos import Queue

from bot import control, wiring
from bot.cli import main as moss
from core import process
from core.containers import docker_calls, process_images
from core.containers.docker_host import DockerHost
from core.containers.process_host import ProcessHost
from core.dispatch import Dispatch
from core.durable import Durable
from core.model.events import Noun
from core.pipeline.evolve import Evolution
from core.pipeline.scene import Scene
from core.repository import Clone, clone
from core.store import outbox
from core.store.store import Change, Store
from core.swap import reconcile

TICK = "tick"
TICK_S, POLL_S = 0.3, 0.1
"""How soon the next tick finds what was left, and DBOS the jobs that a dead one held: nobody shall wait for them."""
RELAY = "build of the relay"
NOT_IN_EACH = (RELAY, "leases.renew", "substrate.box_claimed", "substrate.box_released")
"""Not in every story: the image of the relay may be there already, a lease is renewed after some seconds, and only now
and then does a tick find the box that a swap is about to drop. Deaths at random hit them all the same."""


class Fate:
    def __init__(self, moments: list[str], news: int) -> None:
        self.moments, self.news = moments, news
        self.step = ""
        """Of the run, while one is under way."""

    def passes(self, when: str, *names: str) -> None:
        """One write may have several names; the first is the one that is told."""
        tell(self.news, f"{when} {names[0]}")
        for moment in (f"{when} {name}" for name in names):
            if moment in self.moments:
                tell(self.news, f"killed {moment}")
                os.kill(os.getpid(), signal.SIGKILL)

    def marks(self, owner: Any, attribute: str, naming: Callable[..., str]) -> None:
        real = getattr(owner, attribute)

        def name(*args: Any, **named: Any) -> str:
            effect = naming(*args, **named)
            return f"{effect} in {self.step}" if self.step and effect != TICK else effect

        async def acting(*args: Any, **named: Any) -> Any:
            effect = name(*args, **named)
            self.passes("before", effect)
            result = await real(*args, **named)
            self.passes("after", effect)
            return result

        def acting_at_once(*args: Any, **named: Any) -> Any:
            effect = name(*args, **named)
            self.passes("before", effect)
            result = real(*args, **named)
            self.passes("after", effect)
            return result

        setattr(owner, attribute, acting if inspect.iscoroutinefunction(real) else acting_at_once)


def tell(news: int, line: str) -> None:
    os.write(news, f"{line}\n".encode())


def mark_the_store(fate: Fate) -> None:
    """A transaction is named by the facts in it, such as `run.moved.running`, `run.stepped.iter-1/build` or
    `swap.planned`; one without facts by who wrote it, such as `leases.claim`."""
    written: dict[Any, list[str]] = {}
    writer: ContextVar[str] = ContextVar("writer")
    transaction, record, mark_done = Store._transaction, Change.record, outbox.done

    def signed(real: Callable[..., Any]) -> Callable[..., Any]:
        def opening(*args: Any) -> Any:
            caller = sys._getframe(1)
            writer.set(f"{caller.f_globals['__name__'].rpartition('.')[2]}.{caller.f_code.co_name}")
            return real(*args)

        return opening

    @asynccontextmanager
    async def transacting(self: Store, substrate: str) -> AsyncIterator[Any]:
        default = writer.get()
        async with transaction(self, substrate) as db:
            facts = written[db] = []
            try:
                yield db
            finally:
                del written[db]
            names = facts or [default]
            fate.passes("before", *names)
        fate.passes("after", *names)

    async def recording(self: Change, who: str, noun: Noun, id: str, what: str, **more: Any) -> Any:
        which = more.get("after") if what == "moved" else more.get("step")
        written[self.db].append(".".join(filter(None, (noun, what, which))))
        return await record(self, who, noun, id, what, **more)

    async def marking(change: Change, id: int) -> None:
        written[change.db].append("outbox")
        await mark_done(change, id)

    Store.changing, Store.writing = signed(Store.changing), signed(Store.writing)  # type: ignore[method-assign]
    Store._transaction = transacting  # type: ignore[method-assign,assignment]
    Change.record = recording  # type: ignore[method-assign]
    outbox.done = marking


def mark_the_effects(fate: Fate) -> None:
    stage = Evolution._stage

    async def staging(self: Evolution, scene: Scene) -> Any:
        fate.step = scene.step.name
        try:
            return await stage(self, scene)
        finally:
            fate.step = ""

    Evolution._stage = staging  # type: ignore[method-assign]
    fate.marks(Scene, "keep", lambda scene, *_: "artefact")
    fate.marks(Durable, "submit", lambda durable, kind, *_: f"job of {kind}")
    fate.marks(Durable, "_call", lambda durable, kind, *_: f"work of {kind}")
    fate.marks(clone, "_make", lambda *_: "git clone")
    for verb in ("export", "checkout", "put_tests", "snapshot", "commit", "set_branch", "tag"):
        fate.marks(Clone, verb, lambda *_, said=f"git {verb}", **__: said)
    fate.marks(process, "_start", lambda argv, *_, **__: f"spawn {Path(argv[0]).name}")
    fate.marks(process_images, "finish", lambda *_: "image")
    for verb in ("build", "remove_image"):
        fate.marks(ProcessHost, verb, lambda *_, said=verb: said)
    for verb in ("create", "put", "start", "stop", "remove"):
        fate.marks(ProcessHost, verb, lambda host, box, *_, said=verb: f"{said} {kind_of(getattr(box, 'name', box))}")
    fate.marks(docker_calls, "build", lambda api, order, log, *_: "build" if log else RELAY)
    api = docker.APIClient
    fate.marks(api, "build", lambda *_, tag=None, **__: RELAY if tag else "engine build")
    for verb in ("tag", "commit", "remove_image", "exec_start"):
        fate.marks(api, verb, lambda *_, said=f"engine {verb}", **__: said)
    for verb in ("put_archive", "start", "stop", "update_container", "remove_container"):
        said = verb.removesuffix("_container").replace("_", " ")
        fate.marks(api, verb, lambda self, box, *_, said=said, **__: f"engine {said} {kind_of(box)}")
    fate.marks(api, "create_container_from_config", lambda self, order, name, **_: f"engine create {kind_of(name)}")
    fate.marks(control.Server, "listen", lambda *_: "listen")
    fate.marks(Dispatch, "tick", lambda *_: TICK)


def kind_of(box: str) -> str:
    """Names differ from story to story, what a box is for does not."""
    if found := re.fullmatch(r"moss-run-\w+-\d+-(\w+?)(-relay|-put)?", box):
        return ("trial" if found[1].isdigit() else found[1]) + (found[2] or "")
    if re.fullmatch(r"[0-9a-f]{64}", box):
        return "what belongs to it"
    return "the first" if box.endswith("-v0") else "the next"


def state_before_effect() -> None:
    """A row of the outbox is done before its job exists."""

    async def wake(self: Dispatch) -> None:
        async with self.store.reading() as db:
            rows = await outbox.waiting(db)
        for row in rows:
            async with self.store.changing(row.substrate) as change:
                await outbox.done(change, row.id)
            await self.durable.submit(row.kind, row.subject)

    Dispatch.wake = wake  # type: ignore[method-assign]


def nobody_reaps() -> None:
    """The boxes of trials are never removed, and what a crash left is never looked for."""

    async def nothing(*_: Any) -> list[Any]:
        return []

    reconcile.reconcile = nothing
    for host in (ProcessHost, DockerHost):

        async def remove(self: Any, name: str, real: Any = host.remove) -> None:
            if not name.startswith("moss-run-"):
                await real(self, name)

        host.remove = remove  # type: ignore[method-assign]


def falls_asleep() -> None:
    """A run is taken up, and then nothing more happens."""

    async def perform(*_: Any) -> None:
        await asyncio.Event().wait()

    Evolution.perform = perform  # type: ignore[method-assign]


BUGS = {
    "none": lambda: None,
    "state-before-effect": state_before_effect,
    "nobody-reaps": nobody_reaps,
    "falls-asleep": falls_asleep,
}


def live(config: str, log: str, news: int, moments: list[str], bug: str) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    BUGS[bug]()
    fate = Fate(moments, news)
    mark_the_store(fate)
    mark_the_effects(fate)
    wiring.TICK_S = TICK_S
    Queue.__init__.__kwdefaults__["polling_interval_sec"] = POLL_S
    moss(["--config", config, "run"])


def tell_a_story(wire: socket.socket, config: str, log: str, cwd: str, env: dict[str, str]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for line in wire.makefile():
        if (child := os.fork()) == 0:
            live(config, log, wire.fileno(), **json.loads(line))
        tell(wire.fileno(), f"born {child}")
        tell(wire.fileno(), f"dead {end_of(child, wire)}")


def end_of(child: int, wire: socket.socket) -> int:
    """Its exit code. Whoever follows the story may die too, and shall leave no life behind."""
    either = select.poll()
    either.register(ended := os.pidfd_open(child), select.POLLIN)
    either.register(wire, select.POLLRDHUP)
    either.poll()
    os.close(ended)
    os.kill(child, signal.SIGKILL)  # which is nothing to one that has ended
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(source: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        story, wires, *_ = socket.recv_fds(source, 65_536, 1)
        if not story:
            return
        with socket.socket(fileno=wires[0]) as wire:
            if os.fork() == 0:
                source.close()
                with contextlib.suppress(BrokenPipeError):  # nobody follows any more
                    tell_a_story(wire, **json.loads(story))
                return


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
