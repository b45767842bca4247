"""A grant counts for the version that people saw live, and one that cannot be used ends with a sentence, not a loop."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from core import dispatch as room
from core.clock import system_clock
from core.dispatch import Dispatch
from core.durable import Durable
from core.model.consent import Consent, ConsentState
from core.model.errors import Busy, MossError, Refused, Unavailable
from core.model.run import RunState
from core.model.substrate import Substrate
from core.model.swap import SwapState
from core.pipeline.evolve import Evolution
from core.store import Store, consents, facts, notices, runs, substrates, swaps
from core.swap import perform as swapping
from core.swap import records
from tests.support.databases import DATABASES, opened
from tests.support.paper_host import PaperHost
from tests.support.stored import version
from tests.support.swaps import OWNER, granted_candidate, granted_rollback, make_live

DESK = Substrate.model_validate(
    {"name": "desk", "repository": "/srv/desk", "trusted": True, "health": {"commands": [["check"]]}}
)


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, system_clock) as store:
        await make_live(store, DESK, version(0))
        await go_live(store, 1)
        yield store


async def go_live(store: Store, number: int) -> None:
    async with store.changing("desk") as change:
        await swaps.add_version(change, version(number, since=datetime.now(UTC)))


async def consent(store: Store, id: str) -> Consent:
    async with store.reading() as db:
        return await consents.get(db, id)


async def why(store: Store, id: str) -> str:
    """The notice about it, and that it is about nothing else."""
    async with store.reading() as db:
        (told,) = [notice for notice in await notices.listing(db, "desk") if notice.subject == id]
        assert await facts.verify(db, "desk") is None
    assert told.kind == "swap-void"
    return told.text


async def test_a_grant_of_this_version_is_planned(store: Store) -> None:
    assert await records.plan(store, await granted_rollback(store, version(0)))


async def test_a_grant_that_is_older_than_what_is_live_is_refused_in_a_sentence(store: Store) -> None:
    granted = await granted_rollback(store, version(0))
    await go_live(store, 2)
    assert await records.plan(store, granted) is None
    assert (await consent(store, granted)).state is ConsentState.void
    assert "version 2 went live after it was approved; ask again" in await why(store, granted)
    assert await records.plan(store, granted) is None, "and again, without a second word"
    assert await why(store, granted)


async def test_a_repair_that_was_approved_before_something_else_went_live_ends_and_may_be_restarted(
    store: Store,
) -> None:
    granted = await granted_candidate(store, "desk", "sha256:" + "c" * 64, "c1", version(1).image)
    await go_live(store, 2)
    assert await records.plan(store, granted) is None
    run = (await consent(store, granted)).run
    assert run
    async with store.reading() as db:
        ended = await runs.get(db, run)
    assert ended.state is RunState.stopped
    assert "version 2 went live after it was approved." in await why(store, granted) + str(ended)


async def test_a_grant_of_an_agent_that_is_live_no_more_is_refused(store: Store) -> None:
    granted = await granted_rollback(store, version(0))
    async with store.changing("desk") as change:
        await swaps.end_live(change, "anna", stopped=True)
    assert await records.plan(store, granted) is None
    assert "nothing of desk is live" in await why(store, granted)


class StillDurable:
    """Keeps what it is to perform."""

    def __init__(self) -> None:
        self.jobs: dict[str, object] = {}

    def job(self, kind: str, perform: object, **_: object) -> None:
        self.jobs[kind] = perform

    async def start(self) -> None:
        pass

    async def submit(self, kind: str, subject: str) -> None:
        pass


async def performed(store: Store, subject: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job of a swap, from its begin to its end, as the durable engine calls it."""
    monkeypatch.setattr(room, "SWAP_PAUSES_S", (0.01, 0.01))
    durable = StillDurable()
    evolution = SimpleNamespace(perform=None)
    dispatch = Dispatch(store, cast(Durable, durable), PaperHost(moods={}), cast(Evolution, evolution), OWNER)
    await dispatch.start()
    async with asyncio.timeout(60):
        await durable.jobs[room.SWAP](subject, 0)  # type: ignore[operator]


async def test_a_swap_that_is_refused_before_it_began_ends_with_a_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = await granted_rollback(store, version(0))
    calls: list[str] = []

    async def refused(*words: object) -> None:
        calls.append("refused")
        raise Refused("The moon is full; wait.")

    monkeypatch.setattr(swapping, "perform", refused)
    await performed(store, granted, monkeypatch)
    assert len(calls) == 3
    assert (await consent(store, granted)).state is ConsentState.void
    assert "The moon is full; wait" in await why(store, granted)


async def test_a_swap_that_is_refused_half_way_calls_for_a_human(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    granted = await granted_rollback(store, version(0))
    swap = await records.plan(store, granted)
    assert swap
    await records.begin(store, swap)

    async def faulty(*words: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(swapping, "perform", faulty)
    await performed(store, granted, monkeypatch)
    async with store.reading() as db:
        stuck = await swaps.get(db, swap.id)
        assert await substrates.needs_adoption(db, "desk")
        (told,) = await notices.listing(db, "desk")
    assert stuck.state is SwapState.stuck
    assert stuck.problem == "Moss itself failed with ZeroDivisionError; see its log."
    assert told.kind == "swap-stuck"


async def test_a_swap_that_was_only_planned_is_void_when_it_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = await granted_rollback(store, version(0))
    swap = await records.plan(store, granted)
    assert swap

    async def refused(*words: object) -> None:
        raise Refused("Nobody knows why; ask.")

    monkeypatch.setattr(swapping, "perform", refused)
    await performed(store, granted, monkeypatch)
    async with store.reading() as db:
        assert (await swaps.get(db, swap.id)).state is SwapState.restored
        assert not await substrates.needs_adoption(db, "desk")
    assert (await consent(store, granted)).state is ConsentState.void


@pytest.mark.parametrize("passing", [Unavailable("The engine is away."), Busy("Another swap is under way; wait.")])
async def test_what_passes_by_itself_is_waited_for_without_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, passing: MossError
) -> None:
    granted = await granted_rollback(store, version(0))
    calls: list[str] = []

    async def away(*words: object) -> None:
        calls.append("away")
        if len(calls) < 5:
            raise passing

    monkeypatch.setattr(room, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(room, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(swapping, "perform", away)
    await performed(store, granted, monkeypatch)
    assert len(calls) == 5
    assert (await consent(store, granted)).state is ConsentState.granted
