"""The room's HTTP interface: what people do is shown and heard together, and nobody does it in another's name."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bot.chat import Action, Card, Commanded, Flagged, Picture, Pressed, Reacted, Said, Style
from core.model.errors import Unavailable
from core.model.evidence import FailureKind
from tests.support.databases import DATABASES
from tests.support.rooms import DESK, House, a_room, refused, say

PNG = b"\x89PNG\r\n\x1a\nnot much of a picture"
APPROVE = Action(label="Approve", verb="approve", subject="consent-1", style=Style.primary)
FAMILY = "\u200d".join("👩👩👧👦")
DECLINE = Action(label="Decline", verb="decline", subject="consent-1", wants_reason=True)
CARD = Card(title="A repair waits", actions=(APPROVE, DECLINE), picture=Picture(png=PNG, alt="All keypoints rise."))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


@pytest.fixture(params=DATABASES)
async def any_house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path, kind=request.param) as house:
        yield house


@pytest.fixture
async def anna(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("anna") as client:
        yield client


@pytest.fixture
async def ben(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("ben") as client:
        yield client


async def messages(client: httpx.AsyncClient, **where: str) -> list[dict]:  # type: ignore[type-arg]
    answer = await client.get("/api/messages", params={"channel": "desk"} | where)
    return list(answer.json()["messages"])


# What people do


async def test_what_a_person_says_is_shown_to_all_and_heard_once(any_house: House) -> None:
    async with await any_house.client("anna") as anna, await any_house.client("ben") as ben:
        id = await say(anna, "  Refund order 17?  ")
        (seen,) = await messages(ben)
    assert (seen["id"], seen["text"], seen["by"]) == (id, "Refund order 17?", {"kind": "person", "name": "anna"})
    (event,) = await any_house.heard()
    assert isinstance(event, Said)
    assert (event.message, event.person, event.place, event.text) == (id, "anna", DESK, "Refund order 17?")
    assert event.addressed


async def test_the_same_key_is_posted_once_however_often_it_is_sent(house: House, anna: httpx.AsyncClient) -> None:
    body = {"channel": "desk", "text": "Refund?", "key": "k-1"}
    answers = await asyncio.gather(*(anna.post("/api/messages", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await house.heard()) == 1


async def test_a_key_of_one_person_is_no_key_of_another(
    house: House, anna: httpx.AsyncClient, ben: httpx.AsyncClient
) -> None:
    assert await say(anna, "Refund?", key="same") != await say(ben, "Refund!", key="same")
    assert len(await house.heard()) == 2


async def test_a_reply_stands_in_its_thread_and_is_counted(house: House, anna: httpx.AsyncClient) -> None:
    root = await say(anna, "Refund?")
    reply = await say(anna, "Please.", thread=root)
    deeper = await say(anna, "Soon.", thread=reply)
    assert [one["id"] for one in await messages(anna, thread=root)] == [root, reply, deeper]
    (flat,) = await messages(anna)
    assert flat["replies"] == 2
    assert [event.place.thread for event in await house.heard()] == ["", root, root]


async def test_people_may_talk_about_a_card_without_the_agent_joining_in(house: House, anna: httpx.AsyncClient) -> None:
    root = await house.say(CARD)
    await say(anna, "Shall we?", thread=root)
    await say(anna, "@agent what do you think?", thread=root)
    assert [isinstance(event, Said) and event.addressed for event in await house.heard()] == [False, True]


async def test_a_command_is_seen_by_whoever_gave_it_only(
    house: House, anna: httpx.AsyncClient, ben: httpx.AsyncClient
) -> None:
    await say(anna, "/moss\nstatus")
    answer = await anna.post("/api/commands", json={"channel": "desk", "words": "batches"})
    assert answer.status_code == 201
    assert [(one["text"], one["private"]) for one in await messages(anna)] == [
        ("/moss status", True),
        ("/moss batches", True),
    ]
    assert await messages(ben) == []
    events = await house.heard()
    assert [(event.words, event.person) for event in events if isinstance(event, Commanded)] == [
        ("status", "anna"),
        ("batches", "anna"),
    ]


async def test_a_command_that_does_not_exist_is_not_said_aloud(house: House, anna: httpx.AsyncClient) -> None:
    for text in ("/mos status", "/help", "/approve run-1"):
        refused(await anna.post("/api/messages", json={"channel": "desk", "text": text}), 400, "only command here")
    assert await house.heard() == []
    await say(anna, "/etc/hosts is wrong")
    await say(anna, " /mos status")
    assert len(await house.heard()) == 2


async def test_a_reaction_is_heard_once_and_so_is_its_end(house: House, anna: httpx.AsyncClient) -> None:
    id = await house.say("Refunded 17.", agent="desk")
    for emoji in ("thumbsdown", "👎", "-1", "👎🏽"):
        assert (await anna.put(f"/api/messages/{id}/reactions/{emoji}")).status_code == 204
    (seen,) = await messages(anna)
    assert seen["reactions"] == [{"emoji": "thumbsdown", "character": "👎", "people": ["anna"], "flags": "other"}]
    for _ in range(2):
        assert (await anna.delete(f"/api/messages/{id}/reactions/👎")).status_code == 204
    await anna.put(f"/api/messages/{id}/reactions/thumbsdown")
    events = [event for event in await house.heard() if isinstance(event, Reacted)]
    assert [event.added for event in events] == [True, False, True]
    assert {(event.emoji, event.message, event.person) for event in events} == {("thumbsdown", id, "anna")}


async def test_what_is_no_emoji_is_refused(house: House, anna: httpx.AsyncClient) -> None:
    id = await house.say("Refunded 17.", agent="desk")
    for emoji in ("<b>", "no flag", "\u202eabc", "~answering", "x" * 60, "🎉" * 20, "\u202e🎉", "é"):
        refused(await anna.put(f"/api/messages/{id}/reactions/{emoji}"), 400, "no emoji")
    assert (await anna.put(f"/api/messages/{id}/reactions/{FAMILY}")).status_code == 204
    for n in range(19):
        await anna.put(f"/api/messages/{id}/reactions/custom_{n}")
    refused(await anna.put(f"/api/messages/{id}/reactions/one_more"), 403, "20 emoji")


async def test_a_complaint_with_words_is_heard_with_its_words(house: House, anna: httpx.AsyncClient) -> None:
    id = await house.say("Refunded 17.", agent="desk")
    body = {"failure": "incomplete", "reason": "I asked for two."}
    assert (await anna.post(f"/api/messages/{id}/flag", json=body)).status_code == 202
    (event,) = await house.heard()
    assert isinstance(event, Flagged)
    assert (event.message, event.failure, event.reason) == (id, FailureKind.incomplete, "I asked for two.")
    refused(await anna.post(f"/api/messages/{id}/flag", json={"failure": "bad mood"}), 400, "`failure` should be")


async def test_a_button_is_pressed_with_nothing_but_what_stands_on_it(house: House, anna: httpx.AsyncClient) -> None:
    id = await house.say(CARD)
    press = f"/api/messages/{id}/press"
    assert (await anna.post(press, json={"verb": "approve", "subject": "consent-1"})).status_code == 202
    for forged in ({"verb": "approve", "subject": "consent-2"}, {"verb": "rollback", "subject": "consent-1"}):
        refused(await anna.post(press, json=forged), 404, "button is not on the message")
    decline = {"verb": "decline", "subject": "consent-1"}
    refused(await anna.post(press, json=decline), 400, "needs a reason")
    assert (await anna.post(press, json=decline | {"reason": "Too much."})).status_code == 202
    await house.room.chat.edit(DESK, id, CARD.model_copy(update={"actions": ()}))
    refused(await anna.post(press, json={"verb": "approve", "subject": "consent-1"}), 404, "not any more")
    events = [event for event in await house.heard() if isinstance(event, Pressed)]
    assert [(event.verb, event.subject, event.reason) for event in events] == [
        ("approve", "consent-1", ""),
        ("decline", "consent-1", "Too much."),
    ]
    assert {(event.person, event.message) for event in events} == {("anna", id)}


async def test_what_cannot_be_heard_is_not_shown(
    house: House, anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Moss dies between the two: they are one transaction."""
    id = await house.say("Refunded 17.", agent="desk")

    async def fail(*_: object) -> bool:
        raise Unavailable("The inbox is away.")

    monkeypatch.setattr(house.inbox, "add", fail)
    refused(await anna.post("/api/messages", json={"channel": "desk", "text": "Refund?"}), 503, "inbox is away")
    refused(await anna.put(f"/api/messages/{id}/reactions/x"), 503, "inbox is away")
    (seen,) = await messages(anna)
    assert seen["id"] == id
    assert seen["reactions"] == []


