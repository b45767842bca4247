"""Scoring: by the owner's program where there is one, else by the task's own checks, else by a judging coder."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from core.model.keypoints import Keypoint, Level, Matrix, Row, Task
from core.model.replies import Evaluation
from core.model.substrate import Grader
from core.model.transcript import Transcript
from core.pipeline.tasks import grade, score_checks
from core.pipeline.trial import Trial

T = TypeVar("T")
Keypoints = tuple[Keypoint, ...]
Scores = list[tuple[Keypoint, Level]]
Judge = Callable[[Task, Transcript, Keypoints], Awaitable[Evaluation]]


class Scorer:
    """Remembers what it judged: an agent that answers all trials alike is judged once, and always alike."""

    def __init__(self, grader: Grader | None, judge: Judge, at_once: int = 1) -> None:
        """So many graders may work at once. Judges take turns, since they share one checkout."""
        self._places = asyncio.Semaphore(at_once if grader else 1)
        self._grader = grader
        self._judge = judge
        self._judged: dict[tuple[str, str], Scores] = {}
        self.remarks: list[str] = []
        """What its owner should know about the checks, beyond the levels."""

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
        async with self._places:
            return await self._ask(task, transcript, keypoints)

    async def _ask(self, task: Task, transcript: Transcript, keypoints: Keypoints) -> Scores:
        if self._grader:
            return _levels(await grade(self._grader, task, transcript, keypoints))
        if task.checks:
            reply = transcript.reply
            scores, remarks = await score_checks(task.checks, reply.content if reply else "")
            self.remarks += [f"{task.id}: {remark}" for remark in remarks]
            return scores
        return _levels(await self._judge(task, transcript, keypoints))


def _levels(evaluation: Evaluation) -> Scores:
    scores = {point.id: (Keypoint(id=point.id, text=point.text), point.level) for point in evaluation.keypoints}
    return list(scores.values())


async def baseline(scorer: Scorer, tasks: Sequence[Task], known: Iterable[Row]) -> Matrix:
    """Score the recordings and lock every keypoint. Tasks of earlier fixes keep those they were accepted with."""
    locked = tuple(known)
    done = {row.task for row in locked}
    fresh = [task for task in tasks if task.id not in done]
    defined = await _together(scorer.define(task) for task in fresh)
    rows = [
        _row(task, keypoint, (level,))
        for task, scores in zip(fresh, defined, strict=True)
        for keypoint, level in scores
    ]
    return Matrix(rows=(*locked, *rows))


async def matrix(scorer: Scorer, trials: Sequence[Trial], locked: Mapping[str, Keypoints]) -> Matrix:
    """One row per locked keypoint, one level per trial."""
    tasks = list({trial.task.id: trial.task for trial in trials}.values())

    async def of(task: Task) -> list[Row]:
        keypoints = locked.get(task.id, ())
        scored = [await scorer.score(t.task, t.transcript, keypoints) for t in trials if t.task.id == task.id]
        return [_row(task, keypoint, tuple(scores[n][1] for scores in scored)) for n, keypoint in enumerate(keypoints)]

    return Matrix(rows=tuple(row for rows in await _together(of(task) for task in tasks) for row in rows))


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each comes to, in this order. The first that fails ends the others, and says why."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


def _row(task: Task, keypoint: Keypoint, levels: tuple[Level, ...]) -> Row:
    return Row(task=task.id, kind=task.kind, keypoint=keypoint, levels=levels)
