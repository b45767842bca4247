"""Swaps, and the versions they made live; and, on its own, what last passed a full probe."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import Busy, IllegalMove
from core.model.events import Noun
from core.model.swap import SWAP_IN_FLIGHT, SWAP_MOVES, LastGood, Swap, SwapState, Version
from core.store.moving import move as _move
from core.store.moving import the_row
from core.store.store import Change
from core.store.tables import last_good as last_good_
from core.store.tables import swaps
from core.store.tables import versions as versions_


async def plan(change: Change, swap: Swap) -> None:
    change.check_own(swap.substrate)
    other = await in_flight(change.db, change.substrate)
    if other is not None:
        raise Busy(f"{change.substrate} has swap {other.id}, which is {other.state}; wait for its end.")
    earlier = await of_consent(change.db, swap.consent)
    if earlier is not None:
        raise IllegalMove(f"consent {swap.consent} was used by swap {earlier.id}, which is {earlier.state}; ask again.")
    await change.db.execute(insert(swaps).values(**dict(swap)))
    await change.record(
        "moss",
        Noun.swap,
        swap.id,
        "planned",
        after=swap.state,
        consent=swap.consent,
        run=swap.run,
        commit=swap.commit,
        image=swap.image,
    )


async def get(db: AsyncConnection, id: str) -> Swap:
    return _swap(await the_row(db, Noun.swap, id))


async def of_consent(db: AsyncConnection, consent: str) -> Swap | None:
    row = (await db.execute(select(swaps).where(swaps.c.consent == consent))).one_or_none()
    return _swap(row) if row else None


async def listing(db: AsyncConnection, substrate: str) -> list[Swap]:
    """Oldest first."""
    query = select(swaps).where(swaps.c.substrate == substrate).order_by(swaps.c.planned_at, swaps.c.id)
    return [_swap(row) for row in await db.execute(query)]


async def in_flight(db: AsyncConnection, substrate: str) -> Swap | None:
    query = select(swaps).where(swaps.c.substrate == substrate, swaps.c.state.in_(SWAP_IN_FLIGHT))
    row = (await db.execute(query)).one_or_none()
    return _swap(row) if row else None


async def move(
    change: Change,
    id: str,
    after: SwapState,
    who: str,
    *,
    stopped_at: datetime | None = None,
    ended_at: datetime | None = None,
    outage_ms: int | None = None,
    problem: str | None = None,
) -> Swap:
    """What is not given stays as it is; a final state stamps the end by itself."""
    given = {"stopped_at": stopped_at, "ended_at": ended_at, "outage_ms": outage_ms, "problem": problem}
    columns = {name: value for name, value in given.items() if value is not None}
    await _move(change, SWAP_MOVES, id, after, who, columns=columns, detail=columns)
    return await get(change.db, id)


async def versions(db: AsyncConnection, substrate: str) -> list[Version]:
    """Oldest first."""
    query = select(versions_).where(versions_.c.substrate == substrate).order_by(versions_.c.number)
    return [Version(**row._mapping) for row in await db.execute(query)]


async def live_version(db: AsyncConnection, substrate: str) -> Version | None:
    query = select(versions_).where(versions_.c.substrate == substrate, versions_.c.until.is_(None))
    row = (await db.execute(query)).one_or_none()
    return Version(**row._mapping) if row else None


async def add_version(change: Change, version: Version, who: str = "moss") -> None:
    """From now on this one is live; the one before ends where it begins."""
    change.check_own(version.substrate)
    live = (versions_.c.substrate == change.substrate) & versions_.c.until.is_(None)
    await change.db.execute(update(versions_).where(live).values(until=version.since))
    await change.db.execute(insert(versions_).values(**dict(version)))
    await change.record(
        who,
        Noun.substrate,
        change.substrate,
        "version_added",
        number=version.number,
        commit=version.commit,
        image=version.image,
        swap=version.swap,
        restores=version.restores,
    )


async def end_live(change: Change, who: str, *, stopped: bool) -> None:
    """Nothing is live any more, by somebody's will. Without a fact when nothing was."""
    live = await live_version(change.db, change.substrate)
    if live is None:
        return
    row = (versions_.c.substrate == change.substrate) & (versions_.c.number == live.number)
    await change.db.execute(update(versions_).where(row).values(until=change.now))
    await change.record(who, Noun.substrate, change.substrate, "released", number=live.number, stopped=stopped)


async def last_good(db: AsyncConnection, substrate: str) -> LastGood | None:
    row = (await db.execute(select(last_good_).where(last_good_.c.substrate == substrate))).one_or_none()
    return LastGood(**row._mapping) if row else None


async def set_last_good(change: Change, good: LastGood, who: str = "moss") -> None:
    change.check_own(good.substrate)
    await change.db.execute(delete(last_good_).where(last_good_.c.substrate == change.substrate))
    await change.db.execute(insert(last_good_).values(**dict(good)))
    await change.record(
        who, Noun.substrate, change.substrate, "last_good_recorded", commit=good.commit, image=good.image
    )


def _swap(row: Row[Any]) -> Swap:
    return Swap(**row._mapping)
