"""Everything about one run, gathered once from store and artefacts: for cards, terminal and pages alike."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from core.model.batch import Batch, BatchState
from core.model.brief import DIFF, TRIALS, TrialFile
from core.model.candidate import Candidate
from core.model.consent import Consent
from core.model.errors import NotFound, Refused
from core.model.events import Fact, Noun
from core.model.evidence import Chunk
from core.model.keypoints import Matrix, Prediction, Row
from core.model.replies import Diagnosis, Plan
from core.model.run import Done, Failed, Implemented, Judged, Prepared, Run, RunState, Scored, Spend, Stage, Step
from core.model.substrate import Substrate
from core.model.swap import Swap, Version
from core.model.transcript import Place
from core.model.value import sha256
from core.pipeline import history as past
from core.pipeline.depth import TIERS
from core.pipeline.next_step import Terms, next_step
from core.store import Store, batches, consents, facts, ledger, runs, substrates, swaps
from core.swap import window
from flags.raise_flag import NOTED

TRIAL_FILE_BYTES = 5_000_000
"""A longer file is none that a card quotes from."""
LOGS_BYTES = 20_000_000
"""Of all logs of a run together, for whoever sits at the machine."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A flagged turn: what was asked, what the agent answered then, and what the candidate answers."""

    chunk: Chunk
    asked: str
    before: str
    after: str | None = None
    """Of the trial whose levels are the lower median; None when nothing was tried yet."""
    error: str | None = None
    """Why the candidate gave no answer."""


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody said about a flag when its batch was sealed already. It is no evidence; people should know it."""

    person: str
    withdrawn: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    run: Run
    batch: Batch
    chunks: tuple[Chunk, ...]
    steps: tuple[Done, ...]
    substrate: Substrate
    folder: Path
    """Where the artefacts of this run lie."""
    candidate: Candidate | None
    consent: Consent | None
    swap: Swap | None
    version: Version | None
    """What this run made live."""
    before: Version | None
    """What was live when that happened."""
    exchanges: tuple[Exchange, ...]
    notes: tuple[Note, ...] = ()
    """Oldest first."""
    cost: Spend = field(default_factory=Spend)
    """By the ledger, with what is under way, and without its time."""
    by_stage: Mapping[str, Spend] = field(default_factory=dict)
    """The same, stage by stage."""
    month: Spend = field(default_factory=Spend)
    """What all runs of this substrate have cost this month."""

    @property
    def iteration(self) -> int:
        """The one that counts: what was offered, else what was scored last, else what is under way."""
        if self.candidate:
            return self.candidate.iteration
        scored = self.scored(Stage.evaluate)
        return scored.step.iteration if scored else max((done.step.iteration for done in self.steps), default=0)

    @property
    def work(self) -> past.Work:
        """Diagnosis, plan and change of that iteration."""
        return past.work(self.steps, self.iteration)

    @property
    def diagnosis(self) -> Diagnosis | None:
        found = self.work.diagnosis
        return found.diagnosis if found else None

    @property
    def plan(self) -> Plan | None:
        found = self.work.plan
        return found.plan if found else None

    @property
    def prediction(self) -> Prediction | None:
        """What came of what the plan expected; None before it was tried."""
        scored = self.scored(Stage.evaluate)
        return scored.result.prediction if scored and isinstance(scored.result, Scored) else None

    @property
    def prepared(self) -> Prepared | None:
        return past.last(self.steps, Prepared)

    @property
    def judged(self) -> Judged | None:
        return past.last(self.steps, Judged, iteration=self.iteration)

    @property
    def baseline(self) -> Matrix | None:
        return _matrix(self.scored(Stage.baseline))

    @property
    def control(self) -> Matrix | None:
        return _matrix(self.scored(Stage.control))

    @property
    def matrix(self) -> Matrix | None:
        """Of the candidate, or of the last one that was scored."""
        return self.candidate.matrix if self.candidate else _matrix(self.scored(Stage.evaluate))

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix] | None:
        """Recorded, live, candidate; once all three are there."""
        if self.candidate:
            return self.candidate.baseline, self.candidate.control, self.candidate.matrix
        baseline, control, matrix = self.baseline, self.control, self.matrix
        return (baseline, control, matrix) if baseline and control and matrix else None

    @property
    def spend(self) -> Spend:
        """What it has cost, and how long its steps took."""
        return self.cost.model_copy(update={"seconds": past.spent(self.steps).seconds})

    @property
    def trials(self) -> int:
        """How often every conversation is replayed."""
        return TIERS[self.run.dial].trials

    @property
    def branch(self) -> str:
        return f"moss/{self.run.id}"

    @property
    def under_way(self) -> Step | None:
        """What a running run works on at this moment."""
        if self.run.state is not RunState.running:
            return None
        decision = next_step(self.steps, Terms(TIERS[self.run.dial], self.run.budget))
        return decision if isinstance(decision, Step) else None

    @property
    def problems(self) -> list[tuple[str, str]]:
        """What went wrong on the way: (step, sentence)."""
        return [(done.step.name, done.result.sentence) for done in self.steps if isinstance(done.result, Failed)]

    def seconds(self, stage: Stage) -> float:
        """What all steps of a stage took together."""
        took = (done.ended_at - done.started_at for done in self.steps if done.step.stage is stage)
        return sum(each.total_seconds() for each in took)

    def scored(self, *stages: Stage) -> Done | None:
        """The latest step that gave a matrix; of the candidate's own iteration once there is one."""
        for done in reversed(self.steps):
            if isinstance(done.result, Scored) and done.step.stage in stages:
                own = self.candidate is None or done.step.iteration in (0, self.candidate.iteration)
                if own:
                    return done
        return None


