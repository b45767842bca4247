"""Talking to a real agent through Moss: who is forwarded, what is kept, and what people read when it fails."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bot import converse, inbox
from bot.converse import session
from bot.receive import give_up, receive
from core.agent import RESERVED_SESSION
from core.model.errors import Unavailable
from core.model.swap import SwapState, Version
from core.model.transcript import Place
from core.store import Store, posts, swaps, turns
from core.store import inbox as letters
from core.store.turns import Turn
from core.swap.plan import box_spec
from tests.support.chat_moss import ChatMoss, anew, chat_moss
from tests.support.house import House, a_house, little
from tests.support.paper_chat import PAPER
from tests.support.stored import offered, swap_of
from tests.support.swaps import make_live
from tests.support.until import until

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2


@asynccontextmanager
async def talking(tmp: Path, mood: str = "echo", **replay: object) -> AsyncIterator[ChatMoss]:
    """A Moss in front of a live agent of this mood."""
    substrate = little("process", **({"replay": replay} if replay else {}))
    async with a_house("process", tmp, substrate) as house:
        await live(house, mood)
        async with chat_moss(house.store, tmp, host=house.host, substrate=substrate) as chat:
            yield chat


async def live(house: House, mood: str) -> None:
    image = await house.image("0", mood)
    name = f"little-{secrets.token_hex(4)}"
    spec = box_spec(
        house.substrate, name=name, image=image, commit="c0", boot_id="boot-0", owner=house.owner, swap=None, secrets={}
    )
    version = Version(
        substrate="little", number=7, commit="c0", image=image, box=name, boot_id="boot-0", swap=None,
        since=datetime.now(UTC),
    )  # fmt: skip
    await house.host.create(spec)
    await house.host.start(name)
    await make_live(house.store, house.substrate, version)
    async with asyncio.timeout(60), house.host.door(name) as client:
        while True:
            try:
                await client.get("/")
                return
            except Exception:
                await asyncio.sleep(0.02)


def thread(id: str, place: Place = PAPER) -> Place:
    return place.model_copy(update={"thread": id})


async def kept(store: Store, place: Place) -> list[Turn]:
    async with store.reading() as db:
        return await turns.conversation(db, place, limit=100)


async def test_a_message_in_a_channel_is_answered_in_its_thread_and_both_are_kept(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.did(chat.said("Refund?", message="s1", addressed=True))
        (shown,) = chat.chat.shown
        assert (shown.place, shown.what, shown.by) == (thread("s1"), "Refund?", "little")
        assert chat.chat.signs == [("s1", True), ("s1", False)]
        asked, answered = await kept(chat.store, thread("s1"))
        assert (asked.said.role, asked.said.content, asked.message) == ("user", "Refund?", "s1")
        assert (answered.said.role, answered.said.content, answered.message) == ("assistant", "Refund?", shown.message)
        assert (answered.version, answered.said.agent_version, answered.said.id) == (7, "7", shown.message)
        assert answered.seconds is not None
        assert 0 < answered.seconds < 10
        assert await kept(chat.store, PAPER) == []


async def test_a_thread_is_one_conversation_and_needs_no_mention(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.did(chat.said("one", message="s1", addressed=True))
        await chat.did(chat.said("two", thread("s1")), chat.said("three", thread("s1")))
        assert chat.chat.texts() == ["one", "one | one | two", "one | one | two | one | one | two | three"]
        assert {shown.place for shown in chat.chat.shown} == {thread("s1")}


async def test_messages_in_a_channel_begin_conversations_that_do_not_know_of_each_other(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.did(chat.said("one", addressed=True), chat.said("two", addressed=True))
        assert sorted(chat.chat.texts()) == ["one", "two"]


async def test_what_people_say_to_one_another_is_neither_forwarded_nor_kept(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.did(chat.said("Lunch?"), chat.said("Yes!", thread("s1")))
        async with chat.store.writing() as db:
            await posts.add(db, chat.store.now(), "run:run-1", PAPER, message="card", shown="x")
        await chat.did(chat.said("What does this card mean?", thread("card")))
        assert chat.chat.shown == []
        assert await kept(chat.store, PAPER) == await kept(chat.store, thread("card")) == []
        await chat.did(chat.said("And you?", thread("card"), addressed=True))
        await chat.did(chat.said("Funny.", thread("card")))
        assert chat.chat.texts() == ["And you?"]


async def test_what_holds_no_words_in_a_thread_of_the_agent_is_for_others_who_read_there(tmp_path: Path) -> None:
    """A picture; or any message at Discord, where Moss is not shown what people write."""
    async with talking(tmp_path) as chat:
        thread = PAPER.model_copy(update={"thread": "s1"})
        await chat.did(chat.said("Hello", addressed=True, message="s1"))
        await chat.did(chat.said(" ", thread), chat.said("", thread))
        assert (chat.chat.texts(), chat.chat.told()) == (["Hello"], [])
        await chat.did(chat.said("", thread, addressed=True))
        assert "Your message is empty" in chat.chat.told()[0]


async def test_a_message_that_names_nobody_is_told_so(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.did(chat.said("  ", addressed=True))
        assert chat.chat.shown == []
        assert "is empty" in chat.chat.told()[0]


async def test_the_agent_hears_what_was_really_said_and_the_store_does_not(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        secret = f"Use {TOKEN} for anna@example.org"
        await chat.did(chat.said(secret, message="s1", addressed=True), restart=False)
        assert chat.chat.texts() == [secret]
        await chat.did(chat.said("Again?", thread("s1")))
        assert chat.chat.texts()[-1] == f"{secret} | {secret} | Again?"
        database = b"".join(file.read_bytes() for file in tmp_path.rglob("*.db*"))
        assert TOKEN.encode() not in database
        assert b"anna@example.org" not in database
        assert b"REDACTED" in database
        await chat.did(chat.said("And now?", thread("s1")))  # after a restart it hears what is kept
        assert TOKEN not in chat.chat.texts()[-1]
        assert "REDACTED" in chat.chat.texts()[-1]


async def test_a_message_that_was_altered_is_not_forwarded_by_a_moss_that_did_not_hear_it(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.take(chat.said(f"Use {TOKEN}", addressed=True), chat.said("Refund?", addressed=True))
        chat.moss = anew(chat.moss)
        await chat.work()
        assert chat.chat.texts() == ["Refund?"]
        (told,) = chat.chat.told()
        assert "please send it again" in told
        assert TOKEN not in told


@pytest.mark.parametrize(
    ("mood", "said", "error"), [("silent", "Hello", "is empty"), ("slow", "5", "did not answer a turn within 0.5 s")]
)
async def test_an_agent_that_fails_becomes_a_friendly_sentence_and_evidence(
    tmp_path: Path, mood: str, said: str, error: str
) -> None:
    async with talking(tmp_path, mood, turn_timeout_s=0.5) as chat:
        await chat.did(chat.said(said, message="s1", addressed=True))
        (shown,) = chat.chat.shown
        assert (shown.what, shown.by) == (converse.SORRY.format("little"), "moss")
        _, failed = await kept(chat.store, thread("s1"))
        assert failed.said.content == ""
        assert error in (failed.said.error or "")
        await chat.did(chat.reacted(shown.message))
        assert "is flagged" in chat.chat.told()[-1]


async def test_a_failed_answer_is_no_part_of_what_the_agent_is_told_later(tmp_path: Path) -> None:
    async with talking(tmp_path, "echo") as chat:
        question = chat.said("one", message="s1", addressed=True)
        await chat.did(question)
        async with chat.store.writing() as db:
            failed = (await kept(chat.store, thread("s1")))[1].said.model_copy(
                update={"content": "", "error": "It broke.", "id": "x1"}
            )
            await turns.keep(db, chat.store.now(), "little", thread("s1"), said=failed, version=7, seconds=0.1)
        await chat.did(chat.said("two", thread("s1")))
        assert chat.chat.texts()[-1] == "one | one | two"


async def test_without_a_live_agent_the_person_is_told_privately(tmp_path: Path) -> None:
    async with a_house("process", tmp_path) as house, chat_moss(house.store, tmp_path, host=house.host) as chat:
        await chat.did(chat.said("Hello", addressed=True))
        assert chat.chat.shown == []
        assert "little is not running" in chat.chat.told()[0]


async def test_a_message_waits_for_a_swap_that_is_under_way(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        async with chat.store.changing("little") as change:
            consent = await offered(change)
            swap = swap_of(consent, "little")
            await swaps.plan(change, swap)
        await chat.take(chat.said("Hello", addressed=True))
        working = asyncio.create_task(chat.work())
        await asyncio.sleep(0.4)
        assert chat.chat.shown == []
        async with chat.store.changing("little") as change:
            for state in (SwapState.stopping, SwapState.restoring, SwapState.restored):
                await swaps.move(change, swap.id, state, "moss")
        await working
        assert chat.chat.texts() == ["Hello"]


async def test_whoever_may_not_talk_is_told_and_the_agent_hears_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        chat.permit(talk="maintainers")
        await chat.did(chat.said("Hello", addressed=True), chat.said("Hi", addressed=True, person="paper:mary"))
        assert chat.chat.texts() == ["Hi"]
        assert chat.chat.told() == ["You may not use `talk`; ask anna, ben, mary; Moss knows you as `paper:eve`."]


async def test_a_person_who_sends_too_much_is_asked_to_wait(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        chat.permit(talk_per_minute=2)
        await chat.take(*(chat.said(f"{n}", addressed=True) for n in range(4)))
        await chat.take(chat.said("me", addressed=True, person="paper:bob"))
        await chat.work()
        assert len(chat.chat.shown) == 3
        assert "me" in chat.chat.texts()
        assert len(chat.chat.told()) == 2
        assert all("2 messages within a minute" in told for told in chat.chat.told())


@pytest.mark.parametrize("away", [3, 30])
async def test_a_reply_that_cannot_be_posted_is_posted_later_and_the_agent_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: int
) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)
    async with talking(tmp_path) as chat:
        chat.chat.away = away
        await chat.did(chat.said("Hello", message="s1", addressed=True))
        assert chat.chat.texts() == ["Hello"]
        assert len(await kept(chat.store, thread("s1"))) == 2
        assert chat.chat.signs == [("s1", True), ("s1", False)]


async def test_an_answer_that_the_store_could_not_take_at_once_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr(inbox, "LOOK_S", 0.05)
    keep, failed, fails = turns.keep, letters.failed, 2

    async def failing(*words: Any, **more: Any) -> bool:
        nonlocal fails
        if more["said"].role == "assistant" and fails:
            fails -= 1
            raise Unavailable("The database is away.")
        return await keep(*words, **more)

    async def away(*words: Any) -> None:
        if fails == 1:
            raise Unavailable("And that it failed cannot be written down either.")
        await failed(*words)

    monkeypatch.setattr(turns, "keep", failing)
    monkeypatch.setattr(letters, "failed", away)
    async with talking(tmp_path, "well") as chat:
        await chat.did(chat.said("one", message="s1", addressed=True))
        assert len(chat.chat.shown) == 1
        async with chat.store.reading() as db:
            live = await swaps.live_version(db, "little")
        assert live
        heard = await chat.moss.host.read(live.box, "/state/memory.jsonl")
        assert (heard, fails) == (b'"one"\n', 0)


async def test_a_moss_that_lost_its_lease_and_comes_back_with_an_answer_shows_no_second_reply(tmp_path: Path) -> None:
    async with talking(tmp_path, "slow") as chat:
        await chat.take(chat.said("1", message="s1", addressed=True))
        silent = chat.moss.inbox
        at_work = asyncio.create_task(silent.work(partial(receive, chat.moss), partial(give_up, chat.moss), ["paper"]))
        await until(lambda: chat.chat.signs)
        await until(lambda: _is_begun(chat.store))
        chat.moss = anew(chat.moss)
        await chat.work()
        assert chat.chat.texts() == [converse.LOST.format("little")]
        await silent.finish(10)
        await at_work
        assert chat.chat.texts() == [converse.LOST.format("little")]
        assert [turn.said.role for turn in await kept(chat.store, thread("s1"))] == ["user", "assistant"]


async def _is_begun(store: Store) -> bool:
    async with store.reading() as db:
        return await letters.meaning(db, 1) is not None


async def test_what_takes_too_long_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "LONGEST_S", 0.4)
    async with talking(tmp_path, "slow") as chat:
        await chat.did(chat.said("5", message="s1", addressed=True))
        (told,) = chat.chat.told()
        assert told == "This took longer than 0 minutes and was ended; please ask again."


async def test_what_an_agent_says_under_its_own_name_is_kept_with_the_questions_around_it(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        await chat.did(chat.replied("Good morning."))
        await chat.did(chat.said("Refund?", message="s1"))
        await chat.did(chat.replied(f"No, {TOKEN}.", message="r2"))
        assert chat.chat.shown == []
        first, asked, answered = await kept(chat.store, PAPER)
        assert [turn.said.role for turn in (first, asked, answered)] == ["assistant", "user", "assistant"]
        assert answered.version == 7
        assert TOKEN not in answered.said.content
        await chat.did(chat.reacted("r2"))
        assert "is flagged" in chat.chat.told()[-1]


async def test_people_have_other_names_in_what_is_kept(tmp_path: Path) -> None:
    async with talking(tmp_path) as chat:
        for person in ("paper:eve", "paper:bob", "paper:eve"):
            await chat.did(chat.said("Hello", thread("s1"), addressed=True, person=person))
        who = [turn.said.who for turn in await kept(chat.store, thread("s1")) if turn.said.role == "user"]
        assert who[0] == who[2] != who[1]
        assert not any("eve" in str(one) or "bob" in str(one) for one in who)


def test_a_session_tells_nobody_where_it_happens_and_is_never_the_canarys() -> None:
    names = {session(thread(str(n))) for n in range(50)}
    assert len(names) == 50
    assert session(thread("1")) == session(thread("1"))
    assert not any("help" in name or name.startswith(RESERVED_SESSION) for name in names)
