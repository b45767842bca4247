"""Random runs: a source of chance answers every step until `next_step` says that the run is over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

from core.model.evidence import FailureKind
from core.model.keypoints import Keypoint, Level, Matrix, Row, TaskKind
from core.model.replies import Change, CodeVerdict, Depth, Diagnosis, Plan, PlanVerdict, Suspect, Verdict
from core.model.run import (
    Budget,
    Built,
    Cap,
    CodeReviewed,
    Dial,
    Done,
    Failed,
    Implemented,
    Judged,
    Located,
    Offered,
    Outcome,
    Planned,
    PlanReviewed,
    Prepared,
    Result,
    Scored,
    Spend,
    Stage,
    Step,
    Trouble,
)
from core.pipeline.depth import TIERS
from core.pipeline.history import spent
from core.pipeline.next_step import Terms, next_step

DIAGNOSIS = Diagnosis(
    summary="it keeps only the first",
    failure_class=FailureKind.incomplete,
    depth=Depth.structural,
    suspects=(Suspect(path="a.py", why="it returns early"),),
    siblings=("any question with two answers",),
)
PLAN = Plan(summary="keep all", changes=(Change(path="a.py", change="a loop"),), expect_better=("t1/k",), may_hurt=())
START = datetime(2026, 1, 1, tzinfo=UTC)

TASKS = (("t1", TaskKind.batch), ("t2", TaskKind.batch), ("g1", TaskKind.golden), ("h1", TaskKind.holdout))


def matrix(*levels: int) -> Matrix:
    """One keypoint per task, in the order of TASKS."""
    return Matrix(rows=tuple(_row(task, kind, level) for (task, kind), level in zip(TASKS, levels, strict=True)))


@cache
def _row(task: str, kind: TaskKind, level: int) -> Row:
    return Row(task=task, kind=kind, keypoint=Keypoint(id="k", text="does it"), levels=(Level(level),))


def done(n: int, step: Step, result: Result, spend: Spend | None = None) -> Done:
    at = START + timedelta(seconds=n)
    return Done(n=n, step=step, result=result, spend=spend or Spend(), started_at=at, ended_at=at)


TERMS = Terms(tier=TIERS[Dial.shallow], budget=Budget())
BASE, GOOD = matrix(1, 1, 3, 1), matrix(3, 3, 3, 3)


class Story:
    """A run told step by step: each result answers the step that `next_step` asked for."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.terms = terms
        self.history: list[Done] = []

    def next(self) -> Step | Outcome:
        return next_step(self.history, self.terms)

    def then(self, *results: Result, spend: Spend | None = None) -> "Story":
        for result in results:
            step = self.next()
            assert isinstance(step, Step), f"the run is over: {step}"
            self.history.append(done(len(self.history), step, result, spend))
        return self

    def prepared(self, siblings: tuple[str, ...] = ()) -> "Story":
        first = Prepared(base_commit="b", live_image="i", tasks="d", substrate="s", siblings=siblings)
        return self.then(first, Scored(matrix=BASE), Scored(matrix=BASE))

    def planned(self) -> "Story":
        return self.then(Located(diagnosis=DIAGNOSIS), Planned(plan=PLAN), PlanReviewed(verdict=PlanVerdict.approve))

    def built(self) -> "Story":
        change = Implemented(tree="t", diff_hash="d", files=("a",), insertions=1, deletions=0, summary="s")
        return self.then(change, CodeReviewed(verdict=CodeVerdict.approve, commit="c"), Built(image="i2"))

    def iteration(self, scored: Matrix, verdict: Verdict) -> "Story":
        return self.planned().built().then(Scored(matrix=scored), Judged(verdict=verdict, reason="because"))


def random_terms(chance: Random) -> Terms:
    budget = Budget(
        money_usd=chance.choice([None, 0.0, 3.0]),
        tokens=chance.choice([None, 5_000]),
        seconds=chance.choice([None, 200.0]),
    )
    month = Cap(money_usd=chance.choice([None, None, 0.0, 3.0]), tokens=chance.choice([None, None, 5_000]))
    elsewhere = Spend(money_usd=chance.random() * 3, tokens=chance.randrange(5_000))
    return Terms(tier=TIERS[chance.choice(list(Dial))], budget=budget, month=month, this_month=elsewhere)


def terms_after(terms: Terms, history: list[Done]) -> Terms:
    """As they are for the step that follows: what this run has spent is spent in this month as well."""
    return replace(terms, this_month=terms.this_month + spent(history))


def _random_matrix(chance: Random, mood: float) -> Matrix:
    return matrix(*(chance.choice((1, 2, 3)) if chance.random() < mood else chance.choice((0, 1, 2)) for _ in TASKS))


def random_result(chance: Random, step: Step, smooth: float) -> Result:
    if step.stage is not Stage.offer and chance.random() > smooth:
        return Failed(trouble=chance.choice(list(Trouble)), sentence="chance said no")
    match step.stage:
        case Stage.prepare:
            siblings = chance.choice([(), ("h1",)])
            return Prepared(base_commit="b", live_image="i", tasks="d", substrate="s", siblings=siblings)
        case Stage.baseline | Stage.control:
            return Scored(matrix=_random_matrix(chance, 0.2))
        case Stage.locate:
            return Located(diagnosis=DIAGNOSIS)
        case Stage.plan:
            return Planned(plan=PLAN)
        case Stage.plan_review:
            return PlanReviewed(verdict=_mostly(chance, PlanVerdict.approve, list(PlanVerdict)))
        case Stage.implement:
            return Implemented(tree="t", diff_hash="d", files=("a",), insertions=1, deletions=0, summary="did")
        case Stage.code_review:
            verdict = _mostly(chance, CodeVerdict.approve, list(CodeVerdict))
            return CodeReviewed(verdict=verdict, commit="c" if verdict is CodeVerdict.approve else None)
        case Stage.build:
            return Built(image="sha256:1")
        case Stage.evaluate:
            return Scored(matrix=_random_matrix(chance, 0.9))
        case Stage.verdict:
            return Judged(verdict=_mostly(chance, Verdict.need_more_work, list(Verdict)))
        case Stage.offer:
            return Offered(candidate="x", consent="y")


def _mostly(chance: Random, usual, every):  # type: ignore[no-untyped-def]
    return usual if chance.random() < 0.6 else chance.choice(every)


def random_run(seed: int, limit: int = 500) -> tuple[Terms, list[Done], Outcome]:
    chance = Random(seed)
    terms, smooth = random_terms(chance), chance.choice([0.6, 0.9, 0.98, 1.0])
    history: list[Done] = []
    while len(history) < limit:
        decision = next_step(history, terms_after(terms, history))
        if isinstance(decision, Outcome):
            return terms, history, decision
        spend = Spend(money_usd=chance.random() / 10, tokens=chance.randrange(300), seconds=chance.random() * 10)
        history.append(done(len(history), decision, random_result(chance, decision, smooth), spend))
    raise AssertionError(f"seed {seed}: the run did not end within {limit} steps")