def _matrix(done: Done | None) -> Matrix | None:
    return done.result.matrix if done and isinstance(done.result, Scored) else None


async def gather(store: Store, data: Path, run_id: str) -> Report:
    """Raises NotFound. An artefact that is gone or spoilt leaves its place in the report empty."""
    async with store.reading() as db:
        run = await runs.get(db, run_id)
        batch = await batches.get(db, run.batch)
        chunks = tuple(await batches.chunks(db, run.batch))
        noted = [fact for fact in await facts.about(db, Noun.batch, run.batch) if fact.what == NOTED]
        steps = tuple(await runs.history(db, run_id))
        substrate = await substrates.get(db, run.substrate)
        offered = await runs.candidates(db, run_id)
        consent = await consents.of_run(db, run_id)
        swap = await swaps.of_consent(db, consent.id) if consent else None
        versions = await swaps.versions(db, run.substrate) if swap else []
        cost, by_stage = await ledger.of_run(db, run_id), await ledger.by_stage(db, run_id)
        month = await ledger.of_substrate(db, run.substrate, ledger.month_of(store.now()))
    version = next((each for each in versions if swap and each.swap == swap.id and each.image == swap.image), None)
    before = next((each for each in versions if version and each.number == version.number - 1), None)
    report = Report(
        run=run,
        batch=batch,
        chunks=chunks,
        steps=steps,
        substrate=substrate,
        folder=data / "runs" / run_id,
        candidate=offered[-1] if offered else None,
        consent=consent,
        swap=swap,
        version=version,
        before=before,
        exchanges=(),
        notes=tuple(_note(fact) for fact in noted),
        cost=cost,
        by_stage=by_stage,
        month=month,
    )
    return await asyncio.to_thread(_with_exchanges, report)


def _note(fact: Fact) -> Note:
    said = fact.detail
    return Note(str(said.get("person")), said.get("said") == "withdrawn", str(said.get("reason") or ""))


def _with_exchanges(report: Report) -> Report:
    return replace(report, exchanges=tuple(_exchange(report, chunk) for chunk in report.chunks))


def _exchange(report: Report, chunk: Chunk) -> Exchange:
    asked = next((m.content for m in reversed(chunk.transcript.messages[:-1]) if m.role == "user"), "")
    then = Exchange(chunk, asked, chunk.flagged.content)
    evaluated, matrix = report.scored(Stage.evaluate), report.matrix
    rows = [row for row in matrix.rows if row.task == chunk.id] if matrix else []
    if evaluated is None or not rows:
        return then
    trial = read_trial(report.folder / evaluated.step.name / TRIALS.format(task=chunk.id, trial=median_trial(rows)))
    if trial is None:
        return then
    reply = trial.transcript.reply
    return Exchange(chunk, asked, chunk.flagged.content, reply.content if reply else "", trial.error)


