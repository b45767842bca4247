"""Cards: what they say in every state, and that nothing from outside can make them say anything else."""

from dataclasses import replace
from typing import Any

import pytest

from bot import cards
from bot.cards.progress import progress
from bot.chat import Card, Style, Tone
from bot.report import Note, Report
from core.model.consent import ConsentState, Policy, Vote
from core.model.evidence import FailureKind
from core.model.run import RESTARTABLE, RunState, Spend, Undeployed
from core.model.swap import SwapState
from core.model.transcript import Message, Transcript
from tests.support import reports
from tests.support.newsroom import text

HOSTILE = (
    "<script>alert(1)</script> <!channel> @everyone [x](http://evil) \x1b[31mred\x1b]0;t\x07 \u202eevil *b* `c`\n# h"
)
CARD_CHARS = 5_500
"""What the narrowest platform takes in one message."""


def all_cards() -> list[tuple[str, Card]]:
    made = [(f"run {state}", cards.run(reports.report(state))) for state in RunState]
    made.append(("partial", cards.run(reports.partial_report())))
    asked = reports.rollback_consent()
    for name, consent, swap in (
        ("asked", asked, None),
        ("granted", reports.rollback_consent(ConsentState.granted), None),
        ("declined", reports.rollback_consent(ConsentState.declined), None),
        ("expired", reports.rollback_consent(ConsentState.expired), None),
        ("void", reports.rollback_consent(ConsentState.void), None),
        ("probing", reports.rollback_consent(ConsentState.granted), reports.swap(SwapState.probing)),
        ("live", reports.rollback_consent(ConsentState.granted), reports.swap()),
        ("restored", reports.rollback_consent(ConsentState.granted), reports.swap(SwapState.restored)),
        ("stuck", reports.rollback_consent(ConsentState.granted), reports.swap(SwapState.stuck)),
    ):
        made.append((f"rollback {name}", cards.rollback(consent, reports.version(0), reports.version(1), swap)))
    applied = reports.report(RunState.applied)
    made.append(("receipt", cards.receipt(applied, applied.exchanges[0])))
    made.append(("status", cards.status([reports.standing()])))
    made.append(("batches", cards.all_batches([reports.listed()], "desk", 1, 1)))
    made.append(("batch", cards.batch(reports.evidence())))
    made.append(("history", cards.history([reports.version(0), reports.version(1)], "desk")))
    return made


ALL = all_cards()


def lines(card: Card) -> dict[str, str]:
    return {line.name: line.text for line in card.lines}


def section(card: Card, begins: str) -> str:
    (found,) = [part.text for part in card.body if part.heading.startswith(begins)]
    return found


def verbs(card: Card) -> list[str]:
    return [action.verb for action in card.actions]


@pytest.mark.parametrize(("name", "card"), ALL, ids=[name for name, _ in ALL])
def test_every_card_names_the_agent_and_fits_any_platform(name: str, card: Card) -> None:
    assert "desk" in text(card)
    assert len(text(card)) <= CARD_CHARS
    assert len(card.title) <= 100
    assert len(card.lines) <= 14
    assert len(card.body) <= 18
    assert len(card.actions) <= 5


# A run, state by state


@pytest.mark.parametrize("state", RunState)
def test_only_a_run_that_waits_can_be_decided_on(state: RunState) -> None:
    card = cards.run(reports.report(state))
    decidable = [action for action in card.actions if action.verb in ("approve", "decline")]
    assert bool(decidable) == (state is RunState.awaiting_consent)
    assert {action.subject for action in decidable} <= {"consent-4h8x2p6r"}
    assert {action.subject for action in card.actions if action not in decidable} == {"run-5d7w3c9k"}


NEXT = {
    RunState.queued: "/moss stop run-5d7w3c9k",
    RunState.running: "/moss stop run-5d7w3c9k",
    RunState.approved: "/moss stop run-5d7w3c9k",
    RunState.swapping: "the old one comes back by itself",
    RunState.applied: "/moss rollback 0",
    RunState.rolled_back: "/moss evolve batch-7k3f9q2m",
    RunState.stuck: "moss adopt --substrate desk",
    RunState.declined: "/moss evolve batch-7k3f9q2m",
    RunState.expired: "/moss evolve batch-7k3f9q2m",
    RunState.superseded: "/moss evolve batch-7k3f9q2m",
    **dict.fromkeys(RESTARTABLE, "/moss restart run-5d7w3c9k"),
}


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.awaiting_consent])
def test_every_state_says_what_a_person_can_do_next(state: RunState) -> None:
    assert NEXT[state] in section(cards.run(reports.report(state)), "What you can do")


