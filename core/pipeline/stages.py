"""The stages: what is done at each step, and what came of it. The order is not decided here."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from core.model.brief import DIFF, MATRIX, REJECTED, TASK, TRANSCRIPT, TRIALS, MatrixFile, TrialFile
from core.model.errors import Refused
from core.model.keypoints import Keypoint, Matrix, Task, TaskKind
from core.model.replies import (
    CodeReview,
    CodeVerdict,
    Diagnosis,
    Evaluation,
    Implementation,
    Judgement,
    Plan,
    PlanReview,
    Reply,
)
from core.model.run import (
    Built,
    CodeReviewed,
    Implemented,
    Judged,
    Located,
    Planned,
    PlanReviewed,
    Result,
    Scored,
    Stage,
)
from core.model.transcript import Message, Transcript
from core.pipeline import history as past
from core.pipeline import prediction, scoring
from core.pipeline.brief import to_score
from core.pipeline.depth import TIERS
from core.pipeline.make import check_image, make_image
from core.pipeline.scene import BUILD_LOG, CHECKS_LOG, Scene
from core.pipeline.trial import Trial, replay_all
from core.redact import Redactor
from core.repository import Change, check_scope

KEYPOINTS_DEFINED = range(4, 8)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


async def baseline(scene: Scene) -> Result:
    """Score the recordings once and lock the keypoints."""
    scorer = _scorer(scene)
    locked = await scoring.baseline(scorer, scene.tasks.tasks, scene.tasks.accepted)
    _keep_scores(scene, locked, scorer)
    return Scored(matrix=locked)


async def control(scene: Scene) -> Result:
    """Replay the live image as if it were a candidate."""
    return Scored(matrix=await _measure(scene, past.prepared(scene.history).live_image))


async def locate(scene: Scene) -> Result:
    await scene.clone.checkout(scene.base_commit, scene.checkout)
    return Located(diagnosis=await scene.ask(Diagnosis, scene.visible_tasks()))


async def plan(scene: Scene) -> Result:
    await scene.clone.checkout(scene.base_commit, scene.checkout)
    return Planned(plan=await scene.ask(Plan, scene.visible_tasks() | scene.reasoning()))


async def plan_review(scene: Scene) -> Result:
    await scene.clone.checkout(scene.base_commit, scene.checkout)
    review = await scene.ask(PlanReview, scene.visible_tasks() | scene.reasoning())
    return PlanReviewed(verdict=review.verdict, remarks=review.remarks)


async def implement(scene: Scene) -> Result:
    """From a clean checkout of the base, whatever was tried before."""
    await scene.clone.checkout(scene.base_commit, scene.checkout)
    rejected = scene.so_far.change
    files = {REJECTED: await scene.clone.diff(scene.base_commit, rejected.tree)} if rejected else {}
    reply = await scene.ask(Implementation, scene.visible_tasks() | scene.reasoning() | files)

    def allow(change: Change) -> None:
        """People read what was refused as well, but a secret in it goes."""
        secrets = scene.coders.secrets
        scene.keep(DIFF, Redactor(scene.run.id, secrets).text(change.diff))
        check_scope(change, scene.substrate.scope, scene.substrate.protected(), secrets)
        scene.keep(DIFF, change.diff)

    change = await scene.clone.snapshot(scene.checkout, scene.base_commit, scene.substrate.scope, allow)
    return Implemented(
        tree=change.tree,
        diff_hash=change.diff_hash,
        files=change.files,
        insertions=change.insertions,
        deletions=change.deletions,
        summary=reply.summary,
    )


async def code_review(scene: Scene) -> Result:
    """An accepted change becomes its one commit."""
    change = scene.so_far.change
    assert change is not None, "a review without a change"
    await scene.clone.checkout(change.tree, scene.checkout)
    diff = await scene.clone.diff(scene.base_commit, change.tree)
    review = await scene.ask(CodeReview, scene.visible_tasks() | scene.reasoning() | {DIFF: diff})
    commit = await _commit(scene, change) if review.verdict is CodeVerdict.approve else None
    return CodeReviewed(verdict=review.verdict, remarks=review.remarks, commit=commit)


async def build(scene: Scene) -> Result:
    commit = scene.so_far.commit
    assert commit is not None, "a build without a commit"
    image = await make_image(scene.bench, scene.clone, commit, scene.base_commit, scene.folder / BUILD_LOG)
    await check_image(scene.bench, scene.clone, image, scene.base_commit, scene.folder / CHECKS_LOG)
    return Built(image=image)


async def evaluate(scene: Scene) -> Result:
    image = scene.so_far.image
    plan = scene.so_far.plan
    assert image is not None, "an evaluation without an image"
    assert plan is not None, "an evaluation without a plan"
    matrix = await _measure(scene, image)
    held = prediction.hold(plan.plan, scene.step.iteration, past.control(scene.history), matrix)
    return Scored(matrix=matrix, prediction=held)


async def verdict(scene: Scene) -> Result:
    scored = past.last(scene.history, Scored, Stage.evaluate, scene.step.iteration)
    change = scene.so_far.change
    assert scored is not None, "a verdict without scores"
    assert change is not None, "a verdict without a change"
    await scene.clone.checkout(change.tree, scene.checkout)
    matrices = MatrixFile.of(past.baseline(scene.history), past.control(scene.history), scored.matrix)
    files = {
        DIFF: await scene.clone.diff(scene.base_commit, change.tree),
        MATRIX: matrices.model_dump_json(indent=1),
        **_trial_files(scene),
    }
    judgement = await scene.ask(Judgement, scene.reasoning() | files)
    return Judged(verdict=judgement.verdict, reason=judgement.reason)


STAGES: Mapping[Stage, Callable[[Scene], Awaitable[Result]]] = {
    Stage.baseline: baseline,
    Stage.control: control,
    Stage.locate: locate,
    Stage.plan: plan,
    Stage.plan_review: plan_review,
    Stage.implement: implement,
    Stage.code_review: code_review,
    Stage.build: build,
    Stage.evaluate: evaluate,
    Stage.verdict: verdict,
}
"""`prepare` and `offer` are not here: they read and write the store, and `evolve` does that."""


async def _measure(scene: Scene, image: str) -> Matrix:
    """Replay all tasks against an image and score every trial on the locked keypoints."""
    trials = await replay_all(scene.bench, image, scene.tasks.tasks, TIERS[scene.run.dial].trials)
    await asyncio.to_thread(_keep_trials, scene, trials)
    scorer = _scorer(scene)
    matrix = await scoring.matrix(scorer, trials, past.baseline(scene.history).keypoints())
    _keep_scores(scene, matrix, scorer)
    return matrix


def _keep_scores(scene: Scene, matrix: Matrix, scorer: scoring.Scorer) -> None:
    scene.keep(MATRIX, matrix.model_dump_json(indent=1))
    if scorer.remarks:
        scene.keep("scores.log", Redactor(scene.run.id).text("".join(f"{remark}\n" for remark in scorer.remarks)))


def _scorer(scene: Scene) -> scoring.Scorer:
    laid = False

    async def judge(task: Task, transcript: Transcript, keypoints: Sequence[Keypoint]) -> Evaluation:
        nonlocal laid
        if task.kind is TaskKind.holdout:
            raise Refused(f"Held-back task {task.id} has neither checks nor a grader, and no coder may judge it.")
        if not laid:  # code that scores needs none
            await scene.clone.checkout(scene.base_commit, scene.checkout)
            laid = True
        shown = await asyncio.to_thread(Redactor(scene.run.id).transcript, _anonymous(transcript))
        files = {TASK: scene.task_file(task), TRANSCRIPT: shown.model_dump_json(indent=1)}
        part = f"judge-{task.id}-{transcript.digest()[-8:]}"
        asked = to_score(task.id, keypoints)
        return await scene.ask(Evaluation, files, asked, part, None if keypoints else _too_few_or_many)

    return scoring.Scorer(scene.substrate.grader, judge, scene.substrate.trials.workers)


def _anonymous(transcript: Transcript) -> Transcript:
    """What was said and done, and nothing of where it was said and by which version."""
    said = tuple(
        Message(role=m.role, content=m.content, tool_calls=m.tool_calls, error=m.error) for m in transcript.messages
    )
    return Transcript(messages=said)


def _too_few_or_many(reply: Reply) -> str | None:
    count = len(reply.keypoints) if isinstance(reply, Evaluation) else 0
    return None if count in KEYPOINTS_DEFINED else f"it defines {count} keypoints where 4 to 7 are wanted"


def _keep_trials(scene: Scene, trials: Sequence[Trial]) -> None:
    """Redacted: an agent may say what it was built or trusted with. What scores it by code has seen it as it was."""
    words = Redactor(scene.run.id)
    for trial in trials:
        transcript = words.transcript(trial.transcript)
        reply = transcript.reply
        file = TrialFile(task=trial.task.id, trial=trial.k, transcript=transcript, error=reply.error if reply else None)
        scene.keep(TRIALS.format(task=trial.task.id, trial=trial.k), file.model_dump_json(indent=1))


def _trial_files(scene: Scene) -> dict[str, str]:
    """The transcripts of this iteration's trials, without the held-back ones."""
    evaluated = next(
        done
        for done in reversed(scene.history)
        if done.step.stage is Stage.evaluate and isinstance(done.result, Scored)
    )
    names = [
        TRIALS.format(task=task.id, trial=k)
        for task in scene.tasks.tasks
        if task.kind is not TaskKind.holdout
        for k in range(1, TIERS[scene.run.dial].trials + 1)
    ]
    folder: Path = scene.runs / evaluated.step.name
    return {name: (folder / name).read_text("utf-8") for name in names}


async def _commit(scene: Scene, change: Implemented) -> str:
    """Repeated after a crash it gives the same commit: everything in it is fixed by the history."""
    diagnosis = scene.so_far.diagnosis
    assert diagnosis is not None, "a commit without a diagnosis"
    found = diagnosis.diagnosis
    words = Redactor(scene.run.id)
    return await scene.clone.commit(
        change.tree,
        scene.base_commit,
        words.text(_CONTROLS.sub("", f"{_subject(found.summary)}\n\n{change.summary.strip()}")),
        {
            "Moss-Run": scene.run.id,
            "Moss-Iteration": str(scene.step.iteration),
            "Moss-Failure-Class": found.failure_class,
            "Moss-Evidence": scene.run.batch,
        },
        at=scene.run.queued_at,
    )


def _subject(summary: str) -> str:
    lines = summary.strip().splitlines()
    return lines[0][:68] if lines else "A repair"
