"""The room's own messages, reactions and browsers that are in.

Whatever changes about a post gives it the next number of the whole room, `seq`. A reader who knows up to which number
they have read finds everything that is new to them, however long they were away.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import NotFound
from core.store.store import insert_once
from core.store.tables import room_posts as posts
from core.store.tables import room_reactions as reactions
from core.store.tables import room_sessions as sessions

SESSION_DAYS = 30


@dataclass(frozen=True, slots=True)
class Reaction:
    who: str
    emoji: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Post:
    id: int
    seq: int
    channel: str
    thread: int | None
    who: str
    only_for: str | None
    text: str
    card: Any
    has_picture: bool
    at: datetime
    edited_at: datetime | None
    reactions: tuple[Reaction, ...] = field(default=())
    """Oldest first."""
    replies: int = 0
    """How many that everybody sees."""


# Writing. The connection comes from `Store.writing`: whoever holds it is alone, so numbers are given out in the order
# in which changes become visible, and no reader overtakes one.


async def add(
    db: AsyncConnection,
    now: datetime,
    channel: str,
    who: str,
    text: str,
    *,
    thread: int | None = None,
    only_for: str | None = None,
    card: Any = None,
    picture: bytes | None = None,
    key: str | None = None,
) -> tuple[int, bool]:
    """The id, and whether the post is new: the same key is posted once."""
    if key is not None:
        known = await db.scalar(select(posts.c.id).where(posts.c.key == key))
        if known is not None:
            return int(known), False
    added = await db.execute(
        insert(posts)
        .values(
            seq=await _next(db),
            channel=channel,
            thread=thread,
            who=who,
            only_for=only_for,
            text=text,
            card=card,
            picture=picture,
            key=key,
            at=now,
        )
        .returning(posts.c.id)
    )
    id = int(added.scalar_one())
    if thread is not None and only_for is None:
        await _touch(db, thread)  # it has one more reply
    return id, True


async def edit(
    db: AsyncConnection, now: datetime, id: int, text: str, *, card: Any = None, picture: bytes | None = None
) -> None:
    shown = {"text": text, "card": card, "picture": picture, "edited_at": now, "seq": await _next(db)}
    changed = await db.execute(update(posts).where(posts.c.id == id).values(shown))
    if changed.rowcount != 1:
        raise NotFound(f"The room has no message {id}.")


async def react(db: AsyncConnection, now: datetime, id: int, who: str, emoji: str) -> bool:
    """False when it is there already."""
    if await insert_once(db, reactions, post=id, who=who, emoji=emoji, at=now) is None:
        return False
    await _touch(db, id)
    return True


async def unreact(db: AsyncConnection, id: int, who: str, emoji: str) -> bool:
    """False when there is none."""
    theirs = (reactions.c.post == id, reactions.c.who == who, reactions.c.emoji == emoji)
    gone = await db.execute(delete(reactions).where(*theirs))
    if gone.rowcount == 0:
        return False
    await _touch(db, id)
    return True


async def prune(db: AsyncConnection, before: datetime, limit: int) -> int:
    """Forget what is older and was not changed since, and how many that was. Who began a thread stays as long as the
    thread, and the newest stays for good: numbers are never given out again."""
    replies = posts.alias("replies")
    fresh = func.coalesce(posts.c.edited_at, posts.c.at) >= before
    newest = or_(posts.c.id == select(func.max(posts.c.id)).scalar_subquery(), posts.c.seq == await head(db))
    began = select(replies.c.id).where(replies.c.thread == posts.c.id).exists()
    old = select(posts.c.id).where(~fresh, ~newest, ~began).order_by(posts.c.id).limit(limit)
    ids = list((await db.execute(old)).scalars())
    for n in range(0, len(ids), 500):
        some = ids[n : n + 500]
        await db.execute(delete(reactions).where(reactions.c.post.in_(some)))
        await db.execute(delete(posts).where(posts.c.id.in_(some)))
    return len(ids)


async def _touch(db: AsyncConnection, id: int) -> None:
    await db.execute(update(posts).where(posts.c.id == id).values(seq=await _next(db)))


async def _next(db: AsyncConnection) -> int:
    return await head(db) + 1


# Reading. `reader` sees what everybody sees, and what was whispered to them; None sees no whispers.


async def head(db: AsyncConnection) -> int:
    """The number of the latest change."""
    return int(await db.scalar(select(func.coalesce(func.max(posts.c.seq), 0))) or 0)


async def get(db: AsyncConnection, id: int, reader: str | None) -> Post:
    found = await _found(db, select(*_COLUMNS).where(posts.c.id == id, _visible(reader)))
    if not found:
        raise NotFound(f"The room has no message {id}.")
    return found[0]


async def beginning(db: AsyncConnection, channel: str, id: int) -> int:
    """The post that began the thread which this one stands in, or could begin. Nothing begins with a whisper."""
    public = (posts.c.channel == channel, posts.c.only_for.is_(None))
    row = (await db.execute(select(posts.c.id, posts.c.thread).where(posts.c.id == id, *public))).one_or_none()
    if row is None:
        raise NotFound(f"The room has no message {id} in {channel} that can be answered.")
    return int(row.id if row.thread is None else row.thread)


async def since(db: AsyncConnection, seq: int, reader: str | None, limit: int) -> list[Post]:
    """What changed after that number, each post once and as it is now, in the order of the changes."""
    query = select(*_COLUMNS).where(posts.c.seq > seq, _visible(reader)).order_by(posts.c.seq).limit(limit)
    return await _found(db, query)


async def conversation(
    db: AsyncConnection, channel: str, thread: int | None, reader: str | None, *, limit: int, before: int | None = None
) -> list[Post]:
    """The latest posts of a thread, with the post that began it, or of a channel without those in threads; oldest
    first. `before` goes further back."""
    inside = posts.c.thread.is_(None) if thread is None else or_(posts.c.thread == thread, posts.c.id == thread)
    query = select(*_COLUMNS).where(posts.c.channel == channel, inside, _visible(reader))
    if before is not None:
        query = query.where(posts.c.id < before)
    return (await _found(db, query.order_by(posts.c.id.desc()).limit(limit)))[::-1]


async def last_replies(
    db: AsyncConnection, channel: str, threads: Sequence[int], reader: str | None, *, each: int
) -> dict[int, list[Post]]:
    """The last few posts of each of these threads, oldest first."""
    if not threads:
        return {}
    place = func.row_number().over(partition_by=posts.c.thread, order_by=posts.c.id.desc()).label("place")
    ranked = (
        select(posts.c.id, place)
        .where(posts.c.channel == channel, posts.c.thread.in_(threads), _visible(reader))
        .subquery()
    )
    query = select(*_COLUMNS).join(ranked, ranked.c.id == posts.c.id).where(ranked.c.place <= each)
    found: dict[int, list[Post]] = {}
    for post in await _found(db, query.order_by(posts.c.id)):
        assert post.thread is not None
        found.setdefault(post.thread, []).append(post)
    return found


async def picture(db: AsyncConnection, id: int, reader: str | None) -> bytes:
    found = await db.scalar(select(posts.c.picture).where(posts.c.id == id, _visible(reader)))
    if found is None:
        raise NotFound(f"The room has no picture {id}.")
    return bytes(found)


_COLUMNS = (
    *(column for column in posts.c if column.name not in ("picture", "key")),
    posts.c.picture.is_not(None).label("has_picture"),
)


def _visible(reader: str | None) -> ColumnElement[bool]:
    public = posts.c.only_for.is_(None)
    return public if reader is None else or_(public, posts.c.only_for == reader)


async def _found(db: AsyncConnection, query: Any) -> list[Post]:
    rows: Sequence[RowMapping] = (await db.execute(query)).mappings().all()
    if not rows:
        return []
    ids = [row["id"] for row in rows]
    given: dict[int, list[Reaction]] = {}
    query = select(reactions).where(reactions.c.post.in_(ids)).order_by(reactions.c.at, reactions.c.who)
    for post, who, emoji, at in await db.execute(query):
        given.setdefault(post, []).append(Reaction(who, emoji, at))
    replies = select(posts.c.thread, func.count()).where(
        posts.c.channel.in_({row["channel"] for row in rows}), posts.c.thread.in_(ids), posts.c.only_for.is_(None)
    )
    counts = {row[0]: row[1] for row in await db.execute(replies.group_by(posts.c.thread))}
    return [Post(**row, reactions=tuple(given.get(row["id"], ())), replies=counts.get(row["id"], 0)) for row in rows]


# Browsers. The secret is in the browser's cookie and its hash is here. A person's token is in neither.


async def enter(db: AsyncConnection, now: datetime, person: str) -> str:
    """The secret of a new session; those that came of age are forgotten."""
    await db.execute(delete(sessions).where(sessions.c.at < now - timedelta(days=SESSION_DAYS)))
    secret = secrets.token_urlsafe(32)
    await db.execute(insert(sessions).values(secret_hash=_hashed(secret), person=person, at=now))
    return secret


async def inside(db: AsyncConnection, now: datetime, secret: str) -> str | None:
    """Whose session it is. Nobody's, once the person was removed."""
    fresh = sessions.c.at >= now - timedelta(days=SESSION_DAYS)
    return await db.scalar(select(sessions.c.person).where(sessions.c.secret_hash == _hashed(secret), fresh))


async def leave(db: AsyncConnection, secret: str) -> None:
    await db.execute(delete(sessions).where(sessions.c.secret_hash == _hashed(secret)))


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
