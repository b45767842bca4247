"""What the terminal shows: pure functions from values to text and tables. Text from outside is made harmless here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bot.chat import Card, Tone
from bot.words import cost, harmless, line, moment, spend
from core.model.batch import Batch
from core.model.brief import TrialFile
from core.model.candidate import Candidate
from core.model.consent import Consent
from core.model.events import Fact
from core.model.evidence import Chunk
from core.model.keypoints import Level, Matrix, Prediction, Row
from core.model.replies import Diagnosis, Plan
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
    Run,
    RunState,
    Scored,
    Spend,
)
from core.model.swap import Version
from core.model.value import short

PIPE = 300
"""Columns."""

GOOD = frozenset({RunState.applied, RunState.awaiting_consent, RunState.approved})
BAD = frozenset({RunState.failed, RunState.stuck, RunState.rolled_back, RunState.over_budget, RunState.exhausted})


def console(*, stderr: bool = False) -> Console:
    """Without markup: a model's `[bold]` is text like any other. Elsewhere than on a terminal tables are wide."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    return made if made.is_terminal else Console(file=made.file, markup=False, highlight=False, emoji=False, width=PIPE)


def plain(text: str) -> Text:
    return Text(harmless(text))


def table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:  # ids and times are read in one piece; the last column takes what is left
        made.add_column(column, no_wrap=column != columns[-1], overflow="fold")
    return made


def rows(columns: Sequence[str], cells: Iterable[Sequence[str]], empty: str) -> RenderableType:
    made = table(*columns)
    for row in cells:
        made.add_row(*(plain(cell) for cell in row))
    return made if made.row_count else Text(empty)


def state(value: RunState) -> Text:
    return Text(value, style="green" if value in GOOD else "red" if value in BAD else "")


def batches(listed: Sequence[tuple[Batch, int, Run | None]]) -> RenderableType:
    """Each batch with the number of its chunks and its latest run, which says what it is doing."""
    return rows(
        ("batch", "state", "chunks", "opened", "place", "latest run"),
        (
            (b.id, b.state, str(count), moment(b.opened_at), str(b.place), f"{run.id} {run.state}" if run else "")
            for b, count, run in listed
        ),
        "No batches yet: flag a reply, or `moss import FILE`.",
    )


def batch(one: Batch, chunks: Sequence[Chunk], run: Run | None) -> RenderableType:
    head = f"{one.id}  {one.state}  {one.place}  opened {moment(one.opened_at)}"
    if one.sealed_at:
        head += f"  sealed {moment(one.sealed_at)} by {one.sealed_by}"
    parts: list[RenderableType] = [plain(head)]
    if run:
        parts.append(plain(f"latest run {run.id} {run.state}"))
    for chunk in chunks:
        parts.append(Text(""))
        parts.append(plain(f"{chunk.id}  turn {chunk.turn}  weight {chunk.weight}"))
        for message in chunk.transcript.messages[-4:]:
            parts.append(plain(f"  {message.role}: {line(message.content, 160)}"))
        for flag in chunk.flags:
            withdrawn = " (withdrawn)" if flag.withdrawn_at else ""
            reason = f": {line(flag.reason, 160)}" if flag.reason else ""
            parts.append(plain(f"  flagged by {flag.person} as {flag.kind}{withdrawn}{reason}"))
    return Group(*parts)


def runs(listed: Sequence[Run]) -> RenderableType:
    made = table("run", "state", "batch", "depth", "by", "queued", "")
    for run in listed:
        made.add_row(
            run.id, state(run.state), run.batch, run.dial, plain(run.starter), moment(run.queued_at), line(run.sentence)
        )
    return made if made.row_count else Text("No runs yet: `moss evolve`.")


