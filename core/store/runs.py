"""Runs, with their history of steps and their candidates."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.batch import BatchState
from core.model.candidate import Candidate
from core.model.errors import Busy, IllegalMove, NotFound
from core.model.events import Noun
from core.model.run import RESTARTABLE, RUN_IN_FLIGHT, RUN_MOVES, Budget, Dial, Done, Run, RunState
from core.model.transcript import Place
from core.model.value import new_id
from core.store import outbox
from core.store.batches import within
from core.store.moving import move as _move
from core.store.moving import own_row, the_row
from core.store.store import Change
from core.store.tables import batches, runs, steps
from core.store.tables import candidates as candidates_


async def queue(  # noqa: PLR0917 - what is run, how far, at what cost, for whom
    change: Change, batch: str, dial: Dial, budget: Budget, starter: str, id: str | None = None
) -> Run:
    """A new run of a sealed batch, and the outbox row that starts it. Who may ask twice gives the id."""
    row = await own_row(change, Noun.batch, batch)
    if row.state != BatchState.sealed:
        raise IllegalMove(f"batch {batch} is {row.state}; only a sealed batch can be evolved.")
    await _refuse_a_second(change)
    run = Run(
        id=id or new_id("run"),
        substrate=change.substrate,
        batch=batch,
        state=RunState.queued,
        dial=dial,
        budget=budget,
        starter=starter,
        queued_at=change.now,
    )
    await change.db.execute(insert(runs).values(**dict(run)))
    await change.record(starter, Noun.run, run.id, "queued", after=run.state, batch=batch, dial=dial)
    await outbox.add(change, "run", run.id)
    return run


async def get(db: AsyncConnection, id: str) -> Run:
    return _run(await the_row(db, Noun.run, id))


async def find(db: AsyncConnection, id: str) -> Run | None:
    row = (await db.execute(select(runs).where(runs.c.id == id))).one_or_none()
    return _run(row) if row else None


async def listing(
    db: AsyncConnection, substrate: str | None = None, limit: int | None = 100, *, at: Place | None = None
) -> list[Run]:
    """Newest first; all of them without a limit. `at` is where their batches belong, as in `batches.listing`."""
    query = select(runs).order_by(runs.c.queued_at.desc(), runs.c.id).limit(limit)
    if substrate is not None:
        query = query.where(runs.c.substrate == substrate)
    if at is not None:
        query = query.join(batches, batches.c.id == runs.c.batch).where(*within(at))
    return [_run(row) for row in await db.execute(query)]


async def in_flight(db: AsyncConnection, substrate: str) -> Run | None:
    query = select(runs).where(runs.c.substrate == substrate, runs.c.state.in_(RUN_IN_FLIGHT))
    row = (await db.execute(query)).one_or_none()
    return _run(row) if row else None


async def latest_of(db: AsyncConnection, batch: str) -> Run | None:
    query = select(runs).where(runs.c.batch == batch).order_by(runs.c.archived, runs.c.queued_at.desc()).limit(1)
    row = (await db.execute(query)).one_or_none()
    return _run(row) if row else None


async def move(change: Change, id: str, after: RunState, who: str, sentence: str = "") -> Run:
    if after in RUN_IN_FLIGHT:
        await _refuse_a_second(change, except_for=id)
    said = {"sentence": sentence} if sentence else {}
    await _move(change, RUN_MOVES, id, after, who, columns=said, detail=said)
    return await get(change.db, id)


async def archive(change: Change, id: str, who: str) -> Run:
    row = await own_row(change, Noun.run, id)
    if row.archived or row.state not in RESTARTABLE:
        reason = "archived already" if row.archived else row.state
        raise IllegalMove(f"run {id} is {reason}; only a run that is {', '.join(RESTARTABLE)} can be restarted.")
    await change.db.execute(update(runs).where(runs.c.id == id).values(archived=True))
    await change.record(who, Noun.run, id, "archived")
    return await get(change.db, id)


async def history(db: AsyncConnection, id: str, since: int = 0) -> list[Done]:
    """From step `since` on. A step that was taken never changes."""
    wanted = select(steps.c.done).where(steps.c.run == id, steps.c.n >= since).order_by(steps.c.n)
    return list((await db.execute(wanted)).scalars())


async def append(change: Change, id: str, done: Done, who: str = "moss") -> None:
    """The next step of a running run. A step that runs a second time finds its place taken, and changes nothing."""
    row = await own_row(change, Noun.run, id)
    if row.state != RunState.running:
        raise IllegalMove(f"run {id} is {row.state}; it takes no further step.")
    length = await change.db.scalar(select(func.count()).select_from(steps).where(steps.c.run == id))
    if done.n != length:
        raise IllegalMove(f"run {id} has taken {length} steps; step {done.n} is not the next.")
    summed = {name: getattr(done.spend, name) for name in _SUMMED}
    await change.db.execute(insert(steps).values(run=id, n=done.n, done=done, **summed, ended_at=done.ended_at))
    result = done.result.model_dump(mode="json", include={"kind", "verdict", "trouble", "sentence", "commit", "image"})
    await change.record(who, Noun.run, id, "stepped", n=done.n, step=done.step.name, result=result)


_SUMMED = ("money_usd", "tokens", "seconds")


async def worked_s(db: AsyncConnection, substrate: str, since: datetime) -> float:
    """What the steps that ended since then took. What they cost is in the ledger."""
    took = func.coalesce(func.sum(steps.c.seconds), 0.0)
    query = select(took).join(runs).where(runs.c.substrate == substrate, steps.c.ended_at >= since)
    return float(await db.scalar(query) or 0.0)


async def add_candidate(change: Change, candidate: Candidate) -> None:
    await own_row(change, Noun.run, candidate.run)
    await change.db.execute(insert(candidates_).values(**dict(candidate)))
    await change.record(
        "moss",
        Noun.run,
        candidate.run,
        "candidate_added",
        candidate=candidate.id,
        commit=candidate.commit,
        image=candidate.image,
        diff_hash=candidate.diff_hash,
        partial=candidate.partial,
    )


async def candidate(db: AsyncConnection, id: str) -> Candidate:
    row = (await db.execute(select(candidates_).where(candidates_.c.id == id))).one_or_none()
    if row is None:
        raise NotFound(f"There is no candidate {id}; look at its run again.")
    return Candidate(**row._mapping)


async def candidates(db: AsyncConnection, run: str) -> list[Candidate]:
    query = select(candidates_).where(candidates_.c.run == run).order_by(candidates_.c.iteration)
    return [Candidate(**row._mapping) for row in await db.execute(query)]


async def _refuse_a_second(change: Change, except_for: str = "") -> None:
    other = await in_flight(change.db, change.substrate)
    if other is not None and other.id != except_for:
        raise Busy(f"{change.substrate} has run {other.id}, which is {other.state}; wait for its end, or stop it.")


def _run(row: Row[Any]) -> Run:
    return Run(**row._mapping)