def median_trial(rows: list[Row]) -> int:
    """Which trial of a task stands for all of them, counted from 1: with its total in the middle, rather too low."""
    totals = [sum(levels) for levels in zip(*(row.levels for row in rows), strict=False)]
    order = sorted(range(len(totals)), key=lambda k: totals[k])
    return order[(len(order) - 1) // 2] + 1


# Artefacts


def read_trial(file: Path) -> TrialFile | None:
    try:
        if file.stat().st_size > TRIAL_FILE_BYTES:
            return None
        return TrialFile.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def read_trials(report: Report) -> list[TrialFile]:
    """Of the candidate, else of the live agent."""
    if found := report.scored(Stage.evaluate) or report.scored(Stage.control):
        files = sorted((report.folder / found.step.name / "trials").glob("*.json"))
        return [trial for trial in map(read_trial, files) if trial]
    raise missing(report.run, "trials")


def diff_file(report: Report) -> Path:
    """Of the candidate, else of the latest change."""
    if report.candidate:
        return report.folder / report.candidate.diff_artefact
    for done in reversed(report.steps):
        if isinstance(done.result, Implemented):
            return report.folder / done.step.name / DIFF
    raise missing(report.run, "diff")


def read_diff(report: Report) -> str:
    """Exactly what was offered: people decide by it."""
    file = diff_file(report)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{file} is gone; somebody removed it from the data directory.") from None
    if report.candidate and sha256(content) != report.candidate.diff_hash:
        raise Refused(f"The diff of {report.run.id} is not the one that was offered; somebody changed it on the disk.")
    return content.decode("utf-8", "replace")


def read_logs(report: Report, most: int = LOGS_BYTES) -> dict[str, str]:
    """Name, relative to the run, to text. Of what is long in all, the end of each: there a build says why it failed."""
    files = sorted(report.folder.rglob("*.log"))
    if not files:
        raise missing(report.run, "log")
    return {str(file.relative_to(report.folder)): _end(file, most // len(files)) for file in files}


def _end(file: Path, most: int) -> str:
    with file.open("rb") as content:
        left_out = max(content.seek(0, os.SEEK_END) - most, 0)
        content.seek(left_out)
        text = content.read(most).decode("utf-8", "replace")
    return f"… {left_out:,} bytes before this are in {file}\n{text}" if left_out else text


def missing(run: Run, what: str) -> NotFound:
    yet = " yet" if run.state in (RunState.queued, RunState.running) else ""
    return NotFound(f"Run {run.id} is {run.state} and has no {what}{yet}; `moss run show {run.id}` shows what it has.")


# What else people ask for


@dataclass(frozen=True, slots=True)
class Standing:
    """How one substrate stands at this moment."""

    substrate: str
    live: Version | None
    needs_adoption: bool
    swap: Swap | None
    runs: tuple[Run, ...]
    """The latest five, newest first."""
    open_batches: int
    sealed_batches: int
    asked: tuple[Consent, ...]
    """What waits for people, oldest first."""
    held_back: str | None = None
    """Why an approved run is not swapped yet: quiet hours or a freeze."""
    month: Spend = field(default_factory=Spend)
    """What its runs have cost this month."""


async def standing(store: Store, substrate: str) -> Standing:
    why = await window.waiting(store, substrate)
    async with store.reading() as db:
        held = await batches.tally(db, substrate)
        return Standing(
            substrate=substrate,
            live=await swaps.live_version(db, substrate),
            needs_adoption=await substrates.needs_adoption(db, substrate),
            swap=await swaps.in_flight(db, substrate),
            runs=tuple(await runs.listing(db, substrate, 5)),
            open_batches=held.get(BatchState.open, 0),
            sealed_batches=held.get(BatchState.sealed, 0),
            asked=tuple(await consents.asked(db, substrate)),
            held_back=why,
            month=await ledger.of_substrate(db, substrate, ledger.month_of(store.now())),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """A batch, what it holds, and the run that says what it is doing."""

    batch: Batch
    chunks: tuple[Chunk, ...]
    run: Run | None


async def evidence(store: Store, batch_id: str) -> Evidence:
    async with store.reading() as db:
        return Evidence(
            await batches.get(db, batch_id),
            tuple(await batches.chunks(db, batch_id)),
            await runs.latest_of(db, batch_id),
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A batch in a list: how many flagged replies it holds, and the run that says what it is doing."""

    batch: Batch
    held: int
    run: Run | None


async def listed(
    store: Store, substrate: str, limit: int, skip: int = 0, at: Place | None = None
) -> tuple[list[Listed], int]:
    """Some batches, newest first, and how many there are in all. `at` is as in `batches.listing`."""
    async with store.reading() as db:
        found = [
            Listed(batch, await batches.count(db, batch.id), await runs.latest_of(db, batch.id))
            for batch in await batches.listing(db, substrate, skip=skip, limit=limit, at=at)
        ]
        return found, sum((await batches.tally(db, substrate, at=at)).values())
