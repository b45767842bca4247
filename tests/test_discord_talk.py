"""Talking to a real agent at Discord: mentions, threads and direct messages, from the question to the flag."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from discord import Message

from bot import inbox
from bot.adapters.discord.events import calls
from tests.support.discord_house import ANNA, EVE, DiscordHouse, at_discord, loopback
from tests.support.discord_server import BOT, CHANNEL, DiscordServer
from tests.support.until import until
from tests.test_converse import talking

HEARD = r"Refund, \*please\*? \| Refund, \*please\*? \| And now?"
"""The agent says all that it was told of the conversation."""


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: DiscordServer) -> AsyncIterator[DiscordHouse]:
    async with talking(tmp_path) as chat, at_discord(chat, server) as house:
        yield house


def texts(house: DiscordHouse, channel: int) -> list[tuple[str, str]]:
    return [(one["author"]["username"], one["content"]) for one in house.server.messages.get(channel, [])]


def test_an_answer_that_pings_moss_is_meant_for_others_who_read_there() -> None:
    spoken = SimpleNamespace(content="I like it.", mentions=[SimpleNamespace(id=9)], role_mentions=[])
    assert not calls(cast(Message, spoken), 9)
    spoken.content = "Do you, <@!9>?"
    assert calls(cast(Message, spoken), 9)


async def test_a_mention_is_answered_in_a_thread_which_goes_on_without_mentions(house: DiscordHouse) -> None:
    root = await house.server.says(EVE, f"<@{BOT}> Refund, *please*?")
    await until(lambda: texts(house, root))
    assert texts(house, root) == [("Moss", r"Refund, \*please\*?")]
    assert CHANNEL in house.server.typing
    await house.server.says(EVE, "And now?", channel=root)
    await until(lambda: len(texts(house, root)) == 3)
    assert texts(house, root)[1:] == [(f"user{EVE}", "And now?"), ("Moss", HEARD)]
    await house.server.says(EVE, "Nobody is asked here.")
    await house.idle()
    assert len(texts(house, CHANNEL)) == 2


async def test_from_the_question_to_the_flag_and_its_thanks(house: DiscordHouse) -> None:
    root = await house.server.says(EVE, f"<@{BOT}> Refund?")
    await until(lambda: texts(house, root))
    reply = int(house.server.messages[root][0]["id"])
    await house.idle()
    await house.server.reacts(ANNA, reply, "👎🏽", channel=root)
    await until(lambda: house.flags(reply))
    (_, chunk), *_ = await house.held(reply)
    assert [(one.role, one.content) for one in chunk.transcript.messages] == [
        ("user", "Refund?"),
        ("assistant", "Refund?"),
    ]
    await until(lambda: texts(house, ANNA + 1_000_000))
    assert "Thank you, that is flagged" in texts(house, ANNA + 1_000_000)[0][1]


async def test_words_after_a_flag_in_its_thread_are_the_reason_and_not_for_the_agent(house: DiscordHouse) -> None:
    root = await house.server.says(EVE, f"<@{BOT}> Refund?")
    await until(lambda: texts(house, root))
    await house.idle()
    reply = int(house.server.messages[root][0]["id"])
    await house.server.reacts(EVE, reply, channel=root)
    await house.becomes(lambda: house.flags(reply))
    await house.server.says(EVE, "reason: It is 30 days.", channel=root)

    async def given() -> bool:
        return [flag.reason for flag in await house.flags(reply)] == ["It is 30 days."]

    await house.becomes(given)
    await house.idle()
    assert [who for who, _ in texts(house, root)] == ["Moss", f"user{EVE}"]


async def test_direct_messages_are_one_conversation(house: DiscordHouse) -> None:
    direct = EVE + 1_000_000
    for n, text in enumerate(("Hello?", "Still there?"), 1):
        await house.server.says(EVE, text, channel=direct, guild=None)
        await until(lambda n=n: len(texts(house, direct)) == 2 * n)
    assert [text for who, text in texts(house, direct) if who == "Moss"] == [
        "Hello?",
        r"Hello? \| Hello? \| Still there?",
    ], "the agent is told what was said before"
    assert house.server.threads == {}


async def test_a_reply_is_posted_once_though_its_answer_was_lost(
    house: DiscordHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.05,) * 5)
    house.server.drop_answer = 1
    root = await house.server.says(EVE, f"<@{BOT}> Refund?")
    await until(lambda: texts(house, root))
    await house.idle()
    assert texts(house, root) == [("Moss", "Refund?")]


async def test_a_question_heard_by_a_process_that_died_is_answered_once_by_the_next(house: DiscordHouse) -> None:
    house.tasks[1].cancel()  # it still hears, and works on nothing
    await asyncio.wait({house.tasks[1]})
    root = await house.server.says(EVE, f"<@{BOT}> Refund?")
    await until(lambda: house.at.health[0].last_event_at)

    async def written_down() -> bool:
        async with house.store.reading() as db:
            return bool((await db.exec_driver_sql("select id from inbox")).first())

    await until(written_down)
    await house.die()
    await house.begin()
    await until(lambda: texts(house, root))
    await house.idle()
    assert texts(house, root) == [("Moss", "Refund?")]
