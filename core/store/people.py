"""People with a personal token: who approves from the room or the command line proves with it who they are."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import NotFound, Refused
from core.store.store import Store, insert_once
from core.store.tables import people


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    added_at: datetime


async def add(store: Store, name: str) -> str:
    """The person's token. Nobody can read it again: the table holds its hash."""
    token = f"moss_{secrets.token_urlsafe(32)}"
    async with store.writing() as db:
        row = await insert_once(db, people, name=name, token_hash=_hashed(token), added_at=store.now())
    if row is None:
        raise Refused(f"{name} has a token already; remove {name} first to replace it.")
    return token


async def remove(store: Store, name: str) -> None:
    async with store.writing() as db:
        gone = await db.execute(delete(people).where(people.c.name == name))
    if gone.rowcount == 0:
        raise NotFound(f"Nobody named {name} has a token.")


async def by_token(db: AsyncConnection, token: str) -> str | None:
    return await db.scalar(select(people.c.name).where(people.c.token_hash == _hashed(token)))


async def listing(db: AsyncConnection) -> list[Person]:
    rows = await db.execute(select(people.c.name, people.c.added_at).order_by(people.c.name))
    return [Person(*row) for row in rows]


def _hashed(token: str) -> str:
    # A plain hash is enough: nobody guesses 256 random bits, and looking them up by hash leaks no timing of theirs.
    return hashlib.sha256(token.encode()).hexdigest()
