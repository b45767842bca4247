"""The decisions of the pipeline, by example and over many random runs."""

from dataclasses import replace

import pytest

from core.model.keypoints import Matrix, TaskKind
from core.model.replies import CodeVerdict, PlanVerdict, Verdict
from core.model.run import (
    Budget,
    Cap,
    CodeReviewed,
    Dial,
    Done,
    Failed,
    Implemented,
    Located,
    Outcome,
    Planned,
    PlanReviewed,
    Prepared,
    RunState,
    Scored,
    Spend,
    Stage,
    Step,
    Trouble,
)
from core.pipeline.depth import TIERS
from core.pipeline.history import best, setbacks
from core.pipeline.next_step import Terms, next_step, what_is_left
from core.pipeline.offered import why_not
from tests.support.histories import BASE, DIAGNOSIS, GOOD, PLAN, Story, matrix, random_run, terms_after


def test_the_stages_follow_each_other_in_the_fixed_order() -> None:
    story = Story().prepared().iteration(GOOD, Verdict.converged)
    assert [d.step.stage for d in story.history] == list(Stage)[:-1]
    assert story.next() == Step(stage=Stage.offer, iteration=1)


def test_a_convergence_that_lowers_a_keypoint_is_refused_and_the_next_iteration_is_told() -> None:
    story = Story().prepared().iteration(matrix(3, 3, 2, 3), Verdict.converged)
    assert story.next() == Step(stage=Stage.locate, iteration=2)
    where, why = setbacks(story.history)[-1]
    assert where == "iter-1/verdict"
    assert "CONVERGED was claimed" in why
    assert "g1/k of a golden task fell from strong (the live agent) to adequate" in why


def test_when_every_keypoint_fell_the_plateau_offers_nothing() -> None:
    fallen = matrix(0, 0, 0, 0)
    story = Story().prepared().iteration(fallen, Verdict.converged).iteration(fallen, Verdict.converged)
    outcome = story.next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.exhausted
    assert "the score no longer rises" in outcome.sentence
    assert "t1/k fell from weak" in outcome.sentence


def test_the_best_iteration_is_offered_and_not_the_last() -> None:
    story = Story(Terms(tier=TIERS[Dial.deep], budget=Budget())).prepared()
    story.iteration(matrix(2, 2, 3, 1), Verdict.need_more_work)
    story.iteration(GOOD, Verdict.need_more_work)
    for _ in range(3):
        story.iteration(matrix(2, 2, 3, 2), Verdict.need_more_work)
    assert story.next() == Step(stage=Stage.offer, iteration=2)
    found = best(story.history)
    assert found is not None
    assert not found.converged  # offered as partial


def test_a_candidate_that_lifts_the_batch_but_no_held_back_sibling_is_not_offered() -> None:
    learnt_by_heart = matrix(3, 3, 3, 1)
    assert any("fits the examples" in reason for reason in why_not(learnt_by_heart, BASE, BASE, ("h1",)))
    assert not why_not(learnt_by_heart, BASE, BASE, ())
    assert not why_not(matrix(3, 3, 3, 2), BASE, BASE, ("h1",))


def test_a_keypoint_that_was_not_scored_counts_as_fallen() -> None:
    without = Matrix(rows=GOOD.rows[:2])
    assert any("g1/k of a golden task fell" in reason for reason in why_not(without, BASE, BASE, ()))


def test_a_run_ends_at_once_when_the_live_agent_answers_everything_by_now() -> None:
    first = Prepared(base_commit="b", live_image="i", tasks="d", substrate="s")
    outcome = Story().then(first, Scored(matrix=BASE), Scored(matrix=matrix(3, 3, 3, 1))).next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.exhausted
    assert "nothing to gain" in outcome.sentence


def test_a_gain_must_beat_the_control_and_not_only_the_recording() -> None:
    lucky_control = matrix(3, 3, 3, 1)
    assert any("does not beat the live agent's" in reason for reason in why_not(GOOD, BASE, lucky_control, ()))


def test_a_rejected_plan_is_planned_again_and_then_the_iteration_ends() -> None:
    rejected = PlanReviewed(verdict=PlanVerdict.reject_architectural, remarks="no")
    story = Story().prepared().then(Located(diagnosis=DIAGNOSIS))
    story.then(Planned(plan=PLAN), rejected)
    assert story.next() == Step(stage=Stage.plan, iteration=1, round=2)
    story.then(Planned(plan=PLAN), rejected)
    assert story.next() == Step(stage=Stage.locate, iteration=2)


