"""Marks: how far somebody has read, such as a follower of the facts or a scan of a session."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.store.tables import marks


async def get(db: AsyncConnection, name: str) -> Any:
    """None when there is no such mark."""
    return await db.scalar(select(marks.c.body).where(marks.c.name == name))


async def named(db: AsyncConnection, beginning: str) -> list[str]:
    """The names of all that begin so."""
    query = select(marks.c.name).where(marks.c.name.startswith(beginning, autoescape=True)).order_by(marks.c.name)
    return list(await db.scalars(query))


async def put(db: AsyncConnection, now: datetime, name: str, body: Any) -> None:
    """The connection comes from `Store.writing`: whoever reads the mark within the same transaction is alone with it,
    so that of two processes one moves it on and the other finds it moved."""
    await db.execute(delete(marks).where(marks.c.name == name))
    await db.execute(insert(marks).values(name=name, body=body, at=now))


async def remove(db: AsyncConnection, name: str) -> None:
    """This one alone. The connection comes from `Store.writing`."""
    await db.execute(delete(marks).where(marks.c.name == name))


async def forget(db: AsyncConnection, beginning: str, before: datetime | None = None) -> None:
    """All whose names begin so, or only those put before a time. The connection comes from `Store.writing`."""
    query = delete(marks).where(marks.c.name.startswith(beginning, autoescape=True))
    await db.execute(query if before is None else query.where(marks.c.at < before))
