"""Any sequence of moves, on each database, against a model in memory: the same answers and states, a sound chain."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.consent import ask_for_candidate
from core.model.batch import BATCH_MOVES, BatchState
from core.model.consent import CONSENT_MOVES, ConsentState
from core.model.errors import Refused
from core.model.run import RESTARTABLE, RUN_IN_FLIGHT, RUN_MOVES, Budget, Dial, RunState
from core.model.swap import SWAP_IN_FLIGHT, SWAP_MOVES, SwapState
from core.model.value import new_id
from core.store import Change, Store, batches, consents, facts, runs, swaps
from tests.support import stored
from tests.support.databases import DATABASES, HeldClock, database

PLACES = [stored.PLACE, stored.PLACE.model_copy(update={"thread": ""})]


@dataclass
class Thing:
    id: str
    state: Any
    of: int = 0
    """The place of a batch; the batch of a run; the run of a consent; the consent of a swap."""
    steps: int = 0
    archived: bool = False


@dataclass
class Model:
    """What must be true, in the plainest words."""

    batches: list[Thing] = field(default_factory=list)
    runs: list[Thing] = field(default_factory=list)
    consents: list[Thing] = field(default_factory=list)
    swaps: list[Thing] = field(default_factory=list)

    def run_at_work(self) -> bool:
        return any(run.state in RUN_IN_FLIGHT for run in self.runs)

    def swap_at_work(self) -> bool:
        return any(swap.state in SWAP_IN_FLIGHT for swap in self.swaps)


@dataclass(frozen=True)
class Op:
    verb: str
    which: int = 0
    choice: int = 0
    sensible: bool = True
    """Chosen from the legal moves where there are any, or else few sequences would get past the first states."""


NOUNS: dict[str, tuple[Any, list[Any]]] = {
    "batch": (BATCH_MOVES, list(BatchState)),
    "run": (RUN_MOVES, list(RunState)),
    "consent": (CONSENT_MOVES, list(ConsentState)),
    "swap": (SWAP_MOVES, list(SwapState)),
}
VERBS = ["open", "queue", "offer", "offer", "plan", "step", "archive", *NOUNS, "run", "run", "swap"]
CHOICES = st.just(0) | st.integers(0, 14)  # the first legal move is the one that leads on
OPS = st.builds(Op, st.sampled_from(VERBS), st.integers(0, 5), CHOICES, st.integers(0, 3).map(bool))
BEGINNING = [Op("open"), Op("batch"), Op("queue"), Op("run")]


def target(op: Op, before: Any) -> Any:
    moves, states = NOUNS[op.verb]
    legal = [state for state in states if moves.allow(before, state)]
    offered = legal if legal and op.sensible else states
    return offered[op.choice % len(offered)]


def expect(model: Model, op: Op) -> bool:
    """Whether the store must do this; if so the model does it too. The caller fills in the ids."""
    pick = _picked(model, op)
    match op.verb:
        case "open":
            place = op.which % len(PLACES)
            if not any(b.of == place and b.state == BatchState.open for b in model.batches):
                model.batches.append(Thing("", BatchState.open, place))
            return True
        case "queue":
            if pick.state != BatchState.sealed or model.run_at_work():
                return False
            model.runs.append(Thing("", RunState.queued, model.batches.index(pick)))
        case "offer":
            if pick.state != RunState.running:
                return False
            for consent in model.consents:
                if consent.state == ConsentState.asked:
                    consent.state = ConsentState.void
                    if model.runs[consent.of].state == RunState.awaiting_consent:
                        model.runs[consent.of].state = RunState.superseded
            pick.state = RunState.awaiting_consent
            model.consents.append(Thing("", ConsentState.asked, model.runs.index(pick)))
        case "plan":
            index = model.consents.index(pick)
            if model.swap_at_work() or any(swap.of == index for swap in model.swaps):
                return False
            model.swaps.append(Thing("", SwapState.planned, index))
        case "step":
            if pick.state != RunState.running:
                return False
            pick.steps += 1
        case "archive":
            if pick.archived or pick.state not in RESTARTABLE:
                return False
            pick.archived = True
        case noun:
            after = target(op, pick.state)
            if not NOUNS[noun][0].allow(pick.state, after):
                return False
            others = [run for run in model.runs if run is not pick and run.state in RUN_IN_FLIGHT]
            if noun == "run" and after in RUN_IN_FLIGHT and others:
                return False
            pick.state = after
    return True


def _picked(model: Model, op: Op) -> Any:
    of = {"queue": model.batches, "batch": model.batches, "plan": model.consents, "consent": model.consents}
    things = of.get(op.verb, model.swaps if op.verb == "swap" else model.runs)
    return things[op.which % len(things)] if things and op.verb != "open" else None


async def do(change: Change, model: Model, op: Op) -> str:
    """The same on the store; the id of what it made."""
    pick = _picked(model, op)
    match op.verb:
        case "open":
            return (await batches.open_batch(change, PLACES[op.which % len(PLACES)], "anna")).id
        case "queue":
            return (await runs.queue(change, pick.id, Dial.standard, Budget(), "anna")).id
        case "offer":
            run = await runs.get(change.db, pick.id)
            candidate = stored.candidate(pick.id)
            await runs.add_candidate(change, candidate)
            consent = await ask_for_candidate(change, candidate, run, stored.POLICY, ["carl"])
            await runs.move(change, pick.id, RunState.awaiting_consent, "moss")
            return consent.id
        case "plan":
            swap = stored.swap_of(await consents.get(change.db, pick.id), change.substrate)
            await swaps.plan(change, swap)
            return swap.id
        case "step":
            await runs.append(change, pick.id, stored.done(pick.steps))
        case "archive":
            await runs.archive(change, pick.id, "anna")
        case "batch":
            await batches.move(change, pick.id, target(op, pick.state), "anna")
        case "run":
            await runs.move(change, pick.id, target(op, pick.state), "anna")
        case "consent":
            await consents.move(change, pick.id, target(op, pick.state), "anna")
        case "swap":
            await swaps.move(change, pick.id, target(op, pick.state), "anna")
    return ""


async def play(stores: list[Store], ops: list[Op]) -> None:
    name = new_id("desk")
    await stored.with_substrate(stores[0], name)
    model = Model()
    for n, op in enumerate(ops):
        if op.verb != "open" and _picked(model, op) is None:
            continue
        store = stores[n % len(stores)]
        made = ""
        try:
            async with store.changing(name) as change:
                made = await do(change, model, op)
            accepted = True
        except Refused:
            accepted = False
        assert accepted == expect(model, op), op
        for things in (model.batches, model.runs, model.consents, model.swaps):
            for thing in things:
                thing.id = thing.id or made
    async with stores[0].reading() as db:
        assert [(await batches.get(db, b.id)).state for b in model.batches] == [b.state for b in model.batches]
        for run in model.runs:
            kept = await runs.get(db, run.id)
            assert (kept.state, kept.archived) == (run.state, run.archived)
            assert (kept.ended_at is not None) == RUN_MOVES.is_final(run.state)
            assert [done.n for done in await runs.history(db, run.id)] == list(range(run.steps))
        assert [(await consents.get(db, c.id)).state for c in model.consents] == [c.state for c in model.consents]
        assert [(await swaps.get(db, s.id)).state for s in model.swaps] == [s.state for s in model.swaps]
        assert await facts.verify(db, name) is None
        last = {fact.id: fact.after for fact in await facts.chain(db, name) if fact.after}
        told = [*model.batches, *model.runs, *model.consents, *model.swaps]
        assert last == {thing.id: str(thing.state) for thing in told}


@pytest.fixture(params=DATABASES)
def two_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[asyncio.Runner, list[Store]]]:
    """Two processes' worth of stores on one database, with the loop they live in: hypothesis itself is not async."""
    stack = AsyncExitStack()

    async def enter() -> list[Store]:
        url = await stack.enter_async_context(database(request.param, tmp_path))
        stores = [await Store.open(url, HeldClock()) for _ in range(2)]
        for store in stores:
            stack.push_async_callback(store.close)
        return stores

    with asyncio.Runner() as runner:
        yield runner, runner.run(enter())
        runner.run(stack.aclose())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=st.lists(OPS, min_size=10, max_size=35))
def test_the_store_accepts_and_refuses_what_the_model_does(
    two_stores: tuple[asyncio.Runner, list[Store]], ops: list[Op]
) -> None:
    runner, stores = two_stores
    runner.run(play(stores, BEGINNING + ops))
