"""Text that no database keeps as it is: whatever comes from outside is kept alike on both, and found again."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import literal, select, text

from bot.answers import answers
from core.model.errors import BadInput, NotFound
from core.model.events import INSTALLATION, Noun
from core.model.transcript import Message
from core.store import batches, facts, marks, posts, turns
from core.store import inbox as letters
from flags.exchange import add_evidence
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.paper_chat import PAPER

BAD, KEPT = "a\0b\udc80c", "a\ufffdb?c"


@pytest.fixture(params=DATABASES)
async def chat(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChatMoss]:
    async with opened(request.param, tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def test_whatever_an_event_holds_it_is_written_down_and_worked_on(chat: ChatMoss) -> None:
    reply = await chat.reply()
    events = [
        chat.flagged(reply, BAD, person=f"paper:{BAD}", id=f"e{BAD}"),
        chat.reacted(reply, BAD, person=BAD),
        chat.commanded(f"flag {BAD}"),
        chat.replied(BAD, message=BAD),
        chat.reacted(BAD, person="paper:ben"),
    ]
    for some in (events[:3], events[3:]):  # the command means the reply before the last one
        assert await chat.take(*some, *some) == [True] * len(some) + [False] * len(some)
        await chat.work()
    async with chat.store.reading() as db:
        (batch,) = await batches.listing(db)
        held = {chunk.turn: chunk for chunk in await batches.chunks(db, batch.id)}
        assert (await turns.last_reply(db, PAPER)).said.content == KEPT  # type: ignore[union-attr]
    assert held.keys() == {reply, KEPT}
    assert {flag.person: flag.reason for flag in held[reply].flags} == {f"paper:{KEPT}": KEPT, "paper:eve": KEPT}
    assert [flag.person for flag in held[KEPT].flags] == ["ben"]


async def test_turns_marks_posts_and_facts_are_found_by_what_they_were_kept_with(chat: ChatMoss) -> None:
    store = chat.store
    async with store.writing() as db:
        for _ in range(2):
            await turns.keep(db, store.now(), "little", PAPER, said=Message(role="assistant", content=BAD, id=BAD))
        await marks.put(db, store.now(), BAD, "here")
        await posts.add(db, store.now(), BAD, PAPER, message=BAD, shown="x")
    async with store.changing(INSTALLATION) as change:
        await change.record(BAD, Noun.run, BAD, "told", reason={"said": [BAD]})
    async with store.reading() as db:
        (turn,) = await turns.conversation(db, PAPER, limit=5)
        assert await turns.of_message(db, PAPER, BAD) == turn
        assert await marks.get(db, BAD) == "here"
        assert (await posts.of_message(db, PAPER, BAD)).key == KEPT  # type: ignore[union-attr]
        assert await facts.verify(db, INSTALLATION) is None
        assert [fact.who for fact in await facts.about(db, Noun.run, BAD)] == [KEPT]


async def test_evidence_from_a_file_and_complaints_from_the_command_line(chat: ChatMoss) -> None:
    said = [{"role": "user", "content": "Why\0? \\u0000"}, {"role": "assistant", "content": "No\0."}]
    line = json.dumps({"messages": said, "turn": "t\0", "feedback": [{"who": "a\0", "emoji": "x\0"}]})
    for _ in range(2):
        await add_evidence(chat.store, "little", [line], "anna")
    place = {"platform": "file", "workspace": "local", "channel": "import"}
    with pytest.raises(NotFound, match="does not know that message"):
        await answers(chat.moss)["flag"]({"place": place, "message": "x\0", "reason": "So\0."}, "cli:anna", None)
    async with chat.store.reading() as db:
        (batch,) = await batches.listing(db)
        (chunk,) = await batches.chunks(db, batch.id)
    assert (chunk.turn, [flag.person for flag in chunk.flags]) == ("t\ufffd", ["a\ufffd"])
    assert [one.content for one in chunk.transcript.messages] == ["Why\0? \\u0000", "No\0."]


async def test_a_value_that_postgresql_minds_is_not_told_as_a_server_that_is_away(tmp_path: Path) -> None:
    async with opened("postgresql", tmp_path) as store:
        with pytest.raises(BadInput, match="cannot keep what was to be written"):
            async with store.reading() as db:
                await db.execute(select(literal("secret words\0")))
        async with store.reading() as db:
            assert await letters.waiting(db, "", 1) == 0


@pytest.mark.parametrize("kind", DATABASES)
async def test_an_error_of_the_database_does_not_repeat_what_people_said(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store:
        values = {"said": "what people said"}
        with pytest.raises(Exception, match="no_such_table") as caught:
            async with store.reading() as db:
                await db.execute(text("SELECT * FROM no_such_table WHERE said = :said"), values)
        assert "what people said" not in str(caught.value)
