"""Who may let a repair go live, asked on the room: a sentence for each who may not, and nothing is swapped."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import update

from bot.cards import parts
from bot.chat import Card, Tone
from bot.inbox import Inbox
from bot.receive import give_up, receive
from bot.verbs import Moss
from core.containers.host import Host
from core.dispatch import Dispatch
from core.model.consent import Consent, ConsentState, Policy
from core.store import consents, inbox, outbox
from core.store.tables import candidates
from tests.support import stored
from tests.support.chat_moss import StillDispatch
from tests.support.databases import HeldClock
from tests.support.rooms import House, a_room, refused, serving

SOLE = Policy(approvers=frozenset({"anna"}), allow_sole_approver=True)
ALONE = Policy(approvers=frozenset({"anna"}))


@dataclass
class Images:
    """The host, as far as a consent asks it."""

    there: bool = True

    async def has_image(self, image: str) -> bool:
        return self.there


@dataclass
class Case:
    house: House
    images: Images = field(default_factory=Images)

    async def offered(self, policy: Policy = stored.POLICY, starter: str = "carl") -> tuple[str, Consent]:
        """The message with the buttons, and what they decide."""
        async with self.house.store.changing("desk") as change:
            consent = await stored.offered(change, policy, starter)
        card = Card(title=f"A repair waits: {consent.id}", tone=Tone.asking, actions=parts.decide(consent))
        return await self.house.say(card, key=consent.id), consent

    async def press(self, person: str, message: str, consent: str, verb: str = "approve", reason: str = "") -> str:
        """What this person is told, privately."""
        async with await self.house.client(person) as client:
            body = {"verb": verb, "subject": consent, "reason": reason}
            answer = await client.post(f"/api/messages/{message}/press", json=body)
            assert answer.status_code == 202, answer.text
            await self.work()
            seen = (await client.get("/api/messages?channel=desk")).json()["messages"]
        told = [one for one in seen if one["private"] and one["by"]["kind"] == "moss"]
        return str(told[-1]["text"])

    async def work(self) -> None:
        """Until nothing that reached the inbox waits."""
        house = self.house
        dispatch = cast(Dispatch, StillDispatch(house.store))
        worker = Inbox(house.store, house.inbox._holder)
        moss = Moss(house.settings, house.store, cast(Host, self.images), dispatch, worker, {"room": house.room.chat})
        working = asyncio.create_task(worker.work(partial(receive, moss), partial(give_up, moss), ["room"]))
        seen = -1
        async with asyncio.timeout(10):
            while await self._waiting():
                seen = await house.store.wait_for_change(seen, 1)
        await worker.finish(2)
        await working

    async def _waiting(self) -> bool:
        async with self.house.store.reading() as db:
            return bool(await inbox.waiting(db, "", 1 << 30))

    async def outcome(self, consent: Consent) -> tuple[ConsentState, int]:
        """And how many swaps were set going."""
        async with self.house.store.reading() as db:
            swaps = [row for row in await outbox.waiting(db) if row.kind == "swap"]
            return (await consents.get(db, consent.id)).state, len(swaps)


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    async with a_room(tmp_path, clock=HeldClock()) as house:
        yield Case(house)


async def test_an_approver_who_did_not_start_it_approves(case: Case) -> None:
    message, consent = await case.offered()
    assert "You approved this" in await case.press("anna", message, consent.id)
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
    told = await case.press(who, message, consent.id)
    assert re.search(said, told), told
    assert await case.outcome(consent) == (ConsentState.asked, 0)


async def test_a_sole_approver_may_approve_what_they_started_where_that_is_allowed(case: Case) -> None:
    message, consent = await case.offered(SOLE, "anna")
    assert "You approved this" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_a_double_click_is_one_approval(case: Case) -> None:
    message, consent = await case.offered()
    await case.press("anna", message, consent.id)
    assert "anna approved this already" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_two_at_the_same_instant_are_one_approval(case: Case) -> None:
    message, consent = await case.offered()
    body = {"verb": "approve", "subject": consent.id}
    async with await case.house.client("anna") as anna, await case.house.client("ben") as ben:
        answers = await asyncio.gather(
            *(client.post(f"/api/messages/{message}/press", json=body) for client in (anna, ben, anna, ben))
        )
    assert {answer.status_code for answer in answers} == {202}
    await case.work()
    assert await case.outcome(consent) == (ConsentState.granted, 1)


async def test_a_press_that_moss_died_over_counts_after_the_restart(case: Case) -> None:
    message, consent = await case.offered()
    async with await case.house.client("anna") as anna:
        await anna.post(f"/api/messages/{message}/press", json={"verb": "approve", "subject": consent.id})
    async with serving(case.house.store, case.house.settings, "test.2") as again:
        again.tokens = case.house.tokens
        restarted = Case(again)
        await restarted.work()
        assert await restarted.outcome(consent) == (ConsentState.granted, 1)
        assert "anna approved this already" in await restarted.press("ben", message, consent.id)
        assert await restarted.outcome(consent) == (ConsentState.granted, 1)


async def test_after_its_time_nothing_is_approved(case: Case) -> None:
    message, consent = await case.offered()
    assert isinstance(case.house.store.clock, HeldClock)
    case.house.store.clock.advance(consent.policy.expires_after_s + 1)
    assert "expired" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.expired, 0)


async def test_an_old_card_approves_nothing_newer(case: Case) -> None:
    message, consent = await case.offered()
    _, newer = await case.offered()
    assert "out of date" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.void, 0)
    assert await case.outcome(newer) == (ConsentState.asked, 0)


async def test_an_image_that_is_gone_cannot_be_approved(case: Case) -> None:
    message, consent = await case.offered()
    case.images.there = False
    assert "image" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.asked, 0)


async def test_an_image_that_was_built_anew_cannot_be_approved(case: Case) -> None:
    message, consent = await case.offered()
    async with case.house.store.writing() as db:
        await db.execute(update(candidates).values(image="sha256:" + "9" * 64))
    assert "not what this consent was asked for" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.asked, 0)


async def test_what_was_declined_is_not_approved_afterwards(case: Case) -> None:
    message, consent = await case.offered()
    await case.press("ben", message, consent.id, "decline", "Too much at once.")
    assert "ben declined" in await case.press("anna", message, consent.id)
    assert await case.outcome(consent) == (ConsentState.declined, 0)


async def test_a_forged_id_a_foreign_token_and_no_token_reach_nothing(case: Case) -> None:
    message, consent = await case.offered()
    _, other = await case.offered()
    press = f"/api/messages/{message}/press"
    body = {"verb": "approve", "subject": consent.id}
    async with await case.house.client("anna") as anna:
        for forged in (other.id, "consent-22222222", "consent-1' OR 1=1", "../consent", "run-1"):
            refused(await anna.post(press, json=body | {"subject": forged}), 404, "button is not on the message")
        refused(await anna.post(press, json=body | {"person": "ben"}), 400, "`person` is not known here")
    async with await case.house.client(Authorization="Bearer moss_of_another_moss") as stranger:
        refused(await stranger.post(press, json=body), 401, "Nobody here has that token")
    async with await case.house.client() as nobody:
        refused(await nobody.post(press, json=body), 401, "This needs your token")
    await case.work()
    assert (await case.outcome(other)) == (ConsentState.asked, 0)
