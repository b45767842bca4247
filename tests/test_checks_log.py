"""What smoke test and tests of a candidate print is kept for people, and told to whoever must do better."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.model.run import Failed, RunState, Stage
from tests.support.scripted_coder import calls
from tests.support.theatre import FIXED, WRONG_PRICES, Theatre, agent, theatre

TALKATIVE = WRONG_PRICES.replace("import sys\n", 'import sys\n\nprint("sk-ant-api03-" + "x" * 40)\n', 1)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


async def test_the_output_of_a_failed_test_suite_is_in_the_log_of_the_run_without_what_looks_like_a_key(
    stage: Theatre,
) -> None:
    turns = [{"patch": agent(TALKATIVE)}, {"patch": agent(FIXED)}]
    run = await stage.play(roles={"implement": turns})
    assert run.state is RunState.awaiting_consent, run.sentence
    (failed,) = [
        done.result.sentence
        for done in await stage.history(run)
        if done.step.stage is Stage.build and isinstance(done.result, Failed)
    ]
    log = stage.artefact(run, "iter-1/build/checks.log").read_text()
    assert log.startswith("The base commit's test suite `python3 -S -B tests/test_prices.py` ended with exit code 1.\n")
    assert 'assert price("apple") == 2' in log
    told = next(call["evidence"]["log.txt"] for call in calls(stage.scenario) if "log.txt" in call["evidence"])
    assert 'assert price("apple") == 2' in told
    for shown in (log, told, failed):
        assert "AssertionError" in shown
        assert "sk-ant-api03-xxx" not in shown
    passed = stage.artefact(run, "iter-2/build/checks.log").read_text()
    assert passed.startswith("The base commit's test suite `python3 -S -B tests/test_prices.py` passed.\n")
