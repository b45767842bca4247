"""Consent: one pure rule, `judge`, and one transaction, `decide`, that acts on what it says."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from core.model.candidate import Candidate
from core.model.consent import Consent, ConsentState, Policy, Vote
from core.model.errors import Refused
from core.model.events import Noun
from core.model.run import Run, RunState
from core.model.swap import Version
from core.model.value import new_id
from core.store import Change, Store, consents, facts, notices, outbox, runs


class DecisionKind(StrEnum):
    granted = "granted"
    counted = "counted"
    """A valid approval; more people are needed."""
    declined = "declined"
    refused = "refused"
    """The click has no effect."""
    expired = "expired"


@dataclass(frozen=True, slots=True)
class Decision:
    kind: DecisionKind
    sentence: str
    """For the one who clicked, in private."""


def may_approve(consent: Consent) -> frozenset[str]:
    """The approvers whose approval counts: not who started it, nor its only flagger, unless nobody else is there."""
    approvers = consent.policy.approvers
    if consent.policy.allow_sole_approver and len(approvers) == 1:
        return approvers
    only_flagger = consent.flaggers if len(consent.flaggers) == 1 else frozenset()
    return approvers - {consent.starter} - only_flagger


def judge(consent: Consent, person: str, approve: bool, now: datetime) -> Decision:
    """What this person's click means for this consent at this moment."""
    if consent.state is not ConsentState.asked:
        return _refused(_settled(consent))
    if now >= consent.expires_at:
        return Decision(DecisionKind.expired, f"This expired on {_day(consent.expires_at)}; nothing was changed.")
    if not consent.policy.approvers:
        return _refused("Nobody may approve this, since no approvers are configured; name some in moss.toml.")
    if person not in consent.policy.approvers:
        return _refused(f"You are not one of the approvers; ask {_names(consent.policy.approvers)}{known_as(person)}.")
    if not approve:
        return Decision(DecisionKind.declined, "You declined this; nothing will be changed.")
    if person not in may_approve(consent):
        return _refused(_conflict(consent, person))
    approved_by = {vote.person for vote in consent.votes if vote.approve}
    missing = consent.policy.quorum - len(approved_by | {person})
    if person in approved_by:
        return _refused(f"You have approved this already; {_more(missing)}.")
    if missing > 0:
        return Decision(DecisionKind.counted, f"Your approval counts; {_more(missing)}.")
    return Decision(DecisionKind.granted, "You approved this; the swap begins as soon as it may.")


async def decide(
    store: Store, consent_id: str, person: str, approve: bool, reason: str | None = None, *, image_exists: bool
) -> Decision:
    """Judge a click and do what follows from it, or do nothing. Grant, run and outbox row commit together."""
    async with store.reading() as db:
        substrate = (await consents.get(db, consent_id)).substrate
    async with store.changing(substrate) as change:
        consent = await consents.get(change.db, consent_id)
        decision = judge(consent, person, approve, change.now)
        if consent.state is ConsentState.void:
            return _refused(await _out_of_date(change, consent))
        if decision.kind in (DecisionKind.granted, DecisionKind.counted):
            obstacle = await _obstacle(change, consent, image_exists)
            if obstacle:
                return _refused(obstacle)
        if decision.kind is DecisionKind.expired:
            await _end(change, consent, ConsentState.expired, "moss", "Nobody decided in time.")
        if decision.kind in (DecisionKind.refused, DecisionKind.expired):
            return decision
        vote = Vote(person=person, approve=approve, at=change.now, reason=reason)
        await consents.add_vote(change, consent.id, vote)
        if decision.kind is DecisionKind.declined:
            said = f"{person} declined: {reason}" if reason else f"{person} declined."
            await _end(change, consent, ConsentState.declined, person, said)
        elif decision.kind is DecisionKind.granted:
            await consents.move(change, consent.id, ConsentState.granted, person)
            if consent.run is not None:
                await runs.move(change, consent.run, RunState.approved, person)
            await outbox.add(change, "swap", consent.id)
        return decision


