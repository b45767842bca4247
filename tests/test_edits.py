"""An agent with a bot of its own changes what it said: what was flagged stays as it stood."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bot import inbox
from bot.chat import Replied
from core.model.evidence import Chunk
from core.store import Store, batches, turns
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import DATABASES, START, HeldClock, opened
from tests.support.paper_chat import PAPER


@pytest.fixture(params=DATABASES)
async def chat(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ChatMoss]:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)
    async with opened(request.param, tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def chunks(store: Store) -> list[Chunk]:
    async with store.reading() as db:
        found = await batches.listing(db, "little")
        return [chunk for batch in found for chunk in await batches.chunks(db, batch.id)]


async def test_a_flag_quotes_what_stood_when_it_was_raised_whatever_the_agent_writes_there_later(
    chat: ChatMoss,
) -> None:
    def edit(text: str, seconds: int) -> Replied:
        at = START + timedelta(seconds=seconds)
        return chat.replied(text, message="a1", at=at, edited=True)

    await chat.did(chat.replied("No.", message="a1", at=START), edit("Within 30 days.", 9), edit("Thinking …", 5))
    await chat.did(chat.reacted("a1"), edit("Sorry, I cannot say.", 20))
    (chunk,) = await chunks(chat.store)
    assert chunk.flagged.content == "Within 30 days."
    async with chat.store.reading() as db:
        kept = await turns.of_message(db, PAPER, "a1")
    assert kept is not None
    assert kept.said.content == "Sorry, I cannot say."


async def test_other_words_for_a_reply_that_moss_never_saw_are_that_reply(chat: ChatMoss) -> None:
    await chat.did(chat.replied("Within 30 days.", message="a1", edited=True), chat.reacted("a1"))
    (chunk,) = await chunks(chat.store)
    assert chunk.flagged.content == "Within 30 days."


async def test_what_the_agent_said_through_moss_is_edited_by_nobody(chat: ChatMoss) -> None:
    reply = await chat.reply("No.")
    await chat.did(chat.replied("Yes.", message=reply, edited=True), chat.reacted(reply))
    (chunk,) = await chunks(chat.store)
    assert chunk.flagged.content == "No."
