"""Whether a plan knew what it would do, and who is told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot import render
from core.model.keypoints import Keypoint, Level, Matrix, Prediction, Row, TaskKind
from core.model.replies import Change, Plan
from core.model.run import RunState, Scored, Stage
from core.pipeline.prediction import hold
from tests.support.scripted_coder import calls
from tests.support.theatre import FIXED, Theatre, agent, theatre


def matrix(**levels: int) -> Matrix:
    """`t1_a=2` is keypoint a of task t1; a task that begins with h is held back."""
    rows = []
    for name, level in levels.items():
        task, _, point = name.partition("_")
        kind = TaskKind.holdout if task.startswith("h") else TaskKind.batch
        rows.append(Row(task=task, kind=kind, keypoint=Keypoint(id=point, text="x"), levels=(Level(level),)))
    return Matrix(rows=tuple(rows))


def plan(better: tuple[str, ...] = (), worse: tuple[str, ...] = ()) -> Plan:
    change = Change(path="a.py", change="a loop")
    return Plan(summary="keep all", changes=(change,), expect_better=better, may_hurt=worse)


BEFORE = matrix(t1_a=0, t1_b=1, t1_c=3, t2_a=2, t2_b=3, h1_a=0)


def test_a_prediction_is_met_missed_or_a_surprise() -> None:
    after = matrix(t1_a=3, t1_b=1, t1_c=3, t2_a=3, t2_b=2, h1_a=3)
    held = hold(plan(better=("t1/a", "t1/b"), worse=("t1/c",)), 2, BEFORE, after)
    assert held == Prediction(iteration=2, met=("t1/a",), missed=("t1/b",), rose=("t2/a",), fell=("t2/b",))


def test_a_fall_that_was_feared_is_no_surprise_and_one_that_did_not_come_is_not_told() -> None:
    after = matrix(t1_a=0, t1_b=1, t1_c=0, t2_a=2, t2_b=3, h1_a=0)
    held = hold(plan(worse=("t1/c", "t2/b")), 1, BEFORE, after)
    assert held == Prediction(iteration=1, hurt=("t1/c",))


def test_a_keypoint_that_was_not_scored_at_all_has_fallen() -> None:
    held = hold(plan(), 1, BEFORE, matrix(t1_a=0, t1_b=1, t2_a=2, t2_b=3, h1_a=0))
    assert held.fell == ("t1/c",)


def test_words_around_a_keypoint_do_no_harm_and_what_names_none_is_said() -> None:
    after = matrix(t1_a=3, t1_b=1, t1_c=3, t2_a=2, t2_b=3, h1_a=3)
    lines = ("`t1/a`: names all parts.", " t1/b.", "everything gets better\nsoon", "t9/a", "h1/a", "t1/a")
    held = hold(plan(better=lines), 1, BEFORE, after)
    assert (held.met, held.missed) == (("t1/a",), ("t1/b",))
    assert held.unknown == ("everything gets better soon", "t9/a", "h1/a"), "a held-back task is unknown to a plan"
    assert "h1" not in str(held.rose)


def test_the_terminal_shows_what_came_of_it() -> None:
    held = Prediction(iteration=1, met=("t1/a",), missed=("t1/b",), fell=("t2/\x1b[31mb",))
    console = render.console()
    with console.capture() as shown:
        console.print(render.plan(plan(), held))
        console.print(render.matrices(BEFORE, BEFORE, BEFORE, held))
    for said in ("rose as expected: t1/a", "did NOT rise, though expected: t1/b", r"FELL unexpectedly: t2/\x1b[31mb"):
        assert shown.get().count(said) == 2
    assert "feared" not in shown.get()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


async def test_the_next_iteration_is_told_what_the_first_plan_got_wrong(stage: Theatre) -> None:
    wrong = {"reply": {"expect_better": ["one-good/price"], "may_hurt": []}}
    more = {"reply": {"verdict": "NEED_MORE_WORK", "reason": "Look again."}}
    run = await stage.play(patch=agent(FIXED), roles={"plan": [wrong, {}], "verdict": [more, {}]})
    assert run.state is RunState.awaiting_consent, run.sentence
    scored = [
        done.result
        for done in await stage.history(run)
        if done.step.stage is Stage.evaluate and isinstance(done.result, Scored)
    ]
    held = [each.prediction for each in scored]
    assert held[0]
    assert held[1]
    assert (held[0].iteration, held[0].met, held[0].missed) == (1, (), ("one-good/price",))
    assert len(held[0].rose) == 1
    assert held[0].rose[0].endswith("/wants-1")
    assert (held[1].met, held[1].rose) == (held[0].rose, ())
    told = {role: [c["brief"] for c in calls(stage.scenario) if c["role"] == role] for role in ("locate", "verdict")}
    assert [len(brief["predictions"]) for brief in told["locate"]] == [0, 1]
    assert [len(brief["predictions"]) for brief in told["verdict"]] == [1, 2]
    assert Prediction.model_validate(told["locate"][1]["predictions"][0]) == held[0]
    assert "three-goods" not in str(told), "a held-back task"
