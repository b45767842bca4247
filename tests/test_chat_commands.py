"""`/moss ...` in a chat: every verb, privately, once, by those who may; and what a typing mistake is answered with."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bot import cli, inbox, looking, verbs
from bot.chat import Card, Commanded
from bot.commands import VERBS, Ask, parse
from bot.inbox import Delivery
from bot.looking import PAGE_CHARS, paged
from bot.permits import allowed
from bot.whispers import in_chat
from core.model.batch import BatchState
from core.model.consent import ConsentState
from core.model.run import Dial, Run, RunState
from core.model.transcript import Place
from core.store import batches, consents, people, runs, swaps
from tests.support import stored
from tests.support.chat_moss import ChatMoss, chat_moss, settings
from tests.support.databases import HeldClock, opened
from tests.support.paper_chat import PAPER

MARY = "paper:mary"


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[ChatMoss]:
    async with opened("sqlite", tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
        yield chat


async def said(chat: ChatMoss, words: str, place: Place = PAPER, person: str = MARY) -> str:
    """The whole answer as text."""
    await chat.did(chat.commanded(words, place, person=person))
    last = list(chat.chat.whispered.values())[-1]
    assert last.person == person
    if isinstance(last.what, str):
        return last.what
    return "\n".join([last.what.text, *(part.text for part in last.what.body)])


async def flagged(chat: ChatMoss, count: int = 1, place: Place = PAPER) -> str:
    """An open batch with so many replies."""
    for _ in range(count):
        await chat.did(chat.reacted(await chat.reply(place=place), place=place))
    async with chat.store.reading() as db:
        found = await batches.open_for(db, "little", place.conversation)
    assert found
    return found.id


async def all_runs(chat: ChatMoss) -> list[Run]:
    async with chat.store.reading() as db:
        return await runs.listing(db)


async def in_state(chat: ChatMoss, state: RunState, *more: RunState) -> Run:
    async with chat.store.changing("little") as change:
        return await stored.run_in(change, *more, state, starter="carl")


async def test_evolve_starts_a_run_on_what_was_flagged_here_and_seals_it(chat: ChatMoss) -> None:
    elsewhere = await flagged(chat, place=PAPER.model_copy(update={"channel": "billing"}))
    here = await flagged(chat, 2)
    answer = await said(chat, "evolve deep")
    (run,) = await all_runs(chat)
    assert (run.batch, run.dial, run.starter, run.state) == (here, Dial.deep, "mary", RunState.queued)
    assert run.id in answer
    assert here in answer
    async with chat.store.reading() as db:
        assert (await batches.get(db, here)).state is BatchState.sealed
        assert (await batches.get(db, elsewhere)).state is BatchState.open


async def test_evolve_counts_every_complaint_that_came_before_it(chat: ChatMoss) -> None:
    replies = [await chat.reply() for _ in range(5)]
    events = [chat.reacted(reply, person=f"paper:{n}") for n, reply in enumerate(replies)]
    await chat.did(*events, chat.commanded("evolve", person=MARY))
    (run,) = await all_runs(chat)
    async with chat.store.reading() as db:
        assert len(await batches.chunks(db, run.batch)) == 5


async def test_one_event_starts_one_run_however_often_it_comes(chat: ChatMoss) -> None:
    await flagged(chat)
    event = chat.commanded("evolve", person=MARY)
    await chat.did(event, event)
    await chat.did(event)
    assert len(await all_runs(chat)) == 1


async def test_a_second_evolve_is_refused_in_a_sentence(chat: ChatMoss) -> None:
    await flagged(chat)
    await said(chat, "evolve")
    await flagged(chat)
    answer = await said(chat, "evolve")
    assert "which is queued; wait for its end, or stop it" in answer
    assert len(await all_runs(chat)) == 1


async def test_evolve_without_anything_flagged_says_so(chat: ChatMoss) -> None:
    assert "No batch of little waits" in await said(chat, "evolve")


async def test_stop_ends_the_run_that_is_under_way_and_restart_begins_anew(chat: ChatMoss) -> None:
    await flagged(chat)
    assert "No run of little is under way" in await said(chat, "stop")
    await said(chat, "evolve")
    (run,) = await all_runs(chat)
    assert "is stopped" in await said(chat, "stop")
    assert "is stopped" in await said(chat, f"stop `{run.id}`")
    again = await said(chat, "restart")
    first, second = sorted(await all_runs(chat), key=lambda one: not one.archived)
    assert (first.id, first.archived, second.state) == (run.id, True, RunState.queued)
    assert again == f"{second.id} is queued in place of {run.id}."


async def test_approve_and_decline_name_a_run_a_question_or_the_only_one_that_waits(chat: ChatMoss) -> None:
    assert "Nothing of little waits for approval" in await said(chat, "approve", person="paper:anna")
    async with chat.store.changing("little") as change:
        consent = await stored.offered(change)
    assert "takes a reason" in await said(chat, "decline", person="paper:anna")
    for words in (f"approve {consent.run}", f"apply {consent.id}", "approve"):
        assert "You are not one of the approvers; ask anna, ben." in await said(chat, words)
    stranger = await said(chat, "approve", person="paper:eve")
    assert "You are not one of the approvers; ask anna, ben; Moss knows you as `paper:eve`." in stranger
    async with chat.store.reading() as db:
        assert (await consents.get(db, consent.id)).state is ConsentState.asked
    assert "You declined this" in await said(chat, f"decline {consent.run} It is ugly.", person="paper:anna")
    async with chat.store.reading() as db:
        found = await consents.get(db, consent.id)
    assert (found.state, found.votes[0].person, found.votes[0].reason) == (ConsentState.declined, "anna", "It is ugly.")


async def test_a_reason_is_kept_as_it_was_typed(chat: ChatMoss) -> None:
    typed = "run-time is   wrong:\n  see `batch-1`, consent-forms and page 12"
    await chat.reply()
    assert "is flagged" in await said(chat, f"flag {typed}")
    async with chat.store.reading() as db:
        (batch,) = await batches.listing(db)
        assert (await batches.chunks(db, batch.id))[0].flags[0].reason == typed
    for words in (f"decline {typed}", f"decline {{}}  {typed}", f"decline `{{}}` {typed}"):
        async with chat.store.changing("little") as change:
            consent = await stored.offered(change)
        assert "You declined this" in await said(chat, words.format(consent.run), person="paper:anna")
        async with chat.store.reading() as db:
            assert (await consents.get(db, consent.id)).votes[0].reason == typed


async def test_approve_without_a_name_never_means_what_was_asked_later(chat: ChatMoss) -> None:
    typed = chat.commanded("approve", person="paper:anna", at=chat.store.now() - timedelta(seconds=30))
    async with chat.store.changing("little") as change:
        consent = await stored.offered(change)
    await chat.did(typed)
    async with chat.store.reading() as db:
        assert (await consents.get(db, consent.id)).state is ConsentState.asked


async def test_a_token_under_another_name_of_a_person_makes_nobody_a_second_person(chat: ChatMoss) -> None:
    chat.configure(people={"anna": ("anna-laptop",)})
    token = await people.add(chat.store, "anna-laptop", "test")
    assert await verbs.person_of(chat.moss, token) == "anna"


async def test_approve_lets_a_repair_go_live_once(chat: ChatMoss) -> None:
    async with chat.store.changing("little") as change:
        consent = await stored.offered(change)
    assert "You approved this" in await said(chat, "approve", person="paper:anna")
    assert "approved this already" in await said(chat, f"approve {consent.id}", person="paper:ben")
    (run,) = await all_runs(chat)
    assert run.state is RunState.approved


async def test_rollback_asks_for_the_version_before_and_goes_by_the_rule_of_every_swap(chat: ChatMoss) -> None:
    assert "Nothing of little is live yet" in await said(chat, "rollback")
    async with chat.store.changing("little") as change:
        for number in range(3):
            await swaps.add_version(change, stored.version(number, "little"))
    answer = await said(chat, "rollback")
    assert "Whether version 1 comes back is asked" in answer
    assert "You are not one of the approvers" in answer
    assert "is asked" in await said(chat, "rollback version 0")
    async with chat.store.reading() as db:
        assert {one.version for one in await consents.asked(db)} == {0, 1}
    assert "is what runs already" in await said(chat, "rollback 2")
    assert "never had a version 9" in await said(chat, "rollback v9")
    assert "is written so" in await said(chat, "rollback please")


async def test_a_rollback_means_what_its_person_saw_when_they_typed_it(chat: ChatMoss) -> None:
    """Worked on late, behind a swap: it neither goes back from what that brought, nor back to where that came from."""
    began = chat.store.now() - timedelta(hours=4)
    hours = [began + timedelta(hours=n) for n in range(5)]
    async with chat.store.changing("little") as change:
        for number in range(3):
            await swaps.add_version(change, stored.version(number, "little", since=hours[number]))
    typed = chat.commanded("rollback", person=MARY, at=hours[2] + timedelta(minutes=1))
    twice = chat.commanded("rollback", person=MARY, at=hours[2] + timedelta(minutes=2))
    await chat.take(typed, twice)
    again = stored.version(1, "little").model_copy(update={"number": 3, "since": hours[3], "restores": 1})
    async with chat.store.changing("little") as change:
        await swaps.add_version(change, again)
    await chat.work()
    assert all("Version 1 of little is what runs already" in told for told in chat.chat.told())
    async with chat.store.reading() as db:
        assert await consents.asked(db) == []
    async with chat.store.changing("little") as change:
        await swaps.add_version(change, stored.version(4, "little", since=hours[3] + timedelta(minutes=30)))
    await chat.did(chat.commanded("rollback", person=MARY, at=hours[2] + timedelta(minutes=3)))
    answer = chat.chat.told()[-1]
    assert "Version 4 of little went live after a rollback was asked for, which meant version 1" in answer
    assert "Whether version 1 comes back is asked" in await said(chat, "rollback 1")


async def test_flag_complains_about_the_last_reply_here(chat: ChatMoss) -> None:
    thread = PAPER.model_copy(update={"thread": "s1"})
    assert "has said nothing here yet" in await said(chat, "flag")
    await chat.reply("First.", thread)
    last = await chat.reply("Second.")
    assert "is flagged" in await said(chat, "flag It is the wrong order.", person="paper:eve")
    assert "is flagged" in await said(chat, "flag", thread, person="paper:eve")
    async with chat.store.reading() as db:
        (batch,) = await batches.listing(db)
        first, second = await batches.chunks(db, batch.id)
    assert (first.turn, first.flags[0].reason) == (last, "It is the wrong order.")
    assert (second.flagged.content, second.flags[0].reason) == ("First.", None)


async def test_verbs_that_look_show_cards(chat: ChatMoss) -> None:
    batch = await flagged(chat, 2)
    assert "1 open batch" in await said(chat, "status")
    assert batch in await said(chat, "batches")
    for words in ("batch", f"batch {batch}"):
        assert "Flagged reply" in "\n".join(_headings(await _card(chat, words)))
    assert "Nothing was ever live" in await said(chat, "history")
    assert "No run of little was started yet" in await said(chat, "run")
    await said(chat, "evolve")
    assert "No batch is open here" in await said(chat, "batch")
    (run,) = await all_runs(chat)
    assert run.id in await said(chat, "run")
    assert f"Run {run.id} is queued and has no diff yet" in await said(chat, f"run {run.id} diff")
    assert "name one of diagnosis" in await said(chat, "run nonsense")
    assert (await _card(chat, f"run {run.id}")).actions == ()
    assert "little" in (await _card(chat, "digest 30")).title


async def _card(chat: ChatMoss, words: str) -> Card:
    await said(chat, words)
    what = list(chat.chat.whispered.values())[-1].what
    assert isinstance(what, Card)
    return what


def _headings(card: Card) -> list[str]:
    return [part.heading for part in card.body]


async def test_answers_in_a_chat_name_what_can_be_typed_there(chat: ChatMoss) -> None:
    assert "`/moss batches` shows those there are" in await said(chat, "batch batch-nope")
    assert "`/moss status` shows those there are" in await said(chat, "run run-nope")
    assert "`/moss batches` shows them all" in await said(chat, "evolve")
    batch = await flagged(chat, 1)
    await said(chat, f"evolve {batch}")
    (run,) = await all_runs(chat)
    assert f"`/moss run {run.id}` shows what it has" in await said(chat, f"run {run.id} diff")
    assert in_chat("Run `moss adopt`, or `moss run`.") == "Run `moss adopt`, or `moss run`."


def test_every_verb_of_the_command_line_that_a_chat_has_too_is_known_there() -> None:
    typed = {command.name for command in cli.app.registered_commands} & VERBS.keys()
    assert {name for name in VERBS if in_chat(f"`moss {name}`") == f"`/moss {name}`"} >= typed - {"help", "run"}


async def test_long_lists_have_pages(chat: ChatMoss) -> None:
    for n in range(14):
        await flagged(chat, place=PAPER.model_copy(update={"channel": f"c{n}"}))
    first, second = await said(chat, "batches"), await said(chat, "batches page 2")
    assert first.count("batch-") == 12
    assert "and 2 older: `/moss batches page 2`" in first
    assert "older" not in second
    assert second.count("batch-") == 2
    assert "There is no page 3; the last one is 2." in await said(chat, "batches page 3")


async def test_help_names_every_verb_and_one_verb_in_detail(chat: ChatMoss) -> None:
    text = await said(chat, "help")
    assert all(f"/moss {verb.usage}" in text for verb in VERBS.values())
    assert await said(chat, "") == text
    assert "`/moss evolve [BATCH]" in await said(chat, "help evolve")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("evolv", "There is no verb `evolv`; did you mean `/moss evolve`?"),
        ("aply", "did you mean `/moss apply`?"),
        ("EVOLVE batch-none", "There is no batch batch-none"),
        ("fly to the moon", "There is no verb `fly`; `/moss help` lists all there are."),
        ("evolve standrd", "`/moss evolve` is written so: `/moss evolve [BATCH]"),
        ("stop run-none", "There is no run run-none"),
        ("batch batch-1 batch-2", "One batch is enough"),
        ("digest yesterday", "is written so"),
        ("digest 9999", "1 to 366 days"),
    ],
)
async def test_a_mistake_is_answered_privately_with_the_mend(chat: ChatMoss, words: str, answer: str) -> None:
    assert answer in await said(chat, words)
    assert chat.chat.shown == []


async def test_what_somebody_may_not_do_is_refused_before_anything_is_looked_at(chat: ChatMoss) -> None:
    await flagged(chat)
    for words in ("evolve", "stop run-1", "restart run-1", "rollback", "digest"):
        answer = await said(chat, words, person="paper:eve")
        told = f"You may not use `{words.split()[0]}`; ask anna, ben, mary; Moss knows you as `paper:eve`."
        assert answer == told
    assert await all_runs(chat) == []


async def test_what_runs_into_a_wall_is_told_after_some_tries(chat: ChatMoss, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(moss: object) -> Card:
        raise RuntimeError("password=geheim")

    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr(looking, "status", broken)
    answer = await said(chat, "status")
    assert answer == "That did not work, and was tried several times: Moss failed inside; its log has the reason."


def test_a_command_is_a_verb_words_and_a_page() -> None:
    assert parse("") == ("help", (), 1)
    assert parse("  /Evolve  deep ") == ("evolve", ("deep",), 1)
    assert parse("run run-1 diff Page 3") == ("run", ("run-1", "diff"), 3)
    assert parse("flag the second page is empty") == ("flag", ("the", "second", "page", "is", "empty"), 1)


def test_pages_hold_everything_end_with_lines_and_are_never_too_long() -> None:
    text = "\n".join(f"line {n} {'x' * (n % 90)}" for n in range(400)) + "\n" + "y" * (3 * PAGE_CHARS)
    pages = paged(text)
    assert all(0 < len(page) <= PAGE_CHARS for page in pages)
    assert "".join("".join(pages).split()) == "".join(text.split())
    assert paged("") == [""]
    assert paged("\x1b[31mred") == [r"\x1b[31mred"]


# --- who may what


ELSEWHERE = PAPER.model_copy(update={"channel": "private"})
IMPORTED = PAPER.model_copy(update={"platform": "file"})


@pytest.mark.parametrize("place", [ELSEWHERE, IMPORTED])
async def test_what_another_conversation_said_is_for_maintainers_alone(chat: ChatMoss, place: Place) -> None:
    async with chat.store.changing("little") as change:
        secret = await stored.run_in(change, RunState.running, RunState.failed, place=place)
        shared = await stored.run_in(change, RunState.running, RunState.failed, place=PAPER)
    looks = [f"batch {secret.batch}", f"run {secret.id}", f"run {secret.id} page 2"]
    looks += [f"run {secret.id} {artefact}" for artefact in looking.Artefact]
    for words in looks:
        answer = await said(chat, words, person="paper:eve")
        assert answer.startswith("You may not look at what belongs to another conversation; ask anna, ben, mary"), words
        assert "another conversation" not in await said(chat, words)
    for words in ("batches", f"batch {shared.batch}", f"run {shared.id}", "run"):
        answer = await said(chat, words, person="paper:eve")
        assert shared.batch in answer or shared.id in answer
        assert secret.batch not in answer
        assert secret.id not in answer
    assert secret.batch in await said(chat, "batches")


async def test_the_latest_run_of_nobody_here_is_none(chat: ChatMoss) -> None:
    async with chat.store.changing("little") as change:
        await stored.run_in(change, RunState.running, RunState.failed, place=ELSEWHERE)
    answer = await said(chat, "run", person="paper:eve")
    assert answer == "No run of little was started yet for this conversation; `/moss evolve` starts one."


def test_verbs_are_for_those_whom_the_settings_name(tmp_path: Path) -> None:
    known = settings(tmp_path)
    for verb in ("status", "batches", "batch", "history", "run", "flag", "talk", "help"):
        assert allowed(known, verb, "eve") is None
    for verb in ("evolve", "stop", "restart", "rollback", "digest"):
        assert allowed(known, verb, "mary") is allowed(known, verb, "anna") is None
        assert allowed(known, verb, "eve") == f"You may not use `{verb}`; ask anna, ben, mary."


def test_with_nobody_named_what_costs_is_for_nobody(tmp_path: Path) -> None:
    known = settings(tmp_path)
    nobody = known.model_copy(
        update={
            "permits": known.permits.model_copy(update={"maintainers": frozenset()}),
            "consent": known.consent.model_copy(update={"approvers": frozenset()}),
        }
    )
    assert allowed(nobody, "evolve", "anna") == (
        "Nobody may use `evolve`, since nobody is named; name approvers in [consent] of moss.toml."
    )
    assert allowed(nobody, "unheard-of", "anna") is not None
    assert allowed(nobody, "status", "anna") is None


def test_every_verb_has_a_permit_of_its_own_or_is_the_consents(tmp_path: Path) -> None:
    known = settings(tmp_path)
    open_ = {name for name, verb in VERBS.items() if not verb.decides and allowed(known, name, "eve") is None}
    assert open_ == {"flag", "status", "batches", "batch", "run", "history", "help"}
    assert {name for name, verb in VERBS.items() if verb.decides} == {"approve", "decline"}


def test_what_a_command_makes_has_one_name_and_no_other_moss_here_has_the_same(chat: ChatMoss) -> None:
    def made(seconds: int) -> str:
        at = HeldClock()() + timedelta(seconds=seconds)
        event = Commanded(id="said:1", place=PAPER, person="paper:eve", at=at, words="evolve")
        return Ask(chat.moss, Delivery(1, event), event, "eve", (), 1).id("run")

    assert made(0) == made(0) != made(1)
