"""What is old is forgotten: conversations, messages of the room, and which of them Moss had posted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from bot import forgetting
from bot.chat import Card
from bot.forgetting import KEPT, forget
from bot.replies import REPLY
from core.model.transcript import Message
from core.store import batches, posts, room, turns
from core.store.tables import inbox, room_posts
from core.store.tables import posts as posts_table
from core.store.tables import turns as turns_table
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.paper_chat import PAPER

DAY_S = 86_400


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def chat(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[ChatMoss]:
    async with opened(request.param, tmp_path, clock) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def held(chat: ChatMoss) -> list[int]:
    async with chat.store.reading() as db:
        tables = (turns_table, posts_table, room_posts, inbox)
        return [int(await db.scalar(select(func.count()).select_from(table)) or 0) for table in tables]


async def test_a_conversation_is_forgotten_after_a_year_and_its_flagged_reply_is_not(
    chat: ChatMoss, clock: HeldClock
) -> None:
    reply = await chat.reply("No.", question="Refund?")
    await chat.did(chat.reacted(reply))
    async with chat.store.writing() as db:
        for key in (f"{REPLY}e1", "run:run-1"):
            await posts.add(db, chat.store.now(), key, PAPER, message=f"m {key}", shown="x")
    clock.advance(KEPT.total_seconds() - 1)
    await forget(chat.moss)
    assert await held(chat) == [2, 2, 0, 0]
    fresh = await chat.reply("Yes.")
    clock.advance(2)
    await forget(chat.moss)
    async with chat.store.reading() as db:
        assert [one.message for one in await turns.conversation(db, PAPER, limit=9)] == [f"q-{fresh}", fresh]
        assert await posts.of_key(db, f"{REPLY}e1") is None
        assert await posts.of_key(db, "run:run-1") is not None
        (batch,) = await batches.listing(db)
        (chunk,) = await batches.chunks(db, batch.id)
    assert [one.content for one in chunk.transcript.messages] == ["Refund?", "No."]


async def test_turns_outlive_the_batches_that_collect(chat: ChatMoss, clock: HeldClock) -> None:
    chat.limit(seal_age_s=2 * KEPT.total_seconds())
    await chat.reply()
    clock.advance(KEPT.total_seconds() + DAY_S)
    await forget(chat.moss)
    assert (await held(chat))[0] == 2


async def test_messages_of_the_room_go_with_their_thread_and_no_number_comes_twice(
    chat: ChatMoss, clock: HeldClock
) -> None:
    store = chat.store

    async def say(text: str, thread: int | None = None) -> int:
        async with store.writing() as db:
            return (await room.add(db, store.now(), "little", "anna", text, thread=thread))[0]

    async def left() -> set[int]:
        async with store.reading() as db:
            return {int(id) for id in (await db.execute(select(room_posts.c.id))).scalars()}

    long, short, card = await say("A long thread."), await say("A short one."), await say("A card.")
    await say("Old.", long), await say("Old too.", short)
    async with store.writing() as db:
        await room.react(db, store.now(), short, "anna", "tada")
    clock.advance(KEPT.total_seconds() / 2)
    late = await say("Late.", long)
    async with store.writing() as db:
        await room.edit(db, store.now(), card, "Changed.", card=Card(title="Changed").model_dump(mode="json"))
        before = await room.head(db)
    clock.advance(KEPT.total_seconds() / 2 + 1)
    for _ in range(2):
        await forget(chat.moss)
    assert await left() == {long, card, late}
    clock.advance(KEPT.total_seconds())
    for _ in range(2):
        await forget(chat.moss)
    assert late in await left()
    async with store.reading() as db:
        assert await room.head(db) == before
    assert await say("New.") > late


async def test_much_that_is_old_goes_a_part_at_a_time(
    chat: ChatMoss, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "AT_ONCE", 2)
    async with chat.store.writing() as db:
        for n in range(5):
            said = Message(role="user", content="?", id=f"q{n}")
            await turns.keep(db, chat.store.now(), "little", PAPER, said=said)
    clock.advance(KEPT.total_seconds() + 1)
    for count in (3, 1, 0, 0):
        await forget(chat.moss)
        assert (await held(chat))[0] == count
