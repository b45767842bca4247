"""When a cron line was due, whatever clocks on walls do; and ticks that come."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bot import schedule
from bot.schedule import Schedule, latest, problem
from bot.settings import load
from core.model.errors import BadInput
from tests.support.newsroom import CONFIG


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due_in(cron: str, zone: str, since: str, until: str, step: timedelta = timedelta(minutes=10)) -> list[str]:
    """Every moment at which somebody who looks again and again finds something due."""
    found, last, now = [], at(since), at(since)
    while now < at(until):
        now += step
        if moment := latest(cron, zone, last, now):
            found.append(f"{moment.astimezone(ZoneInfo(zone)):%d %H:%M}")
            last = moment
    return found


@pytest.mark.parametrize(
    ("after", "now", "expected"),
    [
        ("2026-01-05T09:00", "2026-01-06T08:59", None),
        ("2026-01-05T09:00", "2026-01-06T09:00", "2026-01-06T09:00"),
        ("2026-01-05T08:59", "2026-01-05T09:00", "2026-01-05T09:00"),
        ("2026-01-02T09:00", "2026-01-04T23:00", None),
        ("2020-01-01T09:00", "2026-01-07T12:00", "2026-01-07T09:00"),
    ],
)
def test_the_last_moment_at_which_it_was_due(after: str, now: str, expected: str | None) -> None:
    found = latest("0 9 * * mon-fri", "UTC", at(after), at(now))
    assert found == (at(expected) if expected else None)


def test_a_year_of_silence_is_looked_through_without_counting_its_minutes() -> None:
    assert latest("* * * * *", "UTC", at("2020-01-01"), at("2026-01-01T00:00:30")) == at("2026-01-01")
    assert latest("0 0 1 1 *", "UTC", at("2020-01-02"), at("2026-12-31")) == at("2026-01-01")


@pytest.mark.parametrize(
    ("cron", "zone", "since", "until", "expected"),
    [
        # Half past two does not exist on the 29th of March, and comes twice on the 25th of October.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31", ["28 02:30", "29 03:30", "30 02:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24", "2026-10-27", ["24 02:30", "25 02:30", "26 02:30"]),
        # Where clocks go forth at midnight, midnight itself does not exist.
        ("0 0 * * *", "America/Havana", "2026-03-07", "2026-03-10", ["07 00:00", "08 01:00", "09 00:00"]),
        ("0 9 * * *", "Europe/Berlin", "2026-03-28", "2026-03-30", ["28 09:00", "29 09:00"]),
        ("0 9 * * *", "Australia/Lord_Howe", "2026-04-03T20:00", "2026-04-06", ["04 09:00", "05 09:00", "06 09:00"]),
    ],
)
def test_where_clocks_are_set_forth_or_back_every_day_has_its_digest(
    cron: str, zone: str, since: str, until: str, expected: list[str]
) -> None:
    assert due_in(cron, zone, since, until) == expected


def test_an_hourly_line_misses_no_hour_but_the_one_that_comes_twice() -> None:
    assert len(due_in("0 * * * *", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T04:00")) == 5
    assert len(due_in("0 * * * *", "Europe/Berlin", "2026-03-28T22:00", "2026-03-29T04:00")) == 6


@pytest.mark.parametrize(
    ("weekday", "names"),
    [
        ("1-5", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("0", {"Sun"}),
        ("7", {"Sun"}),
        ("0,6", {"Sat", "Sun"}),
        ("mon-fri", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("6-7", {"Sat", "Sun"}),
        ("1-5/2", {"Mon", "Wed", "Fri"}),
        ("0-6/3", {"Sun", "Wed", "Sat"}),
        ("*/2", {"Sun", "Tue", "Thu", "Sat"}),
        ("sun-tue", {"Sun", "Mon", "Tue"}),
        ("Mon-Sun/6", {"Mon", "Sun"}),
        ("sat-sun,3", {"Sat", "Sun", "Wed"}),
        ("*", {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}),
    ],
)
def test_weekdays_are_counted_as_cron_counts_them(weekday: str, names: set[str]) -> None:
    found, last = set(), at("2026-01-04T10:00")
    for day in range(1, 8):
        now = at("2026-01-04T10:00") + timedelta(days=day)
        if moment := latest(f"0 9 * * {weekday}", "UTC", last, now):
            found.add(f"{moment:%a}")
            last = moment
    assert found == names


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 9 1,15 * mon", ["01", "05", "12", "15", "19", "26"]),
        ("0 9 * * thu", ["01", "08", "15", "22", "29"]),
        ("0 9 */10 * thu", ["01"]),
        ("0 9 13-14 * *", ["13", "14"]),
    ],
)
def test_a_day_and_a_weekday_together_mean_either(cron: str, days: list[str]) -> None:
    assert [each[:2] for each in due_in(cron, "UTC", "2026-01-01", "2026-01-31", timedelta(hours=6))] == days


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "0 9 * *",
        "0 9 * * mon-fri extra",
        "61 9 * * *",
        "0 9 * * 8",
        "0 9 * * 5-1",
        "x y z a b",
        "0 9 * * 1/2",
        "0 9 * * */0",
        "0 9 * * mond",
        "0 9 * * 1,",
    ],
)
def test_a_line_that_is_none_is_refused_with_an_example(cron: str) -> None:
    assert problem(cron) == "is no cron line; write minute, hour, day, month and weekday, such as `0 9 * * mon-fri`"


def test_a_day_that_never_comes_is_refused() -> None:
    assert problem("0 9 31 2 *") == "is never due; name a day that its month has"
    assert problem("0 9 31 2 fri") == problem("0 9 31 2 *")
    assert problem("0 9 29 2 *") is None


def test_settings_refuse_what_is_never_due(tmp_path: Path) -> None:
    file = tmp_path / "moss.toml"
    file.write_text(CONFIG.replace('cron = "0 9 * * *"', 'cron = "nine o clock"'))
    with pytest.raises(BadInput, match=r"digest.cron: is no cron line; write minute, hour, day, month and weekday"):
        load(file, {})


async def test_the_first_tick_comes_at_once_since_something_may_be_overdue() -> None:
    ticked = asyncio.Event()

    async def tick() -> None:
        ticked.set()

    ticking = Schedule()
    ticking.add("digest", tick, "0 9 1 1 *", "UTC")
    ticking.start()
    await asyncio.wait_for(ticked.wait(), 5)
    ticking.stop()


async def test_a_schedule_ticks_in_between_too_and_a_tick_that_fails_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "LOOK_S", 0.05)
    ticked: list[int] = []
    enough = asyncio.Event()

    async def tick() -> None:
        ticked.append(1)
        if len(ticked) == 3:
            enough.set()
        raise ZeroDivisionError

    ticking = Schedule()
    ticking.add("digest", tick, "0 9 1 1 *", "Europe/Berlin")
    ticking.start()
    await asyncio.wait_for(enough.wait(), 5)
    ticking.stop()
    await asyncio.sleep(0.15)
    assert len(ticked) <= 4