async def test_secrets_reach_the_agent_and_no_table(any_house: House) -> None:
    secret = "ghp_" + "a1B2" * 9
    async with await any_house.client("anna") as anna:
        id = await say(anna, f"Use {secret} or mail anna.b@acme.test")
        await any_house.say(f"I used {secret}.", agent="desk")
        shown = (await anna.get("/api/messages?channel=desk")).text
    assert secret not in shown
    assert "anna.b@acme.test" not in shown
    assert secret not in str(await any_house.heard())
    assert any_house.inbox.heard.get(DESK, id) == f"Use {secret} or mail anna.b@acme.test"


# What people see


async def test_what_is_private_is_seen_by_its_person_and_nowhere_else(
    house: House, anna: httpx.AsyncClient, ben: httpx.AsyncClient
) -> None:
    await house.room.chat.whisper(DESK, "anna", CARD, "", "w-1")
    await house.room.chat.whisper(DESK, "anna", CARD, "", "w-1")
    (mine,) = await messages(anna)
    id = mine["id"]
    assert mine["private"]
    assert mine["by"]["kind"] == "moss"
    assert (await anna.get(f"/pictures/{id}")).content == PNG
    assert await messages(ben) == []
    pressed = {"verb": "approve", "subject": "consent-1"}
    for answer in (
        await ben.get(f"/api/messages/{id}"),
        await ben.post(f"/api/messages/{id}/press", json=pressed),
        await ben.post(f"/api/messages/{id}/flag", json={"reason": "?"}),
        await ben.put(f"/api/messages/{id}/reactions/x"),
        await ben.post("/api/messages", json={"channel": "desk", "text": "?", "thread": id}),
        await ben.get(f"/api/messages?channel=desk&thread={id}"),
    ):
        refused(answer, 404, f"no message {id}")
    refused(await ben.get(f"/pictures/{id}"), 404, "no picture")
    assert "A repair waits" not in (await ben.get("/c/desk")).text
    assert (await house.room.chat.history(DESK, 10)) == []
    assert (await anna.post(f"/api/messages/{id}/press", json=pressed)).status_code == 202
    refused(await anna.put(f"/api/messages/{id}/reactions/x"), 403, "Only you see")
    refused(await anna.post("/api/messages", json={"channel": "desk", "text": "?", "thread": id}), 404, "answered")


