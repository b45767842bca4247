"""What is forged, foreign or repeated at Discord approves nothing; who may approve what, the consent table says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.model.consent import ConsentState
from tests.support.consent_case import Case, a_case
from tests.support.consent_doors import DiscordDoor, discord_door
from tests.support.discord_people import USERS
from tests.support.discord_server import CHANNEL
from tests.support.until import until

NOTHING = (ConsentState.asked, 0)
NOT_HERE, OLD = "Moss does not listen here", "another version of Moss"


@pytest.fixture
async def door() -> AsyncIterator[DiscordDoor]:
    async with discord_door() as door:
        yield door


@pytest.fixture
async def case(door: DiscordDoor, tmp_path: Path) -> AsyncIterator[Case]:
    async with a_case(door, tmp_path) as case:
        yield case


@pytest.mark.parametrize(
    ("forged", "said"), [("consent-22222222", "consent-22222222"), ("run-22222222", "nothing that can be done here")]
)
async def test_a_forged_id_is_answered_and_approves_nothing(
    case: Case, door: DiscordDoor, forged: str, said: str
) -> None:
    message, consent = await case.offered()
    pressed = await door.press("anna", message, "approve", forged)
    await case.work()
    assert said in await door.told(pressed)
    assert await case.outcome(consent) == NOTHING


@pytest.mark.parametrize("forged", ["consent-1' OR 1=1", "../consent", "", "x" * 90, "consent-1:why:why"])
async def test_an_id_that_is_none_is_not_even_written_down(case: Case, door: DiscordDoor, forged: str) -> None:
    message, consent = await case.offered()
    token = await door.press("anna", message, "approve", forged)
    assert OLD in (await door.server.callback(token))["data"]["content"]
    assert not await case.waiting()
    assert await case.outcome(consent) == NOTHING


async def test_an_id_under_the_button_of_an_older_card_is_judged_by_itself(case: Case, door: DiscordDoor) -> None:
    message, _ = await case.offered()
    _, newer = await case.offered()
    pressed = await door.press("eve", message, "approve", newer.id)
    await case.work()
    assert "not one of the approvers" in await door.told(pressed)
    assert await case.outcome(newer) == NOTHING


@pytest.mark.parametrize("verb", ["press", "form", "command", "menu"])
async def test_what_is_asked_on_another_server_reaches_nothing(case: Case, door: DiscordDoor, verb: str) -> None:
    """An approver who owns another server, with the same bot in it, is nobody there."""
    message, consent = await case.offered()
    who, server = USERS["anna"], door.server
    found = server.messages[CHANNEL][0]
    kinds: dict[str, tuple[int, dict[str, Any]]] = {
        "press": (3, {"custom_id": f"moss:approve:{consent.id}", "component_type": 2}),
        "form": (5, {"custom_id": f"moss:decline:{consent.id}:why", "components": []}),
        "command": (2, server._slash("approve", {"run": consent.run})),
        "menu": (2, {"id": "78", "name": "Flag for Moss", "type": 3, "target_id": message,
                     "resolved": {"messages": {message: found}}}),
    }  # fmt: skip
    kind, data = kinds[verb]
    token = await server._interaction(who, kind, data, CHANNEL, message=found, guild=9999)
    assert NOT_HERE in (await server.callback(token))["data"]["content"]
    assert not await case.waiting()
    assert await case.outcome(consent) == NOTHING


async def test_one_press_that_is_told_many_times_is_one_also_after_a_restart(case: Case, door: DiscordDoor) -> None:
    message, consent = await case.offered()
    pressed = await door.press("anna", message, "approve", consent.id)
    assert door.server._session is not None
    event = door.server._session.told[-1]
    await door.server.again(event)
    await case.work()
    await case.begin()
    await door.server.tell("INTERACTION_CREATE", event["d"])
    await until(lambda: sum("/callback" in path for _, path in door.server.calls) == 3)
    assert not await case.waiting()
    assert await case.outcome(consent) == (ConsentState.granted, 1)
    assert "You approved this" in await door.told(pressed)
    assert sum(path.endswith("/@original") for _, path in door.server.calls) == 1


async def test_only_the_id_of_whoever_pressed_counts_and_not_their_name(case: Case, door: DiscordDoor) -> None:
    message, consent = await case.offered()
    named = {"username": "anna", "global_name": "anna", "nick": "anna", "bot": False, "avatar": None}
    member = {"user": {"id": "14", "discriminator": "0", **named}, "nick": "anna", "roles": ["11"], "flags": 0}
    data = {"custom_id": f"moss:approve:{consent.id}", "component_type": 2}
    found = door.server.messages[CHANNEL][0]
    about = {"joined_at": None, "deaf": False, "mute": False, "permissions": str(1 << 3)}
    token = await door.server._interaction(14, 3, data, CHANNEL, message=found, member=member | about)
    await door.server.callback(token)
    await case.work()
    assert message == found["id"]
    assert "not one of the approvers" in await door.told(token)
    assert await case.outcome(consent) == NOTHING


async def test_a_form_that_nobody_opened_declines_nothing_for_somebody_else(case: Case, door: DiscordDoor) -> None:
    _, consent = await case.offered()
    token = await door.server.fills_in(USERS["eve"], f"moss:decline:{consent.id}:why", "No.")
    await door.server.callback(token)
    await case.work()
    assert "not one of the approvers" in await door.told(token)
    assert await case.outcome(consent) == NOTHING
