"""Scoring: by the owner's program where there is one, else by the task's own checks, else by a judging coder."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from core.model.keypoints import Keypoint, Level, Matrix, Row, Task
from core.model.replies import Evaluation
from core.model.substrate import Grader
from core.model.transcript import Transcript
from core.pipeline.tasks import grade, score_checks
from core.pipeline.trial import Trial

Keypoints = tuple[Keypoint, ...]
Scores = list[tuple[Keypoint, Level]]
Judge = Callable[[Task, Transcript, Keypoints], Awaitable[Evaluation]]


class Scorer:
    """Remembers what it judged: an agent that answers all trials alike is judged once, and always alike."""

    def __init__(self, grader: Grader | None, judge: Judge) -> None:
        self._grader = grader
        self._judge = judge
        self._judged: dict[tuple[str, str], Scores] = {}

    async def define(self, task: Task) -> Scores:
        """The recorded reply's levels, and with them the keypoints of the task."""
        return await self._score(task, task.transcript, ())

    async def score(self, task: Task, transcript: Transcript, keypoints: Keypoints) -> Scores:
        """Exactly the locked keypoints; what the scorer left out is missing, what it added is ignored."""
        reply = transcript.reply
        if reply is None or reply.error is not None:
            return [(keypoint, Level.missing) for keypoint in keypoints]
        key = (task.id, transcript.digest())
        if key not in self._judged:
            found = {keypoint.id: level for keypoint, level in await self._score(task, transcript, keypoints)}
            self._judged[key] = [(keypoint, found.get(keypoint.id, Level.missing)) for keypoint in keypoints]
        return self._judged[key]

    async def _score(self, task: Task, transcript: Transcript, keypoints: Keypoints) -> Scores:
        if self._grader:
            return _levels(await grade(self._grader, task, transcript, keypoints))
        if task.checks:
            reply = transcript.reply
            return score_checks(task.checks, reply.content if reply else "")
        return _levels(await self._judge(task, transcript, keypoints))


def _levels(evaluation: Evaluation) -> Scores:
    scores = {point.id: (Keypoint(id=point.id, text=point.text), point.level) for point in evaluation.keypoints}
    return list(scores.values())


async def baseline(scorer: Scorer, tasks: Sequence[Task], known: Iterable[Row]) -> Matrix:
    """Score the recordings and lock every keypoint. Tasks of earlier fixes keep those they were accepted with."""
    locked = tuple(known)
    done = {row.task for row in locked}
    rows = list(locked)
    for task in tasks:
        if task.id not in done:
            rows.extend(_row(task, keypoint, (level,)) for keypoint, level in await scorer.define(task))
    return Matrix(rows=tuple(rows))


async def matrix(scorer: Scorer, trials: Sequence[Trial], locked: Mapping[str, Keypoints]) -> Matrix:
    """One row per locked keypoint, one level per trial."""
    rows = []
    for task in {trial.task.id: trial.task for trial in trials}.values():
        keypoints = locked.get(task.id, ())
        scored = [await scorer.score(t.task, t.transcript, keypoints) for t in trials if t.task.id == task.id]
        for n, keypoint in enumerate(keypoints):
            rows.append(_row(task, keypoint, tuple(scores[n][1] for scores in scored)))
    return Matrix(rows=tuple(rows))


def _row(task: Task, keypoint: Keypoint, levels: tuple[Level, ...]) -> Row:
    return Row(task=task.id, kind=task.kind, keypoint=keypoint, levels=levels)
