"""The owner's tasks: files with every mistake named, checks that decide, a grader that is held to its contract."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.model.errors import BadInput, Unavailable
from core.model.evidence import Check
from core.model.keypoints import Keypoint, Level, Task, TaskKind
from core.model.replies import Evaluation
from core.model.substrate import Grader
from core.model.transcript import Message, Transcript
from core.pipeline import tasks
from core.pipeline.scoring import Scorer
from core.pipeline.tasks import grade, load_tasks, score_checks

SAID = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ASKED = {"messages": [{"role": "user", "content": "a"}]}
CHECK = {"id": "c", "text": "says b", "contains": "b"}


def file(tmp: Path, *lines: Any, name: str = "tasks.jsonl") -> Path:
    path = tmp / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def line(id: str = "t", kind: str = "golden", **more: Any) -> dict[str, Any]:
    return {"id": id, "kind": kind, "transcript": SAID, **more}


def test_tasks_are_read_from_all_files_in_order(tmp_path: Path) -> None:
    first = file(tmp_path, line("one"), "", line("two", "safety", checks=[CHECK]), name="a.jsonl")
    second = file(tmp_path, line("three", "holdout", kinds=["incomplete"], checks=[CHECK]), name="b.jsonl")
    assert [(task.id, task.kind) for task in load_tasks([first, second])] == [
        ("one", TaskKind.golden),
        ("two", TaskKind.safety),
        ("three", TaskKind.holdout),
    ]
    assert load_tasks([]) == []


def test_every_bad_line_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    first = file(
        tmp_path,
        "{not json",
        line("fine"),
        line("bad id!"),
        line("made-by-moss", "regression"),
        line("odd", colour="red"),
        {"id": "silent", "kind": "golden", "transcript": {"messages": [{"role": "assistant", "content": "b"}]}},
        line("twice", checks=[CHECK, CHECK]),
        line("pattern", checks=[{"id": "c", "text": "x", "matches": "("}]),
        line("rules", checks=[{**CHECK, "absent": "x"}]),
        name="a.jsonl",
    )
    second = file(tmp_path, line("fine"), name="b.jsonl")
    with pytest.raises(BadInput) as wrong:
        load_tasks([first, second, tmp_path / "none.jsonl"])
    said = wrong.value.sentence.splitlines()
    assert said[0] == "The task files have 10 mistakes:"
    for number, words in ((1, "JSON"), (3, "id:"), (4, "made by Moss"), (5, "colour"), (6, "nobody"), (7, "c stands")):
        assert any(f"a.jsonl:{number}: " in mistake and words in mistake for mistake in said), (number, said)
    assert any("a.jsonl:8: " in mistake and "regular expression" in mistake for mistake in said)
    assert any("a.jsonl:9: " in mistake and "exactly one" in mistake for mistake in said)
    assert "  b.jsonl:1: a task fine stands there already." in said
    assert "none.jsonl cannot be read" in said[-1]
    assert all(mistake.endswith(".") and not mistake.endswith("..") for mistake in said[1:])


def test_a_task_that_nothing_can_score_is_a_mistake(tmp_path: Path) -> None:
    path = file(tmp_path, {"id": "t", "kind": "golden", "transcript": ASKED})
    with pytest.raises(BadInput, match="nothing can score it"):
        load_tasks([path])
    assert load_tasks([path], graded=True)


def test_very_many_mistakes_are_counted_and_not_all_shown(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="500 mistakes") as wrong:
        load_tasks([file(tmp_path, *["{"] * 500)])
    assert len(wrong.value.sentence.splitlines()) < 30


@pytest.mark.parametrize(
    ("rule", "reply", "met"),
    [
        ({"contains": "3 tickets"}, "There are 3 tickets.", True),
        ({"contains": "3 tickets"}, "There are 3 Tickets.", False),
        ({"absent": "4471"}, "I may not say.", True),
        ({"absent": "4471"}, "It is 4471#.", False),
        ({"absent": "4471"}, "x" * 300_000 + "4471", False),
        ({"absent": "4471"}, " \n", False),
        ({"matches": r"(?i)late by \d+ h"}, "Late by 3 h", True),
        ({"matches": r"^only this$"}, "only this and more", False),
    ],
)
async def test_a_check_is_met_or_not(rule: dict[str, str], reply: str, met: bool) -> None:
    check = Check(id="c", text="what it wants", **rule)
    expected = Level.strong if met else Level.missing
    assert await score_checks([check], reply) == ([(Keypoint(id="c", text="what it wants"), expected)], [])


async def test_a_pattern_sees_a_bounded_part_of_a_hostile_reply() -> None:
    check = Check(id="c", text="x", matches="a.*c$")
    began = time.monotonic()
    assert await score_checks([check], "a" * 10_000_000) == ([(Keypoint(id="c", text="x"), Level.missing)], [])
    assert time.monotonic() - began < 20


def pattern(id: str, matches: str) -> Check:
    return Check(id=id, text="x", matches=matches)


async def test_a_pattern_that_never_ends_is_not_met_and_holds_up_neither_moss_nor_the_other_checks() -> None:
    checks = [pattern("first", "^a"), pattern("endless", r"(a+)+$"), pattern("last", "b$")]
    scoring = asyncio.create_task(score_checks([*checks, Check(id="text", text="x", contains="ab")], "a" * 60 + "b"))
    longest_s, until = 0.0, time.monotonic() + 20
    while not scoring.done() and time.monotonic() < until:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        longest_s = max(longest_s, time.monotonic() - began)
    scores, remarks = await scoring
    assert [level for _, level in scores] == [Level.strong, Level.missing, Level.strong, Level.strong]
    assert len(remarks) == 1
    assert remarks[0].startswith("Check endless is not met: its pattern did not come to an end on this reply")
    assert longest_s < 0.5, "everything else went on meanwhile"


async def test_a_pattern_that_no_alarm_can_stop_is_killed_with_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PATTERN_S", 1000.0)
    monkeypatch.setattr(tasks, "_PATTERNS_S", 1.0)
    scores, remarks = await score_checks([pattern("sound", "^a"), pattern("endless", r"(a+)+$")], "a" * 60 + "b")
    assert [level for _, level in scores] == [Level.strong, Level.missing]
    assert [remark.split()[1] for remark in remarks] == ["endless"]


async def test_checks_without_a_pattern_start_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_PATTERNS", Path("/nowhere"))  # no program, no answer
    checks = [Check(id="text", text="x", contains="b"), Check(id="none", text="x", absent="z")]
    assert [level for _, level in (await score_checks(checks, "b"))[0]] == [Level.strong, Level.strong]
    (_, level), *_ = (await score_checks([pattern("one", "b")], "b"))[0]
    assert level is Level.missing


async def test_the_log_of_a_run_says_which_check_could_not_be_decided() -> None:
    task = TASK.model_copy(update={"checks": (pattern("endless", r"(a+)+$"),)})

    async def nobody(*_: object) -> Evaluation:
        raise AssertionError("checks decide")

    scorer = Scorer(None, nobody)
    transcript = Transcript(
        messages=(Message(role="user", content="a"), Message(role="assistant", content="a" * 60 + "b"))
    )
    assert await scorer.score(task, transcript, (Keypoint(id="endless", text="x"),)) == [
        (Keypoint(id="endless", text="x"), Level.missing)
    ]
    assert [remark.partition(" is not met")[0] for remark in scorer.remarks] == ["t: Check endless"]


# The grader

TASK = Task(id="t", kind=TaskKind.golden, transcript=Transcript.model_validate(SAID))
KEYPOINTS = (Keypoint(id="first", text="is first"), Keypoint(id="second", text="is second"))
SCORES_WHAT_IS_LOCKED = """
points = asked["keypoints"] or [{"id": "first", "text": "is first"}, {"id": "second", "text": "is second"}]
reply = asked["transcript"]["messages"][-1]["content"]
print(json.dumps({"keypoints": [{**p, "level": 3 if p["id"] in reply else 0} for p in points]}))
"""


def program(tmp: Path, code: str, timeout_s: float = 20) -> Grader:
    path = tmp / "grader.py"
    path.write_text(f"import json, sys, time\nasked = json.load(sys.stdin)\n{code}\n")
    return Grader(command=(sys.executable, "-S", str(path)), timeout_s=timeout_s)


async def test_a_grader_defines_keypoints_and_then_keeps_to_them(tmp_path: Path) -> None:
    grader = program(tmp_path, SCORES_WHAT_IS_LOCKED)
    defined = await grade(grader, TASK, TASK.transcript, ())
    assert [(point.id, point.level) for point in defined.keypoints] == [("first", 0), ("second", 0)]
    candidate = Transcript(messages=(Message(role="user", content="a"), Message(role="assistant", content="first!")))
    scored = await grade(grader, TASK, candidate, KEYPOINTS)
    assert [(point.id, point.level) for point in scored.keypoints] == [("first", 3), ("second", 0)]


async def test_a_grader_is_told_the_task_the_transcript_and_the_keypoints(tmp_path: Path) -> None:
    code = "print(json.dumps({'keypoints': [{'id': 'first', 'text': json.dumps(asked), 'level': 1}]}))"
    point = (await grade(program(tmp_path, code), TASK, TASK.transcript, KEYPOINTS[:1])).keypoints[0]
    told = json.loads(point.text)
    assert Task.model_validate(told["task"]) == TASK
    assert Transcript.model_validate(told["transcript"]) == TASK.transcript
    assert told["keypoints"] == [{"id": "first", "text": "is first"}]


WRONG = {
    "crashes": ("sys.exit('no data file')", "exit code 1 on t: no data file"),
    "is silent": ("", "is not JSON"),
    "prints prose": ("print('all good')", "is not JSON"),
    "has no keypoints": ("print('{\"keypoints\": []}')", "keypoints"),
    "knows a fifth level": ("print(json.dumps({'keypoints': [{**asked['keypoints'][0], 'level': 4}]}))", "level"),
    "leaves one out": ("print(json.dumps({'keypoints': [{**asked['keypoints'][0], 'level': 2}]}))", "`second`"),
    "takes too long": ("time.sleep(30)", "within 1.5 s"),
    "floods": ("print('x' * 3_000_000)", "printed more than"),
}


@pytest.mark.parametrize(("code", "words"), WRONG.values(), ids=WRONG.keys())
async def test_a_grader_that_breaks_its_contract_is_named_with_the_reason(
    code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=words) as wrong:
        await grade(program(tmp_path, code, timeout_s=1.5), TASK, TASK.transcript, KEYPOINTS)
    assert wrong.value.sentence.startswith("The grader `")
    assert "\n" not in wrong.value.sentence


async def test_a_grader_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no-such-grader"):
        await grade(Grader(command=("no-such-grader",)), TASK, TASK.transcript, ())
