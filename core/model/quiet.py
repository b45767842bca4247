"""Quiet hours: times of the week in which nothing is swapped, such as `22:00-07:00` or `Fri 16:00-24:00`. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"(?:(?P<days>[a-z, -]+) )?(?P<start>\d\d:\d\d) ?- ?(?P<end>\d\d:\d\d)")
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Hours:
    days: frozenset[int]
    """On which they begin, Monday being 0."""
    start: time
    end: time
    """At or before the start it is the next day's."""

    def on(self, day: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
        following = day + timedelta(days=1) if self.end <= self.start else day
        return (
            datetime.combine(day.date(), self.start, zone),
            datetime.combine(following.date(), self.end, zone),
        )


def parse(text: str) -> Hours:
    """Raises ValueError with what is wrong."""
    found = _HOURS.fullmatch(" ".join(text.lower().split()))
    if not found:
        raise ValueError(f"`{text}` is no time of the week; write `22:00-07:00`, or `Mon-Fri 09:00-17:00`")
    days = frozenset(day for part in (found["days"] or "mon-sun").split(",") for day in _days(part.strip()))
    return Hours(days, _time(found["start"]), _time("00:00" if found["end"] == "24:00" else found["end"]))


def _days(text: str) -> Iterator[int]:
    first, _, last = (part.strip() for part in text.partition("-"))
    for name in (first, last or first):
        if name not in DAYS:
            raise ValueError(f"`{name}` is no day; write {', '.join(day.capitalize() for day in DAYS)}")
    start, end = DAYS.index(first), DAYS.index(last or first)
    for n in range((end - start) % 7 + 1):
        yield (start + n) % 7


def _time(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{text}` is no time of day; write one from 00:00 to 24:00") from None


def quiet_until(quiet: Sequence[Hours], zone: ZoneInfo, now: datetime) -> datetime | None:
    """When the quiet that `now` falls into ends, in that zone; None when it is not quiet. Never more than a week away
    or so: what is always quiet is a freeze."""
    today = now.astimezone(zone)
    until = today
    stretches = sorted(
        hours.on(day, zone)
        for n in range(-2, 9)
        for hours in quiet
        if (day := today + timedelta(days=n)).weekday() in hours.days
    )
    for start, end in stretches:
        if start <= until < end:
            until = end
    return until if until > today else None


def leaves_no_time(quiet: Sequence[Hours]) -> bool:
    zone = ZoneInfo("UTC")
    monday = datetime(2024, 1, 1, tzinfo=zone)
    until = quiet_until(quiet, zone, monday)
    return until is not None and until - monday >= _WEEK
