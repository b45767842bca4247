"""How far a run has come: one line per stage, told to people."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from bot.report import Report
from bot.words import count, duration, line
from core.model.replies import CodeVerdict, PlanVerdict
from core.model.run import (
    Built,
    CodeReviewed,
    Done,
    Failed,
    Implemented,
    Judged,
    Located,
    Offered,
    Planned,
    PlanReviewed,
    Prepared,
    Scored,
    Stage,
)

FULL_ITERATIONS = 2
"""Of these, the latest, every stage is told; of earlier ones how they ended."""
TROUBLE_CHARS = 140

DOING = {
    Stage.prepare: "preparing",
    Stage.baseline: "scoring the recorded conversations",
    Stage.control: "replaying the live agent",
    Stage.locate: "looking for the cause",
    Stage.plan: "planning a change",
    Stage.plan_review: "reviewing the plan",
    Stage.implement: "changing the code",
    Stage.code_review: "reviewing the change",
    Stage.build: "building and testing the candidate",
    Stage.evaluate: "replaying the candidate",
    Stage.verdict: "judging the result",
    Stage.offer: "writing the offer",
}


def progress(report: Report) -> list[str]:
    """Plain lines; those of an iteration are indented."""
    iterations = sorted({done.step.iteration for done in report.steps if done.step.stage is not Stage.offer} - {0})
    told: list[str] = []
    for iteration, steps in groupby(report.steps, key=lambda done: done.step.iteration):
        done = [each for each in steps if each.step.stage is not Stage.offer]
        if not iteration or not done:
            told += _stages(done, report)
        elif iteration in iterations[:-FULL_ITERATIONS]:
            told.append(f"iteration {iteration}: {_in_short(done)}")
        else:
            told += [f"iteration {iteration}", *(f"  {each}" for each in _stages(done, report))]
    if step := report.under_way:
        if step.iteration and step.iteration not in iterations:
            told.append(f"iteration {step.iteration}")
        told.append(f"{'  ' if step.iteration else ''}now: {DOING[step.stage]}{_again(step.round, step.attempt)}")
    return told


def _again(round_: int, attempt: int) -> str:
    which = [f"round {round_}"] if round_ > 1 else []
    which += [f"try {attempt}"] if attempt > 1 else []
    return f" ({', '.join(which)})" if which else ""


def _stages(steps: Sequence[Done], report: Report) -> Iterator[str]:
    for done in steps:
        took = (done.ended_at - done.started_at).total_seconds()
        yield f"{came(done, report)}{_again(done.step.round, done.step.attempt)}, {duration(took)}"


def _in_short(steps: Sequence[Done]) -> str:
    scored = next((done.result.matrix for done in steps if isinstance(done.result, Scored)), None)
    last = steps[-1].result
    if scored:
        judged = f", {last.verdict}" if isinstance(last, Judged) else ""
        return f"scored {scored.total} of {len(scored.rows) * 3}{judged}"
    match last:
        case Failed(sentence=sentence):
            return f"ended at {DOING[steps[-1].step.stage]}: {line(sentence, TROUBLE_CHARS)}"
        case PlanReviewed():
            return "no plan was accepted"
        case _:
            return "no change was accepted"


def came(done: Done, report: Report) -> str:
    """What came of a step, without the words of any model."""
    match done.result:
        case Failed(trouble=trouble, sentence=sentence):
            return f"{DOING[done.step.stage]} failed ({trouble}): {line(sentence, TROUBLE_CHARS)}"
        case Prepared(base_commit=commit):
            return f"starts from {commit[:12]}, with {count(len(report.chunks), 'flagged reply', 'flagged replies')}"
        case Scored(matrix=matrix):
            whose = {Stage.baseline: "recorded", Stage.control: "live agent"}.get(done.step.stage, "candidate")
            return f"{whose}: {matrix.total} of {len(matrix.rows) * 3}"
        case Located(diagnosis=found):
            return f"cause found: {found.failure_class}, {found.depth}"
        case Planned(plan=plan):
            return f"plan: {count(len(plan.changes), 'file')}"
        case PlanReviewed(verdict=verdict):
            return "plan accepted" if verdict is PlanVerdict.approve else f"plan sent back: {verdict}"
        case Implemented(files=files, insertions=more, deletions=less):
            return f"changed {count(len(files), 'file')}, +{more} −{less}"
        case CodeReviewed(verdict=verdict):
            return "change accepted" if verdict is CodeVerdict.approve else "change sent back"
        case Built():
            return "built and tested"
        case Judged(verdict=verdict):
            return f"judged {verdict}"
        case Offered():
            return "offered"
