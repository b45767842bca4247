"""The audit chain of a substrate, to be read and to be verified. Only `Change.record` writes it."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.events import Fact, Noun, broken_link
from core.store.tables import chains, facts


@dataclass(frozen=True, slots=True)
class Broken:
    seq: int
    """The first link that cannot be trusted."""
    sentence: str


async def chain(db: AsyncConnection, substrate: str) -> list[Fact]:
    return await since(db, substrate, 0)


async def since(db: AsyncConnection, substrate: str, seq: int, limit: int | None = None) -> list[Fact]:
    """What came after this link."""
    return await _read(db, _of(substrate).where(facts.c.seq > seq).limit(limit))


async def between(db: AsyncConnection, substrate: str, since: datetime, until: datetime) -> list[Fact]:
    """What happened after the one moment and not after the other."""
    return await _read(db, _of(substrate).where(facts.c.at > since, facts.c.at <= until))


async def head(db: AsyncConnection, substrate: str) -> int:
    """The number of the last link; 0 before there is one."""
    return int(await db.scalar(select(chains.c.seq).where(chains.c.substrate == substrate)) or 0)


async def about(db: AsyncConnection, noun: Noun, id: str) -> list[Fact]:
    """The life of one thing."""
    return await _read(db, select(facts).where(facts.c.noun == noun, facts.c.id == id).order_by(facts.c.seq))


async def last(db: AsyncConnection, substrate: str, what: str) -> int:
    """The number of the latest link that says so; 0 when none does."""
    found = select(func.max(facts.c.seq)).where(facts.c.substrate == substrate, facts.c.what == what)
    return int(await db.scalar(found) or 0)


async def verify(db: AsyncConnection, substrate: str) -> Broken | None:
    """The first broken link, or None for a sound chain. Links cut off the end are missed by the chain's own head."""
    links: list[Fact] = []
    for row in await db.execute(_of(substrate)):
        try:
            links.append(Fact(**row._mapping))
        except ValidationError:
            return Broken(row.seq, f"Fact {row.seq} of {substrate} cannot be read; somebody wrote into the table.")
    broken = broken_link(links)
    if broken is not None:
        return Broken(
            broken.seq, f"Fact {broken.seq} of {substrate} does not follow from the one before it, or was changed."
        )
    head = (await db.execute(select(chains).where(chains.c.substrate == substrate))).one_or_none()
    found = (links[-1].seq, links[-1].hash) if links else None
    expected = (head.seq, head.hash) if head and head.seq else None
    if found != expected:
        missing = (found[0] if found else 0) + 1
        return Broken(missing, f"The chain of {substrate} should not end before fact {missing}; facts were removed.")
    return None


def _of(substrate: str) -> Select[tuple[object, ...]]:
    return select(facts).where(facts.c.substrate == substrate).order_by(facts.c.seq)


async def _read(db: AsyncConnection, query: Select[tuple[object, ...]]) -> list[Fact]:
    return [Fact(**row._mapping) for row in await db.execute(query)]
