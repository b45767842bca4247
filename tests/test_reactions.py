"""Complaints from a chat become flags: whatever a platform sends twice, late or in another order."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.event import listen

from bot import inbox, rates, reactions, verbs
from bot.chat import Reacted
from bot.inbox import Delivery
from core.model.errors import NotFound
from core.model.evidence import Chunk, FailureKind
from core.model.transcript import Message, Place
from core.store import Store, batches, facts, posts
from flags.emoji import FLAGS, kind_of, meanings, name_of
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import DATABASES, START, HeldClock, opened
from tests.support.dying import worked_with_a_death
from tests.support.paper_chat import PAPER, message


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def chat(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[ChatMoss]:
    async with opened(request.param, tmp_path, clock) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def chunks(store: Store) -> list[Chunk]:
    async with store.reading() as db:
        found = await batches.listing(db, "little")
        return [chunk for batch in found for chunk in await batches.chunks(db, batch.id)]


async def test_the_private_word_stands_where_the_reply_does_also_when_the_platform_names_no_thread(
    chat: ChatMoss,
) -> None:
    thread = PAPER.model_copy(update={"thread": "s1"})
    reply = await chat.reply(place=thread)
    await chat.did(chat.reacted(reply))
    (word,) = chat.chat.whispered.values()
    assert (word.place, "that is flagged" in word.text) == (thread, True)


async def test_a_reaction_flags_a_reply_with_the_conversation_before_it(chat: ChatMoss) -> None:
    for n in range(3):
        reply = await chat.reply(f"Answer {n}.", question=f"Question {n}?")
    await chat.reply("Later.")
    await chat.did(chat.reacted(reply, "-1", person="paper:ben"))
    (chunk,) = await chunks(chat.store)
    said = [one.content for one in chunk.transcript.messages]
    assert said == [f"{what} {n}{mark}" for n in range(3) for what, mark in (("Question", "?"), ("Answer", "."))]
    (flag,) = chunk.flags
    assert (flag.person, flag.emoji, flag.kind, flag.at) == ("ben", "thumbsdown", FailureKind.other, START)
    assert (chunk.turn, chunk.place) == (reply, PAPER)
    (told,) = chat.chat.told()
    assert told.startswith("Thank you, that is flagged: batch-")
    assert "holds 1 flagged reply" in told


async def test_a_flag_in_a_thread_has_the_conversation_of_the_thread_and_the_batch_of_the_channel(
    chat: ChatMoss,
) -> None:
    thread = PAPER.model_copy(update={"thread": "s1"})
    await chat.reply("Elsewhere.")
    reply = await chat.reply("No.", thread)
    await chat.did(chat.reacted(reply))  # a platform may not say in which thread
    (chunk,) = await chunks(chat.store)
    assert (chunk.place, len(chunk.transcript.messages)) == (thread, 2)
    async with chat.store.reading() as db:
        assert (await batches.get(db, chunk.batch)).place == PAPER


async def test_an_observed_agent_that_answers_in_a_thread_is_flagged_with_the_question_that_began_it(
    chat: ChatMoss,
) -> None:
    await chat.did(chat.replied("Good morning."))
    thread = PAPER.model_copy(update={"thread": "s1"})
    await chat.did(chat.said("Refund?", message="s1"), chat.said("Something else?", message="s2"))
    await chat.did(chat.replied("No.", thread, message="a1"), chat.reacted("a1"))
    (chunk,) = await chunks(chat.store)
    assert [one.content for one in chunk.transcript.messages] == ["Refund?", "No."]


async def test_a_long_conversation_is_cut_to_its_end(chat: ChatMoss) -> None:
    for n in range(30):
        reply = await chat.reply(f"{n}")
    await chat.did(chat.reacted(reply))
    (chunk,) = await chunks(chat.store)
    assert len(chunk.transcript.messages) == verbs.CONVERSATION
    assert chunk.flagged.content == "29"


async def test_five_people_and_many_deliveries_are_one_chunk_of_weight_five(chat: ChatMoss) -> None:
    reply = await chat.reply()
    events = [chat.reacted(reply, person=f"paper:{n}") for n in range(5)]
    await chat.did(*events, *events, *(event.model_copy(update={"id": event.id + "x"}) for event in events))
    (chunk,) = await chunks(chat.store)
    assert chunk.weight == 5


async def test_ordinary_reactions_on_messages_of_people_cost_little_and_are_answered_once_an_hour(
    chat: ChatMoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Place] = []
    history = chat.chat.history

    async def counted(place: Place, limit: int) -> list[Message]:
        read.append(place)
        return await history(place, limit)

    monkeypatch.setattr(chat.chat, "history", counted)
    busy, quiet = PAPER, PAPER.model_copy(update={"channel": "quiet"})
    chat.chat.past = [message("user", f"{n}", f"p{n}") for n in range(20)]
    await chat.did(*(chat.reacted(f"p{n}", place=busy) for n in range(20)), restart=False)
    assert len(read) <= reactions.MISSES_PER_HOUR + inbox.AT_ONCE[inbox.ACT] < 20
    assert chat.chat.told() == ["Moss does not know that message as a reply of the agent; only those can be flagged."]
    await chat.did(chat.reacted("p1", place=quiet, person="paper:ben"))
    assert read.count(quiet) == 1, "each place has its own"
    assert len(chat.chat.told()) == 2, "and each person"
    monkeypatch.setattr(rates, "HOUR_S", 0.0)
    chat.chat.past.append(message("assistant", "No.", "r-new"))
    await chat.did(chat.reacted("r-new", place=busy))
    (chunk,) = await chunks(chat.store)
    assert chunk.turn == "r-new"


async def test_a_reply_that_only_the_chat_knows_may_be_flagged_by_everybody(chat: ChatMoss) -> None:
    chat.chat.past = [message("user", "Refund?", "q-old"), message("assistant", "No.", "r-old")]
    people = 3 * reactions.MISSES_PER_HOUR
    await chat.did(*(chat.reacted("r-old", person=f"paper:{n}") for n in range(people)))
    (chunk,) = await chunks(chat.store)
    assert chunk.weight == people


async def test_who_complains_in_words_is_always_answered(chat: ChatMoss) -> None:
    for n in range(10):
        await chat.did(chat.flagged(f"p{n}", "It is wrong."))
    assert len(chat.chat.told()) == 10


async def test_names_of_one_person_are_one_person(chat: ChatMoss) -> None:
    reply = await chat.reply()
    await chat.did(chat.reacted(reply, person="paper:ben"), chat.reacted(reply, "x", person="ben"))
    (chunk,) = await chunks(chat.store)
    assert [flag.person for flag in chunk.flags] == ["ben"]


async def test_taking_a_reaction_off_withdraws_the_flag(chat: ChatMoss) -> None:
    reply = await chat.reply()
    await chat.did(chat.reacted(reply), chat.reacted(reply, added=False))
    assert await chunks(chat.store) == []
    await chat.did(chat.reacted(reply), chat.reacted(reply, "x"), chat.reacted(reply, ":-1:", added=False))
    (chunk,) = await chunks(chat.store)
    assert chunk.flags[0].emoji == "x"


async def test_a_removal_that_arrives_before_its_reaction_wins(chat: ChatMoss) -> None:
    reply = await chat.reply()
    later = chat.reacted(reply, added=False, at=START + timedelta(seconds=2))
    earlier = chat.reacted(reply, at=START + timedelta(seconds=1))
    await chat.did(later, earlier)
    assert await chunks(chat.store) == []
    other = chat.reacted(reply, "x", at=START + timedelta(seconds=1))
    await chat.did(other)
    assert len(await chunks(chat.store)) == 1


async def test_to_toggle_a_reaction_a_thousand_times_looks_each_up_in_an_index(tmp_path: Path) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(_: object, __: object, statement: str, values: tuple[object, ...], *more: object) -> None:
        asked.append((statement, values))

    async with opened("sqlite", tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
        event = chat.reacted("r1", at=START + timedelta(seconds=1))
        await chat.take(event, chat.reacted("r1", "x", added=False, at=START + timedelta(seconds=2)))
        late = chat.reacted("r1", added=False, at=START)
        await chat.take(late)
        async with store.reading() as db:
            engine = db.engine.sync_engine
            listen(engine, "before_cursor_execute", note)
            assert await chat.inbox.overtaken(Delivery(3, late))
            assert not await chat.inbox.overtaken(Delivery(1, event))
            ours = [one for one in asked if "inbox" in one[0]]
            assert len(ours) == 2
            for statement, values in ours:
                plan = (await db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
                assert any("ix_inbox_reactions (lane=? AND happened_at>?" in row.detail for row in plan)


async def test_a_flag_taken_back_after_sealing_is_noted_and_counts(chat: ChatMoss) -> None:
    reply = await chat.reply()
    await chat.did(chat.reacted(reply))
    await chat.did(chat.commanded("evolve", person="paper:mary"))
    await chat.did(chat.reacted(reply, added=False))
    assert "is noted that you took your flag back" in chat.chat.told()[-1]
    assert (await chunks(chat.store))[0].weight == 1
    await chat.did(chat.reacted(reply))
    assert "is in batch-" in chat.chat.told()[-1]
    assert len(await chunks(chat.store)) == 1


async def test_a_form_adds_the_flaggers_words(chat: ChatMoss) -> None:
    reply = await chat.reply()
    await chat.did(chat.reacted(reply), chat.flagged(reply, "It is the wrong order.", failure=FailureKind.state))
    (chunk,) = await chunks(chat.store)
    (flag,) = chunk.flags
    assert (flag.emoji, flag.kind, flag.reason) == ("thumbsdown", FailureKind.state, "It is the wrong order.")


async def test_emoji_that_complain_about_nothing_are_passed_over_in_silence(chat: ChatMoss) -> None:
    await chat.did(chat.reacted("anything", "tada"), chat.reacted(await chat.reply(), "heart"))
    assert chat.chat.told() == []
    assert await chunks(chat.store) == []


async def test_only_replies_of_the_agent_can_be_flagged_and_the_person_is_told_privately(chat: ChatMoss) -> None:
    reply = await chat.reply()
    async with chat.store.writing() as db:
        await posts.add(db, chat.store.now(), "run:run-1", PAPER, message="card", shown="x")
    for what, said in (
        (f"q-{reply}", "is a person's"),
        ("card", "is from Moss itself"),
        ("unheard-of", "does not know that message"),
    ):
        await chat.did(chat.reacted(what, person=f"paper:{what}"))
        assert said in chat.chat.told()[-1]
    assert await chunks(chat.store) == []
    await chat.did(chat.reacted("unheard-of", added=False))
    assert len(chat.chat.told()) == 3


async def test_a_reply_that_becomes_known_a_moment_later_is_flagged(
    chat: ChatMoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.3,) * 5)
    await chat.take(chat.reacted("r1"))
    working = asyncio.create_task(chat.work())
    await asyncio.sleep(0.1)
    assert await chat.reply() == "r2"
    await chat.take(chat.replied("No.", message="r1"))
    await working
    assert [chunk.turn for chunk in await chunks(chat.store)] == ["r1"]


async def test_what_moss_never_saw_is_read_from_the_chat_where_that_may_be_read(chat: ChatMoss) -> None:
    chat.chat.past = [
        message("user", "Refund? I am anna@example.org.", "h1"),
        message("assistant", "No.", "h2"),
        message("user", "Why?", "h3"),
    ]
    await chat.did(chat.reacted("h2"), chat.reacted("h3"))
    (chunk,) = await chunks(chat.store)
    asked, answered = chunk.transcript.messages
    assert answered.content == "No."
    assert "anna@example.org" not in asked.content
    assert (asked.who or "").startswith("person-")
    assert "does not know" in " ".join(chat.chat.told())


async def test_whoever_may_not_flag_or_flags_too_much_is_told(chat: ChatMoss) -> None:
    replies = [await chat.reply() for _ in range(3)]
    chat.permit(flag="maintainers")
    await chat.did(chat.reacted(replies[0]))
    assert chat.chat.told() == ["You may not use `flag`; ask anna, ben, mary; Moss knows you as `paper:eve`."]
    chat.permit(flag="anyone")
    chat.limit(per_hour=2)
    await chat.did(*(chat.reacted(reply) for reply in replies))
    assert "2 flags within an hour" in chat.chat.told()[-1] + chat.chat.told()[-2] + chat.chat.told()[-3]
    assert len(await chunks(chat.store)) == 2


async def test_a_private_word_that_cannot_be_said_does_not_cost_the_flag(chat: ChatMoss) -> None:
    chat.chat.away = 1
    await chat.did(chat.reacted(await chat.reply()))
    assert len(await chunks(chat.store)) == 1
    assert chat.chat.told() == []


async def test_a_full_batch_is_sealed_and_says_so(chat: ChatMoss) -> None:
    chat.limit(seal_count=2)
    for _ in range(2):
        await chat.did(chat.reacted(await chat.reply()))
    assert "is full with 2 flagged replies" in chat.chat.told()[-1]


async def test_flag_is_a_verb_for_every_face(chat: ChatMoss) -> None:
    reply = await chat.reply()
    raised = await verbs.flag(chat.moss, PAPER, None, "cli:eve", "Wrong.")
    assert (raised.chunk.turn, raised.chunk.flags[0].reason) == (reply, "Wrong.")
    with pytest.raises(NotFound):
        await verbs.flag(chat.moss, PAPER, "nothing", "cli:eve", "Wrong.")


# --- emoji


@pytest.mark.parametrize(
    "written",
    ["👎", "👎🏽", ":-1:", "-1", "thumbsdown", ":thumbsdown::skin-tone-4:", "thumbs_down", "Thumbsdown_tone3"],
)
def test_an_emoji_is_the_same_however_it_is_written(written: str) -> None:
    assert name_of(written) == "thumbsdown"
    assert kind_of(written, {}) is FailureKind.other


def test_every_emoji_that_moss_knows_is_found_by_name_and_by_character() -> None:
    for name, (character, kind) in FLAGS.items():
        assert kind_of(name, {}) == kind_of(f":{name}:", {}) == kind_of(character, {}) == kind
    assert kind_of("tada", {}) is None


def test_settings_add_emoji_and_change_what_they_mean() -> None:
    own = {"hourglass": FailureKind.stopping, ":-1:": FailureKind.tone, "acme-fail": FailureKind.state}
    assert [kind_of(one, own) for one in ("hourglass", "👎", "acme-fail", "x")] == [
        FailureKind.stopping, FailureKind.tone, FailureKind.state, FailureKind.wrong_answer,
    ]  # fmt: skip
    assert meanings(own)["thumbsdown"] is FailureKind.tone


# --- whatever a platform sends, against a simple model

PEOPLE, REPLIES, EMOJI, FULL = 3, 5, ("thumbsdown", "x"), 3
SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@dataclass
class Model:
    """What people mean, and nothing of how it is done: who complains about what, in which batch."""

    full: int
    reactions: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    latest: dict[tuple[int, int, str], float] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    open: dict[int, set[int]] = field(default_factory=dict)
    sealed: list[dict[int, set[int]]] = field(default_factory=list)

    def hears(self, event: Reacted) -> None:
        person, reply = int(event.person.split(":")[1]), int(event.message.split("-")[1])
        which, at = (person, reply, event.emoji), event.at.timestamp()
        if event.id in self.seen:
            return
        self.seen.add(event.id)
        overtaken = self.latest.get(which, 0.0) > at
        self.latest[which] = max(self.latest.get(which, 0.0), at)
        if overtaken or any(person in batch.get(reply, ()) for batch in self.sealed):
            return
        mine = self.reactions.setdefault((person, reply), set())
        if event.added:
            mine.add(event.emoji)
            self.open.setdefault(reply, set()).add(person)
            if sum(map(bool, self.open.values())) >= self.full:
                self.sealed.append(self._standing())
                self.open = {}
        else:
            mine.discard(event.emoji)
            if not mine:
                self.open.get(reply, set()).discard(person)

    @property
    def batches(self) -> list[dict[int, set[int]]]:
        return [batch for batch in (*self.sealed, self._standing()) if batch]

    def _standing(self) -> dict[int, set[int]]:
        return {reply: people for reply, people in self.open.items() if people}


one_reaction = st.tuples(st.integers(0, PEOPLE - 1), st.integers(0, REPLIES - 1), st.sampled_from(EMOJI), st.booleans())


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, tuple[int, int, str, bool]]]:
    """Numbered in the order in which people acted; as they arrive: some twice, some a little later than others."""
    acted = list(enumerate(draw(st.lists(one_reaction, min_size=1, max_size=25))))
    delays = draw(st.lists(st.sampled_from([0, 0, 0, 0, 2, 4]), min_size=len(acted), max_size=len(acted)))
    arrived = [one for _, one in sorted(zip(delays, acted, strict=True), key=lambda pair: pair[1][0] + pair[0])]
    again = draw(st.lists(st.integers(0, len(arrived) - 1), max_size=6))
    return arrived + [arrived[n] for n in again]


def reaction(n: int, what: tuple[int, int, str, bool]) -> Reacted:
    person, reply, emoji, added = what
    return Reacted(
        id=f"r{n}", place=PAPER, person=f"paper:{person}", at=START + timedelta(seconds=n), message=f"reply-{reply}",
        emoji=emoji, added=added,
    )  # fmt: skip


async def played(directory: Path, events: list[Reacted], full: int, deaths: list[int]) -> list[dict[int, set[int]]]:
    """Every batch that holds something, as reply to people."""
    async with opened("sqlite", directory, HeldClock()) as store, chat_moss(store, directory) as chat:
        chat.limit(seal_count=full, per_hour=1000)
        await chat.did(*(chat.replied(f"Answer {n}.", message=f"reply-{n}") for n in range(REPLIES)))
        await chat.take(*events)
        for at in deaths:
            await worked_with_a_death(chat, at)
        await chat.work()
        async with store.reading() as db:
            assert await facts.verify(db, "little") is None
            listed = [await batches.chunks(db, batch.id) for batch in await batches.listing(db, "little")]
    return [{int(chunk.turn.split("-")[1]): _people(chunk) for chunk in found} for found in listed if found]


def _people(chunk: Chunk) -> set[int]:
    return {int(flag.person.split(":")[1]) for flag in chunk.flags if flag.withdrawn_at is None}


@given(arrived=deliveries(), deaths=st.lists(st.integers(1, 80), max_size=2))
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_flags_weights_and_batches_are_those_of_a_simple_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrived: list[tuple[int, tuple[int, int, str, bool]]],
    deaths: list[int],
) -> None:
    monkeypatch.setattr(inbox, "AT_ONCE", {inbox.TALK: 1, inbox.ACT: 1, inbox.ASK: 1})  # which of two fills a batch
    events = [reaction(n, what) for n, what in arrived]
    model = Model(FULL)
    for event in events:
        model.hears(event)
    held = asyncio.run(played(tmp_path, events, FULL, deaths))
    assert sorted(held, key=str) == sorted(model.batches, key=str)


@given(arrived=deliveries(), deaths=st.lists(st.integers(1, 80), max_size=2))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_side_by_side_the_same_flags_stand(
    tmp_path: Path, arrived: list[tuple[int, tuple[int, int, str, bool]]], deaths: list[int]
) -> None:
    events = [reaction(n, what) for n, what in arrived]
    model = Model(1000)
    for event in events:
        model.hears(event)
    assert asyncio.run(played(tmp_path, events, 1000, deaths)) == model.batches
