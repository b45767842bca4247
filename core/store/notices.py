"""Notices: what people are to be told, each once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.store.store import Change, insert_once
from core.store.tables import notices


@dataclass(frozen=True, slots=True)
class Notice:
    id: int
    substrate: str
    kind: str
    subject: str
    text: str
    detail: dict[str, Any]
    at: datetime


async def add(change: Change, kind: str, subject: str, text: str, **detail: Any) -> bool:
    """False, and nothing new, when a notice of this kind and subject is there already."""
    row = await insert_once(
        change.db,
        notices,
        substrate=change.substrate,
        kind=kind,
        subject=subject,
        text=text,
        detail=detail,
        at=change.now,
    )
    return row is not None


async def since(db: AsyncConnection, substrate: str, id: int, limit: int) -> list[Notice]:
    """Those after this one, oldest first."""
    query = select(notices).where(notices.c.substrate == substrate, notices.c.id > id)
    return [Notice(**row._mapping) for row in await db.execute(query.order_by(notices.c.id).limit(limit))]


async def latest(db: AsyncConnection, substrate: str) -> int:
    """The id of the last one; 0 when there is none."""
    return int(await db.scalar(select(func.max(notices.c.id)).where(notices.c.substrate == substrate)) or 0)


async def listing(db: AsyncConnection, substrate: str) -> list[Notice]:
    """Oldest first."""
    rows = await db.execute(select(notices).where(notices.c.substrate == substrate).order_by(notices.c.id))
    return [Notice(**row._mapping) for row in rows]
