"""A reply that is too long for one message comes in several, and is one turn whichever of them somebody flags."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import inbox
from bot.adapters.discord import embeds
from bot.adapters.missed import Seen, Standing, missed
from bot.adapters.slack import blocks
from bot.chat import Reacted
from bot.words import harmless, parted
from core.clock import system_clock
from core.model.evidence import Chunk, Flag
from core.model.transcript import Message
from core.store import batches, turns
from core.store.turns import Turn
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import opened
from tests.support.dying import worked_with_a_death
from tests.support.paper_chat import PAPER
from tests.test_converse import talking

QUESTION = "What is to be done before the refund of an order can be paid out?"


@pytest.fixture
async def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChatMoss]:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)
    async with talking(tmp_path) as chat:  # the agent says what it was told
        chat.chat.most = 30
        yield chat


async def answered(chat: ChatMoss) -> list[str]:
    await chat.did(chat.said(QUESTION, addressed=True, message="s1"))
    return [shown.message for shown in chat.chat.shown]


async def held(chat: ChatMoss) -> list[Chunk]:
    async with chat.store.reading() as db:
        return [chunk for batch in await batches.listing(db, "little") for chunk in await batches.chunks(db, batch.id)]


async def standing(chat: ChatMoss) -> list[Flag]:
    return [flag for chunk in await held(chat) for flag in chunk.flags if flag.withdrawn_at is None]


async def test_a_long_reply_is_shown_whole_in_several_messages(chat: ChatMoss) -> None:
    await answered(chat)
    assert len(chat.chat.shown) == 3
    assert "".join(chat.chat.texts()) == QUESTION
    assert {(shown.by, shown.place.thread) for shown in chat.chat.shown} == {("little", "s1")}


async def test_a_flag_on_any_of_its_messages_is_a_flag_on_the_whole_reply(chat: ChatMoss) -> None:
    first, second, third = await answered(chat)
    await chat.did(
        chat.reacted(first, person="paper:anna"),
        chat.reacted(second, person="paper:ben"),
        chat.flagged(third, "It forgot the fee.", person="paper:eve"),
    )
    (chunk,) = await held(chat)
    assert (chunk.turn, chunk.weight) == (first, 3)
    assert chunk.transcript.messages[-1].content == QUESTION
    assert {word.place.thread for word in chat.chat.whispered.values()} == {"s1"}


async def test_a_flag_stands_as_long_as_one_of_its_messages_bears_the_reaction(chat: ChatMoss) -> None:
    first, second, _ = await answered(chat)
    await chat.did(chat.reacted(first), chat.reacted(second))
    await chat.did(chat.reacted(second, added=False))
    assert len(await standing(chat)) == 1
    await chat.did(chat.reacted(first, added=False))
    assert await standing(chat) == []


async def test_reactions_on_any_of_its_messages_that_were_missed_are_made_up_for(chat: ChatMoss) -> None:
    first, second, third = await answered(chat)
    seen = {second: [Seen("paper:eve", "thumbsdown")]}

    async def look(turn: Turn) -> Standing | None:
        return Standing(seen.get(turn.message, []), whole=True)

    async def found(session: str) -> list[Reacted]:
        settings = chat.moss.settings
        listed = missed(chat.store, settings, "paper", {"acme"}, look, session=session, limit=9)
        return [event async for some in listed for event in some]

    (added,) = await found("s1")
    assert (added.message, added.added) == (second, True)
    await chat.did(added)
    assert [chunk.turn for chunk in await held(chat)] == [first]
    assert await found("s2") == []
    seen.clear()
    gone = await found("s3")
    assert {event.message for event in gone} == {first, second, third}
    await chat.did(*gone)
    assert await standing(chat) == []


async def test_wherever_moss_dies_each_of_its_messages_stands_once(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        root = tmp_path / str(at)
        root.mkdir()
        async with opened("sqlite", root, system_clock) as store, chat_moss(store, root) as chat:
            chat.chat.most = 30
            await with_an_answer(chat)
            died = await worked_with_a_death(chat, at)
            assert "".join(chat.chat.texts()) == QUESTION
            await chat.did(chat.reacted(chat.chat.shown[-1].message))
            assert [chunk.turn for chunk in await held(chat)] == [chat.chat.shown[0].message]
    assert at > 6


async def with_an_answer(chat: ChatMoss) -> None:
    """The agent has answered, and nobody has seen it."""
    await chat.take(chat.said(QUESTION, addressed=True, message="s1", id="e"))
    async with chat.store.writing() as db:
        for role, name in (("user", "s1"), ("assistant", "reply:paper:acme:e")):
            said = Message.model_validate({"role": role, "content": QUESTION, "id": name})
            place = PAPER.model_copy(update={"thread": "s1"})
            seconds = 0.5 if role == "assistant" else None
            await turns.keep(db, chat.store.now(), "little", place, said=said, seconds=seconds)


@given(st.text(alphabet="ab \n*<&", max_size=200), st.integers(8, 40))
def test_parts_hold_every_word_and_fit(text: str, limit: int) -> None:
    parts = parted(text, lambda part: len(embeds.escaped(part)) <= limit)
    assert all(len(embeds.escaped(part)) <= limit for part in parts)
    assert all(part.strip() for part in parts) or not text.strip()
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_lines_and_words_are_left_whole() -> None:
    assert parted("one two\nthree four", lambda part: len(part) <= 12) == ["one two", "three four"]
    assert parted("one two three", lambda part: len(part) <= 9) == ["one two", "three"]
    assert parted("x" * 10, lambda part: len(part) <= 4) == ["xxxx", "xxxx", "xx"]
    assert parted("one\n  two", lambda part: len(part) <= 6) == ["one", "  two"]
    assert parted("one" + "\n" * 20 + "two", lambda part: len(part) <= 5) == ["one", "two"]
    assert parted("", lambda part: len(part) <= 6) == [""]


@pytest.mark.parametrize("platform", [blocks, embeds])
def test_what_each_platform_says_in_parts_is_whole_and_within_its_limits(platform: object) -> None:
    text = "\n".join(f"{n}. <b>Pay & *close* the order</b>" for n in range(150))
    if platform is blocks:
        parts = blocks.parts(text * 10)
        assert max(len(blocks.escaped(part)) for part in parts) <= blocks.TEXT_CHARS
        assert "\n".join(parts) == text * 10
        assert len(blocks.parts("x" * 1_000_000)) == blocks.PARTS_SHOWN + 1
    else:
        parts = embeds.parts(text)
        assert 1 < len(parts) <= embeds.PARTS_LIMIT
        assert all(
            len(embeds.render(part).text) <= embeds.TEXT_LIMIT and not embeds.render(part).whole for part in parts
        )
        assert "\n".join(parts) == harmless(text)
        (whole,) = embeds.parts(text * 3)
        assert embeds.render(whole).whole == harmless(text * 3)
