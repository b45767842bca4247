"""What reached Moss from a chat: each delivery once, in lanes, each worked on by one process until it is done."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.store.store import insert_new
from core.store.tables import inbox

_earlier = inbox.alias("earlier")


@dataclass(frozen=True, slots=True)
class Letter:
    id: int
    lane: str
    body: dict[str, Any]
    altered: bool
    """Redaction took something out of it."""
    tries: int


@dataclass(frozen=True, slots=True)
class Arrived:
    platform: str
    workspace: str
    event: str
    lane: str
    body: dict[str, Any]
    altered: bool
    emoji: str | None = None
    """Of a reaction; with its time `overtaken_by` finds it."""
    happened_at: datetime | None = None


# Writing. The connection comes from `Store.writing`.


async def add(db: AsyncConnection, now: datetime, holder: str, **arrived: Any) -> bool:
    """One that arrived, as `add_all` takes many."""
    return (await add_all(db, now, holder, [Arrived(**arrived)]))[0]


async def add_all(db: AsyncConnection, now: datetime, holder: str, arrived: Sequence[Arrived]) -> list[bool]:
    """False for what was there already. Whoever took it works on it, as long as it lives."""
    rows = [{**asdict(one), "at": now, "holder": holder} for one in arrived]
    key = (inbox.c.platform, inbox.c.workspace, inbox.c.event)
    fresh = {tuple(row) for row in await insert_new(db, inbox, rows, key)}
    new = []
    for one in arrived:
        id = (one.platform, one.workspace, one.event)
        new.append(id in fresh)
        fresh.discard(id)  # the same again among these is not new
    return new


async def take_over(db: AsyncConnection, holder: str, living: Collection[str], platforms: Collection[str]) -> int:
    """What nobody alive holds; how much that was."""
    nobodys = or_(inbox.c.holder.is_(None), inbox.c.holder.not_in({*living, holder}))
    waiting = (inbox.c.done_at.is_(None), inbox.c.platform.in_(platforms), nobodys)
    taken = await db.execute(update(inbox).where(*waiting).values(holder=holder))
    return int(taken.rowcount)


async def settle(db: AsyncConnection, id: int, meaning: str) -> str:
    """What the event is taken to mean from now on: the first meaning stands."""
    await db.execute(update(inbox).where(inbox.c.id == id, inbox.c.meant.is_(None)).values(meant=meaning))
    return str(await db.scalar(select(inbox.c.meant).where(inbox.c.id == id)))


async def failed(db: AsyncConnection, id: int) -> None:
    await db.execute(update(inbox).where(inbox.c.id == id).values(tries=inbox.c.tries + 1))


async def done(db: AsyncConnection, now: datetime, id: int, body: dict[str, Any]) -> None:
    """With what is kept of it for a while: the same event may come again."""
    await db.execute(update(inbox).where(inbox.c.id == id, inbox.c.done_at.is_(None)).values(done_at=now, body=body))


async def prune(db: AsyncConnection, before: datetime) -> int:
    """Forget what arrived before that moment; how much of it nobody ever worked on."""
    first = await db.scalar(select(inbox.c.at).order_by(inbox.c.id).limit(1))
    if first is None or first >= before:
        return 0
    old = inbox.c.at < before
    lost = await db.scalar(select(func.count()).select_from(inbox).where(old, inbox.c.done_at.is_(None)))
    await db.execute(delete(inbox).where(old))
    return int(lost or 0)


# Reading.


async def next_letters(
    db: AsyncConnection,
    holder: str,
    platforms: Collection[str],
    lanes: str,
    *,
    besides: Sequence[int] = (),
    besides_people: Sequence[str] = (),
    limit: int,
) -> list[Letter]:
    """The first of each lane whose name begins so, oldest first, as far as this process holds it."""
    none_before = ~exists().where(
        _earlier.c.lane == inbox.c.lane, _earlier.c.id < inbox.c.id, _earlier.c.done_at.is_(None)
    )
    query = select(inbox).where(
        inbox.c.done_at.is_(None),
        inbox.c.holder == holder,
        inbox.c.platform.in_(platforms),
        inbox.c.lane.startswith(lanes, autoescape=True),
        inbox.c.id.not_in(besides),
        func.coalesce(inbox.c.body["person"].as_string(), "").not_in(besides_people),
        none_before,
    )
    return [_letter(row) for row in await db.execute(query.order_by(inbox.c.id).limit(limit))]


async def holders(db: AsyncConnection) -> set[str | None]:
    """Of what waits."""
    return set(await db.scalars(select(inbox.c.holder).where(inbox.c.done_at.is_(None)).distinct()))


async def meaning(db: AsyncConnection, id: int) -> str | None:
    return await db.scalar(select(inbox.c.meant).where(inbox.c.id == id))


async def overtaken_by(db: AsyncConnection, letter: int, lane: str, at: datetime) -> set[str]:
    """The emoji of the reactions that changed after that moment and arrived before this letter."""
    later = (inbox.c.lane == lane, inbox.c.emoji.is_not(None), inbox.c.happened_at > at, inbox.c.id < letter)
    return set(await db.scalars(select(inbox.c.emoji).where(*later)))


@dataclass(frozen=True, slots=True)
class Change:
    """Of one reaction."""

    event: str
    added: bool
    at: datetime


async def changes(db: AsyncConnection, lanes: Collection[str]) -> dict[tuple[str, str], list[Change]]:
    """All that is known of the reactions in these lanes, by lane and emoji, oldest first."""
    query = select(inbox).where(inbox.c.lane.in_(lanes), inbox.c.emoji.is_not(None))
    found: dict[tuple[str, str], list[Change]] = {}
    for row in await db.execute(query.order_by(inbox.c.happened_at, inbox.c.id)):
        found.setdefault((row.lane, row.emoji), []).append(Change(row.event, bool(row.body["added"]), row.happened_at))
    return found


async def waiting(db: AsyncConnection, lanes: str, before: int) -> int:
    """How much that arrived earlier than this letter is not done, in the lanes whose name begins so."""
    earlier = inbox.c.id + 0 < before  # by the bare id SQLite would go through all that was ever done
    open_ = (inbox.c.done_at.is_(None), inbox.c.lane.startswith(lanes, autoescape=True), earlier)
    return int(await db.scalar(select(func.count()).select_from(inbox).where(*open_)) or 0)


def _letter(row: Row[Any]) -> Letter:
    return Letter(row.id, row.lane, row.body, row.altered, row.tries)
