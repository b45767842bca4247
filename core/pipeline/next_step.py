"""Every decision of the pipeline: what a run with this history does next, or how it ends. Pure.

    prepare -> baseline -> control -> iteration 1, 2, ...
    iteration: locate -> (plan -> plan review)* -> (implement -> code review)* -> build -> evaluate -> verdict

The history is the only input that grows, so the same history gives the same step, on any machine, after any crash.
"""

from dataclasses import dataclass, field

from core.model.keypoints import TaskKind
from core.model.replies import CodeVerdict, PlanVerdict, Verdict
from core.model.run import (
    Budget,
    Built,
    Cap,
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
    month: Cap = field(default_factory=Cap)
    """Of the substrate, for all its runs together."""
    this_month: Spend = field(default_factory=Spend)
    """What all its runs have spent of that so far."""
    begun: Spend = field(default_factory=Spend)
    """What the next step has cost already, when it was begun before and cut short."""


def next_step(history: History, terms: Terms) -> Step | Outcome:
    decision = _decide(history, terms)
    if isinstance(decision, Step) and decision.stage is not Stage.offer and (limit := _over(history, terms)):
        return _offer(history) or Outcome(state=RunState.over_budget, sentence=f"The run was stopped: {limit}.")
    return decision


def _over(history: History, terms: Terms) -> str | None:
    """Which limit is reached, as the rest of a sentence."""
    run = spent(history) + terms.begun
    if limit := _exceeded(run, terms.budget, "it"):
        return limit
    if terms.budget.seconds is not None and run.seconds >= terms.budget.seconds:
        return f"it has run for {run.seconds:.0f} of {terms.budget.seconds:.0f} seconds"
    return month_is_spent(terms.month, terms.this_month)


def what_is_left(history: History, terms: Terms) -> Cap:
    """What the next step may spend before one of the limits is reached."""
    run = terms.budget.without(spent(history) + terms.begun)
    return run.within(terms.month.without(terms.this_month))


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
    if failed.trouble is Trouble.spent:
        return _offer(history) or Outcome(state=RunState.over_budget, sentence=_for_people(failed.sentence))
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


def _exceeded(spend: Spend, cap: Cap, who: str, when: str = "") -> str | None:
    has = "has" if who == "it" else "have"
    if cap.money_usd is not None and spend.money_usd >= cap.money_usd:
        return f"{who} {has} spent {spend.money_usd:.2f} of {cap.money_usd:.2f} USD{when}"
    if cap.tokens is not None and spend.tokens >= cap.tokens:
        return f"{who} {has} used {spend.tokens} of {cap.tokens} tokens{when}"
    return None


def month_is_spent(cap: Cap, this_month: Spend) -> str | None:
    """Why nothing may be begun in this month any more, as the rest of a sentence."""
    return _exceeded(this_month, cap, "this agent's repairs together", " this month")
