"""Git shows what was live: a branch follows the live version, and every version that a swap made has a tag."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot import verbs
from core.model.run import RunState
from core.repository import Clone
from core.store import swaps
from tests.support.repositories import commit, repository
from tests.support.theatre import FIXED, Theatre, agent, eventually, theatre
from tests.support.world import git


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


def refs(stage: Theatre) -> dict[str, str]:
    listed = git(stage.root / "repository", "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split() for line in listed.splitlines())


async def test_every_swap_leaves_a_tag_and_a_rollback_another_one(stage: Theatre) -> None:
    before = (await stage.outside()).version.commit
    run = await stage.play(patch=agent(FIXED))
    await stage.approve(run)
    assert (await stage.end_of(run)).state is RunState.applied
    fixed = (await stage.candidate_of(run)).commit

    async def tagged(name: str) -> bool:
        return f"refs/tags/moss/{name}" in refs(stage)

    await eventually(lambda: tagged("v1"), 20)
    assert refs(stage)["refs/tags/moss/v1"] == refs(stage)["refs/heads/moss/live"] == fixed
    asked, _ = await verbs.rollback(stage.moss, None, 0, "ann")
    await verbs.decide(stage.moss, asked.id, "bob", True)

    async def back() -> bool:
        async with stage.moss.store.reading() as db:
            live = await swaps.live_version(db, "prices")
        return live is not None and live.restores == 0

    await eventually(back, 30)
    await eventually(lambda: tagged("v2"), 20)
    assert refs(stage)["refs/tags/moss/v2"] == refs(stage)["refs/heads/moss/live"] == before
    assert refs(stage)["refs/tags/moss/v1"] == fixed


async def test_a_tag_that_names_something_else_there_does_not_keep_the_branch_from_its_place(tmp_path: Path) -> None:
    owner = tmp_path / "owner"
    base = repository(owner, {"agent.py": "1\n"})
    newer = commit(owner, {"agent.py": "2\n"})
    git(owner, "tag", "moss/v1", base)
    clone = await Clone.of(str(owner), tmp_path / "clone.git")
    await clone.set_branch("moss/live", newer)
    await clone.tag("moss/v1", newer)
    with pytest.raises(Exception, match="moss/live"):
        await clone.publish("moss/live", str(owner), "moss/v1")
    assert git(owner, "rev-parse", "moss/live") == newer
    assert git(owner, "rev-parse", "moss/v1") == base, "tags do not move"