@pytest.mark.parametrize("state", [state for state in RunState if state not in (RunState.queued, RunState.running)])
def test_a_run_that_went_on_says_its_sentence(state: RunState) -> None:
    report = reports.report(state)
    if report.run.sentence:
        assert lines(cards.run(report))["Outcome"] == report.run.sentence


def test_the_consent_card_says_all_that_a_decision_needs() -> None:
    card = cards.run(reports.report(RunState.awaiting_consent), link="https://moss.example/runs/run-5d7w3c9k")
    facts = lines(card)
    assert card.title == "desk: a repair waits for approval"
    assert card.tone is Tone.asking
    assert card.link == "https://moss.example/runs/run-5d7w3c9k"
    assert facts["Flagged replies"] == "5 → 12 of 12"
    assert facts["All keypoints"] == "recorded 8, live today 8, candidate 18, of 18"
    assert facts["Trials"] == "3 of each conversation; they disagree on 1 of 6 keypoints"
    assert facts["Change"] == "2 files, +18 −6, commit bbbbbbbbbbbb"
    assert facts["Cost"] == "7 min, 33,600 tokens, $0.70"
    assert (facts["Approvals"], facts["May approve"]) == ("0 of 1", "anna, ben")
    assert facts["Until"] == "2026-01-12 09:00 UTC"
    wrong = section(card, "What was wrong, in the words of those who flagged it")
    assert wrong.splitlines() == [f"“{reason}” (incomplete)" for *_, reason in reports.TURNS]
    assert section(card, "Cause").startswith("The dispatcher returns the first record")
    assert "desk/wording.py: Write one line per record" in section(card, "Change")
    came = section(card, "What the plan expected")
    assert came.splitlines()[0].startswith(
        "Rose, as expected: Names every ticket that is past its SLA (flagged turn 1);"
    )
    for n, (asked, before, after, _) in enumerate(reports.TURNS, start=1):
        assert section(card, f"Flagged turn {n} of 2") == f"Asked: {asked}\nBefore: {before}\nAfter: {after}"
    assert "dddddddddddd" in section(card, "If you approve")
    assert "within 1 min 30 s" in section(card, "If you approve")
    assert [(action.label, action.style) for action in card.actions] == [
        ("Approve", Style.primary),
        ("Decline", Style.danger),
        ("Show diff", Style.plain),
        ("Show report", Style.plain),
    ]
    assert [action.wants_reason for action in card.actions] == [False, True, False, False]


def test_a_partial_offer_says_so_and_why_it_is_not_whole() -> None:
    card = cards.run(reports.partial_report())
    assert card.title == "desk: a partial repair waits for approval"
    assert "not all of what was wanted is met" in section(card, "A partial repair")
    assert "FUNDAMENTAL_LIMIT_MODEL: “The model cannot count that far.”" in section(card, "A partial repair")


def test_what_else_is_deployed_with_the_repair_is_said_before_anybody_approves() -> None:
    commits = tuple(Undeployed(commit=f"{n}" * 40, subject=f"Work {n} <!here>") for n in range(7))
    prepared = reports.PREPARED.model_copy(update={"undeployed": commits, "undeployed_count": 23})
    history = tuple((s, i, r, prepared if res == reports.PREPARED else res) for s, i, r, res in reports.CONVERGED)
    card = cards.run(reports.report(RunState.awaiting_consent, steps=reports.told(*history)))
    said = section(card, "More goes live than the repair").splitlines()
    assert said[1] == "000000000000 “Work 0 <!here>”"
    assert said[-1] == "and 18 more commits: Show report"


def test_what_was_said_too_late_is_told_and_is_not_evidence() -> None:
    notes = (Note("carl", True, ""), Note("dora", False, "It is fine on Mondays."))
    card = cards.run(reports.report(RunState.awaiting_consent, notes=notes))
    said = section(card, "Said after the batch was sealed")
    assert said == "carl took the flag back\n“It is fine on Mondays.”"


