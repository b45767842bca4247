"""Who may let a repair go live, asked on every platform: a sentence for each who may not, and nothing is swapped."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import update

from core.model.consent import ConsentState, Policy
from core.store.tables import candidates
from tests.support import stored
from tests.support.consent_case import Case, Door, a_case
from tests.support.consent_doors import RoomDoor, discord_door, slack_door

SOLE = Policy(approvers=frozenset({"anna"}), allow_sole_approver=True)
ALONE = Policy(approvers=frozenset({"anna"}))

DOORS: dict[str, Callable[[], AbstractAsyncContextManager[Door]]] = {
    "room": lambda: nullcontext(RoomDoor()),
    "slack": slack_door,
    "discord": discord_door,
}


@pytest.fixture(params=DOORS)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    async with DOORS[request.param]() as door, a_case(door, tmp_path) as case:
        yield case


async def test_an_approver_who_did_not_start_it_approves(case: Case) -> None:
    message, consent = await case.offered()
    assert "You approved this" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


@pytest.mark.parametrize(
    ("who", "policy", "starter", "said"),
    [
        ("eve", stored.POLICY, "carl", "You are not one of the approvers; ask anna, ben."),
        ("anna", Policy(), "carl", "Nobody may approve this, since no approvers are configured"),
        ("anna", stored.POLICY, "anna", "You started this, so another approver must approve it; ask ben."),
        ("anna", ALONE, "anna", "You started this, .*"),
    ],
    ids=["not an approver", "nobody is an approver", "who started it", "who started it, and nobody else may"],
)
async def test_who_may_not_approve_is_told_why(case: Case, who: str, policy: Policy, starter: str, said: str) -> None:
    message, consent = await case.offered(policy, starter)
    told = await case.press(who, message, consent)
    assert re.search(said, told), told
    assert await case.outcome(consent) == (ConsentState.asked, 0)


async def test_a_sole_approver_may_approve_what_they_started_where_that_is_allowed(case: Case) -> None:
    message, consent = await case.offered(SOLE, "anna")
    assert "You approved this" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_a_double_click_is_one_approval(case: Case) -> None:
    message, consent = await case.offered()
    await case.press("anna", message, consent)
    assert "anna approved this already" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_two_at_the_same_instant_are_one_approval(case: Case) -> None:
    message, consent = await case.offered()
    people = ("anna", "ben", "anna", "ben")
    await asyncio.gather(*(case.door.press(person, message, "approve", consent.id) for person in people))
    await case.work()
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_a_press_that_moss_died_over_counts_after_the_restart(case: Case) -> None:
    message, consent = await case.offered()
    await case.door.press("anna", message, "approve", consent.id)
    await case.begin()
    await case.work()
    assert await case.outcome(consent) == (ConsentState.granted, 1)
    assert "anna approved this already" in await case.press("ben", message, consent)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_after_its_time_nothing_is_approved(case: Case) -> None:
    message, consent = await case.offered()
    case.clock.advance(consent.policy.expires_after_s + 1)
    assert "expired" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.expired, 0)


async def test_an_old_card_approves_nothing_newer(case: Case) -> None:
    message, consent = await case.offered()
    _, newer = await case.offered()
    assert "out of date" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.void, 0)
    assert await case.outcome(newer) == (ConsentState.asked, 0)


async def test_an_image_that_is_gone_cannot_be_approved(case: Case) -> None:
    message, consent = await case.offered()
    case.images.there = False
    assert "image" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.asked, 0)


async def test_an_image_that_was_built_anew_cannot_be_approved(case: Case) -> None:
    message, consent = await case.offered()
    async with case.store.writing() as db:
        await db.execute(update(candidates).values(image="sha256:" + "9" * 64))
    assert "not what this consent was asked for" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.asked, 0)


async def test_what_was_declined_is_not_approved_afterwards(case: Case) -> None:
    message, consent = await case.offered()
    await case.press("ben", message, consent, "decline", "Too much at once.")
    assert "ben declined" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.declined, 0)
