"""Nothing reaches users before enough permitted people said yes to exactly this; and then it does so once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.consent import (
    Decision,
    DecisionKind,
    ask_for_rollback,
    decide,
    expire_due,
    judge,
    may_approve,
    remind_due,
    void,
)
from core.model.consent import Consent, ConsentState, Policy, Vote
from core.model.errors import NotFound, Refused
from core.model.events import Noun
from core.model.run import RunState
from core.store import Store, consents, facts, outbox, runs, tables
from tests.support import stored
from tests.support.databases import DATABASES, START, HeldClock, database
from tests.support.stored import DESK, with_substrate

GRANTED, COUNTED, DECLINED = DecisionKind.granted, DecisionKind.counted, DecisionKind.declined
REFUSED, EXPIRED = DecisionKind.refused, DecisionKind.expired
EXPIRES = START + timedelta(days=7)


def consent(approvers: str = "anna ben", state: ConsentState = ConsentState.asked, **more: object) -> Consent:
    values: dict[str, object] = {
        "id": "consent-1",
        "substrate": DESK,
        "run": "run-1",
        "candidate": "candidate-1",
        "version": None,
        "commit": "b" * 40,
        "image": "sha256:d",
        "diff_hash": "sha256:e",
        "matrix_hash": "sha256:f",
        "policy": policy(approvers),
        "starter": "carl",
        "flaggers": frozenset({"carl", "dora"}),
        "state": state,
        "asked_at": START,
        "expires_at": EXPIRES,
    }
    return Consent.model_validate(values | more)


def policy(approvers: str, quorum: int = 1, alone: bool = False) -> Policy:
    return Policy(approvers=frozenset(approvers.split()), quorum=quorum, allow_sole_approver=alone)


def yes(*people: str) -> tuple[Vote, ...]:
    return tuple(Vote(person=person, approve=True, at=START) for person in people)


# --- the rule -----------------------------------------------------------------------------------------------------

RULE = [
    # what is asked, who clicks, approve or decline, what it means, a word of the answer
    (consent(), "anna", True, GRANTED, "approved"),
    (consent(), "anna", False, DECLINED, "declined"),
    (consent(), "eve", True, REFUSED, "ask anna, ben"),
    (consent(), "eve", False, REFUSED, "ask anna, ben"),
    (consent(""), "anna", True, REFUSED, "no approvers are configured"),
    (consent(""), "anna", False, REFUSED, "no approvers are configured"),
    (consent("", policy=policy("", alone=True)), "anna", True, REFUSED, "no approvers are configured"),
    # nobody approves what they started, or what they alone complained about; but they may decline it
    (consent(starter="anna"), "anna", True, REFUSED, "started this"),
    (consent(starter="anna"), "anna", False, DECLINED, "declined"),
    (consent(starter="anna"), "ben", True, GRANTED, "approved"),
    (consent(flaggers={"anna"}), "anna", True, REFUSED, "the only one who flagged"),
    (consent(flaggers={"anna", "dora"}), "anna", True, GRANTED, "approved"),
    (consent(flaggers=()), "anna", True, GRANTED, "approved"),
    # unless there is nobody else, and that was allowed
    (consent("anna", starter="anna"), "anna", True, REFUSED, "allow_sole_approver"),
    (consent(policy=policy("anna", alone=True), starter="anna"), "anna", True, GRANTED, "approved"),
    (consent(policy=policy("anna", alone=True), flaggers={"anna"}), "anna", True, GRANTED, "approved"),
    (consent(policy=policy("anna ben", alone=True), starter="anna"), "anna", True, REFUSED, "ask ben"),
    # a quorum is of distinct people
    (consent(policy=policy("anna ben", 2)), "anna", True, COUNTED, "1 more is needed"),
    (consent(policy=policy("anna ben fay", 3)), "anna", True, COUNTED, "2 more are needed"),
    (consent(policy=policy("anna ben", 2), votes=yes("anna")), "anna", True, REFUSED, "already"),
    (consent(policy=policy("anna ben", 2), votes=yes("anna")), "ben", True, GRANTED, "approved"),
    (consent(policy=policy("anna ben", 2), votes=yes("anna")), "anna", False, DECLINED, "declined"),
    (consent(policy=policy("anna ben", 2), votes=yes("anna")), "eve", True, REFUSED, "not one of the approvers"),
    # a finished consent answers, and does nothing
    (consent(state=ConsentState.granted, votes=yes("ben")), "anna", True, REFUSED, "ben approved this already"),
    (consent(state=ConsentState.granted, votes=yes("ben")), "anna", False, REFUSED, "ben approved this already"),
    (consent(state=ConsentState.declined), "anna", True, REFUSED, "declined this already"),
    (consent(state=ConsentState.expired), "anna", True, REFUSED, "expired on 2026-01-12 09:00 UTC"),
    (consent(state=ConsentState.void), "anna", True, REFUSED, "out of date"),
    (consent(expires_at=START), "anna", True, EXPIRED, "expired"),
    (consent(expires_at=START), "anna", False, EXPIRED, "expired"),
    (consent(expires_at=START + timedelta(microseconds=1)), "anna", True, GRANTED, "approved"),
]


@pytest.mark.parametrize(("asked", "person", "approve", "kind", "word"), RULE)
def test_a_click_means_what_the_rule_says(
    asked: Consent, person: str, approve: bool, kind: DecisionKind, word: str
) -> None:
    decision = judge(asked, person, approve, START)
    assert decision.kind is kind
    assert word in decision.sentence
    assert decision.sentence.endswith(".")


PEOPLE = st.sampled_from(["anna", "ben", "carl", "dora", "fay"])
GROUPS = st.frozensets(PEOPLE, max_size=4)


POLICIES = st.builds(Policy, approvers=GROUPS, quorum=st.integers(1, 3), allow_sole_approver=st.booleans())
CLICKS = st.lists(st.tuples(PEOPLE, st.booleans()), max_size=12)


@given(rules=POLICIES, starter=PEOPLE, flaggers=GROUPS, clicks=CLICKS)
def test_whoever_clicks_however_often_a_grant_has_enough_different_people_who_may(
    rules: Policy, starter: str, flaggers: frozenset[str], clicks: list[tuple[str, bool]]
) -> None:
    asked = consent(policy=rules, starter=starter, flaggers=flaggers)
    for person, approve in clicks:
        decision = judge(asked, person, approve, START)
        if decision.kind in (REFUSED, EXPIRED):
            continue
        assert person in rules.approvers
        kept = tuple(vote for vote in asked.votes if vote.person != person)
        votes = (*kept, Vote(person=person, approve=approve, at=START))
        state = {GRANTED: ConsentState.granted, DECLINED: ConsentState.declined}.get(decision.kind, asked.state)
        asked = asked.model_copy(update={"votes": votes, "state": state})
    yes_from = {vote.person for vote in asked.votes if vote.approve}
    assert (asked.state is ConsentState.granted) == (len(yes_from) >= rules.quorum)
    for person in yes_from:
        sole = rules.allow_sole_approver and rules.approvers == {person}
        assert person in rules.approvers
        assert sole or (person != starter and flaggers != {person})
    assert (asked.state is ConsentState.declined) == any(not vote.approve for vote in asked.votes)


def test_who_may_approve_is_known_before_anybody_clicks() -> None:
    assert may_approve(consent("anna ben carl")) == {"anna", "ben"}
    assert may_approve(consent("anna ben", flaggers={"ben"})) == {"anna"}
    assert may_approve(consent("")) == frozenset()


# --- the transaction ----------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def stores(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[list[Store]]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database(request.param, tmp_path))
        found = [await Store.open(url, clock) for _ in range(2)]
        for one in found:
            stack.push_async_callback(one.close)
        await with_substrate(found[0])
        yield found


@pytest.fixture
def store(stores: list[Store]) -> Store:
    return stores[0]


async def offered(store: Store, rules: Policy = stored.POLICY, starter: str = "carl") -> Consent:
    async with store.changing(DESK) as change:
        return await stored.offered(change, rules, starter)


async def approve(store: Store, asked: Consent, person: str = "anna", image_exists: bool = True) -> Decision:
    return await decide(store, asked.id, person, True, image_exists=image_exists)


async def decline(store: Store, asked: Consent, person: str = "anna", reason: str | None = None) -> Decision:
    return await decide(store, asked.id, person, False, reason, image_exists=True)


async def states(store: Store, asked: Consent) -> tuple[ConsentState, RunState, list[str]]:
    """The consent, its run, and the swaps that are due."""
    async with store.reading() as db:
        run = await runs.get(db, str(asked.run))
        due = [row.subject for row in await outbox.waiting(db) if row.kind == "swap"]
        assert await facts.verify(db, DESK) is None
        return (await consents.get(db, asked.id)).state, run.state, due


async def test_a_grant_moves_the_run_and_makes_its_swap_due(store: Store) -> None:
    asked = await offered(store)
    assert (await approve(store, asked)).kind is GRANTED
    assert await states(store, asked) == (ConsentState.granted, RunState.approved, [asked.id])
    async with store.reading() as db:
        told = [(fact.who, fact.what, fact.after) for fact in (await facts.chain(db, DESK))[-3:]]
    assert told == [("anna", "voted", None), ("anna", "moved", "granted"), ("anna", "moved", "approved")]


async def test_a_second_click_changes_nothing(store: Store) -> None:
    asked = await offered(store)
    await approve(store, asked)
    async with store.reading() as db:
        before = await facts.chain(db, DESK)
    for again in (await approve(store, asked), await approve(store, asked, "ben"), await decline(store, asked)):
        assert again.kind is REFUSED
        assert "anna approved this already" in again.sentence
    async with store.reading() as db:
        assert await facts.chain(db, DESK) == before


@pytest.mark.parametrize("quorum", [1, 2])
async def test_people_who_approve_at_the_same_moment_make_one_grant(stores: list[Store], quorum: int) -> None:
    crowd = [f"person-{n}" for n in range(8)]
    asked = await offered(stores[0], policy(" ".join(crowd), quorum))
    answers = await asyncio.gather(*(approve(stores[n % 2], asked, who) for n, who in enumerate(crowd * 2)))
    kinds = [answer.kind for answer in answers]
    assert kinds.count(GRANTED) == 1
    assert kinds.count(COUNTED) == quorum - 1
    assert await states(stores[0], asked) == (ConsentState.granted, RunState.approved, [asked.id])
    async with stores[0].reading() as db:
        assert len((await consents.get(db, asked.id)).votes) == quorum


async def test_one_who_approves_while_another_declines_meets_one_answer(stores: list[Store]) -> None:
    asked = await offered(stores[0])
    answers = await asyncio.gather(approve(stores[0], asked, "anna"), decline(stores[1], asked, "ben"))
    assert sorted(answer.kind for answer in answers) in ([GRANTED, REFUSED], [DECLINED, REFUSED])
    consent_state, run_state, due = await states(stores[0], asked)
    assert (consent_state, run_state, due) in (
        (ConsentState.granted, RunState.approved, [asked.id]),
        (ConsentState.declined, RunState.declined, []),
    )


async def test_the_first_of_two_needed_approvals_waits_for_the_second(store: Store) -> None:
    asked = await offered(store, policy("anna ben", 2))
    assert (await approve(store, asked, "anna")).kind is COUNTED
    assert (await approve(store, asked, "anna")).kind is REFUSED
    assert await states(store, asked) == (ConsentState.asked, RunState.awaiting_consent, [])
    assert (await approve(store, asked, "ben")).kind is GRANTED
    assert await states(store, asked) == (ConsentState.granted, RunState.approved, [asked.id])


async def test_a_change_of_mind_before_the_quorum_replaces_the_vote_and_ends_it(store: Store) -> None:
    asked = await offered(store, policy("anna ben", 2))
    await approve(store, asked, "anna")
    assert (await decline(store, asked, "anna", "It drops the greeting.")).kind is DECLINED
    assert (await approve(store, asked, "ben")).kind is REFUSED
    assert await states(store, asked) == (ConsentState.declined, RunState.declined, [])
    async with store.reading() as db:
        (vote,) = (await consents.get(db, asked.id)).votes
        assert (vote.person, vote.approve, vote.reason) == ("anna", False, "It drops the greeting.")
        assert (await runs.get(db, str(asked.run))).sentence == "anna declined: It drops the greeting."


async def test_a_refused_click_leaves_no_trace(store: Store) -> None:
    asked = await offered(store, starter="anna")
    async with store.reading() as db:
        before = await facts.chain(db, DESK)
    for person in ("eve", "anna"):
        assert (await approve(store, asked, person)).kind is REFUSED
    assert (await approve(store, asked, "ben", image_exists=False)).kind is REFUSED
    async with store.reading() as db:
        assert await facts.chain(db, DESK) == before
        assert await consents.get(db, asked.id) == asked


async def test_a_missing_image_cannot_be_approved_but_can_be_declined(store: Store) -> None:
    asked = await offered(store)
    assert "image" in (await approve(store, asked, image_exists=False)).sentence
    assert await states(store, asked) == (ConsentState.asked, RunState.awaiting_consent, [])
    decision = await decide(store, asked.id, "anna", False, image_exists=False)
    assert decision.kind is DECLINED


async def test_a_candidate_that_was_changed_behind_our_back_cannot_be_approved(store: Store) -> None:
    asked = await offered(store)
    async with store.changing(DESK) as change:
        await change.db.execute(tables.candidates.update().values(image="sha256:another"))
    decision = await approve(store, asked)
    assert decision.kind is REFUSED
    assert "not what this consent was asked for" in decision.sentence
    assert await states(store, asked) == (ConsentState.asked, RunState.awaiting_consent, [])


async def test_an_approval_waits_while_another_run_is_at_work(store: Store) -> None:
    asked = await offered(store)
    async with store.changing(DESK) as change:
        other = await stored.run_in(change, RunState.running)
    decision = await approve(store, asked)
    assert decision.kind is REFUSED
    assert other.id in decision.sentence
    async with store.changing(DESK) as change:
        await runs.move(change, other.id, RunState.failed, "moss")
    assert (await approve(store, asked)).kind is GRANTED


async def test_a_stopped_run_cannot_be_approved_even_if_its_consent_still_stands(store: Store) -> None:
    asked = await offered(store)
    async with store.changing(DESK) as change:
        await runs.move(change, str(asked.run), RunState.stopped, "carl")
    decision = await approve(store, asked)
    assert (decision.kind, "stopped" in decision.sentence) == (REFUSED, True)
    assert await states(store, asked) == (ConsentState.asked, RunState.stopped, [])


async def test_the_end_of_a_consent_leaves_a_run_alone_that_ended_before(store: Store, clock: HeldClock) -> None:
    asked = await offered(store)
    async with store.changing(DESK) as change:
        await runs.move(change, str(asked.run), RunState.stopped, "carl")
    clock.advance(7 * 24 * 3600)
    assert await expire_due(store, store.now()) == [asked.id]
    assert await states(store, asked) == (ConsentState.expired, RunState.stopped, [])


async def test_a_voided_consent_says_so(store: Store) -> None:
    asked = await offered(store)
    async with store.changing(DESK) as change:
        await void(change, asked, "the run was stopped")
    sentence = (await approve(store, asked)).sentence
    assert sentence == "This question is out of date: the run was stopped; no run waits for approval now."


async def test_a_click_after_the_end_expires_consent_and_run_whoever_clicks(store: Store, clock: HeldClock) -> None:
    asked = await offered(store)
    clock.advance(7 * 24 * 3600)
    assert (await approve(store, asked, "eve")).kind is EXPIRED
    assert await states(store, asked) == (ConsentState.expired, RunState.expired, [])
    assert (await approve(store, asked)).kind is REFUSED


async def test_what_nobody_decided_in_time_expires_once(stores: list[Store], clock: HeldClock) -> None:
    asked = await offered(stores[0])
    assert await expire_due(stores[0], stores[0].now()) == []
    clock.advance(7 * 24 * 3600)
    ended = await asyncio.gather(*(expire_due(store, store.now()) for store in stores))
    assert sorted(map(len, ended)) == [0, 1]
    assert await states(stores[0], asked) == (ConsentState.expired, RunState.expired, [])


async def test_people_are_reminded_once_of_what_waits_for_long(stores: list[Store], clock: HeldClock) -> None:
    asked = await offered(stores[0])

    async def reminders() -> int:
        for store in stores:
            await remind_due(store, store.now())
        async with stores[0].reading() as db:
            return [fact.what for fact in await facts.about(db, Noun.consent, asked.id)].count("reminded")

    assert await reminders() == 0
    clock.advance(asked.policy.remind_after_s)
    assert [await reminders(), await reminders()] == [1, 1]


@pytest.mark.parametrize("settled", [True, False])
async def test_nobody_is_reminded_of_what_is_decided_or_over(store: Store, clock: HeldClock, settled: bool) -> None:
    asked = await offered(store)
    if settled:
        await approve(store, asked)
        clock.advance(asked.policy.remind_after_s)
    else:
        clock.advance(asked.policy.expires_after_s)
    await remind_due(store, store.now())
    async with store.reading() as db:
        assert "reminded" not in [fact.what for fact in await facts.about(db, Noun.consent, asked.id)]


async def test_a_newer_candidate_supersedes_one_that_still_waits_but_no_rollback(store: Store) -> None:
    older = await offered(store)
    past = stored.version(1).model_copy(update={"until": START})
    async with store.changing(DESK) as change:
        rollback = await ask_for_rollback(change, past, stored.POLICY, "carl")
    newer = await offered(store)
    assert await states(store, older) == (ConsentState.void, RunState.superseded, [])
    assert await states(store, newer) == (ConsentState.asked, RunState.awaiting_consent, [])
    async with store.reading() as db:
        assert (await consents.get(db, rollback.id)).state is ConsentState.asked
    sentence = (await approve(store, older)).sentence
    why = f"Run {newer.run} made a newer candidate"
    assert sentence == f"This question is out of date: {why}; run {newer.run} waits for approval now."


async def test_a_candidate_of_another_substrate_supersedes_nothing(store: Store) -> None:
    older = await offered(store)
    await with_substrate(store, "lab")
    async with store.changing("lab") as change:
        await stored.offered(change)
    assert (await states(store, older))[0] is ConsentState.asked


async def test_a_consent_keeps_the_policy_and_the_values_it_was_asked_with(store: Store) -> None:
    asked = await offered(store)
    async with store.reading() as db:
        candidate = await runs.candidate(db, str(asked.candidate))
        assert await consents.get(db, asked.id) == asked
    assert (asked.commit, asked.image, asked.diff_hash) == (candidate.commit, candidate.image, candidate.diff_hash)
    assert asked.matrix_hash == candidate.matrix.digest()
    assert (asked.policy, asked.expires_at) == (stored.POLICY, EXPIRES)


async def test_a_rollback_needs_the_same_consent_and_has_no_run(store: Store) -> None:
    past = stored.version(1).model_copy(update={"until": START})
    async with store.changing(DESK) as change:
        asked = await ask_for_rollback(change, past, stored.POLICY, "anna")
        assert await ask_for_rollback(change, past, stored.POLICY, "ben") == asked
        with pytest.raises(Refused, match="live already"):
            await ask_for_rollback(change, stored.version(2), stored.POLICY, "anna")
    assert (asked.version, asked.image, asked.commit) == (1, past.image, past.commit)
    assert (await approve(store, asked, "anna")).kind is REFUSED
    assert (await approve(store, asked, "ben")).kind is GRANTED
    async with store.reading() as db:
        assert [row.subject for row in await outbox.waiting(db)] == [asked.id]


async def test_an_unknown_card_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await decide(store, "consent-x", "anna", True, image_exists=True)
