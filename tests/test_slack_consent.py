"""What is forged, foreign or stale in Slack approves nothing; who else may approve what, the consent table says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.model.consent import ConsentState
from tests.support.consent_case import Case, a_case
from tests.support.consent_doors import SlackDoor, slack_door
from tests.support.slack_people import buttons, user
from tests.support.slack_server import CHANNEL, call

NOTHING = (ConsentState.asked, 0)


@pytest.fixture
async def door() -> AsyncIterator[SlackDoor]:
    async with slack_door(http=True) as door:
        yield door


@pytest.fixture
async def case(door: SlackDoor, tmp_path: Path) -> AsyncIterator[Case]:
    async with a_case(door, tmp_path) as case:
        yield case


def a_press(door: SlackDoor, message: str, person: str, **more: Any) -> dict[str, Any]:
    approve = next(one for one in buttons(door.slack.messages[CHANNEL, message]) if one["value"].startswith("approve"))
    return door.slack.press(approve, message, user(person)) | more


async def test_signed_and_in_time_a_press_counts(case: Case, door: SlackDoor) -> None:
    message, consent = await case.offered()
    assert "You approved this" in await case.press("anna", message, consent)
    assert await case.outcome(consent) == (ConsentState.granted, 1)


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ("consent-22222222", "consent-22222222"),
        ("consent-1' OR 1=1", "consent"),
        ("../consent", "nothing that can be done here"),
        ("run-22222222", "nothing that can be done here"),
        ("", "nothing that can be done here"),
    ],
)
async def test_a_forged_id_is_answered_and_approves_nothing(
    case: Case, door: SlackDoor, forged: str, said: str
) -> None:
    message, consent = await case.offered()
    pressed = await door.press("anna", message, "approve", forged)
    await case.work()
    assert said in await door.told(pressed)
    assert await case.outcome(consent) == NOTHING


async def test_an_id_under_the_button_of_an_older_card_is_judged_by_itself(case: Case, door: SlackDoor) -> None:
    message, _ = await case.offered()
    _, newer = await case.offered()
    pressed = await door.press("eve", message, "approve", newer.id)
    await case.work()
    assert "not one of the approvers" in await door.told(pressed)
    assert await case.outcome(newer) == NOTHING


@pytest.mark.parametrize(
    "foreign",
    [{"team": {"id": "T9"}}, {"team": {"id": "T9"}, "user": {"id": "UANNA", "team_id": "T9"}}, {"team": None}],
    ids=["another workspace", "its people", "no workspace"],
)
async def test_a_press_of_another_workspace_reaches_nothing(
    case: Case, door: SlackDoor, foreign: dict[str, Any]
) -> None:
    message, consent = await case.offered()
    pressed = a_press(door, message, "anna", **foreign)
    pressed["user"] = foreign.get("user", {"id": "UANNA"})
    assert await call(door.people.port, pressed, form=True) == 200
    assert not await case.waiting()
    assert await case.outcome(consent) == NOTHING


@pytest.mark.parametrize("name", ["anna", "slack:T1/UANNA", "UANNA/", "U1/../UANNA", ""])
async def test_a_person_cannot_be_named_by_a_payload_into_being_somebody_else(
    case: Case, door: SlackDoor, name: str
) -> None:
    message, consent = await case.offered()
    pressed = a_press(door, message, "eve")
    pressed["user"] = {"id": name, "name": "anna", "username": "anna", "team_id": "T1"}
    await call(door.people.port, pressed, form=True)
    await case.work()
    assert await case.outcome(consent) == NOTHING


@pytest.mark.parametrize(
    "broken",
    [
        {"actions": []},
        {"actions": [{"type": "button", "action_id": "press:0"}]},
        {"actions": [{"type": "button", "action_id": "press:0", "value": ["approve", "consent"]}]},
        {"container": {}},
        {"container": {"channel_id": "../C1", "message_ts": "1.1"}},
        {"trigger_id": ""},
        {"user": "UANNA"},
    ],
    ids=str,
)
async def test_a_broken_payload_is_no_press(case: Case, door: SlackDoor, broken: dict[str, Any]) -> None:
    message, consent = await case.offered()
    await call(door.people.port, a_press(door, message, "anna", **broken), form=True)
    await case.work()
    assert await case.outcome(consent) == NOTHING


async def test_one_press_that_is_sent_many_times_is_one(case: Case, door: SlackDoor) -> None:
    message, consent = await case.offered()
    pressed = a_press(door, message, "anna")
    for _ in range(3):
        assert await call(door.people.port, pressed, form=True) == 200
    await case.work()
    assert await case.outcome(consent) == (ConsentState.granted, 1)
    assert len(door.slack.answered[pressed["response_url"]]) == 1


@pytest.mark.parametrize("how", [{"secret": "another"}, {"age_s": 301}, {"age_s": -301}], ids=["bad", "old", "early"])
async def test_a_bad_or_stale_signature_reaches_nothing(case: Case, door: SlackDoor, how: dict[str, Any]) -> None:
    message, consent = await case.offered()
    assert await call(door.people.port, a_press(door, message, "anna"), form=True, **how) == 401
    assert not await case.waiting()
    assert await case.outcome(consent) == NOTHING


async def test_a_form_that_nobody_opened_declines_nothing_for_somebody_else(case: Case, door: SlackDoor) -> None:
    message, consent = await case.offered()
    meta = f'{{"channel": "{CHANNEL}", "message": "{message}", "value": "decline {consent.id}"}}'
    view = {"type": "modal", "callback_id": "moss_press_form", "private_metadata": meta}
    sent = door.slack.submission(view, {"reason": {"value": "No."}}, user("eve"))
    assert await call(door.people.port, sent, form=True) == 200
    await case.work()
    assert await case.outcome(consent) == NOTHING
