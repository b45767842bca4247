"""Our own messages that are edited later, or must not be posted twice, by the key of what they show."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.transcript import Place
from core.store.store import insert_once
from core.store.tables import posts


@dataclass(frozen=True, slots=True)
class Post:
    key: str
    place: Place
    message: str
    shown: str
    """The digest of what it shows."""
    at: datetime


async def add(db: AsyncConnection, now: datetime, key: str, place: Place, *, message: str, shown: str) -> bool:
    """False when something was posted under this key before. The connection comes from `Store.writing`."""
    row = await insert_once(db, posts, key=key, message=message, shown=shown, at=now, **place.model_dump())
    return row is not None


# Whoever names what they `held`, their own claim, changes nothing once another took it over: then it is False.


async def edited(db: AsyncConnection, now: datetime, key: str, shown: str, *, held: str | None = None) -> bool:
    """The connection comes from `Store.writing`."""
    changed = await db.execute(update(posts).where(_is(key, held)).values(shown=shown, at=now))
    return changed.rowcount == 1


async def moved(
    db: AsyncConnection, now: datetime, key: str, place: Place, *, message: str, shown: str, held: str | None = None
) -> bool:
    """The same thing stands elsewhere from now on. The connection comes from `Store.writing`."""
    values = {"message": message, "shown": shown, "at": now, **place.model_dump()}
    return (await db.execute(update(posts).where(_is(key, held)).values(**values))).rowcount == 1


async def forget(db: AsyncConnection, key: str, *, held: str | None = None) -> bool:
    """The connection comes from `Store.writing`."""
    return (await db.execute(delete(posts).where(_is(key, held)))).rowcount == 1


def _is(key: str, held: str | None) -> ColumnElement[bool]:
    one = posts.c.key == key
    return one if held is None else and_(one, posts.c.shown == held)


async def prune(db: AsyncConnection, before: datetime, kinds: Collection[str], limit: int) -> int:
    """Forget those whose key begins so and that nobody has touched since; how many. The connection comes from
    `Store.writing`."""
    begins = or_(*(posts.c.key.startswith(kind, autoescape=True) for kind in kinds))
    old = select(posts.c.key).where(posts.c.at < before, begins).order_by(posts.c.at).limit(limit)
    return int((await db.execute(delete(posts).where(posts.c.key.in_(old)))).rowcount)


async def of_key(db: AsyncConnection, key: str) -> Post | None:
    row = (await db.execute(select(posts).where(posts.c.key == key))).one_or_none()
    return _post(row) if row else None


async def of_message(db: AsyncConnection, place: Place, message: str) -> Post | None:
    """The post behind a message of a channel, if it is one of ours."""
    query = select(posts).where(
        posts.c.platform == place.platform,
        posts.c.workspace == place.workspace,
        posts.c.channel == place.channel,
        posts.c.message == message,
    )
    row = (await db.execute(query.limit(1))).one_or_none()
    return _post(row) if row else None


def _post(row: Row[Any]) -> Post:
    values = dict(row._mapping)
    place = Place(**{name: values.pop(name) for name in Place.model_fields})
    return Post(**values, place=place)
