"""Benchmarks do not rot: what they run on is the real pipeline."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import chat, coder_overhead, gateway, orchestration
from benchmarks.__main__ import KNOWN
from benchmarks.table import Measured, as_json
from tests.support.tracked import ROOT


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2
    assert all(name in said.stderr for name in KNOWN)


def test_the_last_line_is_one_object_with_the_machine_and_every_figure() -> None:
    found = json.loads(as_json({"one": Measured((("a", "1 s", ""),), {"seconds": 1.0}, True)}))
    assert found["one"] == {"seconds": 1.0, "goals_met": True}
    assert "cores" in found["machine"]


async def test_with_a_coder_and_an_agent_that_answer_at_once_a_run_takes_all_its_iterations() -> None:
    taken = await orchestration.iterations()
    assert len(taken) == orchestration.ITERATIONS
    assert all(0 < each < 60_000 for each in taken)


@pytest.mark.parametrize("platform", chat.PLATFORMS)
async def test_every_reaction_is_acknowledged_and_committed(platform: str) -> None:
    found = await chat.through(platform, rate=20, seconds=2)
    assert found.missing == 0
    assert 0 < found.acknowledged_ms < 60_000
    assert 0 < found.committed_ms < 60_000
    assert 0.5 < found.growth < 2


async def test_calls_through_the_gateway_are_held_against_direct_ones() -> None:
    found = await gateway.measure(calls=3, slow_calls=1)
    assert 0 < found.values["added_cpu_ms"] < 60_000
    assert 0.2 < found.values["ratio_to_direct"] < 60


def test_each_benchmark_stands_on_the_page_with_its_goals() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    for name in KNOWN:
        part = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert "| goal |" in part, name
        assert re.search(r"\| (under|at most|at least) [0-9]", part), name


async def test_what_is_added_to_a_call_of_a_coder_is_measured_for_each_kind(tmp_path: Path) -> None:
    found = await coder_overhead.overheads(tmp_path, calls=2)
    assert found.keys() == coder_overhead.KINDS.keys()
    assert all(-5_000 < ms < 60_000 for each in found.values() for ms in each)
