"""The card of a run in every state it can be in, and the receipt for those who flagged a turn."""

from collections.abc import Iterator, Mapping, Sequence

from bot.cards import parts
from bot.cards.parts import REPORT
from bot.cards.progress import progress
from bot.chat import Action, Card, Line, Picture, Section, Tone
from bot.picture import compare
from bot.report import Exchange, Note, Report
from bot.words import clipped, cost, count, cut, duration, line, moment, quoted, spend
from core.model.keypoints import Matrix
from core.model.run import RESTARTABLE, Prepared, RunState
from core.model.value import short

CAUSE_CHARS, PLAN_CHARS = 600, 500
TURN_CHARS = 2_100
"""Of all exchanges together: a batch may hold many, and a platform takes a message of some thousand characters."""
TURNS_SHOWN, EVERYTHING = 8, 10_000_000
PROGRESS_CHARS = 2_000
KEYPOINTS_SHOWN, COMMITS_SHOWN = 4, 5

_TITLES = {
    RunState.queued: "a repair is queued",
    RunState.running: "a repair is under way",
    RunState.awaiting_consent: "a repair waits for approval",
    RunState.approved: "the repair is approved and waits for its swap",
    RunState.swapping: "the repair is going live",
    RunState.applied: "the repair is live",
    RunState.stopped: "the run was stopped",
    RunState.exhausted: "no repair was found",
    RunState.failed: "the run failed",
    RunState.over_budget: "the run used up its budget",
    RunState.declined: "the repair was declined",
    RunState.expired: "nobody decided about the repair in time",
    RunState.superseded: "the repair is out of date",
    RunState.rolled_back: "the repair did not go live",
    RunState.stuck: "IS DOWN and needs a person now",
}
_COUNTED = (RunState.queued, RunState.running, RunState.awaiting_consent, RunState.over_budget)
"""While it matters to whoever looks what the other runs of the month cost."""
_TONES = {
    RunState.awaiting_consent: Tone.asking,
    RunState.applied: Tone.good,
    RunState.failed: Tone.bad,
    RunState.exhausted: Tone.bad,
    RunState.over_budget: Tone.bad,
    RunState.rolled_back: Tone.bad,
    RunState.stuck: Tone.bad,
}


def run(report: Report, picture: Picture | None = None, link: str = "", rest: str = REPORT) -> Card:
    """`link` is where the whole of it can be read, if anywhere; `rest` says it where something is cut."""
    state = report.run.state
    card = Card(
        title=title(report),
        tone=_TONES.get(state, Tone.calm),
        lines=tuple(_lines(report)),
        body=tuple(_offer(report, rest) if report.candidate else _under_way(report, rest)),
        picture=picture,
        actions=_actions(report),
        link=link,
    )
    return parts.fitted(card, rest)


def title(report: Report) -> str:
    state, name = report.run.state, report.run.substrate
    if state is RunState.stuck:
        return f"{name} {_TITLES[state]}"
    if state is RunState.applied and report.version:
        tense = "was" if report.version.until else "is"
        return f"{name}: the repair {tense} live as version {report.version.number}"
    if state is RunState.awaiting_consent and report.candidate and report.candidate.partial:
        return f"{name}: a partial repair waits for approval"
    return f"{name}: {_TITLES[state]}"


def _actions(report: Report) -> tuple[Action, ...]:
    changed = report.candidate is not None or report.work.change is not None
    asked = report.run.state is RunState.awaiting_consent and report.consent
    return (
        *(parts.decide(report.consent) if asked and report.consent else ()),
        *parts.look(report.run.id, diff=changed),
    )


def _lines(report: Report) -> Iterator[Line]:
    run, candidate, consent, swap = report.run, report.candidate, report.consent, report.swap
    if run.sentence:
        yield Line(name="Outcome", text=line(run.sentence, 500))
    yield Line(name="Evidence", text=f"{parts.evidence(report.chunks)}, {run.batch}")
    yield Line(name="Run", text=f"{run.id}, {run.dial}, started by {line(run.starter, 60)}")
    if report.matrices:
        baseline, control, matrix = report.matrices
        yield Line(name="Flagged replies", text=parts.flagged_score(baseline, matrix))
        yield Line(name="All keypoints", text=parts.score(baseline, control, matrix))
        yield Line(name="Trials", text=trials(report, matrix))
    if candidate:
        size = f"{count(len(candidate.files), 'file')}, +{candidate.insertions} −{candidate.deletions}"
        yield Line(name="Change", text=f"{size}, commit {candidate.commit[:12]}")
    if report.steps:
        yield Line(name="Cost", text=spend(report.spend))
    if run.state in _COUNTED and report.month != report.cost:
        yield Line(name="This month", text=f"{cost(report.month)}, with all runs of {run.substrate}")
    if consent and run.state in (RunState.awaiting_consent, RunState.approved):
        yield from parts.approvals(consent)
    if consent and run.state is RunState.declined:
        yield Line(name="Declined by", text=parts.declined(consent))
    if report.version and report.version.until:
        yield Line(name="Live", text=f"until {moment(report.version.until)} UTC, when another version followed")
    if swap and swap.outage_ms is not None:
        yield Line(name="Away for", text=duration(swap.outage_ms / 1000))
    if swap and swap.problem:
        yield Line(name="Problem", text=line(swap.problem, 400))


