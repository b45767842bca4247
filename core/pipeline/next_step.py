"""Every decision of the pipeline: what a run with this history does next, or how it ends. Pure.

    prepare -> baseline -> control -> iteration 1, 2, ...
    iteration: locate -> (plan -> plan review)* -> (implement -> code review)* -> build -> evaluate -> verdict

The history is the only input that grows, so the same history gives the same step, on any machine, after any crash.
"""

from dataclasses import dataclass

from core.model.keypoints import TaskKind
from core.model.replies import CodeVerdict, PlanVerdict, Verdict
from core.model.run import (
    Budget,
    Built,
    CodeReviewed,
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
    RunState,
    Scored,
    Spend,
    Stage,
    Step,
    Trouble,
)
from core.pipeline.depth import Tier
from core.pipeline.history import History, best, on_plateau, setbacks, spent, tries

ATTEMPTS = 2
"""How often a step is tried whose tool broke."""

_SHOWN_CHARS = 600


@dataclass(frozen=True, slots=True)
class Terms:
    tier: Tier
    budget: Budget


def next_step(history: History, terms: Terms) -> Step | Outcome:
    decision = _decide(history, terms)
    if isinstance(decision, Step) and decision.stage is not Stage.offer:
        limit = _exceeded(spent(history), terms.budget)
        if limit:
            return _offer(history) or Outcome(state=RunState.over_budget, sentence=f"The run was stopped: {limit}.")
    return decision


def _decide(history: History, terms: Terms) -> Step | Outcome:
    if not history:
        return Step(stage=Stage.prepare)
    done = history[-1]
    here = done.step
    match done.result:
        case Failed():
            return _after_failure(history, done, done.result, terms)
        case Prepared():
            return Step(stage=Stage.baseline)
        case Scored() if here.stage is Stage.baseline:
            return Step(stage=Stage.control)
        case Scored(matrix=live) if here.stage is Stage.control and live.only(TaskKind.batch).score == 1:
            sentence = "The live agent answers all flagged conversations well by now, so there is nothing to gain."
            return Outcome(state=RunState.exhausted, sentence=sentence)
        case Scored() if here.stage is Stage.control:
            return Step(stage=Stage.locate, iteration=1)
        case Scored():
            return Step(stage=Stage.verdict, iteration=here.iteration)
        case Located():
            return Step(stage=Stage.plan, iteration=here.iteration, round=1)
        case Planned():
            return Step(stage=Stage.plan_review, iteration=here.iteration, round=here.round)
        case PlanReviewed(verdict=PlanVerdict.approve):
            return Step(stage=Stage.implement, iteration=here.iteration, round=1)
        case PlanReviewed():
            return _next_round(history, Stage.plan, here, terms)
        case Implemented():
            return Step(stage=Stage.code_review, iteration=here.iteration, round=here.round)
        case CodeReviewed(verdict=CodeVerdict.approve):
            return Step(stage=Stage.build, iteration=here.iteration)
        case CodeReviewed():
            return _next_round(history, Stage.implement, here, terms)
        case Built():
            return Step(stage=Stage.evaluate, iteration=here.iteration)
        case Judged():
            return _after_verdict(history, done.result, here, terms)
        case Offered():
            return Outcome(state=RunState.awaiting_consent, sentence="A candidate waits for consent.")


def _after_failure(history: History, done: Done, failed: Failed, terms: Terms) -> Step | Outcome:
    here = done.step
    if failed.trouble is Trouble.broken and here.attempt < ATTEMPTS:
        return here.model_copy(update={"attempt": here.attempt + 1})
    if failed.trouble is Trouble.rejected and here.stage is Stage.implement:
        return _next_round(history, Stage.implement, here, terms)
    if failed.trouble is Trouble.rejected and here.stage is Stage.build:
        return _next_iteration(history, here.iteration, terms)
    ended = Outcome(state=RunState.failed, sentence=_for_people(f"{here.name}: {failed.sentence}"))
    return (_offer(history) or ended) if failed.trouble is Trouble.broken else ended


def _next_round(history: History, stage: Stage, here: Step, terms: Terms) -> Step | Outcome:
    """A rejected plan is planned again and a rejected change implemented again; neither reopens the other."""
    rounds = terms.tier.plan_rounds if stage is Stage.plan else terms.tier.code_rounds
    if here.round < rounds:
        return Step(stage=stage, iteration=here.iteration, round=here.round + 1)
    return _next_iteration(history, here.iteration, terms)


def _next_iteration(history: History, iteration: int, terms: Terms) -> Step | Outcome:
    if iteration >= terms.tier.iterations:
        return _finish(history, f"all {iteration} iterations were used")
    if on_plateau(history, terms.tier.plateau_window):
        return _finish(history, "the score no longer rises")
    return Step(stage=Stage.locate, iteration=iteration + 1)


def _after_verdict(history: History, judged: Judged, here: Step, terms: Terms) -> Step | Outcome:
    this = tries(history)[-1]
    match judged.verdict:
        case Verdict.converged if this.converged:
            return _finish(history, "it converged")
        case Verdict.converged | Verdict.need_more_work:
            return _next_iteration(history, here.iteration, terms)
        case Verdict.limit_model | Verdict.limit_architecture:
            return _finish(history, f"{judged.verdict}: {judged.reason}")


def _finish(history: History, why: str) -> Step | Outcome:
    """Offer the best iteration, which need not be the last one; with nothing to offer the run is exhausted."""
    if offer := _offer(history):
        return offer
    told = setbacks(history)
    latest = f" The last setback, at {told[-1][0]}: {told[-1][1]}" if told else ""
    return Outcome(state=RunState.exhausted, sentence=_for_people(f"Nothing can be offered; {why}.{latest}"))


def _offer(history: History) -> Step | None:
    """Costs nothing, so that what an earlier iteration achieved is not lost to a spent budget or a broken tool."""
    found = best(history)
    return Step(stage=Stage.offer, iteration=found.iteration) if found else None


def _for_people(text: str) -> str:
    """One line that fits on a card; a setback may hold a log, which coders get as it is."""
    words = " ".join(text.split())
    if len(words) > _SHOWN_CHARS:
        words = f"{words[: _SHOWN_CHARS // 2]} ... {words[-_SHOWN_CHARS // 2 :]}"
    return words if words.endswith(".") else f"{words}."


def _exceeded(spend: Spend, budget: Budget) -> str | None:
    if budget.money_usd is not None and spend.money_usd >= budget.money_usd:
        return f"it has spent {spend.money_usd:.2f} of {budget.money_usd:.2f} USD"
    if budget.tokens is not None and spend.tokens >= budget.tokens:
        return f"it has used {spend.tokens} of {budget.tokens} tokens"
    if budget.seconds is not None and spend.seconds >= budget.seconds:
        return f"it has run for {spend.seconds:.0f} of {budget.seconds:.0f} seconds"
    return None
