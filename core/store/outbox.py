"""The outbox: work that a transaction has made due, until a durable job has taken it."""

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.store.store import Change, insert_once
from core.store.tables import outbox


@dataclass(frozen=True, slots=True)
class OutboxRow:
    id: int
    substrate: str
    kind: str
    subject: str


async def add(change: Change, kind: str, subject: str) -> bool:
    """False when this work was made due before."""
    row = await insert_once(
        change.db, outbox, substrate=change.substrate, kind=kind, subject=subject, added_at=change.now
    )
    return row is not None


async def waiting(db: AsyncConnection, limit: int = 100) -> list[OutboxRow]:
    """Oldest first."""
    query = select(outbox.c.id, outbox.c.substrate, outbox.c.kind, outbox.c.subject)
    rows = await db.execute(query.where(outbox.c.done_at.is_(None)).order_by(outbox.c.id).limit(limit))
    return [OutboxRow(*row) for row in rows]


async def done(change: Change, id: int) -> None:
    own = (outbox.c.id == id) & (outbox.c.substrate == change.substrate)
    await change.db.execute(update(outbox).where(own, outbox.c.done_at.is_(None)).values(done_at=change.now))