def run(  # noqa: PLR0917 - all of it is shown
    one: Run,
    history: Sequence[Done],
    candidate: Candidate | None,
    consent: Consent | None,
    total: Spend,
    by_stage: Mapping[str, Spend],
) -> RenderableType:
    head = Text.assemble(one.id, "  ", state(one.state), f"  {one.substrate}  batch {one.batch}  {one.dial}")
    parts: list[RenderableType] = [head]
    if one.sentence:
        parts.append(plain(one.sentence))
    steps = table("n", "step", "result", "took", "prompt", "")
    for done in history:
        took = (done.ended_at - done.started_at).total_seconds()
        asked = short(done.prompt)[:8] if done.prompt else ""
        steps.add_row(str(done.n), done.step.name, done.result.kind, f"{took:.1f} s", asked, line(what_came(done)))
    if steps.row_count:
        parts += [Text(""), steps, plain(f"spent {spend(total)}")]
    parts += [
        plain(f"  {stage.replace('_', ' ')}: {cost(each)}") for stage, each in by_stage.items() if each != Spend()
    ]
    parts += [line for done in history if isinstance(done.result, Prepared) for line in undeployed(done.result)]
    if candidate:
        partial = "  partial" if candidate.partial else ""
        size = f"{len(candidate.files)} files, +{candidate.insertions} -{candidate.deletions}"
        parts += [
            Text(""),
            plain(f"candidate {candidate.id}  commit {candidate.commit[:12]}  {size}{partial}"),
            plain(
                f"score: recorded {candidate.baseline.score:.2f}, live {candidate.control.score:.2f}, "
                f"candidate {candidate.matrix.score:.2f}"
            ),
            plain(f"in the coder's words: {line(candidate.summary, 400)}"),
        ]
    if consent:
        approvals = [vote.person for vote in consent.votes if vote.approve]
        votes = f", approved by {', '.join(approvals)}" if approvals else ""
        needs = f"{len(approvals)} of {consent.policy.quorum}{votes}"
        parts.append(plain(f"consent {consent.id}  {consent.state}  {needs}, expires {moment(consent.expires_at)}"))
        if consent.policy.allow_sole_approver and len(consent.policy.approvers) == 1:
            parts.append(Text("one person alone may start and approve here (allow_sole_approver)"))
    return Group(*parts)


def undeployed(fixed: Prepared) -> list[RenderableType]:
    """What the owner's branch holds beyond the live commit, and the run started from."""
    if not fixed.undeployed_count:
        return []
    listed = [plain(f"  {commit.commit[:12]}  {line(commit.subject)}") for commit in fixed.undeployed]
    more = fixed.undeployed_count - len(listed)
    head = plain(f"not live yet, and to be deployed with it: {fixed.undeployed_count} of the owner's commits")
    return [Text(""), head, *listed, *([plain(f"  and {more} older ones")] if more else [])]


def what_came(done: Done) -> str:
    """The result of a step in a few words."""
    match done.result:
        case Failed(trouble=trouble, sentence=sentence):
            return f"{trouble}: {sentence}"
        case Prepared(base_commit=commit):
            return f"from {commit[:12]}"
        case Scored(matrix=scored):
            return f"score {scored.score:.2f}"
        case Located(diagnosis=found):
            return found.summary
        case Planned(plan=made):
            return made.summary
        case Implemented(summary=summary):
            return summary
        case PlanReviewed(verdict=verdict, remarks=said) | CodeReviewed(verdict=verdict, remarks=said):
            return f"{verdict} {said}"
        case Judged(verdict=verdict, reason=said):
            return f"{verdict} {said}"
        case Built(image=image):
            return short(image)
        case Offered(candidate=candidate):
            return candidate
        case unknown:
            assert_never(unknown)


def matrices(baseline: Matrix, control: Matrix, candidate: Matrix, held: Prediction | None = None) -> RenderableType:
    """Keypoint by keypoint: as recorded, the live agent today, the candidate."""
    made = table("task", "keypoint", "recorded", "live", "candidate", "")
    before = {row.key: row for row in baseline.rows}
    live = {row.key: row for row in control.rows}
    for row in candidate.rows:
        old, now = before.get(row.key), live.get(row.key)
        best = max((known.level for known in (old, now) if known), default=Level.missing)
        mark = "better" if row.level > best else "WORSE" if row.level < best else ""
        made.add_row(
            plain(row.task), plain(row.keypoint.text), level(old), level(now), level(row), Text(mark, style="bold")
        )
    return Group(made, *prediction(held))


def matrix(one: Matrix) -> RenderableType:
    made = table("task", "keypoint", "level", "trials")
    for row in one.rows:
        trials = " ".join(each.name for each in row.levels)
        made.add_row(plain(row.task), plain(row.keypoint.text), level(row), trials)
    return made


def level(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row.level.name} (worst {row.worst.name})" if row.flaky else row.level.name


