"""A `moss` that dies at one durable write, or with a planted bug in it. For the kill sweep.

    python mortal_moss.py MOMENT BUG -- moss arguments

MOMENT is `never`, or `before:WHAT` / `after:WHAT`: the process kills itself with SIGKILL just before or just after the
transaction that writes WHAT is committed. WHAT is a number (the n-th transaction), `outbox` (a row of it is done), or
the name of a fact, such as `run.moved.running`, `run.stepped.iter-1/build` or `swap.moved.probing`. BUG is `none` or
one of BUGS.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.containers.docker_host import DockerHost
from core.containers.process_host import ProcessHost
from core.dispatch import Dispatch
from core.model.events import Noun
from core.store import outbox
from core.store.store import Change, Store
from core.swap import reconcile


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def name_of(noun: Noun, what: str, after: str | None, detail: dict[str, Any]) -> str:
    return ".".join(filter(None, (noun, what, after if what == "moved" else detail.get("step"))))


def die_at(moment: str) -> None:
    when, _, where = moment.partition(":")
    seen = {"count": 0}
    names: set[str] = set()
    transaction, record = Store._transaction, Change.record

    async def recording(self: Change, who: str, noun: Noun, id: str, what: str, *rest: Any, **more: Any) -> Any:
        after = more.get("after", rest[1] if len(rest) > 1 else None)
        names.add(name_of(noun, what, after, more))
        return await record(self, who, noun, id, what, *rest, **more)

    @asynccontextmanager
    async def transacting(self: Store, substrate: str) -> AsyncIterator[Any]:
        names.clear()
        async with transaction(self, substrate) as db:
            yield db
            seen["count"] += 1
            due = where in names or where == str(seen["count"])
            if due and when == "before":
                die()
        if due and when == "after":
            die()

    mark_done = outbox.done

    async def marking(change: Change, id: int) -> None:
        names.add("outbox")
        await mark_done(change, id)

    outbox.done = marking
    Change.record = recording  # type: ignore[method-assign]
    Store._transaction = transacting  # type: ignore[method-assign,assignment]


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
    """Boxes are never removed, and what a crash left is never looked for."""

    async def nothing(*_: Any, **__: Any) -> list[Any]:
        return []

    reconcile.reconcile = nothing  # type: ignore[assignment]
    for host in (ProcessHost, DockerHost):
        host.remove = nothing  # type: ignore[assignment,method-assign]


BUGS = {"none": lambda: None, "state-before-effect": state_before_effect, "nobody-reaps": nobody_reaps}


if __name__ == "__main__":
    moment, bug, arguments = sys.argv[1], sys.argv[2], sys.argv[4:]
    if moment != "never":
        die_at(moment)
    BUGS[bug]()
    from bot.cli import main

    main(arguments)
