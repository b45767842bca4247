"""The one way a noun changes its state, for batches, runs, consents and swaps alike."""

from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import IllegalMove, NotFound
from core.model.events import Noun
from core.model.moves import Moves, S
from core.store.store import Change
from core.store.tables import batches, consents, runs, swaps

_LISTED_BY = {Noun.batch: "batches", Noun.run: "status", Noun.consent: "status", Noun.swap: "history"}
_TABLES = {Noun.batch: batches, Noun.run: runs, Noun.consent: consents, Noun.swap: swaps}


async def the_row(db: AsyncConnection, noun: Noun, id: str) -> Row[Any]:
    table = _TABLES[noun]
    row = (await db.execute(select(table).where(table.c.id == id))).one_or_none()
    if row is None:
        raise NotFound(f"There is no {noun} {id}; `moss {_LISTED_BY[noun]}` shows those there are.")
    return row


async def own_row(change: Change, noun: Noun, id: str) -> Row[Any]:
    """A row of the substrate whose lock is held; what belongs to another substrate may not change under this lock."""
    row = await the_row(change.db, noun, id)
    if row.substrate != change.substrate:
        raise NotFound(f"{change.substrate} has no {noun} {id}; `moss {_LISTED_BY[noun]}` shows those there are.")
    return row


async def move(
    change: Change,
    moves: Moves[S],
    id: str,
    after: S,
    who: str,
    *,
    columns: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Make the move and record it, or raise IllegalMove and do neither. A final state also stamps the row's end."""
    noun = Noun(moves.noun)
    table = _TABLES[noun]
    row = await own_row(change, noun, id)
    before = type(after)(row.state)
    moves.check(before, after, id)
    columns = dict(columns or {})
    if moves.is_final(after) and "ended_at" in table.c:
        columns.setdefault("ended_at", change.now)
    guarded = update(table).where(table.c.id == id, table.c.substrate == change.substrate, table.c.state == before)
    moved = await change.db.execute(guarded.values(state=after, **columns))
    if moved.rowcount != 1:
        raise IllegalMove(f"{noun} {id} is no longer {before}; look at it again.")
    await change.record(who, noun, id, "moved", before=before, after=after, **(detail or {}))