def trials(report: Report, matrix: Matrix) -> str:
    """How often each conversation was replayed, and where the replays disagree."""
    each = max((len(row.levels) for row in matrix.rows), default=0)
    flaky = [row for row in matrix.rows if row.flaky]
    if not flaky:
        return f"{each} of each conversation, all alike"
    return f"{each} of each conversation; they disagree on {len(flaky)} of {count(len(matrix.rows), 'keypoint')}"


# Before there is a candidate, and when there never was one


def _under_way(report: Report, rest: str) -> Iterator[Section]:
    if report.run.state is not RunState.running:
        yield parts.people_can(_next(report))
    if told := progress(report):
        yield Section(heading="Progress", text=_last_lines(told), look="code")
    yield parts.complaints(report.chunks, rest)
    if report.diagnosis:
        yield _cause(report, rest)
    if report.run.state is RunState.running:
        yield parts.people_can(_next(report))


def _last_lines(lines: Sequence[str]) -> str:
    kept: list[str] = []
    for each in reversed(lines):
        if sum(map(len, kept)) + len(kept) + len(each) > PROGRESS_CHARS:
            kept.append("…")
            break
        kept.append(each)
    return "\n".join(reversed(kept))


# The candidate


def _offer(report: Report, rest: str) -> Iterator[Section]:
    state = report.run.state
    if state is not RunState.awaiting_consent:
        yield parts.people_can(_next(report))
    if report.candidate and report.candidate.partial:
        yield Section(heading="A partial repair", text=_partial(report))
    if report.prepared and report.prepared.undeployed_count:
        yield Section(heading="More goes live than the repair", text=_undeployed(report.prepared, rest))
    yield parts.complaints(report.chunks, rest)
    if report.notes:
        yield Section(heading="Said after the batch was sealed", text=_notes(report.notes, rest), look="quote")
    if report.diagnosis:
        yield _cause(report, rest)
    if report.plan:
        yield Section(heading="Change, in the coder's words", text=_change(report, rest), look="quote")
        yield _prediction(report)
    yield from exchanges(report.exchanges, rest)
    if state is RunState.awaiting_consent:
        yield Section(heading="If you approve", text=_effect(report))


def _notes(notes: Sequence[Note], rest: str) -> str:
    told = [
        f"{line(note.person, 60)} took the flag back" if note.withdrawn else quoted(note.reason, 200)
        for note in notes
        if note.withdrawn or note.reason
    ]
    more = len(told) - parts.WORDS_SHOWN
    return "\n".join([*told[: parts.WORDS_SHOWN], *([f"and {more} more: {rest}"] if more > 0 else [])])


def _partial(report: Report) -> str:
    judged = report.judged
    verdict = f" The judge said {judged.verdict}: {quoted(judged.reason, 300)}" if judged else ""
    return f"It is better than what is live, and nothing got worse, but not all of what was wanted is met.{verdict}"


def _cause(report: Report, rest: str) -> Section:
    found = report.diagnosis
    assert found is not None
    words = {"surface": "words could fix it", "structural": "only code can fix it"}[found.depth]
    heading = f"Cause, in the coder's words ({found.failure_class}; {words})"
    return Section(heading=heading, text=cut(found.summary, CAUSE_CHARS, rest), look="quote")


def _change(report: Report, rest: str) -> str:
    assert report.plan is not None
    told = [cut(report.plan.summary, PLAN_CHARS, rest)]
    told += [f"{line(change.path, 80)}: {line(change.change, 100)}" for change in report.plan.changes[:5]]
    more = len(report.plan.changes) - 5
    return "\n".join([*told, *([f"and {count(more, 'more file')}: {rest}"] if more > 0 else [])])


def _prediction(report: Report) -> Section:
    """What the plan expected; and once it was tried, what came of that."""
    plan, held, names = report.plan, report.prediction, _keypoints(report)
    assert plan is not None
    if held is None:
        told = [f"To rise: {_named(plan.expect_better, names)}.", f"May fall: {_named(plan.may_hurt, names)}."]
        return Section(heading="What the plan expects", text=" ".join(told))
    came = (
        ("Rose, as expected", held.met),
        ("Expected to rise, and did not", held.missed),
        ("Fell, as feared", held.hurt),
        ("Rose, and nobody expected it", held.rose),
        ("FELL, AND NOBODY EXPECTED IT", held.fell),
        ("Expected, and no keypoint of this run", held.unknown),
    )
    lines = [f"{what}: {_named(which, names)}" for what, which in came if which]
    return Section(heading="What the plan expected, and what came", text="\n".join(lines) or "It expected nothing.")