@pytest.mark.parametrize(
    ("policy", "starter", "flaggers", "said"),
    [
        (Policy(), "carl", {"carl"}, "nobody: no approvers are configured"),
        (Policy(approvers=frozenset({"carl"})), "carl", {"dora"}, "nobody (carl may not approve what they started"),
        (Policy(approvers=frozenset({"anna", "carl"})), "carl", {"dora"}, "anna"),
        (Policy(approvers=frozenset({"anna", "carl"})), "eve", {"carl"}, "anna"),
        (
            Policy(approvers=frozenset({"anna", "carl"}), quorum=2),
            "carl",
            {"x"},
            "only anna, which is too few (carl may",
        ),
        (
            Policy(approvers=frozenset({"carl"}), allow_sole_approver=True),
            "carl",
            {"carl"},
            "carl, alone: whoever starts",
        ),
    ],
)
def test_the_card_says_who_may_approve_and_when_nobody_can(
    policy: Policy, starter: str, flaggers: set[str], said: str
) -> None:
    consent = reports.consent(policy=policy, starter=starter, flaggers=frozenset(flaggers))
    card = cards.run(reports.report(RunState.awaiting_consent, consent=consent))
    assert lines(card)["May approve"].startswith(said)


def test_of_a_quorum_those_who_approved_are_named_and_asked_no_more() -> None:
    policy = Policy(approvers=frozenset({"anna", "ben", "eve"}), quorum=2)
    votes = (Vote(person="ben", approve=True, at=reports.AT),)
    card = cards.run(reports.report(RunState.awaiting_consent, consent=reports.consent(policy=policy, votes=votes)))
    assert (lines(card)["Approvals"], lines(card)["May approve"]) == ("1 of 2, by ben", "anna, eve")


def test_a_decline_is_told_with_its_reason() -> None:
    card = cards.run(reports.report(RunState.declined))
    assert lines(card)["Declined by"] == "ben: “It counts parts that are on order.”"


def test_an_applied_run_says_how_long_the_agent_was_away_and_later_that_it_was_replaced() -> None:
    report = reports.report(RunState.applied)
    card = cards.run(report)
    assert card.tone is Tone.good
    assert (card.title, lines(card)["Away for"]) == ("desk: the repair is live as version 1", "1.4 s")
    replaced = replace(report, version=reports.version(1, until=reports.AT))
    assert cards.run(replaced).title == "desk: the repair was live as version 1"


def test_a_stuck_run_is_loud() -> None:
    card = cards.run(reports.report(RunState.stuck))
    assert card.title == "desk IS DOWN and needs a person now"
    assert card.tone is Tone.bad
    assert card.text.startswith("desk IS DOWN")


# Progress


def test_a_run_under_way_shows_a_line_per_stage_and_what_goes_on() -> None:
    told = progress(reports.report(RunState.running))
    assert told[0] == "starts from aaaaaaaaaaaa, with 2 flagged replies, 30 s"
    assert told[3] == "iteration 1"
    assert told[6] == "  plan sent back: REJECT_COMPLETENESS, 30 s"
    assert told[7] == "  plan: 2 files (round 2), 30 s"
    assert told[-1] == "  now: replaying the candidate"


def test_of_many_iterations_the_older_ones_are_told_in_a_line() -> None:
    told = progress(reports.report(RunState.exhausted))
    assert told[3] == "iteration 1: scored 8 of 18, NEED_MORE_WORK"
    assert told[4] == "iteration 2"
    failed = progress(reports.report(RunState.failed))
    assert "  building and testing the candidate failed (rejected): The tests of the base commit fail" in "\n".join(
        failed
    )


def test_the_very_longest_run_still_fits() -> None:
    history = [*reports.MEASURED]
    for n in range(1, 9):
        history += reports.iteration(n, reports.LIVE, reports.Verdict.need_more_work, "no")
    card = cards.run(reports.report(RunState.exhausted, steps=reports.told(*history)))
    assert len(text(card)) <= CARD_CHARS
    assert "iteration 8" in section(card, "Progress")


# Words from outside


