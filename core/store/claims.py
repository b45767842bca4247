"""Claims on the live boxes of a substrate: while Moss starts or removes one, no swap and no adoption begins.

An engine may take its time, and nothing slow belongs into a transaction. So the intent is written down, then acted on,
then the end is written down, each as a fact. A claim counts for a short while only, and not beyond its holder's death:
whoever comes next finds that nobody wrote down its end, and acts again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.deadline import Deadline
from core.model.errors import Busy, MossError
from core.model.events import Noun
from core.process_table import has_ended, identity
from core.store.store import Change, Store
from core.store.tables import facts

CLAIM_S = 30.0
"""Longer than an engine that works takes to start or remove a box."""
ASKED_TIMES = 3
"""How often a host may have to ask its engine for one deed."""

_CLAIMED, _RELEASED = "box_claimed", "box_released"


@dataclass(frozen=True, slots=True)
class Claim:
    seq: int
    """Of the fact that it is: no two claims share it."""
    box: str
    holder: str
    until: Deadline

    def holds(self, now: datetime) -> bool:
        return not self.until.has_passed(now) and not has_ended(self.holder)


def long_enough(silence_s: float, work_s: float = 0.0) -> float:
    """For one deed of a host whose engine counts as hung after so long a silence: until then it may do it yet."""
    return CLAIM_S + ASKED_TIMES * silence_s + work_s


async def unfinished(db: AsyncConnection, substrate: str) -> Claim | None:
    """The latest claim, unless its end was written down."""
    query = (
        select(facts.c.seq, facts.c.what, facts.c.detail)
        .where(facts.c.substrate == substrate, facts.c.noun == Noun.substrate, facts.c.id == substrate)
        .where(facts.c.what.in_((_CLAIMED, _RELEASED)))
        .order_by(facts.c.seq.desc())
        .limit(1)
    )
    row = (await db.execute(query)).one_or_none()
    if row is None or row.what == _RELEASED:
        return None
    return Claim(row.seq, row.detail["box"], row.detail["holder"], Deadline.read(row.detail["until"]))


async def check_free(change: Change) -> None:
    """Raises Busy while a claim holds."""
    claim = await unfinished(change.db, change.substrate)
    if claim and claim.holds(change.now):
        raise Busy(f"Moss is starting or removing the box {claim.box} of {change.substrate}; try again in a moment.")


async def take(change: Change, box: str, why: str, for_s: float = CLAIM_S) -> Claim:
    """The caller has checked that it is free, in the same change."""
    until = Deadline.after(for_s, change.now)
    fact = await change.record(
        "moss",
        Noun.substrate,
        change.substrate,
        _CLAIMED,
        box=box,
        why=why,
        holder=identity(),
        until=str(until),
    )
    return Claim(fact.seq, box, identity(), until)


async def renew(change: Change, claim: Claim, box: str, for_s: float = CLAIM_S) -> Claim:
    """Before each further box of something that takes long. Raises Busy when it was lost: then nothing more is done."""
    if not await _is_held(change, claim):
        raise Busy(f"Another Moss works on the boxes of {change.substrate}, since this one took too long; try again.")
    return await take(change, box, "it goes on", for_s)


async def release(change: Change, claim: Claim, came: str) -> None:
    """Nothing happens when it was lost: whose claim it is now, ends it."""
    if await _is_held(change, claim):
        await change.record("moss", Noun.substrate, change.substrate, _RELEASED, box=claim.box, came=came)


class Held:
    """A claim, while something is done under it."""

    def __init__(self, store: Store, substrate: str, claim: Claim, for_s: float) -> None:
        self._store = store
        self._substrate = substrate
        self._for_s = for_s
        self.claim = claim

    async def on(self, box: str) -> None:
        """Before each further box: the claim counts from here, or Busy when it is another's by now."""
        async with self._store.changing(self._substrate) as change:
            self.claim = await renew(change, self.claim, box, self._for_s)


@asynccontextmanager
async def held(
    store: Store, substrate: str, claim: Claim, done: str = "done", for_s: float = CLAIM_S
) -> AsyncIterator[Held]:
    """For as long as the block lasts; how it came out is written down at its end."""
    holding, came = Held(store, substrate, claim, for_s), "cut short"
    try:
        yield holding
        came = done
    except MossError as failed:
        came = failed.sentence
        raise
    finally:
        async with store.changing(substrate) as change:
            await release(change, holding.claim, came)


async def _is_held(change: Change, claim: Claim) -> bool:
    latest = await unfinished(change.db, change.substrate)
    return latest is not None and latest.seq == claim.seq