async def ask_for_candidate(
    change: Change, candidate: Candidate, run: Run, policy: Policy, flaggers: Collection[str]
) -> Consent:
    """Bind a new consent to a stored candidate; whatever older candidate still waits is superseded."""
    for older in await consents.asked(change.db, change.substrate):
        if older.candidate is not None:
            await _end(change, older, ConsentState.void, "moss", f"Run {run.id} made a newer candidate.")
    consent = Consent(
        id=new_id("consent"),
        substrate=change.substrate,
        run=run.id,
        candidate=candidate.id,
        version=None,
        commit=candidate.commit,
        image=candidate.image,
        diff_hash=candidate.diff_hash,
        matrix_hash=candidate.matrix.digest(),
        policy=policy,
        starter=run.starter,
        flaggers=frozenset(flaggers),
        state=ConsentState.asked,
        asked_at=change.now,
        expires_at=change.now + timedelta(seconds=policy.expires_after_s),
    )
    await consents.ask(change, consent)
    return consent


async def ask_for_rollback(
    change: Change, version: Version, policy: Policy, starter: str, id: str | None = None
) -> Consent:
    """Asked twice for one version, people get the same consent. Whoever may ask again after a crash gives its id."""
    if version.until is None:
        raise Refused(f"Version {version.number} of {version.substrate} is live already; choose an older one.")
    for waiting in await consents.asked(change.db, change.substrate):
        if waiting.version == version.number and change.now < waiting.expires_at:
            return waiting
    consent = Consent(
        id=id or new_id("consent"),
        substrate=change.substrate,
        run=None,
        candidate=None,
        version=version.number,
        commit=version.commit,
        image=version.image,
        diff_hash="",
        matrix_hash="",
        policy=policy,
        starter=starter,
        flaggers=frozenset(),
        state=ConsentState.asked,
        asked_at=change.now,
        expires_at=change.now + timedelta(seconds=policy.expires_after_s),
    )
    await consents.ask(change, consent)
    return consent


async def void(change: Change, consent: Consent, why: str, who: str = "moss") -> None:
    """What it was bound to has changed. What becomes of its run is the caller's to say."""
    await consents.move(change, consent.id, ConsentState.void, who, why)


async def withdraw_questions(change: Change, why: str) -> None:
    """What people were asked about the version that was live until now, they were asked in vain."""
    for asked in await consents.asked(change.db, change.substrate):
        await _end(change, asked, ConsentState.void, "moss", why)


async def lapse(change: Change, granted: Consent, why: str) -> None:
    """A grant that was not used, and never will be. Its run no longer waits, and may be restarted."""
    why = why.rstrip(".")
    await void(change, granted, why)
    about = f"The rollback of {change.substrate} to version {granted.version}"
    if granted.run is not None:
        about = f"Run {granted.run} of {change.substrate}"
        if (await runs.get(change.db, granted.run)).state is RunState.approved:
            await runs.move(change, granted.run, RunState.stopped, "moss", f"Not swapped in: {why}.")
    text = f"{about} was approved and will not go live: {why}; ask again if it is still wanted."
    await notices.add(change, "swap-void", granted.id, text, run=granted.run, consent=granted.id, problem=why)


async def withdraw_grants(change: Change, why: str) -> None:
    """What people allowed, and what has not begun, they allowed in place of the version that was live until now."""
    for granted in await consents.unused(change.db, change.substrate):
        await lapse(change, granted, why)


async def expire_due(store: Store, now: datetime) -> list[str]:
    """End every consent that nobody decided in time; their ids."""
    async with store.reading() as db:
        due = await consents.due(db, now)
    expired = []
    for consent in due:
        async with store.changing(consent.substrate) as change:
            current = await consents.get(change.db, consent.id)
            if current.state is ConsentState.asked:
                await _end(change, current, ConsentState.expired, "moss", "Nobody decided in time.")
                expired.append(current.id)
    return expired


async def remind_due(store: Store, now: datetime) -> None:
    """Each question that has waited for long is called to mind once, with a fact that whoever tells the news finds."""
    async with store.reading() as db:
        waiting = [one for one in await consents.asked(db) if _is_to_be_reminded(one, now)]
        waiting = [one for one in waiting if not await consents.was_reminded(db, one.id)]
    for consent in waiting:
        async with store.changing(consent.substrate) as change:
            current = await consents.get(change.db, consent.id)
            if current.state is ConsentState.asked and not await consents.was_reminded(change.db, consent.id):
                await change.record("moss", Noun.consent, consent.id, consents.REMINDED, run=consent.run)


