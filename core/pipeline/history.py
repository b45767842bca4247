"""What a run's history says: the questions that `next_step` and the stages ask of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from core.model.keypoints import Matrix, Prediction, TaskKind
from core.model.replies import CodeVerdict, PlanVerdict, Verdict
from core.model.run import (
    Built,
    CodeReviewed,
    Done,
    Failed,
    Implemented,
    Judged,
    Located,
    Planned,
    PlanReviewed,
    Prepared,
    Scored,
    Spend,
    Stage,
)
from core.pipeline.offered import NAMES, why_not

R = TypeVar("R")

History = Sequence[Done]


def last(history: History, kind: type[R], stage: Stage | None = None, iteration: int | None = None) -> R | None:
    """The latest result of that kind."""
    for done in reversed(history):
        if (
            isinstance(done.result, kind)
            and (stage is None or done.step.stage is stage)
            and (iteration is None or done.step.iteration == iteration)
        ):
            return done.result
    return None


def spent(history: History) -> Spend:
    costs = [done.spend for done in history]
    return Spend(
        money_usd=sum(cost.money_usd for cost in costs),
        tokens=sum(cost.tokens for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        unpriced_tokens=sum(cost.unpriced_tokens for cost in costs),
    )


def prepared(history: History) -> Prepared:
    found = last(history, Prepared)
    assert found is not None, "asked before the run was prepared"
    return found


def baseline(history: History) -> Matrix:
    return _matrix(history, Stage.baseline)


def control(history: History) -> Matrix:
    return _matrix(history, Stage.control)


def _matrix(history: History, stage: Stage) -> Matrix:
    found = last(history, Scored, stage)
    assert found is not None, f"asked before the {stage} was scored"
    return found.matrix


@dataclass(frozen=True, slots=True)
class Try:
    """One iteration that came as far as a scored candidate."""

    iteration: int
    matrix: Matrix
    against: tuple[str, ...]
    """Why it may not be offered."""
    claimed: Verdict | None

    @property
    def converged(self) -> bool:
        return self.claimed is Verdict.converged and not self.against


def tries(history: History) -> list[Try]:
    found = []
    for iteration, matrix in scored(history):
        judged = last(history, Judged, iteration=iteration)
        against = why_not(matrix, baseline(history), control(history), prepared(history).siblings)
        found.append(Try(iteration, matrix, against, judged.verdict if judged else None))
    return found


def scored(history: History) -> list[tuple[int, Matrix]]:
    """Each iteration that came so far, with its candidate's levels."""
    return [
        (done.step.iteration, done.result.matrix)
        for done in history
        if done.step.stage is Stage.evaluate and isinstance(done.result, Scored)
    ]


def predictions(history: History) -> list[Prediction]:
    """What came of each plan's prediction, oldest first."""
    return [done.result.prediction for done in history if isinstance(done.result, Scored) and done.result.prediction]


def best(history: History) -> Try | None:
    """The candidate to offer: the highest total of those that may be offered, the earliest among equals. One that was
    never judged is none of them: it may be the judge that broke."""
    allowed = [found for found in tries(history) if not found.against and found.claimed]
    return max(allowed, key=lambda found: (found.matrix.total, -found.iteration), default=None)


def on_plateau(history: History, window: int) -> bool:
    """The last `window` scored candidates did not beat the best one before them."""
    totals = [matrix.total for _, matrix in scored(history)]
    return len(totals) > window and max(totals[-window:]) <= max(totals[:-window])


@dataclass(frozen=True, slots=True)
class Work:
    """What an iteration has accepted so far."""

    diagnosis: Located | None
    plan: Planned | None
    change: Implemented | None
    commit: str | None
    image: str | None


def work(history: History, iteration: int) -> Work:
    reviewed = last(history, CodeReviewed, iteration=iteration)
    built = last(history, Built, iteration=iteration)
    return Work(
        diagnosis=last(history, Located, iteration=iteration),
        plan=last(history, Planned, iteration=iteration),
        change=last(history, Implemented, iteration=iteration),
        commit=reviewed.commit if reviewed else None,
        image=built.image if built else None,
    )


def setbacks(history: History) -> list[tuple[str, str]]:
    """Why rounds and iterations so far, and earlier runs on the same evidence, were not good enough: (where, why),
    oldest first. Told to every later coder."""
    against = {found.iteration: found.against for found in tries(history)}
    begun = last(history, Prepared)
    found = [(one.run, f"declined by a person: {one.reason}") for one in (begun.declined if begun else ())]
    for done in history:
        reason = _setback(done, against.get(done.step.iteration, ()))
        if reason:
            found.append((done.step.name, reason))
    return found


def _setback(done: Done, against: tuple[str, ...]) -> str | None:
    match done.result:
        case Failed() if done.step.stage in (Stage.baseline, Stage.control, Stage.evaluate):
            return None  # about the tools that measure; it may name a held-back task
        case Failed(sentence=sentence):
            return sentence
        case PlanReviewed(verdict=verdict, remarks=remarks) if verdict is not PlanVerdict.approve:
            return f"{verdict}: {remarks}"
        case CodeReviewed(verdict=CodeVerdict.reject, remarks=remarks):
            return f"{CodeVerdict.reject}: {remarks}"
        case Judged(verdict=verdict, reason=reason):
            if against:
                claim = (
                    f"{verdict} was claimed, but this candidate cannot be offered"
                    if (verdict is Verdict.converged)
                    else "this candidate cannot be offered"
                )
                return f"{claim}: {'; '.join(dict.fromkeys(map(_without_name, against)))}"
            return None if verdict is Verdict.converged else f"{verdict}: {reason}"
    return None


def _without_name(reason: str) -> str:
    """A coder must not learn what a held-back task is about."""
    return "a keypoint of a held-back task fell" if NAMES[TaskKind.holdout] in reason else reason
