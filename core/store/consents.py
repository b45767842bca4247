"""Consents, with the votes on them. The rule that decides them is in `core/consent.py`."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, exists, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.consent import CONSENT_MOVES, Consent, ConsentState, Vote
from core.model.errors import IllegalMove
from core.model.events import Noun
from core.store import facts
from core.store.moving import move as _move
from core.store.moving import own_row, the_row
from core.store.store import Change
from core.store.tables import consents, runs, swaps, votes

REMINDED = "reminded"
"""The fact that people were reminded of a question."""


async def ask(change: Change, consent: Consent) -> None:
    change.check_own(consent.substrate)
    columns = dict(consent)
    del columns["votes"]
    await change.db.execute(insert(consents).values(**columns))
    await change.record(
        consent.starter,
        Noun.consent,
        consent.id,
        "asked",
        after=consent.state,
        run=consent.run,
        version=consent.version,
        commit=consent.commit,
        image=consent.image,
        diff_hash=consent.diff_hash,
        matrix_hash=consent.matrix_hash,
        approvers=sorted(consent.policy.approvers),
        quorum=consent.policy.quorum,
    )


async def get(db: AsyncConnection, id: str) -> Consent:
    return await _consent(db, await the_row(db, Noun.consent, id))


async def find(db: AsyncConnection, id: str) -> Consent | None:
    found = await _consents(db, select(consents).where(consents.c.id == id))
    return found[0] if found else None


async def of_run(db: AsyncConnection, run: str) -> Consent | None:
    """The latest."""
    found = await _consents(db, select(consents).where(consents.c.run == run).order_by(consents.c.asked_at.desc()))
    return found[0] if found else None


async def asked(db: AsyncConnection, substrate: str | None = None) -> list[Consent]:
    """Those that wait for people, oldest first."""
    query = select(consents).where(consents.c.state == ConsentState.asked).order_by(consents.c.asked_at)
    if substrate is not None:
        query = query.where(consents.c.substrate == substrate)
    return await _consents(db, query)


async def unused(db: AsyncConnection, substrate: str) -> list[Consent]:
    """Those that were granted and whose swap has not begun."""
    used = exists().where(swaps.c.consent == consents.c.id)
    query = select(consents).where(consents.c.substrate == substrate, consents.c.state == ConsentState.granted, ~used)
    return await _consents(db, query)


async def due(db: AsyncConnection, now: datetime) -> list[Consent]:
    """Those that nobody decided in time."""
    return [consent for consent in await asked(db) if consent.expires_at <= now]


async def reasons_against(db: AsyncConnection, batch: str, limit: int) -> list[tuple[str, str]]:
    """Why people declined what runs on this batch offered, oldest first: the run and the reason. Of many the latest."""
    there = votes.join(consents, votes.c.consent == consents.c.id).join(runs, runs.c.id == consents.c.run)
    query = select(consents.c.run, votes.c.reason).select_from(there)
    query = query.where(runs.c.batch == batch, consents.c.state == ConsentState.declined)
    query = query.where(votes.c.approve.is_(False), votes.c.reason != "").order_by(votes.c.at.desc()).limit(limit)
    return [(row.run, row.reason) for row in await db.execute(query)][::-1]


async def was_reminded(db: AsyncConnection, id: str) -> bool:
    return any(fact.what == REMINDED for fact in await facts.about(db, Noun.consent, id))


async def add_vote(change: Change, id: str, vote: Vote) -> Consent:
    """A person has one vote: a second replaces the first."""
    row = await own_row(change, Noun.consent, id)
    if row.state != ConsentState.asked:
        raise IllegalMove(f"consent {id} is {row.state}; it takes no further vote.")
    await change.db.execute(delete(votes).where(votes.c.consent == id, votes.c.person == vote.person))
    await change.db.execute(insert(votes).values(consent=id, **dict(vote)))
    detail = {"reason": vote.reason} if vote.reason else {}
    await change.record(vote.person, Noun.consent, id, "voted", approve=vote.approve, **detail)
    return await get(change.db, id)


async def move(change: Change, id: str, after: ConsentState, who: str, reason: str = "") -> Consent:
    detail = {"reason": reason} if reason else {}
    await _move(change, CONSENT_MOVES, id, after, who, detail=detail)
    return await get(change.db, id)


async def _consents(db: AsyncConnection, query: Select[Any]) -> list[Consent]:
    return [await _consent(db, row) for row in (await db.execute(query)).all()]


async def _consent(db: AsyncConnection, row: Row[Any]) -> Consent:
    cast = await db.execute(select(votes).where(votes.c.consent == row.id).order_by(votes.c.at, votes.c.person))
    found = tuple(Vote(person=vote.person, approve=vote.approve, at=vote.at, reason=vote.reason) for vote in cast)
    return Consent(**row._mapping, votes=found)
