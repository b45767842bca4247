"""Flags, sealing, and evidence as JSON lines: on real databases."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.model.batch import Batch, BatchState
from core.model.errors import BadInput, NotFound, Refused
from core.model.events import Noun
from core.model.evidence import FailureKind, Flag
from core.model.transcript import Message, Place, Transcript
from core.store import Store, batches, facts
from flags.exchange import MAX_LINE_CHARS, MAX_LINES, Feedback, Line, add_evidence, export, parse
from flags.raise_flag import AGAIN, MAX_CHARS, NOTED, NOTES, Raised, Withdrawal, raise_flag, withdraw
from flags.seal import seal, seal_old
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.stored import DESK, PLACE, flag, transcript, with_substrate

OTHER_PLACE = PLACE.model_copy(update={"channel": "billing"})
OTHER_THREAD = PLACE.model_copy(update={"thread": "18.2"})
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        await with_substrate(store)
        yield store


async def flagged(store: Store, turn: str, person: str = "anna", place: Place = PLACE, **more: object) -> Raised:
    count = {"seal_count": more.pop("seal_count")} if "seal_count" in more else {}
    said = transcript("Refund?", f"No to {turn}.")
    return await raise_flag(store, DESK, place, turn, said, flag(person, **more), **count)  # type: ignore[arg-type]


async def stored(store: Store) -> list[Batch]:
    async with store.reading() as db:
        return await batches.listing(db, DESK)


async def turns(store: Store, batch: str) -> list[str]:
    async with store.reading() as db:
        return [chunk.turn for chunk in await batches.chunks(db, batch)]


# --- flags


async def test_a_flag_opens_a_batch_and_the_next_one_joins_it(store: Store) -> None:
    first, second = await flagged(store, "t1"), await flagged(store, "t2", "ben")
    assert first.batch.id == second.batch.id
    assert first.batch.state is BatchState.open
    assert await turns(store, first.batch.id) == ["t1", "t2"]


async def test_a_turn_flagged_by_three_people_is_one_chunk_of_weight_three(store: Store) -> None:
    for person in ("anna", "ben", "carl", "anna"):
        raised = await flagged(store, "t1", person)
    assert raised.chunk.weight == 3
    assert await turns(store, raised.batch.id) == ["t1"]


async def test_conversations_have_batches_of_their_own(store: Store) -> None:
    one, other = await flagged(store, "t1"), await flagged(store, "t1", place=OTHER_PLACE)
    assert one.batch.id != other.batch.id


async def test_a_conversation_is_a_channel_with_its_threads_and_each_chunk_knows_its_own(store: Store) -> None:
    one, other = await flagged(store, "t1"), await flagged(store, "t2", place=OTHER_THREAD)
    assert one.batch.id == other.batch.id
    assert str(one.batch.place) == "slack/acme/help"
    assert (one.chunk.place, other.chunk.place) == (PLACE, OTHER_THREAD)


async def test_the_eighth_reply_seals_and_the_ninth_opens_the_next_batch(store: Store) -> None:
    states = [(await flagged(store, f"t{n}")).batch.state for n in range(9)]
    assert states == [BatchState.open] * 7 + [BatchState.sealed, BatchState.open]
    sealed = next(batch for batch in await stored(store) if batch.state is BatchState.sealed)
    assert sealed.sealed_by == "count"
    assert len(await turns(store, sealed.id)) == 8


async def test_a_reason_typed_after_the_reaction_completes_the_same_flag(store: Store) -> None:
    await flagged(store, "t1", emoji="thumbsdown")
    raised = await flagged(store, "t1", reason="It refunds the wrong order.", kind=FailureKind.wrong_tool)
    (only,) = raised.chunk.flags
    assert (only.emoji, only.reason, only.kind) == ("thumbsdown", "It refunds the wrong order.", FailureKind.wrong_tool)


async def test_nothing_is_stored_before_it_is_redacted(store: Store) -> None:
    said = transcript(f"My mail is anna@example.org and my key {TOKEN}.", "Thanks, anna@example.org!")
    raised = await raise_flag(store, DESK, PLACE, "t1", said, flag("anna", reason=f"It took {TOKEN}."))
    async with store.reading() as db:
        (chunk,) = await batches.chunks(db, raised.batch.id)
    assert chunk == raised.chunk
    text = chunk.to_json()
    assert TOKEN not in text
    assert "anna@example.org" not in text
    mail = r"person-\w{4}@redacted\.example"
    asked, answered = (re.search(mail, message.content) for message in chunk.transcript.messages)
    assert asked is not None
    assert answered is not None
    assert asked[0] == answered[0]
    assert chunk.flags[0].reason == f"It took ghp_{re.search(r'REDACTED....', text)[0]}."  # type: ignore[index]


async def test_a_flag_is_raised_on_a_reply_only(store: Store) -> None:
    with pytest.raises(BadInput, match="on a reply of the agent"):
        await raise_flag(store, DESK, PLACE, "t1", transcript("Refund?"), flag("anna"))
    assert await stored(store) == []


async def test_a_very_long_conversation_keeps_its_end(store: Store) -> None:
    said = transcript(*(f"{n} " + "x" * 50_000 for n in range(20)))
    raised = await raise_flag(store, DESK, PLACE, "t1", said, flag("anna"))
    kept = raised.chunk.transcript
    assert len(kept.to_json()) <= MAX_CHARS
    assert kept.messages[-1].content.startswith("19 ")
    assert kept.messages[0].role == "user"
    huge = transcript("Why?", "x" * (MAX_CHARS + 1))
    raised = await raise_flag(store, DESK, PLACE, "t2", huge, flag("anna"))
    assert len(raised.chunk.transcript.messages) == 1


async def test_a_flag_can_be_withdrawn_until_its_batch_is_sealed(store: Store) -> None:
    batch = (await flagged(store, "t1")).batch.id
    await flagged(store, "t1", "ben")
    await flagged(store, "t2")
    assert await withdraw(store, DESK, PLACE, "t1", "anna") is Withdrawal.withdrawn
    assert await withdraw(store, DESK, PLACE, "t1", "anna") is Withdrawal.nothing
    assert await withdraw(store, DESK, PLACE, "t9", "anna") is Withdrawal.nothing
    assert await withdraw(store, DESK, OTHER_PLACE, "t1", "ben") is Withdrawal.nothing
    assert await turns(store, batch) == ["t1", "t2"]
    assert await withdraw(store, DESK, OTHER_THREAD, "t2", "anna") is Withdrawal.withdrawn
    assert await turns(store, batch) == ["t1"]


async def noted(store: Store, batch: str) -> list[tuple[str, str, str | None]]:
    async with store.reading() as db:
        found = await facts.about(db, Noun.batch, batch)
    return [(f.detail["person"], f.detail["said"], f.detail["reason"]) for f in found if f.what == NOTED]


async def test_what_is_said_about_a_sealed_flag_is_noted_once_and_changes_no_batch(store: Store) -> None:
    batch = (await flagged(store, "t1", emoji="x")).batch.id
    await seal(store, batch, "ben")
    for _ in range(2):
        again = await flagged(store, "t1", emoji="x")
        assert (again.batch.id, again.late) == (batch, True)
    assert await noted(store, batch) == []
    for _ in range(2):
        assert (await flagged(store, "t1", reason="It is the wrong order.")).late
        assert await withdraw(store, DESK, PLACE, "t1", "anna", "x") is Withdrawal.noted
    await flagged(store, "t1", emoji="x")
    assert await noted(store, batch) == [
        ("anna", "flagged", "It is the wrong order."),
        ("anna", "withdrawn", None),
        ("anna", "flagged", "It is the wrong order."),
        ("anna", "withdrawn", None),
        ("anna", "flagged", None),
    ]
    assert [each.id for each in await stored(store)] == [batch]
    async with store.reading() as db:
        (chunk,) = await batches.chunks(db, batch)
    assert (chunk.weight, chunk.flags[0].reason) == (1, None)


async def test_a_reaction_that_goes_on_and_off_a_sealed_flag_is_noted_a_few_times_only(store: Store) -> None:
    batch = (await flagged(store, "t1", emoji="x")).batch.id
    await seal(store, batch, "ben")
    for _ in range(NOTES // 2):
        await withdraw(store, DESK, PLACE, "t1", "anna", "x")
        await flagged(store, "t1", emoji="x")
    with pytest.raises(Refused, match=f"keeps your flag; {NOTES} things you said of it since are noted"):
        await withdraw(store, DESK, PLACE, "t1", "anna", "x")
    assert (await flagged(store, "t1", emoji="x")).late
    assert len(await noted(store, batch)) == NOTES


async def test_a_reaction_that_goes_on_and_off_writes_no_facts_without_end(store: Store) -> None:
    for _ in range(AGAIN):
        batch = (await flagged(store, "t1", emoji="x")).batch.id
        assert await withdraw(store, DESK, PLACE, "t1", "anna", "x") is Withdrawal.withdrawn
    with pytest.raises(Refused, match=f"flagged this reply {AGAIN} times"):
        await flagged(store, "t1", emoji="x")
    assert (await flagged(store, "t1", "ben", emoji="x")).chunk.weight == 1
    for _ in range(AGAIN - 1):
        await flagged(store, "t1", "ben", emoji="bug")
        await withdraw(store, DESK, PLACE, "t1", "ben", "bug")
    with pytest.raises(Refused):
        await flagged(store, "t1", "ben", emoji="bug")
    async with store.reading() as db:
        assert len(await facts.about(db, Noun.batch, batch)) < 4 * AGAIN


async def test_the_flag_that_fills_a_batch_is_in_it_once_when_it_is_raised_again(store: Store) -> None:
    await flagged(store, "t1", seal_count=2)
    first, again = [await flagged(store, "t2", "ben", seal_count=2) for _ in range(2)]
    assert first.batch == again.batch
    assert [each.id for each in await stored(store)] == [first.batch.id]
    other = await flagged(store, "t2", "carl", seal_count=2)
    assert (other.batch.state, other.late) == (BatchState.open, False)


async def test_a_flag_stands_until_the_last_of_its_reactions_is_taken_off(store: Store) -> None:
    await flagged(store, "t1", emoji="thumbsdown")
    raised = await flagged(store, "t1", emoji="x")
    assert raised.chunk.flags[0].emoji == "thumbsdown x"
    assert await withdraw(store, DESK, PLACE, "t1", "anna", "thumbsdown") is Withdrawal.nothing
    assert await withdraw(store, DESK, PLACE, "t1", "anna", "thumbsdown") is Withdrawal.nothing
    assert await turns(store, raised.batch.id) == ["t1"]
    assert await withdraw(store, DESK, PLACE, "t1", "anna", "x") is Withdrawal.withdrawn
    assert await turns(store, raised.batch.id) == []
    assert (await flagged(store, "t1", emoji="bug")).chunk.flags[0].emoji == "bug"


async def test_a_complaint_in_words_is_not_withdrawn_by_a_reaction_it_never_had(store: Store) -> None:
    batch = (await flagged(store, "t1", reason="No.")).batch.id
    assert await withdraw(store, DESK, PLACE, "t1", "anna", "x") is Withdrawal.nothing
    assert await turns(store, batch) == ["t1"]


async def test_a_person_has_so_many_flags_an_hour(store: Store, clock: HeldClock) -> None:
    async def raised(turn: str, person: str = "anna") -> Raised:
        said = flag(person, at=clock())
        return await raise_flag(store, DESK, PLACE, turn, transcript("Refund?", "No."), said, per_hour=2)

    for turn in ("t1", "t2", "t2"):
        await raised(turn)
    with pytest.raises(Refused, match="2 flags within an hour"):
        await raised("t3")
    await raised("t3", "ben")
    clock.advance(3601)
    await raised("t4")


async def test_a_withdrawn_flag_can_be_raised_again(store: Store) -> None:
    await flagged(store, "t1")
    await withdraw(store, DESK, PLACE, "t1", "anna")
    assert (await flagged(store, "t1")).chunk.weight == 1


async def test_withdrawn_replies_do_not_fill_a_batch(store: Store) -> None:
    await flagged(store, "t1", seal_count=2)
    await withdraw(store, DESK, PLACE, "t1", "anna")
    assert (await flagged(store, "t2", seal_count=2)).batch.state is BatchState.open
    assert (await flagged(store, "t3", seal_count=2)).batch.state is BatchState.sealed


# --- sealing


async def test_a_batch_is_sealed_by_hand_once(store: Store) -> None:
    batch = (await flagged(store, "t1")).batch.id
    first, again = await seal(store, batch, "anna"), await seal(store, batch, "ben")
    assert first == again
    assert first.sealed_by == "anna"
    with pytest.raises(NotFound):
        await seal(store, "batch-none", "anna")


async def test_an_empty_batch_is_never_sealed(store: Store, clock: HeldClock) -> None:
    batch = (await flagged(store, "t1")).batch.id
    await withdraw(store, DESK, PLACE, "t1", "anna")
    with pytest.raises(Refused, match="holds no evidence"):
        await seal(store, batch, "anna")
    clock.advance(60)
    assert await seal_old(store, 30) == []
    assert (await flagged(store, "t2")).batch.id == batch


async def test_batches_are_sealed_by_age_and_not_before(store: Store, clock: HeldClock) -> None:
    old = (await flagged(store, "t1")).batch.id
    clock.advance(100)
    young = (await flagged(store, "t1", place=OTHER_PLACE)).batch.id
    clock.advance(50)
    assert [batch.id for batch in await seal_old(store, 120)] == [old]
    assert await seal_old(store, 120) == []
    states = {batch.id: (batch.state, batch.sealed_by) for batch in await stored(store)}
    assert states == {old: (BatchState.sealed, "age"), young: (BatchState.open, None)}


async def test_a_flag_that_comes_while_its_batch_is_sealed_is_in_exactly_one(store: Store) -> None:
    batch = (await flagged(store, "first")).batch.id
    raised = [flagged(store, f"t{n}", seal_count=100) for n in range(12)]
    await asyncio.gather(*raised[:6], seal(store, batch, "ben"), *raised[6:], seal_old(store, -1))
    found = [turn for each in await stored(store) for turn in await turns(store, each.id)]
    assert sorted(found) == sorted(["first", *(f"t{n}" for n in range(12))])
    assert sum(each.state is BatchState.open for each in await stored(store)) <= 1


async def test_many_flags_at_once_fill_batches_of_eight(store: Store) -> None:
    await asyncio.gather(*(flagged(store, f"t{n}") for n in range(20)))
    sizes = sorted([len(await turns(store, each.id)) for each in await stored(store)])
    assert sizes == [4, 8, 8]


# --- exchange


def line(**more: object) -> str:
    said = [{"role": "user", "content": "Refund?"}, {"role": "assistant", "content": "No."}]
    return json.dumps({"messages": said, "feedback": [{"who": "anna"}], **more})


async def test_evidence_is_imported_into_one_batch_per_place(store: Store) -> None:
    other = {"platform": "zendesk", "workspace": "acme", "channel": "mail"}
    lines = [line(turn=f"t{n}") for n in range(10)] + ["", line(turn="t1", place=other)]
    big, small = await add_evidence(store, DESK, lines, "olga")
    assert (big.state, str(big.place), len(await turns(store, big.id))) == (BatchState.sealed, "file/local/import", 10)
    assert (small.state, str(small.place)) == (BatchState.open, "zendesk/acme/mail")


async def test_importing_a_file_twice_changes_nothing(store: Store) -> None:
    lines = [line(), line(turn="t2", feedback=[{"who": "anna", "reason": "Wrong."}, {"who": "ben"}])]
    (batch,) = await add_evidence(store, DESK, lines, "olga")
    before = await export(store, batch.id)
    (again,) = await add_evidence(store, DESK, lines, "olga")
    assert again.id == batch.id
    assert await export(store, batch.id) == before


async def test_what_is_exported_can_be_imported_elsewhere(store: Store, tmp_path: Path) -> None:
    said = Transcript(
        messages=(
            Message(role="system", content="Be kind.\u2028\u0000 ☃"),
            Message(role="user", content="Refund?", who="U1", at=store.now()),
            Message.model_validate(
                {
                    "role": "assistant",
                    "content": "",
                    "id": "17.3",
                    "tool_calls": [{"name": "refund", "arguments": "{}", "error": "404"}],
                    "agent_version": "v3",
                    "error": "timeout",
                }
            ),
        )
    )
    first = Flag(
        id="flag-1", person="anna", kind=FailureKind.state, emoji="x", reason="mail a@b.example", at=store.now()
    )
    raised = await raise_flag(store, DESK, PLACE, "t1", said, first)
    await flagged(store, "t2", "ben")
    await flagged(store, "t3")
    await withdraw(store, DESK, PLACE, "t3", "anna")
    text = await export(store, raised.batch.id)
    async with opened("sqlite", tmp_path) as elsewhere:
        await with_substrate(elsewhere)
        (batch,) = await add_evidence(elsewhere, DESK, text.split("\n"), "olga")
        assert await export(elsewhere, batch.id) == text
        assert await turns(elsewhere, batch.id) == ["t1", "t2"]
    with pytest.raises(NotFound):
        await export(store, "batch-none")


async def test_imported_evidence_is_redacted(store: Store) -> None:
    said = [{"role": "user", "content": f"use {TOKEN}"}, {"role": "assistant", "content": "ok", "who": "a@b.example"}]
    lines = [line(messages=said, feedback=[{"who": "anna", "reason": "leaks a@b.example"}])]
    (batch,) = await add_evidence(store, DESK, lines, "olga")
    text = await export(store, batch.id)
    assert TOKEN not in text
    assert "a@b.example" not in text


async def test_one_wrong_line_and_nothing_is_stored(store: Store) -> None:
    with pytest.raises(BadInput, match="line 2: is not JSON"):
        await add_evidence(store, DESK, [line(), "{"], "olga")
    assert await stored(store) == []


def test_every_wrong_line_is_named_with_the_reason_and_the_mend() -> None:
    user = {"role": "user", "content": "Refund?"}
    lines = [
        line(),
        '{"messages": [',
        "[1]",
        json.dumps({"feedback": []}),
        line(mesages=[]),
        line(messages=[]),
        line(messages=[user]),
        line(flagged=0),
        line(flagged=7),
        line(feedback=[{"who": "anna", "kind": "meh"}]),
        line(feedback=[{"who": "anna", "at": "2026-01-05T09:00:00"}]),
        line(messages=[{"role": "tool", "content": "x"}]),
        line(checks=[{"id": "a", "text": "b", "matches": "("}]),
        line(checks=[{"id": "a", "text": "b"}]),
        line(turn="t1"),
        line(turn="t1", messages=[user, {"role": "assistant", "content": "Yes."}]),
        "x" * (MAX_LINE_CHARS + 1),
    ]
    with pytest.raises(BadInput) as raised:
        parse(lines)
    said = raised.value.sentence.split("\n")
    assert said[0] == "The evidence has mistakes, so nothing of it was stored:"
    expected = {
        2: "is not JSON (EOF while parsing a list at line 1 column 14); write one whole JSON object on one line.",
        3: "is not a JSON object; write one object a line.",
        4: "`messages` is missing; docs/batches.md shows what a line holds.",
        5: "`mesages` is not a field of the format; remove it, or correct its name.",
        6: "`messages` is empty; give at least the flagged reply.",
        7: "has no message of the role `assistant`; include the reply that was flagged.",
        8: "`flagged` names a message of the role `user`; name a reply of the assistant.",
        9: "`flagged` is 7, and the last message is 1; count from 0.",
        10: "`feedback.0.kind`: should be 'wrong_tool', 'retrieval', 'plan', 'format', 'permission', 'stopping', "
        "'routing', 'state', 'incomplete', 'wrong_answer', 'tone' or 'other'.",
        11: "`feedback.0.at` has no time zone; write it as 2026-01-05T09:00:00Z.",
        12: "`messages.0.role`: should be 'system', 'user' or 'assistant'.",
        13: "`matches` of check `a` is not a regular expression (missing ), unterminated subpattern at position 0).",
        14: "`checks.0`: give exactly one of contains, absent, matches.",
        16: "names the same turn as line 15 with another conversation; give it another `turn`.",
        17: "is longer than 1000000 characters; leave out what does not matter.",
    }
    assert said[1:] == [f"  line {number}: {text}" for number, text in expected.items()]


def test_the_flagged_reply_is_the_last_one_unless_another_is_named() -> None:
    said = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2", "id": "m2"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "5"},
    ]
    last, named = parse([line(messages=said), line(messages=said, flagged=1)])
    assert [message.content for message in last.transcript.messages] == ["1", "2", "3", "4"]
    assert [message.content for message in named.transcript.messages] == ["1", "2"]
    assert named.turn == "m2"
    assert last.turn.startswith("turn-")


def test_a_file_of_a_spreadsheet_program_is_read() -> None:
    assert len(parse(["\ufeff" + line() + "\r", "", "  "])) == 1


def test_too_much_and_nothing_at_all_are_refused() -> None:
    with pytest.raises(BadInput, match="split the file"):
        parse([line(turn=f"t{n}") for n in range(MAX_LINES + 1)])
    with pytest.raises(BadInput, match="holds no line"):
        parse(["", " "])


@given(st.lists(st.text(max_size=40) | st.just(line()) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
@settings(max_examples=100, deadline=None)
def test_whatever_the_lines_are_they_are_read_or_refused(lines: list[str]) -> None:
    try:
        said = "" if parse(lines) else "nothing"
    except BadInput as refusal:
        said = refusal.sentence
    assert not said or said.startswith("The evidence ")


def test_the_page_names_every_field_and_its_examples_are_sound() -> None:
    page = (Path(__file__).parents[1] / "docs" / "batches.md").read_text()
    for noun in (Line, Feedback, Message):
        for name in noun.model_fields:
            assert f"`{name}`" in page, name
    for kind in FailureKind:
        assert f"`{kind}`" in page, kind
    example, check = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)
    (found,) = parse([example])
    assert found.feedback[0].who == "anna"
    assert parse([line(checks=[json.loads(check)])])
