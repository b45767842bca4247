"""How a run begins: what would end it at its first step is said before its batch is sealed, and what the owner has not
deployed is named where people approve it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot import render, verbs
from core.containers.process_host import ProcessHost
from core.model.batch import BatchState
from core.model.errors import NotFound, Refused
from core.model.run import Prepared, RunState, Spend, Undeployed
from core.pipeline.prepare import NAMED_COMMITS, starting_point
from core.repository import Clone
from core.store import batches, notices, runs
from tests.support import theatre as house
from tests.support.databases import opened
from tests.support.stored import substrate, with_substrate
from tests.support.theatre import FIXED, HALF_AN_ANSWER, Theatre, agent, theatre
from tests.support.world import git


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


@pytest.fixture
async def including(tmp_path: Path) -> AsyncIterator[Theatre]:
    config = house.CONFIG.replace("trusted = true", 'trusted = true\nahead = "include"')
    async with theatre(tmp_path, config=config) as stage:
        yield stage


def commit(stage: Theatre, message: str, *, agent: str | None = None) -> str:
    repository = stage.root / "repository"
    if agent:
        (repository / "agent.py").write_text(agent)
    git(repository, "commit", "--quiet", "--all", "--allow-empty", f"--message={message}")
    return git(repository, "rev-parse", "HEAD")


async def the_batch(stage: Theatre) -> tuple[str, BatchState]:
    async with stage.moss.store.reading() as db:
        (batch,) = await batches.listing(db)
    return batch.id, batch.state


async def test_a_run_that_its_first_step_would_refuse_is_refused_at_once_and_the_batch_stays_open(
    stage: Theatre,
) -> None:
    commit(stage, "Not deployed yet", agent=FIXED)
    await verbs.add_evidence(stage.moss, None, [HALF_AN_ANSWER], "ann")
    with pytest.raises(Refused, match="has 1 commits that are not live"):
        await verbs.evolve(stage.moss, None, None, None, "ann")
    batch, state = await the_batch(stage)
    assert state is BatchState.open
    with pytest.raises(Refused, match="are not live"):
        await verbs.evolve(stage.moss, None, batch, None, "ann")
    assert await the_batch(stage) == (batch, BatchState.open)
    await verbs.add_evidence(stage.moss, None, [house.SHOUTED], "ann")
    async with stage.moss.store.reading() as db:
        assert await runs.listing(db) == []
        assert len(await batches.chunks(db, batch)) == 2, "it takes more evidence"


async def test_a_run_is_set_aside_only_when_another_can_begin(stage: Theatre) -> None:
    stage.cast(mode="hangs")
    run = await stage.begin()
    await verbs.stop(stage.moss, run.id, "ann")
    commit(stage, "Not deployed yet", agent=FIXED)
    with pytest.raises(Refused, match="are not live"):
        await verbs.restart(stage.moss, run.id, "ann")
    assert not (await stage.look(run.id)).archived


async def test_an_agent_that_nobody_vouches_for_is_refused_before_anything_else(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as store:
        name = await with_substrate(store)
        host, clone = ProcessHost(tmp_path, "moss-test"), Clone(tmp_path / "none.git")
        with pytest.raises(Refused, match="Nothing isolates desk"):
            await starting_point(store, host, clone, substrate(name))
        vouched = substrate(name).model_copy(update={"trusted": True})
        with pytest.raises(Refused, match="Nothing of desk is live yet"):
            await starting_point(store, host, clone, vouched)


async def test_the_offer_names_what_the_owner_has_not_deployed(including: Theatre) -> None:
    stage = including
    first = commit(stage, "Prices of tomorrow", agent=house.AGENT + "# Since 2026\n")
    key = "sk-ant-api03-" + "x" * 40
    second = commit(stage, f"Use {key}\n\nand a body")
    run = await stage.play(patch=agent(FIXED))
    assert run.state is RunState.awaiting_consent, run.sentence
    assert run.sentence.startswith("Iteration 1 is offered.")
    assert "With it goes what the owner has not deployed: 2 commits." in run.sentence
    history = await stage.history(run)
    prepared = history[0].result
    assert isinstance(prepared, Prepared)
    assert [found.commit for found in prepared.undeployed] == [second, first]
    assert prepared.undeployed[1].subject == "Prices of tomorrow"
    assert key not in prepared.undeployed[0].subject
    assert prepared.undeployed[0].subject.startswith("Use ")
    async with stage.moss.store.reading() as db:
        told = {notice.kind: notice.detail for notice in await notices.listing(db, "prices")}
    assert [found["commit"] for found in told["evolution-converged"]["undeployed"]] == [second, first]
    console = render.console()
    with console.capture() as shown:
        console.print(render.run(run, history, await stage.candidate_of(run), None, Spend(), {}))
    assert f"  {first[:12]}  Prices of tomorrow\n" in shown.get()


async def test_very_many_commits_are_counted_and_the_newest_are_named(including: Theatre) -> None:
    stage = including
    commit(stage, "The oldest", agent=house.AGENT + "# Since 2026\n")
    for n in range(NAMED_COMMITS + 2):
        newest = commit(stage, f"Change {n} " + "x" * 200)
    stage.cast(mode="hangs")
    run = await stage.begin()

    async def prepared() -> bool:
        return bool(await stage.history(run))

    await house.eventually(prepared, 60)
    await verbs.stop(stage.moss, run.id, "ann")
    (first, *_) = [done.result for done in await stage.history(run)]
    assert isinstance(first, Prepared)
    assert (len(first.undeployed), first.undeployed_count) == (NAMED_COMMITS, NAMED_COMMITS + 3)
    assert first.undeployed[0].commit == newest
    assert max(len(found.subject) for found in first.undeployed) <= 100


def test_a_subject_cannot_write_to_the_terminal() -> None:
    named = (Undeployed(commit="a" * 40, subject="\x1b[31mred\x1b[0m \u202ebackwards"),)
    fixed = Prepared(base_commit="b", live_image="i", tasks="t", substrate="s", undeployed=named, undeployed_count=1)
    console = render.console()
    with console.capture() as shown:
        for each in render.undeployed(fixed):
            console.print(each)
    assert r"\x1b[31mred\x1b[0m \u202ebackwards" in shown.get()
    assert "\u202e" not in shown.get()


async def test_a_batch_that_is_not_there_is_not_found(stage: Theatre) -> None:
    with pytest.raises(NotFound):
        await verbs.evolve(stage.moss, None, "batch-none", None, "ann")
