"""Turns that are being put to an agent: a swap waits for their end, and none begins while a swap is under way.

Both are decided under the lock of the substrate, so that no turn slips in between the look and the stop.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from core.deadline import Deadline
from core.process_table import has_ended, identity
from core.store import marks, swaps
from core.store.store import Change

_ASKING = "asking:"


async def begin(change: Change, turn: str, for_s: float) -> bool:
    """False while a swap is in flight: the turn has to wait. It counts until its end is written down, for so long at
    most, and not beyond the death of this process."""
    if await swaps.in_flight(change.db, change.substrate):
        return False
    until = Deadline.after(for_s, change.now)
    await marks.put(change.db, change.now, _name(change.substrate, turn), [identity(), str(until)])
    return True


async def end(db: AsyncConnection, substrate: str, turn: str) -> None:
    """The connection comes from `Store.writing`."""
    await marks.remove(db, _name(substrate, turn))


async def any_left(db: AsyncConnection, substrate: str, now: datetime) -> bool:
    for name in await marks.named(db, _name(substrate, "")):
        holder, until = await marks.get(db, name) or ("", now.isoformat())
        if not Deadline.read(until).has_passed(now) and not has_ended(holder):
            return True
    return False


async def forget(db: AsyncConnection, before: datetime) -> None:
    """What a Moss that died left. The connection comes from `Store.writing`."""
    await marks.forget(db, _ASKING, before)


def _name(substrate: str, turn: str) -> str:
    return f"{_ASKING}{substrate}/{turn}"