async def test_a_channel_is_read_page_by_page(anna: httpx.AsyncClient) -> None:
    ids = [await say(anna, f"Order {n}") for n in range(7)]
    assert [one["id"] for one in await messages(anna, limit="3")] == ids[-3:]
    assert [one["id"] for one in await messages(anna, limit="3", before=ids[4])] == ids[1:4]
    assert await messages(anna, before=ids[0]) == []


async def test_who_one_is_and_what_there_is(anna: httpx.AsyncClient) -> None:
    assert (await anna.get("/api/me")).json() == {"name": "anna"}
    assert (await anna.get("/api/channels")).json() == [
        {"name": "desk", "substrate": "desk"},
        {"name": "sales", "substrate": "sales"},
    ]
    emoji = (await anna.get("/api/emoji")).json()
    assert emoji[0] == {"emoji": "triangular_flag_on_post", "character": "🚩", "flags": "other"}
    assert {"emoji": "tada", "character": "🎉", "flags": None} in emoji


async def test_further_channels_lead_to_the_substrate_they_name(tmp_path: Path) -> None:
    async with (
        a_room(tmp_path, more='[room.channels]\nhelp = "desk"\n') as house,
        await house.client("anna") as anna,
    ):
        assert {"name": "help", "substrate": "desk"} in (await anna.get("/api/channels")).json()
        answer = await anna.post("/api/messages", json={"channel": "help", "text": "Refund?"})
        assert answer.status_code == 201
