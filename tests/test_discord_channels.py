"""Forums and the chats of voice channels: talking to the agent, flags, reasons and cards, where no thread can begin at
a message, or nothing but threads can stand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.adapters.discord.chat import DiscordChat
from bot.chat import Action, Card, Section
from core.model.batch import Batch
from core.model.errors import Unavailable
from core.model.evidence import Chunk
from core.model.transcript import Place
from core.store import batches
from tests.support.discord_house import ANNA, EVE, HELP, DiscordHouse, at_discord, beside, loopback
from tests.support.discord_server import BOT, CHANNEL, FORUM, STAGE, VOICE, DiscordServer
from tests.support.until import until
from tests.test_converse import talking

CARD = Card(
    title="run-1 waits",
    body=(Section(text="What was wrong"),),
    actions=(Action(label="Approve", verb="approve", subject="consent-1"),),
)


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: DiscordServer) -> AsyncIterator[DiscordHouse]:
    async with talking(tmp_path) as chat, at_discord(chat, server) as house:
        yield house


def place(channel: int, thread: int | str = "") -> Place:
    return HELP.model_copy(update={"channel": str(channel), "thread": str(thread)})


def texts(house: DiscordHouse, channel: int) -> list[tuple[str, str]]:
    return [(one["author"]["username"], one["content"]) for one in house.server.messages.get(channel, [])]


async def held(house: DiscordHouse) -> list[tuple[Batch, Chunk]]:
    async with house.store.reading() as db:
        return [
            (batch, chunk)
            for batch in await batches.listing(db, "little")
            for chunk in await batches.chunks(db, batch.id)
        ]


def last(house: DiscordHouse, channel: int) -> dict[str, Any]:
    return house.server.messages[channel][-1]


# Forums


async def test_a_post_of_a_forum_is_a_conversation_with_the_agent_that_can_be_flagged_with_a_reason(
    house: DiscordHouse,
) -> None:
    post = await house.server.posts(EVE, "A refund", f"<@{BOT}> Refund?")
    await until(lambda: len(texts(house, post)) == 2)
    assert texts(house, post)[1] == ("Moss", "Refund?")
    assert post in house.server.typing
    await house.server.says(EVE, "And now?", channel=post)
    await until(lambda: len(texts(house, post)) == 4)
    await house.idle()
    await house.server.reacts(EVE, int(last(house, post)["id"]), channel=post)
    await house.becomes(lambda: held(house))
    await house.server.says(EVE, "reason: It is 30 days.", channel=post)

    async def given() -> bool:
        return [flag.reason for _, chunk in await held(house) for flag in chunk.flags] == ["It is 30 days."]

    await house.becomes(given)
    ((batch, chunk),) = await held(house)
    assert (batch.place, chunk.place) == (place(FORUM), place(FORUM, post))
    assert [one.content for one in chunk.transcript.messages][:3] == ["Refund?", "Refund?", "And now?"]
    assert len(texts(house, post)) == 5, "the agent does not hear a reason"


async def test_what_people_write_in_posts_that_do_not_name_moss_is_theirs(house: DiscordHouse) -> None:
    post = await house.server.posts(EVE, "A refund", "Refund?")
    await house.server.says(ANNA, "I wonder, too.", channel=post)
    await house.server.says(EVE, f"<@{BOT}> Hello?")
    await until(lambda: len(house.server.threads) == 2)
    await house.idle()
    assert len(texts(house, post)) == 2


async def test_a_post_of_which_discord_told_nothing_before_is_asked_for(house: DiscordHouse) -> None:
    post = await house.server.posts(EVE, "A refund", f"<@{BOT}> Refund?", told=False)
    await until(lambda: len(texts(house, post)) == 2)
    assert ("GET", f"/channels/{post}") in house.server.calls


async def test_a_card_in_a_forum_begins_a_post_and_its_news_stand_below_it(house: DiscordHouse) -> None:
    chat = house.at.chat
    id = await chat.post(place(FORUM), CARD, "run:1")
    assert await chat.post(place(FORUM), CARD, "run:1") == id
    (post,) = house.server.threads.values()
    assert (post["id"], post["name"], post["parent_id"]) == (id, "run-1 waits", str(FORUM))
    (one,) = house.server.messages[int(id)]
    assert one["components"][0]["components"][0]["custom_id"] == "moss:approve:consent-1"
    assert one["allowed_mentions"] == {"parse": []}
    await chat.edit(place(FORUM), id, CARD.model_copy(update={"title": "run-1 is live"}))
    await chat.post(place(FORUM, id), "It is live.", "run:1:2")
    assert [text for _, text in texts(house, int(id))] == ["run-1 is live", "It is live."]
    for where in (place(FORUM), place(FORUM, id)):
        assert await chat.link(where, id) == f"https://discord.com/channels/1000/{id}/{id}"


async def test_a_process_that_knows_nothing_yet_goes_on_below_the_card_of_a_forum(house: DiscordHouse) -> None:
    id = await house.at.chat.post(place(FORUM), CARD, "run:1")
    other = DiscordChat(house.store)
    other.client = house.at.chat.client
    await other.edit(place(FORUM), id, CARD.model_copy(update={"title": "run-1 is live"}))
    await other.post(place(FORUM, id), "It is live.", "run:1:2")
    assert [text for _, text in texts(house, int(id))] == ["run-1 is live", "It is live."]


async def test_a_post_whose_answer_was_lost_is_found_and_not_begun_again(house: DiscordHouse) -> None:
    await house.server.posts(EVE, "Another", "run-1 waits")
    house.server.drop_answer = 1
    with pytest.raises(Unavailable):
        await house.at.chat.post(place(FORUM), CARD, "run:1")
    id = await house.at.chat.post(place(FORUM), CARD, "run:1")
    ours = [post for post in house.server.threads.values() if post["owner_id"] == str(BOT)]
    assert [post["id"] for post in ours] == [id]


async def test_a_card_in_a_post_that_was_archived_meanwhile_is_edited_and_not_posted_anew(house: DiscordHouse) -> None:
    chat = house.at.chat
    id = await chat.post(place(FORUM), CARD, "run:1")
    house.server.archived.add(int(id))
    await chat.edit(place(FORUM), id, CARD.model_copy(update={"title": "run-1 is live"}))
    assert [text for _, text in texts(house, int(id))] == ["run-1 is live"]


async def test_a_press_below_a_card_of_a_forum_is_about_that_forum(house: DiscordHouse) -> None:
    id = int(await house.at.chat.post(place(FORUM), CARD, "run:1"))
    token = await house.server.presses(EVE, "moss:approve:consent-1", id, id)
    assert "consent-1" in (await house.server.answer(token))["content"]
    await house.server.says(EVE, "What is this?", channel=id)
    await house.idle()
    assert len(texts(house, id)) == 2, "below a card nobody talks to the agent"


async def test_what_a_forum_shows_is_read_back_with_its_first_message(house: DiscordHouse) -> None:
    post = await house.server.posts(EVE, "A refund", "Refund?")
    await house.server.says(ANNA, "I wonder, too.", channel=post)
    await house.idle()
    said = await house.at.chat.history(place(FORUM, post), 10)
    assert [one.content for one in said] == ["Refund?", "I wonder, too."]
    assert not [path for _, path in house.server.calls if path.startswith(f"/channels/{FORUM}/messages")]


# Voice channels and stages


@pytest.mark.parametrize("channel", [VOICE, STAGE])
async def test_in_the_chat_of_a_voice_channel_whoever_mentions_moss_is_answered_there(
    house: DiscordHouse, channel: int
) -> None:
    await house.server.says(EVE, f"<@{BOT}> Refund?", channel=channel)
    await until(lambda: len(texts(house, channel)) == 2)
    await house.server.says(ANNA, "Who is that?", channel=channel)
    await house.server.says(EVE, f"<@{BOT}> And now?", channel=channel)
    await until(lambda: len(texts(house, channel)) == 5)
    await house.idle()
    assert [text for who, text in texts(house, channel) if who == "Moss"] == [
        "Refund?",
        r"Refund? \| Refund? \| And now?",
    ]
    assert house.server.threads == {}
    assert channel in house.server.typing


async def test_a_reply_in_the_chat_of_a_voice_channel_can_be_flagged_by_emoji_command_and_reason(
    house: DiscordHouse,
) -> None:
    await house.server.says(EVE, f"<@{BOT}> Refund?", channel=VOICE)
    await until(lambda: len(texts(house, VOICE)) == 2)
    await house.idle()
    await house.server.reacts(ANNA, int(last(house, VOICE)["id"]), channel=VOICE)
    await house.becomes(lambda: held(house))
    await house.server.says(ANNA, "reason: It is 30 days.", channel=VOICE)
    token = await house.server.commands(EVE, "flag", channel=VOICE, reason="Wrong.")
    assert "is flagged" in (await house.server.answer(token))["content"]
    await house.idle()
    ((batch, chunk),) = await held(house)
    assert (batch.place, chunk.place) == (place(VOICE), place(VOICE, VOICE))
    assert {flag.reason for flag in chunk.flags} == {"It is 30 days.", "Wrong."}
    assert len(texts(house, VOICE)) == 3


async def test_news_of_a_card_in_a_voice_channel_answer_the_card(house: DiscordHouse) -> None:
    chat = house.at.chat
    id = await chat.post(place(VOICE), CARD, "run:1")
    news = await chat.post(place(VOICE, id), "It is live.", "run:1:2")
    await chat.edit(place(VOICE), id, CARD.model_copy(update={"title": "run-1 is live"}))
    assert [text for _, text in texts(house, VOICE)] == ["run-1 is live", "It is live."]
    assert str(house.server.answered[int(news)]["message_id"]) == id
    assert last(house, VOICE)["allowed_mentions"] == {"parse": []}, "which calls nobody whose message is answered"
    assert (await chat.link(place(VOICE, id), news)).endswith(f"/{VOICE}/{news}")


async def test_reactions_that_were_missed_in_forums_and_voice_channels_are_made_up_for(house: DiscordHouse) -> None:
    post = await house.server.posts(EVE, "A refund", f"<@{BOT}> Refund?")
    await house.server.says(EVE, f"<@{BOT}> Refund?", channel=VOICE)
    await until(lambda: len(texts(house, post)) == len(texts(house, VOICE)) == 2)
    await house.idle()
    for channel in (post, VOICE):
        await house.server.reacts(ANNA, int(last(house, channel)["id"]), channel=channel, told=False)
    await house.server.op9()
    await house.server.connected(20)

    async def both() -> bool:
        return len(await held(house)) == 2

    await house.becomes(both)


async def test_two_processes_answer_a_post_and_a_voice_channel_once(house: DiscordHouse) -> None:
    async with beside(house):
        post = await house.server.posts(EVE, "A refund", f"<@{BOT}> Refund?")
        await house.server.says(EVE, f"<@{BOT}> Refund?", channel=VOICE)
        await until(lambda: len(texts(house, post)) == len(texts(house, VOICE)) == 2)
        await house.idle()
        await asyncio.sleep(0.2)
        assert len(texts(house, post)) == len(texts(house, VOICE)) == 2
    assert texts(house, CHANNEL) == []
