"""The owner's tasks: read from files, scored by their checks or by the owner's grader."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from core import process
from core.model.errors import BadInput
from core.model.evidence import Check
from core.model.keypoints import Keypoint, Level, Task, TaskKind
from core.model.mistakes import in_words
from core.model.replies import Evaluation
from core.model.substrate import Grader
from core.model.transcript import Transcript

OWNERS = (TaskKind.golden, TaskKind.safety, TaskKind.holdout)

_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SHOWN_MISTAKES = 20
_MATCHED_CHARS = 8192
"""A pattern is the owner's, what it is matched against is not; and what it finds, it finds at the beginning."""
PATTERN_S = 1.0
"""Of a processor: what a pattern may take. A sound one takes milliseconds."""
_PATTERNS_S = 30.0
"""Of the clock: what all patterns of one reply may take together, the start of their program included."""
_PATTERNS = Path(__file__).with_name("patterns.py")
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
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return None, f"{where}: {in_words(first)}" if where else in_words(first)
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


async def score_checks(checks: Sequence[Check], reply: str) -> tuple[list[tuple[Keypoint, Level]], list[str]]:
    """Met is strong, not met is missing; and a sentence for each check that could not be decided, which is then not
    met. A reply that says nothing meets nothing, not even `absent`."""
    says_something = bool(reply.strip())
    patterns = {check.id: check.matches for check in checks if check.matches is not None}
    found = await _search(patterns, reply) if patterns and says_something else {}
    scores = [
        (
            Keypoint(id=check.id, text=check.text),
            Level.strong if says_something and _met(check, reply, found) else Level.missing,
        )
        for check in checks
    ]
    return scores, [_undecided(check, answer) for check, answer in found.items() if answer not in ("yes", "no")]


def _met(check: Check, reply: str, found: dict[str, str]) -> bool:
    if check.contains is not None:
        return check.contains in reply
    if check.absent is not None:
        return check.absent not in reply
    return found[check.id] == "yes"


async def _search(patterns: dict[str, str], reply: str) -> dict[str, str]:
    """All patterns of a reply in one program, which can be ended whatever they do to it: check -> its answer."""
    asked = {"patterns": list(patterns.values()), "text": reply[:_MATCHED_CHARS], "limit_s": PATTERN_S}
    argv = (sys.executable, "-I", "-S", str(_PATTERNS))
    done = await process.run(argv, stdin=json.dumps(asked).encode(), timeout_s=_PATTERNS_S)
    answers = done.stdout.decode().split()
    return {check: answers[n] if n < len(answers) else "slow" for n, check in enumerate(patterns)}


def _undecided(check: str, answer: str) -> str:
    if answer == "wrong":
        return f"Check {check} is not met: its pattern is no regular expression that Python can search for; mend it."
    return f"Check {check} is not met: its pattern did not come to an end on this reply; make it backtrack less."


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
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the reply"
        raise BadInput(f"{name} answered {task.id} wrongly: {where}: {in_words(first)}.") from None
    asked, scored = {keypoint.id for keypoint in keypoints}, {point.id for point in evaluation.keypoints}
    if asked and asked != scored:
        raise BadInput(
            f"{name} must score exactly the keypoints it is given, and {_listed(asked ^ scored)} of {task.id} "
            f"{'is' if len(asked ^ scored) == 1 else 'are'} in one and not in the other."
        )
    return evaluation


def _listed(ids: set[str]) -> str:
    return ", ".join(f"`{id}`" for id in sorted(ids)[:5])