def history(versions: Sequence[Version]) -> RenderableType:
    return rows(
        ("version", "commit", "image", "since", "until", ""),
        (
            (
                str(v.number),
                v.commit[:12],
                short(v.image),
                moment(v.since),
                moment(v.until) or "live",
                f"brings back version {v.restores}" if v.restores is not None else "adopted" if not v.swap else "",
            )
            for v in versions
        ),
        "Nothing was ever live here: `moss adopt`.",
    )


def fact(one: Fact) -> str:
    """One line of the log of what happened."""
    detail = one.detail
    result = detail.get("result", {})
    if one.what == "stepped":
        said = f"{detail.get('step')} {result.get('kind')}"
        said += "".join(f": {result[key]}" for key in ("verdict", "sentence") if result.get(key))
    elif one.after:
        said = f"{one.noun} {one.id} is {one.after}" + (f": {detail['sentence']}" if detail.get("sentence") else "")
    else:
        said = f"{one.noun} {one.id} {one.what.replace('_', ' ')}"
    by = "" if one.who == "moss" else f", by {one.who}"
    return line(f"{one.at:%H:%M:%S} {said}{by}", 300)


TONES = {Tone.calm: "bold", Tone.asking: "bold yellow", Tone.good: "bold green", Tone.bad: "bold red"}


def card(one: Card) -> RenderableType:
    """What a chat shows as a card. Its buttons are verbs here, and whoever shows it says which."""
    parts: list[RenderableType] = [Text(harmless(one.title), style=TONES[one.tone])]
    width = max((len(line.name) for line in one.lines), default=0)
    parts += [plain(f"  {line.name:<{width}}  {line.text}") for line in one.lines]
    for section in one.body:
        parts += [Text("")] + ([Text(harmless(section.heading), style="bold")] if section.heading else [])
        parts += [diff(section.text) if section.look == "code" else plain(section.text)]
    return Group(*parts, *([Text(""), plain(one.link)] if one.link else []))


def diff(text: str) -> RenderableType:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    shown = Text()
    for one in harmless(text).splitlines():
        head = one.startswith(("+++", "---", "diff "))
        shown.append(one + "\n", style="bold" if head else colours.get(one[:1], ""))
    return shown


def diagnosis(found: Diagnosis) -> RenderableType:
    made = table("suspect", "why")
    for suspect in found.suspects:
        made.add_row(plain(suspect.path), plain(suspect.why))
    parts: list[RenderableType] = [
        Text(f"{found.failure_class}, {found.depth}", style="bold"),
        plain(found.summary),
        made,
    ]
    if found.siblings:
        parts.append(plain(f"should fail alike: {', '.join(found.siblings)}"))
    return Group(*parts)


def plan(made: Plan, held: Prediction | None = None) -> RenderableType:
    changes = table("file", "change")
    for change in made.changes:
        changes.add_row(plain(change.path), plain(change.change))
    better = f"expects to improve: {', '.join(made.expect_better) or 'nothing'}"
    worse = f"may hurt: {', '.join(made.may_hurt) or 'nothing'}"
    return Group(plain(made.summary), Text(""), changes, Text(""), plain(better), plain(worse), *prediction(held))


def prediction(held: Prediction | None) -> list[RenderableType]:
    """What came of what a plan expected; nothing before its candidate is scored."""
    if held is None:
        return []
    told = {
        "rose as expected": held.met,
        "did NOT rise, though expected": held.missed,
        "fell as feared": held.hurt,
        "rose unexpectedly": held.rose,
        "FELL unexpectedly": held.fell,
        "no keypoint of this run": held.unknown,
    }
    lines = [plain(f"{what}: {line(', '.join(names), 400)}") for what, names in told.items() if names]
    return [Text(""), *(lines or [Text("nothing rose or fell, and nothing was expected to")])]


def trials(listed: Sequence[TrialFile]) -> RenderableType:
    parts: list[RenderableType] = []
    for trial in listed:
        parts.append(Text(f"{harmless(trial.task)}, trial {trial.trial}", style="bold"))
        parts += [plain(f"  {message.role}: {message.content}") for message in trial.transcript.messages]
        parts += [plain(f"  broke off: {trial.error}")] if trial.error else []
    return Group(*parts)


def logs(texts: Mapping[str, str]) -> RenderableType:
    parts: list[RenderableType] = []
    for name, text in texts.items():
        parts += [Text(name, style="bold"), plain(text.rstrip())]
    return Group(*parts)
