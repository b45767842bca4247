"""What a whole run passes on, starts from and leaves behind."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot import verbs
from core.containers.host import label
from core.model.keypoints import Keypoint, Level, Matrix, Row, TaskKind
from core.model.replies import Role
from core.model.run import Dial, Prepared, RunState, Stage
from core.pipeline.brief import prompt_version
from core.pipeline.prepare import corpus
from core.store import batches, runs
from tests.support.databases import HeldClock, opened
from tests.support.scripted_coder import calls
from tests.support.stored import candidate, run_in, with_substrate
from tests.support.theatre import (
    AGENT,
    DEAF_AGAIN,
    FIXED,
    LISTENING,
    SHOUTED,
    SILENT,
    UNDER_WAY,
    WRONG_PRICES,
    Theatre,
    agent,
    diff,
    eventually,
    theatre,
)

STOP_S = 5.0
JUST_BEFORE = {Stage.locate: Stage.control, Stage.build: Stage.code_review, Stage.evaluate: Stage.build}
REJECTED = {"verdict": "REJECT_IMPL", "remarks": "The shop must stay open."}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


async def test_rejected_code_is_told_to_those_who_come_after_and_is_never_their_base(stage: Theatre) -> None:
    tries = [agent(SILENT, **{"left/over.py": "x = 1\n"}), agent(WRONG_PRICES, second="x\n"), diff(AGENT, FIXED)]
    run = await stage.play(
        dial=Dial.standard,
        roles={
            "implement": [{"patch": patch} for patch in tries],
            "code_review": [{"reply": REJECTED}, {}],
        },
    )
    assert run.state is RunState.awaiting_consent, run.sentence
    first, second, third = of_role(stage, "implement")
    clean = ["agent.py", "build.sh", "tests/test_prices.py"]
    assert [call["checkout"] for call in (first, second, third)] == [clean] * 3

    assert first["brief"]["setbacks"] == []
    assert "rejected.patch" not in first["evidence"]
    review = {"where": "iter-1/code-review-1", "why": "REJECT_IMPL: The shop must stay open."}
    assert second["brief"]["setbacks"] == [review]
    assert "We are closed." in second["evidence"]["rejected.patch"]
    assert "left/over.py" in second["evidence"]["rejected.patch"]
    assert "log.txt" in third["evidence"]
    broken = third["brief"]["setbacks"][-1]
    assert third["brief"]["setbacks"] == [review, broken]
    assert broken["where"] == "iter-1/build"
    assert 'assert price("apple") == 2' in broken["why"]

    found = await stage.candidate_of(run)
    assert (found.iteration, found.files) == (2, ("agent.py",))
    offered = stage.artefact(run, found.diff_artefact).read_text()
    assert (found.insertions, found.deletions) == (1, 1)
    assert "message.split()\n" in offered
    labels = await stage.moss.host.image_labels(found.image)
    whose = [labels[name] for name in (label.RUN, label.ITERATION, label.COMMIT, label.TREE)]
    assert whose == [run.id, "2", found.commit, found.tree]


async def test_reviewers_get_the_plan_and_the_diff_that_they_judge(stage: Theatre) -> None:
    run = await stage.play(patch=agent(FIXED))
    found = await stage.candidate_of(run)
    planned = json.loads(stage.artefact(run, "iter-1/plan-1/reply.json").read_text())
    offered = stage.artefact(run, found.diff_artefact).read_text()
    (plan_review,), (code_review,), (verdict,) = (of_role(stage, r) for r in ("plan_review", "code_review", "verdict"))
    for reader in (plan_review, code_review, verdict):
        assert json.loads(reader["evidence"]["plan.json"]) == planned
    for reader in (code_review, verdict):
        assert reader["evidence"]["diff.patch"] == offered
        assert "+    goods = message.split()\n" in offered
    asked = {done.step.stage: done.prompt for done in await stage.history(run)}
    assert asked[Stage.plan] == prompt_version(Role.plan)
    assert [stage for stage in (Stage.prepare, Stage.control, Stage.build, Stage.evaluate) if asked[stage]] == []
    assert {row["task"] for row in json.loads(verdict["evidence"]["matrix.json"])["candidate"]["rows"]} > {"one-good"}
    told = json.dumps([call["evidence"] for call in calls(stage.scenario)])
    assert "quince plum pear" not in told, "a held-back task is shown to nobody"


async def test_a_second_run_starts_from_the_first_fix_and_may_not_lose_it(stage: Theatre) -> None:
    first = await stage.play(patch=agent(FIXED))
    await stage.approve(first)
    assert (await stage.end_of(first)).state is RunState.applied
    fixed = await stage.candidate_of(first)

    turns = [{"patch": agent(DEAF_AGAIN)}, {"patch": diff(FIXED, LISTENING)}]
    second = await stage.play(SHOUTED, roles={"implement": turns})
    assert second.state is RunState.awaiting_consent, second.sentence
    (prepared, *_) = [done.result for done in await stage.history(second) if isinstance(done.result, Prepared)]
    assert prepared.base_commit == fixed.commit == (await stage.outside()).version.commit
    told = of_role(stage, "implement")[1]
    assert "of an earlier fix fell from strong (the live agent) to missing" in told["brief"]["setbacks"][-1]["why"]
    assert "log.txt" not in told["evidence"], "no build failed"
    found = await stage.candidate_of(second)
    assert (found.iteration, found.base_commit) == (2, fixed.commit)
    assert {row.level for row in found.matrix.only(TaskKind.regression).rows} == {3}
    assert (found.files, found.insertions, found.deletions) == (("agent.py",), 1, 1)


async def test_why_people_declined_a_repair_is_told_to_the_next_run_on_the_same_evidence(stage: Theatre) -> None:
    first = await stage.play(patch=agent(FIXED))
    reason = "Plums are out of season; call 0171 2345678 before you list them."
    await verbs.decide(stage.moss, first.id, "bob", False, reason)
    stage.cast(patch=agent(FIXED))
    again = await verbs.evolve(stage.moss, None, first.batch, Dial.shallow, "ann")
    assert (await stage.end_of(again)).state is RunState.awaiting_consent
    (told,) = of_role(stage, "locate")
    (setback,) = told["brief"]["setbacks"]
    assert setback["where"] == first.id
    assert setback["why"].startswith("declined by a person: Plums are out of season; call ")
    assert "2345678" not in json.dumps(told)
    (judge,) = of_role(stage, "verdict")
    assert judge["brief"]["setbacks"] == [setback]


async def test_an_accepted_fix_is_guarded_however_many_runs_came_after_it(tmp_path: Path) -> None:
    applied = (RunState.running, RunState.awaiting_consent, RunState.approved, RunState.swapping, RunState.applied)
    clock = HeldClock()
    async with opened("sqlite", tmp_path, clock) as store:
        name = await with_substrate(store)
        point = Keypoint(id="asks-for-the-order", text="Asks for the order number.")
        async with store.changing(name) as change:
            first = await run_in(change, *applied)
            (chunk,) = await batches.chunks(change.db, first.batch)
            won = Row(task=chunk.id, kind=TaskKind.batch, keypoint=point, levels=(Level.strong,))
            await runs.add_candidate(change, candidate(first.id, matrix=Matrix(rows=(won,))))
        clock.advance(1)
        async with store.changing(name) as change:
            for _ in range(101):
                await run_in(change, RunState.stopped)
        tasks, accepted = await corpus(store, name, without="")
        assert [(task.id, task.kind) for task in tasks] == [(chunk.id, TaskKind.regression)]
        assert accepted == (won.model_copy(update={"kind": TaskKind.regression}),)


DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
STOPPED_IN: dict[Stage, tuple[str, dict[str, Any]]] = {
    Stage.locate: ("time.sleep(600)", {"mode": "hangs"}),
    Stage.build: ("sleep 600", {"patch": agent(FIXED, **{"build.sh": "trap '' TERM\nsleep 600\n"})}),
    Stage.evaluate: ("agent.py ask", {"patch": agent(FIXED.replace("    print", f"    {DEAF}\n    print"))}),
}
"""In which stage: a program that is at work then and deaf to SIGTERM, and how it comes to be."""


@pytest.mark.parametrize("during", STOPPED_IN)
async def test_a_stop_ends_at_once_what_is_at_work_and_clears_up(stage: Theatre, during: Stage) -> None:
    program, scenario = STOPPED_IN[during]
    stage.cast(**scenario)
    outside = await stage.outside()
    run = await stage.begin()

    async def at_work() -> bool:
        now = await stage.look(run.id)
        assert now.state in UNDER_WAY, now.sentence
        last = [done.step.stage for done in await stage.history(run)][-1:]
        return last == [JUST_BEFORE[during]] and any(program in words for words in stage.at_work())

    await eventually(at_work, within_s=60)
    taken = await stage.history(run)
    began = time.monotonic()
    stopped = await verbs.stop(stage.moss, run.id, "ann")
    assert (stopped.state, stopped.sentence) == (RunState.stopped, "Stopped by ann.")
    await eventually(lambda: stage.cleared(run), within_s=STOP_S)
    assert time.monotonic() - began < STOP_S
    assert await stage.history(run) == taken, "what was cut short is no step"
    assert await stage.outside() == outside
    assert stage.artefact(run, "prepare/tasks.json").exists()

    stage.cast(patch=agent(FIXED))
    again = await stage.end_of(await verbs.restart(stage.moss, run.id, "ann"))
    assert again.state is RunState.awaiting_consent, again.sentence


def of_role(stage: Theatre, role: str) -> list[dict[str, Any]]:
    return [call for call in calls(stage.scenario) if call["role"] == role]
