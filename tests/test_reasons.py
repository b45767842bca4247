"""A flagger's words in the thread of the flagged reply: a reason, unless they are for the agent."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot import inbox, reasons
from bot.chat import Said
from bot.inbox import Delivery, NotYet
from core.model.batch import BatchState
from core.model.errors import BadInput
from core.model.evidence import Chunk, FailureKind
from core.store import batches, turns
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import HeldClock, opened
from tests.support.dying import worked_with_a_death
from tests.support.paper_chat import PAPER

TALK = PAPER.model_copy(update={"thread": "q1"})
"""A thread in which the agent answers."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def chat(tmp_path: Path, clock: HeldClock) -> AsyncIterator[ChatMoss]:
    async with opened("sqlite", tmp_path, clock) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def taken(chat: ChatMoss, event: Said) -> bool:
    return await reasons.taken(chat.moss, Delivery(0, event, tries=inbox.LOOKS))


async def the_chunk(chat: ChatMoss) -> Chunk:
    async with chat.store.reading() as db:
        (batch,) = await batches.listing(db)
        (chunk,) = await batches.chunks(db, batch.id)
        return chunk


async def flagged(chat: ChatMoss, place: object = TALK, person: str = "paper:eve") -> str:
    reply = await chat.reply("No refunds.", place=place)  # type: ignore[arg-type]
    await chat.did(chat.reacted(reply, "scissors", person=person))
    return reply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reason: It is 30 days.", "It is 30 days."),
        ("Reason : it is\n30 days", "it is\n30 days"),
        ("👎 It is 30 days.", "It is 30 days."),
        (":-1::skin-tone-2: It is 30 days.", "It is 30 days."),
        (":x: wrong", "wrong"),
        ("It is 30 days.", None),
        ("The reason: money", None),
        ("bug in my order", None),
        ("👍 thank you", None),
        ("日本 ist weit", None),
        ("reason:", None),
        ("👎", None),
    ],
)
def test_a_mark_is_a_word_or_an_emoji_that_flags(text: str, words: str | None) -> None:
    found = reasons.mark(text, {})
    assert (found[1] if found else None) == words


async def test_marked_words_become_the_reason_and_the_agent_does_not_get_them(chat: ChatMoss) -> None:
    await flagged(chat)
    said = chat.said("reason: It is 30 days.", TALK)
    await chat.did(said)
    (flag,) = (await the_chunk(chat)).flags
    assert (flag.reason, flag.kind, flag.emoji) == ("It is 30 days.", FailureKind.incomplete, "scissors")
    assert chat.chat.told()[-1] == reasons.KEPT
    assert chat.chat.shown == []
    assert await taken(chat, said), "the same again, as after a crash, changes nothing"
    await taken(chat, chat.said("👎 And free.", TALK))
    (flag,) = (await the_chunk(chat)).flags
    assert flag.reason == "It is 30 days.\nAnd free.", "what was said before stays"
    with pytest.raises(BadInput, match="fewer words"):
        await taken(chat, chat.said("reason: " + "x" * 3000, TALK))


@pytest.mark.parametrize("how", ["unmarked", "of another", "too late", "elsewhere", "taken back", "never flagged"])
async def test_what_is_no_reason_is_left_to_the_agent(chat: ChatMoss, clock: HeldClock, how: str) -> None:
    reply = await (chat.reply(place=TALK) if how == "never flagged" else flagged(chat))
    if how == "taken back":
        await chat.did(chat.reacted(reply, "scissors", added=False))
    if how == "too late":
        clock.advance(reasons.WITHIN.total_seconds() + 1)
    place = PAPER.model_copy(update={"thread": "q2"}) if how == "elsewhere" else TALK
    text = "It is 30 days." if how == "unmarked" else "reason: It is 30 days."
    person = "paper:mary" if how == "of another" else "paper:eve"
    assert not await taken(chat, chat.said(text, place, person=person))
    assert chat.chat.told()[1:] == []


@pytest.mark.parametrize(
    ("text", "addressed", "reason"),
    [
        ("It is 30 days.", False, "It is 30 days."),
        ("@ben what do you think?", False, None),
        ("And for a gift?", True, None),
    ],
)
async def test_under_a_reply_that_began_the_thread_words_to_nobody_are_a_reason_and_stay_in_the_conversation(
    chat: ChatMoss, text: str, addressed: bool, reason: str | None
) -> None:
    await chat.did(chat.replied("No refunds.", message="a1"), chat.reacted("a1"))
    place = PAPER.model_copy(update={"thread": "a1"})
    said = chat.said(text, place, addressed=addressed)
    assert not await taken(chat, said)
    assert (await the_chunk(chat)).flags[0].reason == reason
    if not addressed:
        await chat.did(said)
        async with chat.store.reading() as db:
            assert await turns.of_message(db, place, said.message)
    await chat.did(chat.replied("Within 30 days.", place, message="a2"))
    assert not await taken(chat, chat.said("Thank you!", place))
    assert (await the_chunk(chat)).flags[0].reason == reason


async def test_a_reason_that_arrives_before_its_flag_is_worked_on_waits_for_it(chat: ChatMoss) -> None:
    reply = await chat.reply(place=TALK)
    first, then = chat.reacted(reply), chat.said("reason: It is 30 days.", TALK)
    await chat.take(first, then)
    with pytest.raises(NotYet):
        await reasons.taken(chat.moss, Delivery(2, then))
    await chat.work()
    assert (await the_chunk(chat)).flags[0].reason == "It is 30 days."


async def test_a_reason_for_a_sealed_batch_is_noted(chat: ChatMoss) -> None:
    chat.limit(seal_count=1)
    await flagged(chat)
    await chat.did(chat.said("reason: It is 30 days.", TALK))
    assert chat.chat.told()[-1] == reasons.NOTED
    async with chat.store.reading() as db:
        (batch,) = await batches.listing(db)
    assert batch.state is BatchState.sealed


async def test_a_reason_is_kept_and_acknowledged_once_wherever_moss_dies(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        async with opened("sqlite", tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
            await flagged(chat)
            await chat.take(chat.said("reason: It is 30 days.", TALK))
            died = await worked_with_a_death(chat, at)
            assert (await the_chunk(chat)).flags[0].reason == "It is 30 days."
            assert chat.chat.told()[1:] == [reasons.KEPT]
            assert chat.chat.shown == []
    assert at > 4, "it died nowhere"