def _keypoints(report: Report) -> dict[str, str]:
    """`chunk-1/names-all` is nothing to people: it is told as the picture shows it."""
    if report.matrices is None:
        return {}
    rows = report.matrices[2].rows
    shown = compare(*report.matrices, most=len(rows)).rows
    return {f"{row.task}/{row.keypoint.id}": f"{one.label} ({one.task})" for row, one in zip(rows, shown, strict=True)}


def _named(listed: Sequence[str], names: Mapping[str, str]) -> str:
    told = [names.get(each) or quoted(each, 60) for each in listed[:KEYPOINTS_SHOWN]]
    more = len(listed) - KEYPOINTS_SHOWN
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "") or "nothing"


def _undeployed(found: Prepared, rest: str) -> str:
    told = [f"{one.commit[:12]} {quoted(one.subject, 80)}" for one in found.undeployed[:COMMITS_SHOWN]]
    more = found.undeployed_count - len(told)
    told += [f"and {count(more, 'more commit')}: {rest}"] if more > 0 else []
    whose = "The branch has commits that are not live yet; whoever approves this repair deploys them with it."
    return "\n".join([whose, *told])


def exchanges(listed: Sequence[Exchange], rest: str = REPORT) -> Iterator[Section]:
    """Each flagged turn before and after. The more there are, the less of each."""
    shown = listed[:TURNS_SHOWN]
    room = TURN_CHARS // max(len(shown), 1)
    for n, each in enumerate(shown, start=1):
        told = _exchange(each, room)
        more = "" if told == _exchange(each, EVERYTHING) else f" (whole: {rest})"
        yield Section(heading=f"Flagged turn {n} of {len(listed)}{more}", text=told, look="quote")
    if len(listed) > TURNS_SHOWN:
        yield Section(text=f"And {count(len(listed) - TURNS_SHOWN, 'more flagged turn')}: {rest}.")


def _exchange(each: Exchange, room: int) -> str:
    after = "(not tried yet)" if each.after is None else clipped(each.after, room * 2 // 5) or "(nothing)"
    if each.error:
        after = f"(no answer: {line(each.error, 120)})"
    before = clipped(each.before, room * 2 // 5) or "(nothing)"
    return f"Asked: {line(each.asked, room // 5)}\nBefore: {before}\nAfter: {after}"


def _effect(report: Report) -> str:
    candidate, health = report.candidate, report.substrate.health
    assert candidate is not None
    return (
        f"The live agent is replaced by the very image that was tried, {short(candidate.image)}. Its memory is kept. "
        f"It is away for a moment; unless it passes its probes within {duration(health.window_s)}, what is live now "
        f"comes back by itself. `/moss rollback` undoes it later."
    )


# What a person can do next


def _next(report: Report) -> str:
    run, name = report.run, report.run.substrate
    match run.state:
        case RunState.queued | RunState.running:
            return f"Nothing has to be done. `/moss stop {run.id}` ends it and keeps what it made."
        case RunState.awaiting_consent:
            return "Approve or decline."
        case RunState.approved:
            return (
                f"Nothing has to be done: it goes live as soon as it may. `/moss stop {run.id}` holds it back for good."
            )
        case RunState.swapping:
            return "Nothing has to be done: unless the new version passes its probes, the old one comes back by itself."
        case RunState.applied if report.version and report.version.until:
            return "Another version is live by now: `/moss history` shows them all."
        case RunState.applied:
            back = f"`/moss rollback {report.before.number}`" if report.before else "`/moss rollback`"
            return (
                f"Ask {name} again, and flag what is still not right. {back} asks to go back to what was live before."
            )
        case RunState.rolled_back:
            return f"What was live before is live. `/moss evolve {run.batch}` tries the same evidence anew."
        case RunState.stuck:
            mend = f"Mend it on the machine it runs on, then run `moss adopt --substrate {name}` there."
            return f"{mend} Until then nothing is swapped."
        case RunState.declined | RunState.expired | RunState.superseded:
            return f"Nothing was changed. `/moss evolve {run.batch}` tries the same evidence anew."
        case state if state in RESTARTABLE:
            deeper = ", or flag more replies first: more evidence helps" if state is RunState.exhausted else ""
            return f"Nothing was changed. `/moss restart {run.id}` tries again on the same evidence{deeper}."
        case state:
            raise AssertionError(f"a run is never {state} here")


# Receipts


def receipt(report: Report, exchange: Exchange, link: str = "") -> Card:
    """For the thread of the flagged reply, once its repair is live."""
    version = f"version {report.version.number}" if report.version else "a new version"
    body = tuple(exchanges([exchange]))
    shown = Section(text=body[0].text, look="quote")
    again = Section(text="Flag the next answer that is not right; a flag on this card counts for nothing.")
    return Card(
        title="The reply you flagged now answers like this",
        tone=Tone.good,
        lines=(Line(name="Since", text=f"{version} of {report.run.substrate}"),),
        body=(shown, again),
        link=link,
    )
