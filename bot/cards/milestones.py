"""What is said in the thread of a card when a run takes a step that people care about. Pure; most facts say nothing."""

from bot.cards.parts import names
from bot.report import Report
from bot.words import count, duration, line, moment, quoted
from core.consent import may_approve
from core.model.batch import Batch
from core.model.consent import Consent, ConsentState
from core.model.events import Fact, Noun
from core.model.keypoints import TaskKind
from core.model.replies import PlanVerdict
from core.model.run import Built, Done, Failed, Located, PlanReviewed, RunState, Scored, Stage, Trouble
from core.model.swap import Swap
from core.store.consents import REMINDED

QUOTE_CHARS = 300


def of_run(fact: Fact, report: Report) -> str | None:
    if fact.noun is Noun.run and fact.what == "stepped":
        n = fact.detail["n"]
        return _stepped(report.steps[n], report) if n < len(report.steps) else None
    if fact.noun is Noun.run and fact.after:
        return _moved(fact, report)
    return _asked(fact, report.consent) if fact.noun is Noun.consent and report.consent else None


def _stepped(done: Done, report: Report) -> str | None:
    match done.result:
        case Located(diagnosis=found):
            return f"The cause was found, in the coder's words: {quoted(found.summary, QUOTE_CHARS)}"
        case PlanReviewed(verdict=PlanVerdict.approve):
            planned = [step.result for step in report.steps[: done.n] if step.step.stage is Stage.plan]
            plan = getattr(planned[-1], "plan", None) if planned else None
            return f"A plan was accepted: {quoted(plan.summary, QUOTE_CHARS)}" if plan else "A plan was accepted."
        case Built():
            return f"Iteration {done.step.iteration}: the candidate is built, and its tests pass."
        case Scored(matrix=matrix) if done.step.stage is Stage.evaluate:
            flagged, before = matrix.only(TaskKind.batch), report.baseline
            was = f" (recorded: {before.only(TaskKind.batch).total})" if before else ""
            score = f"{flagged.total} of {len(flagged.rows) * 3} on the flagged replies{was}"
            return f"Iteration {done.step.iteration}: the candidate scores {score}."
        case Failed(trouble=Trouble.rejected | Trouble.misconduct, sentence=sentence):
            return f"{done.step.name} failed: {line(sentence, QUOTE_CHARS)}"
        case _:
            return None


def _moved(fact: Fact, report: Report) -> str | None:
    run, who = report.run, line(fact.who, 60)
    match fact.after:
        case RunState.awaiting_consent if report.consent:
            until = f"until {moment(report.consent.expires_at)} UTC"
            return f"A candidate waits for approval {until}; the card above has the buttons."
        case RunState.approved:
            return f"Approved by {who}; it goes live as soon as it may."
        case RunState.applied:
            away = (
                f", away for {duration(report.swap.outage_ms / 1000)}" if report.swap and report.swap.outage_ms else ""
            )
            version = f" as version {report.version.number}" if report.version else ""
            return f"{run.substrate} is live{version}{away}. `/moss rollback` undoes it."
        case RunState.queued | RunState.running | RunState.swapping | RunState.awaiting_consent:
            return None
        case state:
            said = fact.detail.get("sentence") or run.sentence
            return f"The run is {str(state).replace('_', ' ')}: {line(said, 600)}"


def _asked(fact: Fact, consent: Consent) -> str | None:
    """A reminder, or one of several approvals: the last of them is told by the run, and a refusal too."""
    if fact.what == REMINDED and consent.state is ConsentState.asked:
        who_may, until = names(may_approve(consent)) or "nobody", moment(consent.expires_at)
        return f"This still waits for approval by {who_may}, until {until} UTC."
    if fact.what == "voted" and fact.detail.get("approve") and consent.policy.quorum > 1:
        return f"{line(fact.who, 60)} approved; {count(consent.policy.quorum, 'approval is', 'approvals are')} needed."
    return None


def of_rollback(fact: Fact, consent: Consent, swap: Swap | None) -> str | None:
    name, who = consent.substrate, line(fact.who, 60)
    match fact.noun, fact.after:
        case Noun.consent, "asked":
            return f"{who} asks to bring version {consent.version} of {name} back; the card above has the buttons."
        case Noun.consent, "granted":
            return f"Approved by {who}; version {consent.version} comes back as soon as it may."
        case Noun.consent, "declined" | "expired" | "void":
            said = fact.detail.get("reason", "")
            return f"The rollback is {'out of date' if fact.after == 'void' else fact.after}: {line(said, 300)}"
        case Noun.swap, "live":
            away = f", away for {duration(swap.outage_ms / 1000)}" if swap and swap.outage_ms else ""
            return f"Version {consent.version} of {name} is live again{away}."
        case Noun.swap, "restored" | "stuck" if swap:
            said = "IS DOWN and needs a person now" if fact.after == "stuck" else "runs what it ran before"
            return f"The rollback did not go live; {name} {said}: {line(swap.problem or '', 400)}"
        case Noun.consent, None:
            return _asked(fact, consent)
        case _:
            return None


def of_substrate(fact: Fact) -> str | None:
    """News that belongs to no run, or to everybody."""
    name, who, detail = fact.substrate, line(fact.who, 60), fact.detail
    by = "" if fact.who == "moss" else f" by {who}"
    match fact.noun, fact.after or fact.what:
        case Noun.swap, "stuck":
            mend = f"Mend it on the machine it runs on, then run `moss adopt --substrate {name}` there."
            return f"{name} IS DOWN and needs a person now: {line(str(detail.get('problem', '')), 400)} {mend}"
        case Noun.substrate, "adopted":
            return f"{name} is adopted as version {detail['version']}{by}; repairs may go live."
        case Noun.person, "token_made" if by:
            return f"{who} made a token for {line(fact.id, 60)}."
        case Noun.person, "token_removed" if by:
            return f"{who} removed the token of {line(fact.id, 60)}."
        case _:
            return None


def of_batch(fact: Fact, batch: Batch, chunks: int) -> str | None:
    """A batch that nobody sealed by hand waits for somebody to start its repair."""
    if fact.after != "sealed" or fact.who not in ("count", "age"):
        return None
    held = count(chunks, "flagged reply", "flagged replies")
    return f"{held} of this conversation can be worked on now: `/moss evolve {batch.id}` starts a repair."