def hostile(report: Report, words: str) -> Report:
    """Everything that anybody outside wrote says this."""
    chunks = tuple(
        chunk.model_copy(
            update={
                "transcript": Transcript(
                    messages=(Message(role="user", content=words), Message(role="assistant", content=words))
                ),
                "flags": tuple(flag.model_copy(update={"reason": words, "person": words}) for flag in chunk.flags),
            }
        )
        for chunk in report.chunks
    )
    diagnosis = reports.DIAGNOSIS.model_copy(update={"summary": words})
    change = reports.Change.model_construct(path=words, change=words)
    plan = reports.PLAN.model_copy(update={"summary": words, "changes": (change,) * 30, "expect_better": (words,) * 30})
    results: dict[Any, Any] = {
        reports.Located(diagnosis=reports.DIAGNOSIS).kind: reports.Located.model_construct(
            kind="located", diagnosis=diagnosis
        ),
        "planned": reports.Planned.model_construct(kind="planned", plan=plan),
    }
    steps = tuple(
        done.model_copy(update={"result": results.get(done.result.kind, done.result)}) for done in report.steps
    )
    return replace(
        report,
        run=report.run.model_copy(update={"sentence": words, "starter": words}),
        chunks=chunks,
        steps=steps,
        exchanges=tuple(
            replace(one, chunk=chunk, asked=words, before=words, after=words)
            for one, chunk in zip(report.exchanges, chunks, strict=True)
        ),
        notes=(Note(words, True, words), Note(words, False, words)),
        consent=reports.consent(
            starter=words,
            flaggers=frozenset({words}),
            votes=(Vote(person=words, approve=False, at=reports.AT, reason=words),),
            policy=Policy(approvers=frozenset({words, "anna"})),
        ),
        swap=reports.swap(SwapState.stuck, problem=words),
    )


@pytest.mark.parametrize("state", RunState)
def test_hostile_words_are_shown_as_they_are_without_what_a_screen_would_obey(state: RunState) -> None:
    card = cards.run(hostile(reports.report(state), HOSTILE))
    assert not set("\x1b\x07\u202e") & set(text(card))
    assert "<script>alert(1)</script>" in text(card)
    assert card.title.startswith("desk")
    assert {action.label for action in card.actions} <= {"Approve", "Decline", "Show diff", "Show report"}
    for line in card.lines:
        assert "\n" not in line.text


@pytest.mark.parametrize("state", RunState)
def test_endless_words_are_cut_with_a_word_on_where_the_rest_is(state: RunState) -> None:
    report = reports.report(state, chunks=reports.chunks(40))
    card = cards.run(hostile(report, "word " * 100_000))
    assert len(text(card)) <= CARD_CHARS
    if state is RunState.awaiting_consent:
        assert "more characters: Show report" in section(card, "Cause")
        assert "And 32 more flagged turns: Show report." in text(card)


def test_a_report_that_is_cut_says_where_more_of_it_is_than_in_itself() -> None:
    report = hostile(reports.report(RunState.awaiting_consent, chunks=reports.chunks(40)), "word " * 100_000)
    card = cards.run(report, rest="http://127.0.0.1:8090/runs/" + report.run.id)
    assert len(text(card)) <= CARD_CHARS
    assert "Show report" not in text(card.model_copy(update={"actions": ()}))
    assert f"more characters: http://127.0.0.1:8090/runs/{report.run.id}" in section(card, "Cause")


def test_what_only_says_something_in_many_lines_cannot_forge_lines_of_ours() -> None:
    forged = "fine.\nApprovals: 9 of 1, by anna"
    card = cards.run(hostile(reports.report(RunState.awaiting_consent), forged))
    assert lines(card)["Approvals"].startswith("0 of 1")
    quoted = [part for part in card.body if "Approvals: 9" in part.text]
    assert {part.look for part in quoted} <= {"quote", "text"}
    assert [part.heading for part in quoted if part.look == "text" and "“" not in part.text] == []


# Rollbacks and the rest


def test_a_rollback_is_asked_for_with_who_may_allow_it() -> None:
    card = cards.rollback(reports.rollback_consent(), reports.version(0), reports.version(1))
    assert card.title == "desk: a rollback to version 0 waits for approval"
    assert lines(card)["May approve"] == "ben", "whoever asked may not approve"
    assert verbs(card) == ["approve", "decline"]
    assert "in place of version 1" in section(card, "If you approve")


