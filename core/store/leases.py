"""Leases on executor ids: each running Moss holds one, and what a dead one held can be told and taken over."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import Busy
from core.store.store import Store
from core.store.tables import leases


async def claim(store: Store, holder: str, ttl_s: float) -> str:
    """The first slot that is free or dead, else a new one. Whoever claims a dead slot resumes what it left."""
    async with store.writing() as db:
        now = store.now()
        free = or_(leases.c.holder.is_(None), leases.c.expires_at <= now)
        slot = await db.scalar(select(leases.c.slot).where(free).order_by(leases.c.n).limit(1))
        values = {"holder": holder, "expires_at": now + timedelta(seconds=ttl_s)}
        if slot is not None:
            await db.execute(update(leases).where(leases.c.slot == slot).values(**values))
            return str(slot)
        n = await db.scalar(select(func.count()).select_from(leases)) or 0
        await db.execute(insert(leases).values(slot=f"executor-{n}", n=n, **values))
        return f"executor-{n}"


async def renew(store: Store, slot: str, holder: str, ttl_s: float) -> None:
    """Raises Busy when another has taken the slot over: then this process must start nothing more."""
    async with store.writing() as db:
        until = store.now() + timedelta(seconds=ttl_s)
        renewed = await db.execute(update(leases).where(_held(slot, holder)).values(expires_at=until))
    if renewed.rowcount == 0:
        raise Busy(f"{slot} is held by another process now; this one was silent for too long and must start again.")


async def release(store: Store, slot: str, holder: str) -> None:
    """Says that nothing of this slot is left to resume. Nothing happens when another holds it by now."""
    async with store.writing() as db:
        await db.execute(update(leases).where(_held(slot, holder)).values(holder=None, expires_at=None))


async def dead(db: AsyncConnection, now: datetime) -> list[str]:
    """Slots whose holder fell silent before it released them."""
    return list((await db.execute(select(leases.c.slot).where(_dead(now)).order_by(leases.c.n))).scalars())


async def ends(db: AsyncConnection) -> dict[str, datetime]:
    """Until when each slot that is held counts, unless it is renewed."""
    held = await db.execute(select(leases.c.slot, leases.c.expires_at).where(leases.c.holder.is_not(None)))
    return {row.slot: row.expires_at for row in held}


async def holders(db: AsyncConnection) -> dict[str, str]:
    """Slot and holder of every lease that was neither released nor taken over, silent ones included."""
    held = await db.execute(select(leases.c.slot, leases.c.holder).where(leases.c.holder.is_not(None)))
    return {row.slot: row.holder for row in held}


async def take_over(store: Store, slot: str, holder: str, ttl_s: float) -> bool:
    """For one of several that found it dead: True. Resume what it left, then release it; die, and it is dead again."""
    async with store.writing() as db:
        now = store.now()
        values = {"holder": holder, "expires_at": now + timedelta(seconds=ttl_s)}
        taken = await db.execute(update(leases).where(leases.c.slot == slot, _dead(now)).values(**values))
    return taken.rowcount == 1


def _held(slot: str, holder: str) -> ColumnElement[bool]:
    return (leases.c.slot == slot) & (leases.c.holder == holder)


def _dead(now: datetime) -> ColumnElement[bool]:
    return leases.c.holder.is_not(None) & (leases.c.expires_at <= now)