def _is_to_be_reminded(consent: Consent, now: datetime) -> bool:
    after_s = consent.policy.remind_after_s
    return bool(after_s) and consent.asked_at + timedelta(seconds=after_s) <= now < consent.expires_at


_RUN_ENDS = {
    ConsentState.declined: RunState.declined,
    ConsentState.expired: RunState.expired,
    ConsentState.void: RunState.superseded,
}


async def _end(change: Change, consent: Consent, state: ConsentState, who: str, why: str) -> None:
    """The consent ends without a grant, and the run that waits for it ends with it."""
    await consents.move(change, consent.id, state, who, why)
    if consent.run is None:
        return
    run = await runs.get(change.db, consent.run)
    if run.state is RunState.awaiting_consent:
        said = f"Superseded: {why}" if state is ConsentState.void else why
        await runs.move(change, run.id, _RUN_ENDS[state], who, said if said.endswith(".") else f"{said}.")


async def _obstacle(change: Change, consent: Consent, image_exists: bool) -> str | None:
    """Why an approval that the rule allows cannot be acted on now: one sentence, or None."""
    if not image_exists:
        return "The image this is about no longer exists, so it cannot go live; decline it and evolve again."
    if consent.run is None:
        return None
    run = await runs.get(change.db, consent.run)
    if run.state is not RunState.awaiting_consent:
        return f"Run {run.id} is {run.state}, so there is nothing to approve any more."
    if consent.candidate is None or not _bound(consent, await runs.candidate(change.db, consent.candidate)):
        return "What was built is not what this consent was asked for; decline it and evolve again."
    other = await runs.in_flight(change.db, change.substrate)
    if other is not None:
        return f"Run {other.id} is {other.state}; approve again when it has ended, or stop it."
    return None


def _bound(consent: Consent, candidate: Candidate) -> bool:
    bound = (consent.commit, consent.image, consent.diff_hash, consent.matrix_hash)
    return bound == (candidate.commit, candidate.image, candidate.diff_hash, candidate.matrix.digest())


def _refused(sentence: str) -> Decision:
    return Decision(DecisionKind.refused, sentence)


def _settled(consent: Consent) -> str:
    match consent.state:
        case ConsentState.granted:
            approved_by = {vote.person for vote in consent.votes if vote.approve}
            return f"{_names(approved_by) or 'Somebody'} approved this already; nothing more happens."
        case ConsentState.declined:
            declined_by = {vote.person for vote in consent.votes if not vote.approve}
            return f"{_names(declined_by) or 'Somebody'} declined this already; nothing more happens."
        case ConsentState.expired:
            return f"This expired on {_day(consent.expires_at)}; nothing was changed."
        case _:
            return "This question is out of date: what it asked about has changed; `moss status` shows what waits."


async def _out_of_date(change: Change, consent: Consent) -> str:
    """With the reason that was written down, and what waits for people in its place."""
    moved = [fact for fact in await facts.about(change.db, Noun.consent, consent.id) if fact.after == ConsentState.void]
    reason = str(moved[-1].detail.get("reason", "")) if moved else ""
    why = reason.rstrip(".") or "what it asked about has changed"
    newer = [other.run for other in await consents.asked(change.db, change.substrate) if other.run]
    waits = f"run {newer[-1]} waits for approval now" if newer else "no run waits for approval now"
    return f"This question is out of date: {why}; {waits}."


def _conflict(consent: Consent, person: str) -> str:
    why = "started this" if person == consent.starter else "are the only one who flagged it"
    others = may_approve(consent)
    if others:
        return f"You {why}, so another approver must approve it; ask {_names(others)}."
    return f"You {why}, and there is no other approver; name one, or set `allow_sole_approver`, in moss.toml."


def known_as(person: str) -> str:
    """For whoever is refused and has only a platform's name here: [people] of moss.toml gives it a person's."""
    return f"; Moss knows you as `{person}`" if ":" in person else ""


def _more(missing: int) -> str:
    return "no more is needed" if missing <= 0 else f"{missing} more {'is' if missing == 1 else 'are'} needed"


def _names(people: Collection[str]) -> str:
    return ", ".join(sorted(people))


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