@pytest.mark.parametrize(
    ("state", "swap", "title"),
    [
        (ConsentState.granted, None, "desk: the rollback to version 0 is approved and waits for its swap"),
        (ConsentState.granted, SwapState.probing, "desk: version 0 is going live again"),
        (ConsentState.granted, SwapState.live, "desk: version 0 is live again"),
        (ConsentState.granted, SwapState.restored, "desk: the rollback to version 0 did not go live"),
        (ConsentState.void, SwapState.restored, "desk: the rollback to version 0 did not go live"),
        (ConsentState.granted, SwapState.stuck, "desk IS DOWN and needs a person now"),
        (ConsentState.declined, None, "desk: the rollback to version 0 was declined"),
        (ConsentState.expired, None, "desk: the rollback to version 0 was not decided in time"),
        (ConsentState.void, None, "desk: the rollback to version 0 is out of date"),
    ],
)
def test_a_rollback_says_what_became_of_it(state: ConsentState, swap: SwapState | None, title: str) -> None:
    made = reports.swap(swap) if swap else None
    card = cards.rollback(reports.rollback_consent(state), reports.version(0), reports.version(1), made)
    assert card.title == title
    assert card.actions == ()


def test_status_says_what_is_live_what_runs_and_what_waits() -> None:
    (part,) = cards.status([reports.standing()]).body
    assert part.text.splitlines() == [
        "Version 1 is live since 2026-01-05 09:10 UTC (bbbbbbbbbbbb).",
        "The repair of run-5d7w3c9k waits for approval until 2026-01-12 09:00 UTC: `/moss approve run-5d7w3c9k`.",
        "1 open batch, 2 sealed.",
    ]
    down = cards.status([reports.standing(live=None, needs_adoption=True, asked=(), runs=())])
    assert down.tone is Tone.bad
    assert "moss adopt --substrate desk" in text(down)


def test_a_batch_says_who_complained_about_what_and_how_to_go_on() -> None:
    card = cards.batch(reports.evidence())
    assert [part.heading for part in card.body[:2]] == [
        "Flagged reply 1: 2 people, incomplete",
        "Flagged reply 2: 2 people, incomplete",
    ]
    assert "`/moss evolve batch-7k3f9q2m`" in section(card, "What you can do")
    waiting = cards.batch(reports.evidence(run=reports.report(RunState.awaiting_consent).run))
    assert "`/moss approve run-5d7w3c9k`" in section(waiting, "What you can do")


def test_history_names_what_was_live_when_newest_first() -> None:
    card = cards.history([reports.version(0), reports.version(1), reports.version(2, restores=0)], "desk")
    told = card.body[0].text.splitlines()
    assert [line.partition(":")[0] for line in told] == ["Version 2", "Version 1", "Version 0"]
    assert told[0].endswith("live, brings back version 0")
    assert "adopted" in told[-1]


def test_a_receipt_shows_before_and_after_of_that_very_turn() -> None:
    report = reports.report(RunState.applied)
    card = cards.receipt(report, report.exchanges[1])
    asked, before, after, _ = reports.TURNS[1]
    assert card.body[0].text == f"Asked: {asked}\nBefore: {before}\nAfter: {after}"
    assert lines(card)["Since"] == "version 1 of desk"
    assert card.actions == ()


def test_a_flag_without_words_is_told_by_its_kind() -> None:
    flags = tuple(
        flag.model_copy(update={"reason": None, "kind": FailureKind.routing}) for flag in reports.chunks()[0].flags
    )
    chunks = (reports.chunks()[0].model_copy(update={"flags": flags}),)
    card = cards.run(reports.report(RunState.queued, chunks=chunks))
    assert section(card, "What was wrong") == "Nobody gave words; 2 people flagged it as routing."


def test_nothing_spent_is_no_money() -> None:
    steps = tuple(done.model_copy(update={"spend": Spend(seconds=4.2)}) for done in reports.told(*reports.MEASURED))
    assert lines(cards.run(reports.report(RunState.stopped, steps=steps)))["Cost"] == "13 s"