def test_a_rejected_implementation_never_reopens_the_plan_in_its_iteration() -> None:
    story = Story(Terms(tier=TIERS[Dial.standard], budget=Budget())).prepared().planned()
    change = Implemented(tree="t", diff_hash="d", files=("a",), insertions=1, deletions=0, summary="s")
    story.then(change, CodeReviewed(verdict=CodeVerdict.reject, remarks="no"))
    assert story.next() == Step(stage=Stage.implement, iteration=1, round=2)
    story.then(Failed(trouble=Trouble.rejected, sentence="it touches tests/"))
    assert story.next() == Step(stage=Stage.locate, iteration=2)


def test_a_broken_tool_gets_one_more_attempt_and_misconduct_none() -> None:
    broken = Failed(trouble=Trouble.broken, sentence="exit code 1")
    story = Story().prepared().then(broken)
    assert story.next() == Step(stage=Stage.locate, iteration=1, attempt=2)
    outcome = story.then(broken).next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.failed
    assert "exit code 1" in outcome.sentence

    outcome = Story().prepared().then(Failed(trouble=Trouble.misconduct, sentence="it committed")).next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.failed


def test_what_was_achieved_is_offered_when_the_budget_is_spent_or_a_tool_breaks() -> None:
    story = Story(Terms(tier=TIERS[Dial.standard], budget=Budget(tokens=100))).prepared()
    story.iteration(matrix(2, 2, 3, 1), Verdict.need_more_work)
    broken = Failed(trouble=Trouble.broken, sentence="exit code 1")
    assert story.then(broken, broken).next() == Step(stage=Stage.offer, iteration=1)
    story.history[-2:] = []
    story.then(Located(diagnosis=DIAGNOSIS), spend=Spend(tokens=100))
    assert story.next() == Step(stage=Stage.offer, iteration=1)


def test_a_coder_is_not_told_which_held_back_task_fell() -> None:
    story = Story().prepared(siblings=("h1",)).iteration(matrix(3, 3, 3, 0), Verdict.converged)
    where, why = setbacks(story.history)[-1]
    assert where == "iter-1/verdict"
    assert "a keypoint of a held-back task fell" in why
    assert "h1" not in why


def test_a_candidate_that_does_not_build_ends_its_iteration_only() -> None:
    story = Story().prepared().planned()
    change = Implemented(tree="t", diff_hash="d", files=("a",), insertions=1, deletions=0, summary="s")
    story.then(change, CodeReviewed(verdict=CodeVerdict.approve, commit="c"))
    story.then(Failed(trouble=Trouble.rejected, sentence="the tests failed"))
    assert story.next() == Step(stage=Stage.locate, iteration=2)


@pytest.mark.parametrize("verdict", [Verdict.limit_model, Verdict.limit_architecture])
def test_a_fundamental_limit_ends_the_run_with_its_reason(verdict: Verdict) -> None:
    outcome = Story().prepared().iteration(BASE, verdict).next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.exhausted
    assert verdict in outcome.sentence


@pytest.mark.parametrize(
    "budget",
    [Budget(money_usd=1), Budget(tokens=100), Budget(seconds=10)],
    ids=["money", "tokens", "seconds"],
)
def test_a_spent_budget_stops_the_run_before_the_next_stage(budget: Budget) -> None:
    story = Story(Terms(tier=TIERS[Dial.shallow], budget=budget))
    first = Prepared(base_commit="b", live_image="i", tasks="d", substrate="s")
    story.then(first, spend=Spend(money_usd=1, tokens=100, seconds=10))
    outcome = story.next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.over_budget


def test_a_month_that_is_spent_ends_a_run_and_offers_what_there_is() -> None:
    terms = Terms(TIERS[Dial.standard], Budget(), Cap(money_usd=5), Spend(money_usd=4.5))
    story = Story(terms).prepared().iteration(matrix(2, 2, 3, 1), Verdict.need_more_work)
    assert story.next() == Step(stage=Stage.locate, iteration=2)
    story.terms = replace(terms, this_month=Spend(money_usd=5))
    assert story.next() == Step(stage=Stage.offer, iteration=1)
    outcome = Story(story.terms).next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.over_budget
    assert "this agent's repairs together have spent 5.00 of 5.00 USD this month" in outcome.sentence


def test_what_a_step_cost_that_was_cut_short_counts_before_it_is_taken_again() -> None:
    terms = Terms(TIERS[Dial.shallow], Budget(tokens=100), begun=Spend(tokens=60))
    story = Story(terms)
    assert isinstance(story.next(), Step)
    assert what_is_left(story.history, terms).tokens == 40
    story.terms = replace(terms, begun=Spend(tokens=100))
    outcome = story.next()
    assert isinstance(outcome, Outcome)
    assert outcome.state is RunState.over_budget


