"""The whole story by the verbs alone, with an agent and a coder that are shell scripts and share no line with Moss."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.needs import needs_engine
from tests.support.outsider import docker, end_everything
from tests.support.world import FOREIGN, World, git

T = TypeVar("T")


@pytest.fixture(params=["process", pytest.param("docker", marks=needs_engine)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World.foreign(tmp_path, request.param)
    yield made
    end_everything(made)


def test_a_foreign_agent_is_adopted_evolved_approved_swapped_and_rolled_back(world: World) -> None:
    world.start()
    tokens = {name: world.moss("people", "add", name)["token"] for name in ("ann", "bob", "eve")}

    adopted = world.moss("adopt")["version"]
    assert adopted["number"] == 0
    assert adopted["commit"] == git(world.root / "repository", "rev-parse", "main")

    world.moss("import", str(FOREIGN / "batch.jsonl"))
    evolved = world.moss("evolve", "--wait")
    run = evolved["run"]["id"]
    shown = world.moss("run", "show", run)
    candidate = shown["candidate"]
    assert candidate["files"] == ["agent.sh"]
    assert not candidate["partial"]
    assert 'for good in "$@"' in world.moss("run", "show", run, "diff")["diff"]

    journal = journal_of(world)
    assert "not one of the approvers" in world.moss("approve", run, token=tokens["eve"], code=5)["error"]
    assert "needs your token" in world.moss("approve", run, code=2)["error"]
    world.moss("approve", run, token=tokens["bob"])
    world.wait_for(run, "applied")
    live = world.moss("status")["substrates"][0]["live"]
    assert (live["number"], live["commit"], live["image"]) == (1, candidate["commit"], candidate["image"])
    assert journal_of(world) == journal + "started\n", "the volume lost what stood in it"
    repository = world.root / "repository"
    assert git(repository, "rev-parse", f"moss/{run}") == candidate["commit"]
    assert git(repository, "rev-list", "--count", f"main..moss/{run}") == "1"

    asked = world.moss("rollback", token=tokens["ann"])
    assert asked["kind"] == "asked", "whoever asks for a swap cannot allow it alone"
    world.moss("approve", asked["consent"], token=tokens["bob"])
    versions = eventually(lambda: found if len(found := world.moss("history")) == 3 else None)
    assert (versions[2]["restores"], versions[2]["image"]) == (0, adopted["image"])
    assert world.moss("db", "verify")["sound"]
    assert world.end() == 0


def test_an_agent_that_nobody_vouches_for_is_not_run_where_nothing_isolates_it(tmp_path: Path) -> None:
    world = World.foreign(tmp_path, "process")
    config = tmp_path / "moss.toml"
    config.write_text(config.read_text().replace("trusted = true\n", ""))
    world.start()
    try:
        refused = world.moss("adopt", code=5)["error"]
        assert "Nothing isolates prices" in refused
        assert "trusted = true" in refused
    finally:
        end_everything(world)


def journal_of(world: World) -> str:
    """What the agent wrote on its volume."""
    if world.host == "process":
        return Path(world.volume, "journal.txt").read_text()
    box = world.moss("status")["substrates"][0]["live"]["box"]
    return docker("exec", box, "cat", "/state/journal.txt") + "\n"


def eventually(look: Callable[[], T | None], within_s: float = 30) -> T:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not come to that")
