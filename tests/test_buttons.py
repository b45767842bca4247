"""Buttons on a card: the same rule as every other way to decide, a private sentence each, and no second action."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.model.consent import Consent, ConsentState
from core.store import consents, outbox
from tests.support import stored
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.paper_chat import PAPER


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def chat(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[ChatMoss]:
    async with opened(request.param, tmp_path, clock) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def offered(chat: ChatMoss, **more: object) -> Consent:
    async with chat.store.changing("little") as change:
        return await stored.offered(change, **more)  # type: ignore[arg-type]


async def state(chat: ChatMoss, consent: Consent) -> tuple[ConsentState, int]:
    """And how many swaps were set going."""
    async with chat.store.reading() as db:
        waiting = [row for row in await outbox.waiting(db) if row.kind == "swap"]
        return (await consents.get(db, consent.id)).state, len(waiting)


async def pressed(chat: ChatMoss, verb: str, subject: str, person: str = "paper:anna", reason: str = "") -> str:
    await chat.did(chat.pressed(verb, subject, person=person, reason=reason))
    last = list(chat.chat.whispered.values())[-1]
    assert last.person == person
    return last.text


async def test_an_approver_approves_once_and_everybody_after_is_told(chat: ChatMoss) -> None:
    consent = await offered(chat)
    assert "You approved this" in await pressed(chat, "approve", consent.id)
    for person in ("paper:anna", "paper:ben", "paper:eve"):
        assert "anna approved this already" in await pressed(chat, "approve", consent.id, person)
    assert await state(chat, consent) == (ConsentState.granted, 1)


async def test_two_presses_at_the_same_instant_are_one_approval(chat: ChatMoss) -> None:
    consent = await offered(chat)
    presses = [chat.pressed("approve", consent.id, person=person) for person in ("paper:anna", "paper:ben")]
    await asyncio.gather(*map(chat.inbox.take, presses * 2))
    await chat.work()
    assert await state(chat, consent) == (ConsentState.granted, 1)
    assert len(chat.chat.told()) == 2
    assert sum("You approved this" in told for told in chat.chat.told()) == 1


@pytest.mark.parametrize(
    ("person", "starter", "said"),
    [
        ("paper:eve", "carl", "You are not one of the approvers; ask anna, ben; Moss knows you as `paper:eve`."),
        ("anna2", "carl", "You are not one of the approvers"),
        ("paper:anna", "anna", "You started this, so another approver must approve it; ask ben."),
    ],
)
async def test_who_may_not_approve_is_told_why(chat: ChatMoss, person: str, starter: str, said: str) -> None:
    consent = await offered(chat, starter=starter)
    assert said in await pressed(chat, "approve", consent.id, person)
    assert await state(chat, consent) == (ConsentState.asked, 0)


async def test_after_its_time_nothing_is_approved(chat: ChatMoss, clock: HeldClock) -> None:
    consent = await offered(chat)
    clock.advance(8 * 86400)
    assert "This expired on" in await pressed(chat, "approve", consent.id)
    assert await state(chat, consent) == (ConsentState.expired, 0)


async def test_an_old_card_approves_nothing_newer(chat: ChatMoss) -> None:
    old, new = await offered(chat), await offered(chat)
    assert "out of date" in await pressed(chat, "approve", old.id)
    assert await state(chat, new) == (ConsentState.asked, 0)


async def test_declining_takes_a_reason_and_ends_it(chat: ChatMoss) -> None:
    consent = await offered(chat)
    assert "takes a reason" in await pressed(chat, "decline", consent.id)
    assert await state(chat, consent) == (ConsentState.asked, 0)
    assert "You declined this" in await pressed(chat, "decline", consent.id, reason="Too risky.")
    assert "declined this already" in await pressed(chat, "approve", consent.id, "paper:ben")
    async with chat.store.reading() as db:
        assert (await consents.get(db, consent.id)).votes[0].reason == "Too risky."


@pytest.mark.parametrize(
    ("verb", "subject", "said"),
    [
        ("approve", "consent-forged", "There is no consent consent-forged"),
        ("approve", "run", "asks for nothing that can be done here"),
        ("approve", "", "asks for nothing that can be done here"),
        ("deploy", "consent-1", "asks for nothing that can be done here"),
        ("report", "run-forged", "There is no run run-forged"),
    ],
)
async def test_a_forged_press_does_nothing(chat: ChatMoss, verb: str, subject: str, said: str) -> None:
    consent = await offered(chat)
    assert said in await pressed(chat, verb, str(consent.run) if subject == "run" else subject)
    assert await state(chat, consent) == (ConsentState.asked, 0)


async def test_report_and_diff_are_shown_to_the_one_who_asked(chat: ChatMoss) -> None:
    consent = await offered(chat, place=PAPER)
    assert "waits for approval" in await pressed(chat, "report", str(consent.run), "paper:eve")
    assert "is gone" in await pressed(chat, "diff", str(consent.run), "paper:eve")
    assert chat.chat.shown == []
    chat.permit(status="maintainers")
    assert "You may not use `run`" in await pressed(chat, "report", str(consent.run), "paper:eve")


@pytest.mark.parametrize("verb", ["report", "diff"])
async def test_the_card_of_another_conversation_shows_its_evidence_to_maintainers_alone(
    chat: ChatMoss, verb: str
) -> None:
    consent = await offered(chat, place=PAPER.model_copy(update={"workspace": "private"}))
    refused = await pressed(chat, verb, str(consent.run), "paper:eve")
    assert refused.startswith("You may not look at what belongs to another conversation; ask anna, ben, mary")
    assert "another conversation" not in await pressed(chat, verb, str(consent.run), "paper:mary")
