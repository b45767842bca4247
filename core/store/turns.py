"""Conversations with the agent as Moss saw them, redacted: one row a message, in the order in which they were kept.

A reply that is not posted yet stands under a name of its own instead of a message's id, until it has one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Row, delete, exists, func, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.transcript import Message, Place
from core.store.columns import plain, plain_in
from core.store.store import insert_once
from core.store.tables import turns


@dataclass(frozen=True, slots=True)
class Turn:
    n: int
    substrate: str
    place: Place
    message: str
    said: Message
    version: int | None
    seconds: float | None
    """It took the agent to answer. None for what people said, and for what the agent said under its own name."""
    at: datetime

    @property
    def by_agent(self) -> bool:
        return self.said.role == "assistant"


async def keep(
    db: AsyncConnection,
    now: datetime,
    substrate: str,
    place: Place,
    *,
    said: Message,
    version: int | None = None,
    seconds: float | None = None,
) -> bool:
    """False when the message is kept already. Its words come redacted. The connection comes from `Store.writing`."""
    said = Message.model_validate(plain_in(said.model_dump(mode="json")))
    row = await insert_once(
        db,
        turns,
        substrate=substrate,
        message=said.id,
        said=said,
        version=version,
        seconds=seconds,
        at=now,
        **place.model_dump(),
    )
    return row is not None


async def posted(db: AsyncConnection, place: Place, name: str, message: str) -> None:
    """What stood under a name of its own has become this message."""
    said = await of_message(db, place, name)
    if said is not None:
        values = {"message": message, "said": said.said.model_copy(update={"id": message})}
        await db.execute(update(turns).where(turns.c.n == said.n).values(**values))


async def reworded(db: AsyncConnection, place: Place, said: Message) -> bool:
    """Whether the message is known; an observed reply now has these words, unless it has later ones already."""
    known = await of_message(db, place, said.id or "")
    if known and known.by_agent and known.seconds is None and _is_later(said, known.said):
        words = known.said.model_copy(update={"content": plain(said.content), "at": said.at})
        await db.execute(update(turns).where(turns.c.n == known.n).values(said=words))
    return known is not None


def _is_later(said: Message, than: Message) -> bool:
    return said.at is None or than.at is None or said.at > than.at


async def prune(db: AsyncConnection, before: datetime, limit: int) -> int:
    """Forget the oldest, as far as they were kept before that moment; how many. The connection comes from
    `Store.writing`."""
    oldest = select(turns.c.n).order_by(turns.c.n).limit(limit)
    gone = await db.execute(delete(turns).where(turns.c.n.in_(oldest), turns.c.at < before))
    return int(gone.rowcount)


async def of_message(db: AsyncConnection, place: Place, message: str) -> Turn | None:
    """A message's id is unique in its channel, whatever the thread."""
    row = (await db.execute(select(turns).where(_in_channel(place), turns.c.message == message))).one_or_none()
    return _turn(row) if row else None


async def replies(db: AsyncConnection, substrate: str) -> dict[int, int]:
    """How many replies of each version of the agent were kept."""
    counted = func.count().label("replies")
    query = select(turns.c.version, counted).where(turns.c.substrate == substrate, turns.c.version.is_not(None))
    return {row.version: row.replies for row in await db.execute(query.group_by(turns.c.version))}


async def conversation(db: AsyncConnection, place: Place, *, until: int | None = None, limit: int) -> list[Turn]:
    """The last turns of exactly this place, up to the one with the number `until`, oldest first. What began a thread
    is one of its turns, though it stands outside."""
    here = turns.c.thread == place.thread
    if place.thread:
        here |= turns.c.message == place.thread
    query = select(turns).where(_in_channel(place), here)
    if until is not None:
        query = query.where(turns.c.n <= until)
    found = [_turn(row) for row in await db.execute(query.order_by(turns.c.n.desc()).limit(limit))]
    return found[::-1]


async def last_reply(db: AsyncConnection, place: Place) -> Turn | None:
    """Of the agent: in the thread, or in the channel with its threads when the place names none."""
    query = select(turns).where(_in_channel(place), _role("assistant"))
    if place.thread:
        query = query.where(turns.c.thread == place.thread)
    row = (await db.execute(query.order_by(turns.c.n.desc()).limit(1))).one_or_none()
    return _turn(row) if row else None


async def latest_replies(
    db: AsyncConnection, platform: str, workspaces: Collection[str], since: datetime, limit: int
) -> list[Turn]:
    """What the agent said in these workspaces of a platform, newest first, as far as it was posted."""
    here = (turns.c.platform == platform, turns.c.workspace.in_(workspaces))
    kept = (*here, turns.c.at >= since, _role("assistant"))
    return [_turn(row) for row in await db.execute(select(turns).where(*kept).order_by(turns.c.n.desc()).limit(limit))]


async def is_fronted(db: AsyncConnection, place: Place) -> bool:
    """The agent has answered here through Moss."""
    here = (_in_channel(place), turns.c.thread == place.thread, turns.c.seconds.is_not(None))
    return bool(await db.scalar(select(exists().where(*here))))


async def is_observed(db: AsyncConnection, place: Place) -> bool:
    """The agent has answered in this channel under its own name."""
    here = (_in_channel(place), _role("assistant"), turns.c.seconds.is_(None))
    return bool(await db.scalar(select(exists().where(*here))))


def _in_channel(place: Place) -> ColumnElement[bool]:
    return (
        (turns.c.platform == place.platform)
        & (turns.c.workspace == place.workspace)
        & (turns.c.channel == place.channel)
    )


def _role(role: str) -> ColumnElement[bool]:
    said: ColumnElement[bool] = type_coerce(turns.c.said, JSON)["role"].as_string() == role
    return said


def _turn(row: Row[Any]) -> Turn:
    values = dict(row._mapping)
    place = Place(**{name: values.pop(name) for name in Place.model_fields})
    return Turn(**values, place=place)