def test_the_narrower_of_run_and_month_is_what_is_left() -> None:
    terms = Terms(TIERS[Dial.shallow], Budget(money_usd=3), Cap(money_usd=10, tokens=500), Spend(money_usd=8, tokens=1))
    assert what_is_left([], terms) == Cap(money_usd=2, tokens=499)
    assert what_is_left([], replace(terms, this_month=Spend(money_usd=1, tokens=900))) == Cap(money_usd=3, tokens=0)


def test_a_question_that_would_go_over_the_budget_ends_the_run_and_is_not_asked_again() -> None:
    spent = Failed(trouble=Trouble.spent, sentence="its next call would have gone over the 9 tokens that were left")
    outcome = Story().prepared().then(spent).next()
    assert isinstance(outcome, Outcome)
    assert (outcome.state, "9 tokens" in outcome.sentence) == (RunState.over_budget, True)
    story = Story(Terms(TIERS[Dial.standard], Budget())).prepared()
    story.iteration(matrix(2, 2, 3, 1), Verdict.need_more_work)
    assert story.then(spent).next() == Step(stage=Stage.offer, iteration=1)


ITERATION = [Stage.locate, Stage.plan, Stage.plan_review, Stage.implement, Stage.code_review, Stage.build]


def _check_offer(history: list[Done]) -> None:
    """Said again in other words than the code's: an offered iteration passed every gate."""
    offer = history[-1]
    of_it = [d for d in history if d.step.iteration == offer.step.iteration and d.step.stage is not Stage.offer]
    passed = [d.step.stage for d in of_it if not isinstance(d.result, Failed)]
    assert list(dict.fromkeys(passed)) == [*ITERATION, Stage.evaluate, Stage.verdict]
    assert any(isinstance(d.result, PlanReviewed) and d.result.verdict == "APPROVE" for d in of_it)
    assert any(isinstance(d.result, CodeReviewed) and d.result.verdict == "APPROVE" for d in of_it)
    scored = {d.step.stage: d.result.matrix for d in history if isinstance(d.result, Scored) and d not in of_it}
    mine = next(d.result.matrix for d in of_it if isinstance(d.result, Scored))
    for reference, kinds in ((scored[Stage.baseline], {TaskKind.batch}), (scored[Stage.control], set(TaskKind))):
        before = {row.key: row.level for row in reference.rows if row.kind in kinds}
        assert all(row.level >= before[row.key] for row in mine.rows if row.key in before)
        batch = [row.level for row in mine.rows if row.kind is TaskKind.batch]
        assert sum(batch) > sum(row.level for row in reference.rows if row.kind is TaskKind.batch)


@pytest.mark.parametrize("first", range(0, 20_000, 5_000))
def test_over_twenty_thousand_random_runs_end_skip_no_gate_and_pass_no_budget(first: int) -> None:
    ended: dict[RunState, int] = {}
    for seed in range(first, first + 5_000):
        terms, history, outcome = random_run(seed)
        ended[outcome.state] = ended.get(outcome.state, 0) + 1
        tier = terms.tier
        assert max((d.step.iteration for d in history), default=0) <= tier.iterations
        assert max((d.step.round for d in history), default=0) <= max(tier.plan_rounds, tier.code_rounds)
        money_usd, tokens, seconds = 0.0, 0, 0.0
        for d in history:
            if d.step.stage is not Stage.offer:
                assert terms.budget.money_usd is None or money_usd < terms.budget.money_usd
                assert terms.budget.tokens is None or tokens < terms.budget.tokens
                assert terms.budget.seconds is None or seconds < terms.budget.seconds
                month, before = terms.month, terms.this_month
                assert month.money_usd is None or before.money_usd + money_usd < month.money_usd
                assert month.tokens is None or before.tokens + tokens < month.tokens
            money_usd += d.spend.money_usd
            tokens += d.spend.tokens
            seconds += d.spend.seconds
        if outcome.state is RunState.awaiting_consent:
            _check_offer(history)
        else:
            assert all(d.step.stage is not Stage.offer for d in history)
    assert set(ended) == {RunState.awaiting_consent, RunState.exhausted, RunState.failed, RunState.over_budget}
    assert min(ended.values()) > 25, f"too few of one kind to mean anything: {ended}"


def test_the_same_history_gives_the_same_step() -> None:
    for seed in range(500):
        terms, history, outcome = random_run(seed)
        copies = [Done.model_validate_json(d.to_json()) for d in history]
        for n, d in enumerate(copies):
            assert next_step(copies[:n], terms_after(terms, copies[:n])) == d.step
        assert next_step(copies, terms_after(terms, copies)) == outcome
