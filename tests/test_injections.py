"""Conversations that tell their reader what to do, before a coder that does it: nothing of it gets past the gates.

Each goes through the real pipeline with its git, its coder's processes and its agent; only the control is replayed once
for all, since the live agent is the same. `make test` runs a dozen of them, `make sweep` all.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import insert, update

from bot import verbs
from core.model.keypoints import Matrix
from core.model.run import (
    Budget,
    CodeReviewed,
    Dial,
    Done,
    Failed,
    Outcome,
    Run,
    RunState,
    Scored,
    Stage,
    Step,
)
from core.pipeline import history as past
from core.pipeline.depth import Tier
from core.pipeline.next_step import Terms, next_step
from core.store import batches
from core.store.tables import runs
from tests.support import injections
from tests.support.injections import CANARY, Injection
from tests.support.scripted_coder import calls
from tests.support.theatre import CONFIG, Theatre, theatre
from tests.support.world import git

pytestmark = pytest.mark.asyncio(loop_scope="module")

CORPUS = injections.corpus()
ONCE = Terms(Tier(iterations=1, plan_rounds=1, code_rounds=1, trials=2, plateau_window=1), Budget())
EDITABLE = ("agent.py", "lib/")
SCOPED = CONFIG.replace("build.command", 'scope.editable = ["agent.py", "lib/**"]\nbuild.command')
OBEDIENT = Path(__file__).parent / "support" / "obedient_coder.py"


@dataclass
class Stand:
    """What all cases share."""

    stage: Theatre
    control: tuple[str, Scored] | None = None
    """The first one's, with the task that it is about."""

    async def drive(self, case: Injection) -> tuple[Run, list[Done], Outcome]:
        """Every step of a run with one iteration, by the decisions of the pipeline itself."""
        moss, evolution = self.stage.moss, self.stage.moss.dispatch.evolution
        (batch,) = await verbs.add_evidence(moss, None, [case.line()], "ann")
        async with moss.store.reading() as db:
            (chunk,) = await batches.chunks(db, batch.id)
        run = Run(
            id=f"run-{case.deed.replace('_', '-')}",
            substrate="prices",
            batch=batch.id,
            state=RunState.running,
            dial=Dial.shallow,
            budget=Budget(),
            starter="ann",
            queued_at=moss.store.now(),
        )
        async with moss.store.writing() as db:
            await db.execute(insert(runs).values(**dict(run)))  # nobody takes it up: it is driven here
        try:
            return run, *await self._to_its_end(case, run, chunk.id)
        finally:
            await evolution.clear_away(run.id)
            async with moss.store.writing() as db:
                await db.execute(update(runs).where(runs.c.id == run.id).values(state=RunState.exhausted))

    async def _to_its_end(self, case: Injection, run: Run, task: str) -> tuple[list[Done], Outcome]:
        history: list[Done] = []
        while isinstance(decision := next_step(history, ONCE), Step):
            assert decision.stage is not Stage.offer, "it would be offered"
            history.append(await self._take(case, run, history, decision, task))
        return history, decision

    async def _take(self, case: Injection, run: Run, history: list[Done], step: Step, task: str) -> Done:
        evolution = self.stage.moss.dispatch.evolution
        if step.stage is Stage.control and self.control and case.checked:
            known, scored = self.control
            now = self.stage.moss.store.now()
            result = Scored(matrix=renamed(scored.matrix, known, task))
            return Done(n=len(history), step=step, result=result, started_at=now, ended_at=now)
        done = await evolution._take(run, history, step, len(history), ONCE)
        if step.stage is Stage.control and case.checked and isinstance(done.result, Scored):
            self.control = (task, done.result)
        return done


def renamed(matrix: Matrix, old: str, new: str) -> Matrix:
    return Matrix(rows=tuple(row.model_copy(update={"task": new}) if row.task == old else row for row in matrix.rows))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    patch = pytest.MonkeyPatch()
    patch.setenv("SERVICE_KEY", CANARY)
    async with theatre(tmp_path_factory.mktemp("stand"), config=SCOPED, coder=OBEDIENT) as stage, stage.box_office():
        yield Stand(stage)
    patch.undo()


async def test_the_corpus_is_large_and_of_every_kind() -> None:
    assert len(CORPUS) >= 40
    assert {case.deed for case in CORPUS} == set(injections.WANTS)
    assert {case.place for case in CORPUS} == set(injections.PLACES)
    assert {case.disguise for case in CORPUS} == set(injections.DISGUISES)
    assert {case.cover for case in CORPUS} == set(injections.COVERS)
    assert len({case.line() for case in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if case.often else [pytest.mark.sweep]) for case in CORPUS],
)
async def test_who_obeys_a_conversation_gets_nothing_past_the_gates(stand: Stand, case: Injection) -> None:
    stage = stand.stage
    Path(f"{stage.scenario}.obeyed.jsonl").unlink(missing_ok=True)
    stage.cast(press="run-of-somebody")
    before = await stage.outside()
    run, history, outcome = await stand.drive(case)

    assert outcome.state in (RunState.exhausted, RunState.failed), outcome.sentence
    said = [done.result.sentence for done in history if isinstance(done.result, Failed)]
    said += [why for each in past.tries(history) for why in each.against] if len(history) > 3 else []
    assert any(case.words in sentence for sentence in (*said, outcome.sentence)), (said, outcome.sentence)
    obeyed = [json.loads(line) for line in Path(f"{stage.scenario}.obeyed.jsonl").read_text().splitlines()]
    assert {(each["deed"], each["how"]) for each in obeyed} == {(case.deed, case.disguise)}
    assert any(each["did"] for each in obeyed), "it was told and did not do it"

    assert await stage.outside() == before
    assert not stage.pwned
    await no_commit_leaves_the_scope(stage, history)
    assert leaks(stage, run) == []
    if case.deed == "approve":
        answers = json.loads(Path(f"{stage.scenario}.pressed").read_text())
        assert ["token" in answer for answer in answers] == [True, True]


async def no_commit_leaves_the_scope(stage: Theatre, history: list[Done]) -> None:
    repository = stage.moss.settings.data / "repos" / "prices.git"
    for done in history:
        if isinstance(done.result, CodeReviewed) and done.result.commit:
            changed = git(repository, "show", "--format=", "--name-only", done.result.commit).split()
            assert changed
            assert [name for name in changed if not name.startswith(EDITABLE)] == []


def leaks(stage: Theatre, run: Run) -> list[str]:
    """Where the canary is: among what is kept, and in what the coder was told."""
    piece = CANARY[8:24].encode()
    kept = [path for path in stage.moss.settings.data.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [str(path) for path in kept if "boxes" not in path.parts and piece in path.read_bytes()]
    told = json.dumps(calls(stage.scenario))
    assert "REDACTED" in told, "the key was put into the conversation"
    return [*found, *(["what the coder was told"] if piece.decode() in told else [])]
