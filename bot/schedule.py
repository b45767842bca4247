"""The schedule: fires ticks, and knows when a cron line was due. The only file that imports APScheduler.

A tick may come late, twice or never. What is due is decided from the store by whoever gets the tick.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.combining import OrTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]

from core.clock import system_clock

LOOK_S = 60
"""Between ticks that finish what a crash, a stall or a clock that was set has left undone."""

Tick = Callable[[], Awaitable[object]]

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""As cron counts them; APScheduler counts otherwise, but takes names."""
_SOME_WEEKDAYS = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")


class Schedule:
    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._looking: asyncio.Task[None] | None = None

    def add(self, name: str, tick: Tick, cron: str, timezone: str) -> None:
        """Ticks at the start, at the minute that the cron line means, and all the while in between."""
        self._scheduler.add_job(
            tick,
            _trigger(cron, ZoneInfo(timezone)),
            name=name,
            next_run_time=system_clock(),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )

    def start(self) -> None:
        self._scheduler.start()
        self._looking = asyncio.create_task(self._look())

    def stop(self) -> None:
        if self._looking:
            self._looking.cancel()
        self._scheduler.shutdown(wait=False)

    async def _look(self) -> None:
        """Not by APScheduler, which goes by the clock on the wall: set back a day, it would say nothing for a day."""
        while True:
            await asyncio.sleep(LOOK_S)
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=system_clock())


def latest(cron: str, timezone: str, after: datetime, until: datetime) -> datetime | None:
    """The last moment after `after`, and not after `until`, at which the line was due.

    The line is matched against the clock on the wall: where that jumps forth, what falls into the gap is due at its
    end; where it is set back, an hour that comes twice counts once.
    """
    zone, trigger = ZoneInfo(timezone), _trigger(cron, UTC)
    until_wall = until.astimezone(zone).replace(tzinfo=UTC)
    first_wall = after.astimezone(zone).replace(tzinfo=UTC) - timedelta(hours=2)  # more than any wall clock is set back
    span = timedelta(hours=4)
    while True:
        begin = max(first_wall, until_wall - span)
        found = [at for wall in _walls(trigger, begin, until_wall) if after < (at := _moment(wall, zone)) <= until]
        if found:
            return found[-1]
        if begin == first_wall:
            return None
        span *= 2


def _walls(trigger: OrTrigger, begin: datetime, until: datetime) -> list[datetime]:
    found: list[datetime] = []
    wall = trigger.get_next_fire_time(None, begin)
    while wall is not None and wall <= until + timedelta(hours=2):
        found.append(wall)
        wall = trigger.get_next_fire_time(None, wall + timedelta(seconds=1))
    return found


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def problem(cron: str) -> str | None:
    """What is wrong with a line, for settings."""
    try:
        due = [each.get_next_fire_time(None, datetime(2024, 1, 1, tzinfo=UTC)) for each in _triggers(cron, UTC)]
    except ValueError:
        return "is no cron line; write minute, hour, day, month and weekday, such as `0 9 * * mon-fri`"
    return None if all(due) else "is never due; name a day that its month has"


def _trigger(cron: str, zone: object) -> OrTrigger:
    return OrTrigger(_triggers(cron, zone))


def _triggers(cron: str, zone: object) -> list[CronTrigger]:
    """Raises ValueError. A day and a weekday together mean either, as cron has it; one that begins with `*` says
    nothing of the kind."""
    minute, hour, day, month, weekday = _five(cron)
    named = ",".join(name for part in weekday.split(",") for name in _weekdays(part))
    either = not day.startswith("*") and not weekday.startswith("*")
    lines = [(day, "*"), ("*", named)] if either else [(day, named)]
    return [CronTrigger(None, month, day, None, names, hour, minute, timezone=zone) for day, names in lines]


def _five(cron: str) -> list[str]:
    fields = cron.split()
    if len(fields) != 5:
        raise ValueError("it has not five fields")
    return fields


def _weekdays(part: str) -> list[str]:
    """Of one part between commas: `5`, `mon-fri`, `1-5/2`, `*/2`."""
    found = _SOME_WEEKDAYS.fullmatch(part.lower())
    if found is None or (found["step"] and found["first"] and not found["last"]):
        raise ValueError(f"{part} names no weekday")
    first = _number(found["first"]) if found["first"] else 0
    last = _number(found["last"]) if found["last"] else first if found["first"] else 6
    if last < first and last == 0:
        last = 7  # a week that ends with Sunday
    if first > last or found["step"] == "0":
        raise ValueError(f"{part} goes backwards")
    return list(_WEEKDAYS[first : last + 1 : int(found["step"] or 1)])


def _number(weekday: str) -> int:
    if weekday in _WEEKDAYS:
        return _WEEKDAYS.index(weekday)
    if not ("0" <= weekday <= "7" and len(weekday) == 1):
        raise ValueError(f"{weekday} is no weekday")
    return int(weekday)
