"""Batches, with their chunks and flags."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.batch import BATCH_MOVES, Batch, BatchState
from core.model.errors import IllegalMove
from core.model.events import Noun
from core.model.evidence import Chunk, FailureKind, Flag
from core.model.transcript import Place
from core.model.value import new_id
from core.store.moving import move as _move
from core.store.moving import own_row, the_row
from core.store.store import Change
from core.store.tables import batches, flags
from core.store.tables import chunks as chunks_


async def open_for(db: AsyncConnection, substrate: str, place: Place) -> Batch | None:
    query = select(batches).where(batches.c.substrate == substrate, batches.c.state == BatchState.open, _at(place))
    row = (await db.execute(query)).one_or_none()
    return _batch(row) if row else None


async def open_batch(change: Change, place: Place, who: str) -> Batch:
    """The open batch of this conversation; a new one when there is none."""
    found = await open_for(change.db, change.substrate, place)
    if found:
        return found
    batch = Batch(
        id=new_id("batch"), substrate=change.substrate, place=place, state=BatchState.open, opened_at=change.now
    )
    await change.db.execute(insert(batches).values(**batch.model_dump(exclude={"place"}), **place.model_dump()))
    await change.record(who, Noun.batch, batch.id, "opened", after=batch.state, place=str(place))
    return batch


async def get(db: AsyncConnection, id: str) -> Batch:
    return _batch(await the_row(db, Noun.batch, id))


async def of_turn(db: AsyncConnection, substrate: str, place: Place, turn: str) -> list[tuple[Batch, Chunk]]:
    """Every batch of this channel, threads included, that holds the turn, with its chunk; newest first."""
    query = (
        select(batches.c.id.label("batch"), chunks_.c.id.label("chunk"))
        .join(chunks_, chunks_.c.batch == batches.c.id)
        .where(batches.c.substrate == substrate, _in_channel(place), chunks_.c.turn == turn)
        .order_by(batches.c.opened_at.desc(), batches.c.id)
    )
    found = []
    for row in (await db.execute(query)).all():
        chunk = await _chunk_of_turn(db, row.batch, turn)
        assert chunk is not None
        found.append((await get(db, row.batch), chunk))
    return found


async def flags_since(db: AsyncConnection, person: str, since: datetime) -> int:
    """How many flags this person has raised after that moment, withdrawn ones included."""
    query = select(func.count()).select_from(flags).where(flags.c.person == person, flags.c.at > since)
    return int(await db.scalar(query) or 0)


async def flags_by(db: AsyncConnection, person: str, since: datetime) -> list[tuple[str, Flag]]:
    """(chunk, flag) of this person since that moment, oldest first, without what was withdrawn."""
    theirs = (flags.c.person == person, flags.c.at >= since, flags.c.withdrawn_at.is_(None))
    query = select(flags).where(*theirs).order_by(flags.c.at, flags.c.id)
    return [(row.chunk, _flag(row)) for row in await db.execute(query)]


async def chunk(db: AsyncConnection, id: str) -> Chunk:
    return await _chunk(db, (await db.execute(select(chunks_).where(chunks_.c.id == id))).one())


async def flags_of(db: AsyncConnection, chunks: Collection[str]) -> list[tuple[str, Flag]]:
    """(chunk, flag) of these chunks, withdrawn ones included."""
    query = select(flags).where(flags.c.chunk.in_(chunks)).order_by(flags.c.at, flags.c.id)
    return [(row.chunk, _flag(row)) for row in await db.execute(query)]


async def listing(
    db: AsyncConnection,
    substrate: str | None = None,
    *,
    states: Collection[BatchState] = tuple(BatchState),
    skip: int = 0,
    limit: int | None = None,
    at: Place | None = None,
) -> list[Batch]:
    """Newest first. `at` narrows them to a conversation; without a channel, to a workspace."""
    query = select(batches).where(batches.c.state.in_(states)).order_by(batches.c.opened_at.desc(), batches.c.id)
    if substrate is not None:
        query = query.where(batches.c.substrate == substrate)
    return [_batch(row) for row in await db.execute(query.where(*within(at)).offset(skip).limit(limit))]


def within(at: Place | None) -> list[ColumnElement[bool]]:
    """What a batch has to be for `at` of `listing`."""
    if at is None:
        return []
    here = [batches.c.platform == at.platform, batches.c.workspace == at.workspace]
    return [*here, batches.c.channel == at.channel] if at.channel else here


async def tally(db: AsyncConnection, substrate: str, *, at: Place | None = None) -> dict[BatchState, int]:
    """How many there are in each state, if any. `at` is as in `listing`."""
    query = select(batches.c.state, func.count()).where(batches.c.substrate == substrate, *within(at))
    return {BatchState(row[0]): row[1] for row in await db.execute(query.group_by(batches.c.state))}


async def open_since(db: AsyncConnection, before: datetime) -> list[Batch]:
    """Open batches that were opened before this moment, oldest first."""
    query = select(batches).where(batches.c.state == BatchState.open, batches.c.opened_at < before)
    return [_batch(row) for row in await db.execute(query.order_by(batches.c.opened_at))]


async def move(change: Change, id: str, after: BatchState, who: str, **detail: Any) -> Batch:
    columns = {"sealed_at": change.now, "sealed_by": who} if after is BatchState.sealed else {}
    await _move(change, BATCH_MOVES, id, after, who, columns=columns, detail=detail)
    return await get(change.db, id)


async def chunks(db: AsyncConnection, batch: str) -> list[Chunk]:
    """In the order in which they came, without those whose every flag was withdrawn."""
    query = select(chunks_).where(chunks_.c.batch == batch).order_by(chunks_.c.n)
    found = [await _chunk(db, row) for row in await db.execute(query)]
    return [chunk for chunk in found if chunk.weight or not chunk.flags]


async def count(db: AsyncConnection, batch: str) -> int:
    """How many chunks there are, by the same rule, without reading them."""
    flagged = select(flags.c.id).where(flags.c.chunk == chunks_.c.id)
    counts = or_(flagged.where(flags.c.withdrawn_at.is_(None)).exists(), ~flagged.exists())
    query = select(func.count()).select_from(chunks_).where(chunks_.c.batch == batch, counts)
    return int(await db.scalar(query) or 0)


async def add_chunk(change: Change, chunk: Chunk, who: str) -> Chunk:
    """Into an open batch. A turn that is there already only gains flags; a person has one flag per turn."""
    await _open_row(change, chunk.batch)
    known = await _chunk_of_turn(change.db, chunk.batch, chunk.turn)
    if known is None:
        last = await change.db.scalar(select(func.max(chunks_.c.n)).where(chunks_.c.batch == chunk.batch))
        await change.db.execute(
            insert(chunks_).values(
                id=chunk.id,
                batch=chunk.batch,
                n=(last or 0) + 1,
                place=chunk.place,
                turn=chunk.turn,
                transcript=chunk.transcript,
                checks=chunk.checks,
            )
        )
        await change.record(who, Noun.batch, chunk.batch, "chunk_added", chunk=chunk.id, turn=chunk.turn)
        known = chunk.model_copy(update={"flags": ()})
    else:
        new_checks = tuple(check for check in chunk.checks if check.id not in {old.id for old in known.checks})
        if new_checks:
            checks = (*known.checks, *new_checks)
            await change.db.execute(update(chunks_).where(chunks_.c.id == known.id).values(checks=checks))
            known = known.model_copy(update={"checks": checks})
    for flag in chunk.flags:
        await _raise_flag(change, known, flag)
        known = await _chunk_of_turn(change.db, chunk.batch, chunk.turn) or known
    return known


async def withdraw_flag(
    change: Change, batch: str, turn: str, person: str, who: str, *, emoji: str | None = None
) -> bool:
    """False when this person has no flag on this turn, or another emoji than the one taken off still stands for it. A
    sealed batch keeps its flags."""
    await _open_row(change, batch)
    chunk = await _chunk_of_turn(change.db, batch, turn)
    if chunk is None:
        return False
    if emoji is not None:
        theirs = next((flag for flag in chunk.flags if flag.person == person), None)
        reactions = (theirs.emoji or "").split() if theirs else []
        left = [other for other in reactions if other != emoji]
        if theirs and left:
            await change.db.execute(update(flags).where(flags.c.id == theirs.id).values(emoji=" ".join(left)))
        if left or not reactions:
            return False
    withdrawn = await change.db.execute(
        update(flags)
        .where(flags.c.chunk == chunk.id, flags.c.person == person, flags.c.withdrawn_at.is_(None))
        .values(withdrawn_at=change.now)
    )
    if withdrawn.rowcount == 0:
        return False
    await change.record(who, Noun.batch, batch, "flag_withdrawn", chunk=chunk.id, turn=turn, person=person)
    return True


async def _raise_flag(change: Change, chunk: Chunk, flag: Flag) -> None:
    """A second flag of the same person says more about the first, such as the reason typed after the emoji."""
    first = next((old for old in chunk.flags if old.person == flag.person), None)
    if first is None:
        await change.db.execute(insert(flags).values(**flag.model_dump(), chunk=chunk.id))
    else:
        emoji = (first.emoji or "").split() if first.withdrawn_at is None else []
        emoji += [new for new in (flag.emoji or "").split() if new not in emoji]
        merged = {
            "kind": first.kind if flag.kind is FailureKind.other else flag.kind,
            "emoji": " ".join(emoji) or None,
            "reason": flag.reason or first.reason,
            "withdrawn_at": None,
        }
        if all(getattr(first, name) == value for name, value in merged.items()):
            return
        await change.db.execute(update(flags).where(flags.c.id == first.id).values(**merged))
    await change.record(
        flag.person, Noun.batch, chunk.batch, "flagged", chunk=chunk.id, turn=chunk.turn, person=flag.person
    )


async def _open_row(change: Change, id: str) -> Row[Any]:
    row = await own_row(change, Noun.batch, id)
    if row.state != BatchState.open:
        raise IllegalMove(f"batch {id} is {row.state}; its evidence does not change any more.")
    return row


async def _chunk_of_turn(db: AsyncConnection, batch: str, turn: str) -> Chunk | None:
    row = (await db.execute(select(chunks_).where(chunks_.c.batch == batch, chunks_.c.turn == turn))).one_or_none()
    return await _chunk(db, row) if row else None


async def _chunk(db: AsyncConnection, row: Row[Any]) -> Chunk:
    query = select(flags).where(flags.c.chunk == row.id).order_by(flags.c.at, flags.c.id)
    raised = tuple(_flag(flag) for flag in await db.execute(query))
    return Chunk(
        id=row.id,
        batch=row.batch,
        place=row.place,
        turn=row.turn,
        transcript=row.transcript,
        flags=raised,
        checks=row.checks,
    )


def _flag(row: Row[Any]) -> Flag:
    values = dict(row._mapping)
    del values["chunk"]
    return Flag(**values)


def _batch(row: Row[Any]) -> Batch:
    values = dict(row._mapping)
    place = Place(**{name: values.pop(name) for name in Place.model_fields})
    return Batch(**values, place=place)


def _in_channel(place: Place) -> ColumnElement[bool]:
    return and_(*(batches.c[name] == getattr(place, name) for name in ("platform", "workspace", "channel")))


def _at(place: Place) -> ColumnElement[bool]:
    return and_(*(batches.c[name] == value for name, value in place.model_dump().items()))
