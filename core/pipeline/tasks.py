"""The owner's tasks: read from files, scored by their checks or by the owner's grader."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from core import process
from core.model.errors import BadInput
from core.model.evidence import Check
from core.model.keypoints import Keypoint, Level, Task, TaskKind
from core.model.replies import Evaluation
from core.model.substrate import Grader
from core.model.transcript import Transcript

OWNERS = (TaskKind.golden, TaskKind.safety, TaskKind.holdout)

_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SHOWN_MISTAKES = 20
_MATCHED_CHARS = 8192
"""A pattern is the owner's, what it is matched against is not: a long reply keeps a careless one busy for hours."""
_EVALUATION_LIMIT_BYTES = 1_000_000


def load_tasks(paths: Iterable[Path], *, graded: bool = False) -> list[Task]:
    """One task a line. Raises BadInput that names every bad line of every file.

    Without a grader (`graded` is false) a task needs checks, or a recorded reply for a judge to learn from.
    """
    tasks: dict[str, Task] = {}
    mistakes: list[str] = []
    for path in paths:
        for number, line in _lines(path, mistakes):
            task, problem = _task(line, graded)
            if task is not None and task.id in tasks:
                problem = f"a task {task.id} stands there already"
            if problem:
                mistakes.append(f"{path.name}:{number}: {problem.rstrip('.')}.")
            elif task is not None:
                tasks[task.id] = task
    if mistakes:
        shown = mistakes[:_SHOWN_MISTAKES]
        if len(mistakes) > len(shown):
            shown.append(f"and {len(mistakes) - len(shown)} more.")
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise BadInput(f"The task files have {count}:\n" + "\n".join(f"  {mistake}" for mistake in shown))
    return list(tasks.values())


def _lines(path: Path, mistakes: list[str]) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        mistakes.append(f"{path} cannot be read: {reason}.")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _task(line: str, graded: bool) -> tuple[Task | None, str]:
    """The task of a line, or what is wrong with it."""
    try:
        task = Task.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return None, f"{where}: {first['msg']}" if where else first["msg"]
    return task, _problem(task, graded)


def _problem(task: Task, graded: bool) -> str:
    if not _ID.fullmatch(task.id):
        return "id: use up to 64 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
    if task.kind not in OWNERS:
        return f"kind: {task.kind} tasks are made by Moss; use {', '.join(OWNERS)}"
    if not task.transcript.user_turns():
        return "transcript: nobody but the agent speaks in it"
    ids = [check.id for check in task.checks]
    if twice := {id for id in ids if ids.count(id) > 1}:
        return f"checks: {min(twice)} stands there twice"
    for check in task.checks:
        try:
            re.compile(check.matches or "")
        except re.error as error:
            return f"checks: {check.id}: matches is no regular expression ({error})"
    if task.kind is TaskKind.holdout and not graded and not task.checks:
        return "checks: a held-back task needs some, or a grader: a judge is a coder, and no coder may see it"
    if not graded and not task.checks and task.transcript.messages[-1].role != "assistant":
        return "checks: without any, and without a grader or a recorded reply, nothing can score it"
    return ""


def score_checks(checks: Iterable[Check], reply: str) -> list[tuple[Keypoint, Level]]:
    """Met is strong, not met is missing. A reply that says nothing meets nothing, not even `absent`."""
    return [
        (
            Keypoint(id=check.id, text=check.text),
            Level.strong if reply.strip() and _met(check, reply) else Level.missing,
        )
        for check in checks
    ]


def _met(check: Check, reply: str) -> bool:
    if check.contains is not None:
        return check.contains in reply
    if check.absent is not None:
        return check.absent not in reply
    return re.search(check.matches or "", reply[:_MATCHED_CHARS]) is not None


async def grade(grader: Grader, task: Task, transcript: Transcript, keypoints: Sequence[Keypoint]) -> Evaluation:
    """Ask the owner's program. Without keypoints it defines them; with keypoints it scores exactly those."""
    name = f"The grader `{' '.join(grader.command)}`"
    request = {
        "task": task.model_dump(mode="json"),
        "transcript": transcript.model_dump(mode="json"),
        "keypoints": [keypoint.model_dump(mode="json") for keypoint in keypoints],
    }
    done = await process.run(
        grader.command,
        stdin=json.dumps(request).encode(),
        timeout_s=grader.timeout_s,
        limit_bytes=_EVALUATION_LIMIT_BYTES,
    )
    if done.timed_out:
        raise BadInput(f"{name} did not score {task.id} within {grader.timeout_s:g} s; raise grader.timeout_s.")
    if done.cut:
        raise BadInput(f"{name} printed more than {_EVALUATION_LIMIT_BYTES} bytes on {task.id}; print the scores only.")
    if done.exit_code != 0:
        words = " ".join(done.stderr[-400:].decode("utf-8", "replace").split())
        raise BadInput(f"{name} ended with exit code {done.exit_code} on {task.id}: {words or 'it said nothing'}")
    try:
        evaluation = Evaluation.model_validate_json(done.stdout)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the reply"
        raise BadInput(f"{name} answered {task.id} wrongly: {where}: {first['msg']}.") from None
    asked, scored = {keypoint.id for keypoint in keypoints}, {point.id for point in evaluation.keypoints}
    if asked and asked != scored:
        raise BadInput(
            f"{name} must score exactly the keypoints it is given, and {_listed(asked ^ scored)} of {task.id} "
            f"{'is' if len(asked ^ scored) == 1 else 'are'} in one and not in the other."
        )
    return evaluation


def _listed(ids: set[str]) -> str:
    return ", ".join(f"`{id}`" for id in sorted(ids)[:5])
