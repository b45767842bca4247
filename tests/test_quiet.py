"""Quiet hours and a freeze: an approved run waits for them, says so, and is swapped by the first tick afterwards."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot import verbs
from bot.report import standing
from core.consent import ask_for_rollback
from core.model.errors import Busy
from core.model.quiet import parse, quiet_until
from core.model.run import RunState
from core.model.substrate import Substrate, Swapping
from core.store import Store, outbox, substrates, swaps
from core.swap import records
from core.swap.window import held_back
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.stored import offered, substrate, version, with_substrate
from tests.support.swaps import POLICY, granted_candidate, granted_rollback
from tests.support.theatre import FIXED, Theatre, agent, theatre

UTC_ZONE, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = UTC_ZONE) -> datetime:
    """`mon 09:00` is in a week of March without a change of clocks."""
    day, _, hour = text.partition(" ")
    monday = datetime(2026, 3, 2, tzinfo=zone)
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun").index(day)
    return monday + timedelta(days=days, hours=int(hour[:2]), minutes=int(hour[3:]))


@pytest.mark.parametrize(
    ("quiet", "now", "until"),
    [
        (("22:00-07:00",), "mon 21:59", None),
        (("22:00-07:00",), "mon 22:00", "tue 07:00"),
        (("22:00-07:00",), "tue 06:59", "tue 07:00"),
        (("22:00-07:00",), "tue 07:00", None),
        (("Fri 16:00-24:00", "Sat-Sun 00:00-24:00", "Mon 00:00-08:00"), "fri 16:00", "mon 08:00"),
        (("Fri 16:00-24:00", "Sat-Sun 00:00-24:00", "Mon 00:00-08:00"), "wed 03:00", None),
        (("mon,wed 09:00 - 17:00",), "wed 12:00", "wed 17:00"),
        (("mon,wed 09:00 - 17:00",), "tue 12:00", None),
        (("Sat-Mon 00:00-24:00",), "sun 12:00", "tue 00:00"),
        (("Sun 23:00-01:00",), "mon 00:30", "mon 01:00"),
        (("09:00-12:00", "11:00-13:00"), "mon 10:00", "mon 13:00"),
        ((), "mon 10:00", None),
    ],
)
def test_it_is_quiet_until_the_end_of_all_hours_that_touch(quiet: tuple[str, ...], now: str, until: str | None) -> None:
    week = timedelta(days=7)
    found = quiet_until([parse(text) for text in quiet], UTC_ZONE, at(now))
    expected = at(until) if until else None
    assert found == expected or (found and expected and found == expected + week)


def test_quiet_hours_are_those_of_their_own_zone_also_when_clocks_change() -> None:
    night = [parse("22:00-07:00")]
    for winter_or_summer in (datetime(2026, 1, 5, 5, 30, tzinfo=UTC), datetime(2026, 7, 6, 4, 30, tzinfo=UTC)):
        until = quiet_until(night, BERLIN, winter_or_summer)
        assert until
        assert (until.hour, until.minute, until.astimezone(UTC) - winter_or_summer) == (7, 0, timedelta(minutes=30))
    spring = datetime(2026, 3, 28, 23, 0, tzinfo=BERLIN)
    until = quiet_until(night, BERLIN, spring)
    assert until
    assert until.astimezone(UTC) - spring.astimezone(UTC) == timedelta(hours=7), "an hour of that night is missing"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 23), st.integers(0, 23)).map(
            lambda t: f"{('mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun')[t[0]]} {t[1]:02}:00-{t[2]:02}:30"
        ),
        max_size=4,
    ),
    st.integers(0, 7 * 24 * 60 - 1),
)
def test_the_end_of_quiet_is_not_quiet_and_every_moment_before_it_is(quiet: list[str], minute: int) -> None:
    hours = [parse(text) for text in quiet]
    now = at("mon 00:00") + timedelta(minutes=minute)
    until = quiet_until(hours, UTC_ZONE, now)
    if until is None:
        return
    assert now < until < now + timedelta(days=9)
    assert quiet_until(hours, UTC_ZONE, until) is None
    assert quiet_until(hours, UTC_ZONE, until - timedelta(minutes=1)) == until


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quiet": ["at night"]}, "`at night` is no time of the week"),
        ({"quiet": ["25:00-07:00"]}, "`25:00` is no time of day"),
        ({"quiet": ["Fry 16:00-24:00"]}, "`fry` is no day"),
        ({"quiet": ["00:00-24:00"]}, "leaves no time"),
        ({"quiet": ["Mon-Fri 12:00-12:00", "Sat-Sun 12:00-12:00"]}, "leaves no time"),
        ({"timezone": "Europe/Nowhere"}, "is not a time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_the_settings(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Swapping.model_validate(given)


def test_a_freeze_does_not_end_a_run_that_is_under_way() -> None:
    frozen = substrate().model_copy(update={"swap": Swapping(freeze=True)})
    assert frozen.digest() == substrate().digest()


# In the store


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock(at("tue 23:00"))


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        await with_substrate(store)
        async with store.changing("desk") as change:
            await swaps.add_version(change, version(0))
            await swaps.add_version(change, version(1))
        yield store


async def resting(store: Store, **swap: object) -> Substrate:
    rested = substrate().model_copy(update={"swap": Swapping.model_validate(swap)})
    async with store.changing("desk") as change:
        await substrates.save(change, rested, "anna")
    return rested


async def test_no_swap_is_planned_in_quiet_hours_or_under_a_freeze(store: Store, clock: HeldClock) -> None:
    await resting(store, quiet=["22:00-07:00"], timezone="UTC")
    consent = await granted_candidate(store, "desk", "sha256:" + "b" * 64, "c1", live_image="sha256:" + "a" * 64)
    with pytest.raises(Busy, match=r"wait for the end of quiet hours, Wed 07:00 UTC\."):
        await records.plan(store, consent)
    await resting(store, freeze=True)
    with pytest.raises(Busy, match="are frozen"):
        await records.plan(store, consent)
    await resting(store, quiet=["22:00-07:00"])
    clock.advance(8 * 3600)
    assert await records.plan(store, consent)
    await resting(store, freeze=True)
    assert await records.plan(store, consent), "what has begun goes on"


async def test_a_rollback_that_a_person_asked_for_passes_and_one_that_moss_proposed_does_not(
    store: Store, clock: HeldClock
) -> None:
    frozen = await resting(store, freeze=True)
    async with store.reading() as db:
        older = (await swaps.versions(db, "desk"))[0]
    asked = await granted_rollback(store, older)
    assert await records.plan(store, asked)
    async with store.changing("desk") as change:
        proposed = await ask_for_rollback(change, version(0).model_copy(update={"until": clock.time}), POLICY, "moss")
        candidate = await offered(change)
    assert held_back(frozen, proposed, clock.time)
    assert held_back(frozen, candidate, clock.time)
    assert held_back(substrate(), candidate, clock.time) is None


# In a whole Moss


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


async def rest(stage: Theatre, swap: Swapping) -> None:
    """As a restart with other settings."""
    async with stage.moss.store.changing("prices") as change:
        known = await substrates.get(change.db, "prices")
        await substrates.save(change, known.model_copy(update={"swap": swap}), "moss.toml")


async def test_an_approved_run_waits_out_a_freeze_and_status_says_why(stage: Theatre) -> None:
    run = await stage.play(patch=agent(FIXED))
    before = await stage.outside()
    await rest(stage, Swapping(freeze=True))
    await stage.approve(run)
    for _ in range(2):
        await stage.moss.dispatch.tick()
        assert (await stage.look(run.id)).state is RunState.approved
    assert (await stage.outside()).version == before.version
    assert (await standing(stage.moss.store, "prices")).held_back == (
        "Swaps of prices are frozen; take `swap.freeze` back in moss.toml."
    )
    async with stage.moss.store.reading() as db:
        assert [row.kind for row in await outbox.waiting(db)] == ["swap"]
    await rest(stage, Swapping())
    assert (await standing(stage.moss.store, "prices")).held_back is None
    await stage.moss.dispatch.tick()
    assert (await stage.end_of(run)).state is RunState.applied


async def test_a_run_that_waits_for_its_hour_can_be_stopped(stage: Theatre) -> None:
    run = await stage.play(patch=agent(FIXED))
    await rest(stage, Swapping(freeze=True))
    await stage.approve(run)
    assert (await verbs.stop(stage.moss, run.id, "ann")).state is RunState.stopped
    before = await stage.outside()
    await rest(stage, Swapping())
    await stage.moss.dispatch.tick()
    assert (await stage.outside()).version == before.version
    again = await stage.play(patch=agent(FIXED))
    await stage.approve(again)
    assert (await stage.end_of(again)).state is RunState.applied
