"""The room as a chat of Moss's: what Moss and the agent say in it, and what they can read."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.adapters.room.chat import RoomChat
from bot.adapters.room.emoji import CHARACTERS, character_of, name_of
from bot.adapters.room.shown import ANSWERING_LASTS
from bot.chat import Card, Chat, Picture
from core.clock import system_clock
from core.model.errors import BadInput, NotFound, Refused
from core.model.transcript import Place
from core.store import Store, room
from flags.emoji import FLAGS
from tests.support.databases import DATABASES, HeldClock
from tests.support.rooms import DESK, House, a_room, stream

CARD = Card(title="A repair is under way", picture=Picture(png=b"png", alt="Half of it is done."))


@pytest.fixture(params=DATABASES)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path, kind=request.param, clock=HeldClock()) as house:
        yield house


async def seen(house: House, place: Place = DESK, reader: str | None = None) -> list[room.Post]:
    async with house.store.reading() as db:
        thread = int(place.thread) if place.thread else None
        return await room.conversation(db, place.channel, thread, reader, limit=50)


async def test_it_is_a_chat_like_every_other(house: House) -> None:
    chat: Chat = house.room.chat
    assert chat.platform == "room"


async def test_what_has_a_key_is_posted_once_even_at_the_same_moment(house: House) -> None:
    posted = await asyncio.gather(*(house.room.chat.post(DESK, CARD, "run:1") for _ in range(5)))
    (post,) = await seen(house)
    assert set(posted) == {str(post.id)}
    assert post.text == CARD.text


async def test_a_card_is_edited_in_place_with_its_picture(house: House) -> None:
    id = await house.room.chat.post(DESK, CARD, "run:1")
    before = (await seen(house))[0]
    await house.room.chat.edit(DESK, id, Card(title="A repair waits", picture=Picture(png=b"more", alt="All of it.")))
    (after,) = await seen(house)
    assert (after.id, after.text, after.has_picture) == (before.id, "A repair waits", True)
    assert after.seq > before.seq
    async with house.store.reading() as db:
        assert await room.picture(db, after.id, None) == b"more"
    await house.room.chat.edit(DESK, id, Card(title="It is live"))
    async with house.store.reading() as db:
        with pytest.raises(NotFound):
            await room.picture(db, after.id, None)


async def test_what_is_gone_cannot_be_edited_or_answered(house: House) -> None:
    for message in ("77", "m-1"):
        with pytest.raises(Refused, match=r"no .*message"):
            await house.room.chat.edit(DESK, message, CARD)
        with pytest.raises(Refused, match=r"no .*message"):
            await house.room.chat.post(DESK.model_copy(update={"thread": message}), "Done.", message)
    id = await house.room.chat.post(DESK, CARD, "run:1")
    with pytest.raises(Refused, match=f"no message {id} in sales"):
        await house.room.chat.post(Place(platform="room", workspace="room", channel="sales", thread=id), "Done.", "k")


async def test_a_channel_that_is_not_there_is_refused_with_the_mend(house: House) -> None:
    with pytest.raises(Refused, match=r"no channel nowhere; add it to `channels` in \[room\]"):
        await house.room.chat.post(DESK.model_copy(update={"channel": "nowhere"}), "Done.", "k")


async def test_what_was_said_is_read_back_without_what_moss_itself_says(house: House) -> None:
    chat = house.room.chat
    async with await house.client("anna") as anna:
        asked = (await anna.post("/api/messages", json={"channel": "desk", "text": "Refund?"})).json()["id"]
        thread = DESK.model_copy(update={"thread": asked})
        answer = await chat.post(thread, "Refunded.", "r-1", as_agent="desk")
        await chat.post(thread, "A repair is live.", "r-2")
        await chat.whisper(thread, "anna", "Only for you.", "", "r-3")
        await anna.post("/api/messages", json={"channel": "desk", "text": "/moss status", "thread": asked})
    said = await chat.history(thread, 10)
    assert [(one.role, one.content, one.id, one.who) for one in said] == [
        ("user", "Refund?", asked, "anna"),
        ("assistant", "Refunded.", answer, None),
    ]
    assert [one.content for one in await chat.history(thread, 1)] == []
    assert [one.content for one in await chat.history(DESK, 10)] == ["Refund?"]


async def test_the_sign_that_an_answer_comes_never_fails_and_does_not_stay(house: House) -> None:
    chat = house.room.chat
    async with await house.client("anna") as anna:
        id = (await anna.post("/api/messages", json={"channel": "desk", "text": "Refund?"})).json()["id"]

        async def answering() -> bool:
            return bool((await anna.get(f"/api/messages/{id}")).json()["answering"])

        await chat.working(DESK, id, True)
        await chat.working(DESK, id, True)
        assert await answering()
        await chat.working(DESK, id, False)
        assert not await answering()
        await chat.working(DESK, id, True)
        assert isinstance(house.store.clock, HeldClock)
        house.store.clock.advance(ANSWERING_LASTS.total_seconds())
        assert not await answering(), "whoever put it there has died"
        assert (await anna.get(f"/api/messages/{id}")).json()["reactions"] == []
    await chat.working(DESK, "77", True)
    await chat.working(DESK, "nonsense", False)


async def test_a_link_leads_to_the_message(house: House) -> None:
    id = await house.room.chat.post(DESK, CARD, "run:1")
    assert await house.room.chat.link(DESK, id) == f"{house.url}/c/desk#m-{id}"
    reply = DESK.model_copy(update={"thread": id})
    assert await house.room.chat.link(reply, "9") == f"{house.url}/c/desk/{id}#m-9"
    assert await RoomChat(house.store, {}).link(DESK, id) == "", "it does not listen yet"


async def test_what_another_process_says_is_seen_a_few_seconds_later(house: House) -> None:
    other = await Store.open(str(house.store._where.url), system_clock)
    async with await house.client("anna") as anna, stream(anna, 0) as events:
        await RoomChat(other, {"desk": "desk"}).post(DESK, "From another process.", "k")
        assert (await events.next())[1]["text"] == "From another process."
    await other.close()


def test_every_emoji_has_one_name_however_it_is_written() -> None:
    for name, character in CHARACTERS.items():
        assert name_of(name) == name_of(character) == name_of(f":{name}:") == name
        assert name_of(character.replace("\ufe0f", "")) == name
    assert name_of("👍🏿") == name_of("+1") == "thumbsup"
    assert name_of("🦊") == "🦊"
    assert character_of("🦊") == "🦊"
    assert character_of("company_logo") == ":company_logo:"
    assert FLAGS.keys() <= CHARACTERS.keys()


@pytest.mark.parametrize(
    "written", ["", "  ", "<b>", "a b", "\u202e🎉", "é", "🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉", "\ufe0f", "\u200d"]
)
def test_what_is_no_emoji_has_no_name(written: str) -> None:
    with pytest.raises(BadInput, match="no emoji"):
        name_of(written)
