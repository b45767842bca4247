"""People with a personal token: who approves from the room or the command line proves with it who they are."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import NotFound, Refused
from core.model.events import INSTALLATION, Noun
from core.store.store import Store, insert_once
from core.store.tables import people


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    added_at: datetime


def new_token() -> str:
    return f"moss_{secrets.token_urlsafe(32)}"


async def add(store: Store, name: str, who: str = "moss", token: str | None = None) -> str:
    """The person's token, a new one unless it is given. Nobody can read it again: the table holds its hash. That it was
    made, and by whom, stands in the chain of the installation."""
    token = token or new_token()
    async with store.changing(INSTALLATION) as change:
        row = await insert_once(change.db, people, name=name, token_hash=_hashed(token), added_at=change.now)
        if row is None:
            raise Refused(f"{name} has a token already; remove {name} first to replace it.")
        await change.record(who, Noun.person, name, "token_made")
    return token


async def remove(store: Store, name: str, who: str = "moss") -> None:
    async with store.changing(INSTALLATION) as change:
        gone = await change.db.execute(delete(people).where(people.c.name == name))
        if gone.rowcount == 0:
            raise NotFound(f"Nobody named {name} has a token; `moss people list` shows who has.")
        await change.record(who, Noun.person, name, "token_removed")


async def by_token(db: AsyncConnection, token: str) -> str | None:
    return await db.scalar(select(people.c.name).where(people.c.token_hash == _hashed(token)))


async def listing(db: AsyncConnection) -> list[Person]:
    rows = await db.execute(select(people.c.name, people.c.added_at).order_by(people.c.name))
    return [Person(*row) for row in rows]


def _hashed(token: str) -> str:
    # A plain hash is enough: nobody guesses 256 random bits, and looking them up by hash leaks no timing of theirs.
    return hashlib.sha256(token.encode()).hexdigest()
