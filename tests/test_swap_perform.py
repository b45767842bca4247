"""Performing a swap: what is written, what is undone, and that Moss may die before or after every single call."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.clock import system_clock
from core.consent import ask_for_rollback
from core.containers.host import BoxState
from core.model.batch import BatchState
from core.model.consent import ConsentState
from core.model.errors import Unavailable
from core.model.events import broken_link
from core.model.run import RunState
from core.model.substrate import Substrate
from core.model.swap import Swap, SwapState, Version
from core.store import Store, batches, consents, facts, notices, runs, substrates, swaps
from core.swap import perform as room
from core.swap import records
from core.swap.perform import perform
from core.swap.plan import back_box
from core.swap.rollback import version_to_restore
from tests.support.databases import opened
from tests.support.paper_host import Killed, PaperHost
from tests.support.stored import offered
from tests.support.swaps import OWNER, POLICY, granted_candidate, granted_rollback, make_live

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DESK = Substrate.model_validate(
    {
        "name": "desk",
        "repository": "/srv/desk",
        "run": {"volume": "desk-state", "restart": "always"},
        "health": {"commands": [["check"]], "window_s": 0.04, "every_s": 0.02, "passes": 2},
    }
)
ZERO = Version(
    substrate="desk",
    number=0,
    commit="c0",
    image=OLD,
    box="agent",
    boot_id="",
    swap=None,
    since=datetime(2026, 3, 1, tzinfo=UTC),
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path, system_clock) as store:
        await make_live(store, DESK, ZERO)
        yield store


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RETRY_S", 0.01)


def a_host(**moods: str) -> PaperHost:
    host = PaperHost(moods={OLD: "well", NEW: "well", **moods})
    host.boxes_["agent"] = BoxState("agent", OLD, True, {})
    host.policies["agent"] = "always"
    return host


def deeds(host: PaperHost) -> list[str]:
    return [deed for deed in host.deeds if not deed.startswith("look ")]


async def allowed(store: Store) -> str:
    return await granted_candidate(store, "desk", NEW, "c1", live_image=OLD)


@dataclass
class Told:
    swap: Swap
    run: RunState | None
    batch: BatchState | None
    consent: ConsentState
    live: Version
    good_image: str
    good_box: str
    needs_adoption: bool
    notices: list[str]


async def told(store: Store, consent_id: str) -> Told:
    async with store.reading() as db:
        consent, swap = await consents.get(db, consent_id), await swaps.of_consent(db, consent_id)
        live, good = await swaps.live_version(db, "desk"), await swaps.last_good(db, "desk")
        run = await runs.get(db, consent.run) if consent.run else None
        assert swap
        assert live
        assert good
        assert broken_link(await facts.chain(db, "desk")) is None
        return Told(
            swap=swap,
            run=run.state if run else None,
            batch=(await batches.get(db, run.batch)).state if run else None,
            consent=consent.state,
            live=live,
            good_image=good.image,
            good_box=good.box,
            needs_adoption=await substrates.needs_adoption(db, "desk"),
            notices=[notice.kind for notice in await notices.listing(db, "desk")],
        )


def all_is_live(host: PaperHost, found: Told) -> None:
    assert (found.swap.state, found.run, found.batch) == (SwapState.live, RunState.applied, BatchState.resolved)
    assert (found.live.number, found.live.image, found.live.commit) == (1, NEW, "c1")
    assert (found.live.box, found.live.swap) == (found.swap.new_box, found.swap.id)
    assert (found.good_image, found.good_box) == (NEW, found.swap.new_box)
    assert host.running() == [found.swap.new_box] == list(host.boxes_)
    assert host.policies[found.swap.new_box] == "always"
    assert found.swap.outage_ms is not None
    assert found.notices == ["apply-complete"]


def all_is_back(host: PaperHost, found: Told) -> None:
    assert (found.swap.state, found.run, found.batch) == (SwapState.restored, RunState.rolled_back, BatchState.sealed)
    assert (found.live, found.good_image) == (ZERO, OLD)
    assert host.running() == ["agent"] == list(host.boxes_)
    assert host.policies["agent"] == "always"
    assert found.swap.problem
    assert found.notices == ["swap-restored"]


def all_is_back_in_a_fresh_box(host: PaperHost, found: Told) -> None:
    assert (found.swap.state, found.run) == (SwapState.restored, RunState.rolled_back)
    assert (found.live.number, found.live.image, found.live.restores) == (1, OLD, 0)
    assert found.live.box == back_box(found.swap) == found.good_box
    assert host.running() == [found.live.box] == list(host.boxes_)
    assert host.policies[found.live.box] == "always"


def all_is_stuck(host: PaperHost, found: Told) -> None:
    assert (found.swap.state, found.run, found.batch) == (SwapState.stuck, RunState.stuck, BatchState.sealed)
    assert (found.live, found.needs_adoption) == (ZERO, True)
    assert len(host.running()) <= 1
    assert found.notices == ["swap-stuck"]
    assert "Then the last good version did not come back" in str(found.swap.problem)


def nothing_happened(host: PaperHost, found: Told) -> None:
    assert (found.swap.state, found.run, found.batch) == (SwapState.restored, RunState.rolled_back, BatchState.sealed)
    assert (found.consent, found.live) == (ConsentState.void, ZERO)
    assert host.running() == ["agent"] == list(host.boxes_)
    assert not [deed for deed in deeds(host) if deed.endswith(" agent")], "the live box was touched"
    assert found.notices == ["swap-void"]


Ending = Callable[[PaperHost, Told], None]
SCENARIOS: dict[str, tuple[dict[str, str], Ending]] = {
    "a good candidate": ({}, all_is_live),
    "a candidate that never gets healthy": ({NEW: "sick"}, all_is_back),
    "a candidate that dies at once": ({NEW: "dies"}, all_is_back),
    "a candidate whose port is taken": ({NEW: "refuses"}, all_is_back),
    "an old box that does not stop": ({"agent": "unstoppable"}, all_is_back),
    "an old box that does not come back": ({NEW: "sick", "agent": "refuses"}, all_is_back_in_a_fresh_box),
    "an old box that comes back sick": ({NEW: "sick", "agent": "sick"}, all_is_back_in_a_fresh_box),
    "no good image left at all": ({NEW: "sick", OLD: "sick"}, all_is_stuck),
}


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.sweep, id="each"), pytest.param(9, id="some")])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_wherever_moss_dies_the_next_moss_brings_the_swap_to_the_same_end(
    scenario: str, every: int, store: Store, tmp_path: Path
) -> None:
    moods, ending = SCENARIOS[scenario]
    consent = await allowed(store)
    await store.close()
    granted = next(path for path in tmp_path.glob("*.db") if path.stem != "template")

    async def play(die_at: int | None) -> int:
        """A swap in which Moss dies at this edge and begins anew. The number of edges."""
        copy = tmp_path / "played.db"
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(granted, copy)
        host = a_host(**moods)
        host.die_at = die_at
        store = await Store.open(f"sqlite:///{copy}", system_clock)
        try:
            try:
                await perform(store, host, OWNER, consent)
                assert die_at is None
            except Killed:
                await perform(store, host, OWNER, consent)
            ending(host, await told(store, consent))
            return host.edges
        finally:
            await store.close()

    edges = await play(None)
    first = 1 + list(SCENARIOS).index(scenario) % every
    for edge in range(first, edges + 1, every):
        await play(edge)


async def test_an_old_box_that_somebody_else_starts_again_and_again_stays(store: Store) -> None:
    """Moss does not fight for ever over the volume, and starts no second writer."""
    host, consent = a_host(agent="undead"), await allowed(store)
    await perform(store, host, OWNER, consent)
    found = await told(store, consent)
    all_is_back(host, found)
    assert deeds(host).count("stop agent") == room.ACTIONS_LIMIT - 2  # all but `create_new` and `begin`
    assert not any(deed == f"start {found.swap.new_box}" for deed in deeds(host))


async def test_an_engine_that_is_away_for_a_moment_is_waited_for(store: Store) -> None:
    host = a_host()
    host.away_at = 17  # after the old box was stopped: the agent is down meanwhile
    consent = await allowed(store)
    await perform(store, host, OWNER, consent)
    assert host.edges > 17
    all_is_live(host, await told(store, consent))


async def test_an_engine_that_stays_away_leaves_the_swap_for_later(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    host.away_at = 17
    with pytest.raises(Unavailable):
        await perform(store, host, OWNER, consent, patience_s=-1)
    assert (await told(store, consent)).swap.state in (SwapState.stopping, SwapState.starting)
    await perform(store, host, OWNER, consent)
    all_is_live(host, await told(store, consent))


async def test_two_mosses_that_both_think_the_swap_theirs_never_start_two_writers(store: Store) -> None:
    """The host on paper fails the test if they do."""
    host, consent = a_host(), await allowed(store)
    twice = (perform(store, host, OWNER, consent), perform(store, host, OWNER, consent))
    ends = await asyncio.gather(*twice, return_exceptions=True)
    assert all(isinstance(end, Swap) for end in ends), ends
    all_is_live(host, await told(store, consent))


async def test_a_swap_that_has_ended_is_not_performed_again(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    first = await perform(store, host, OWNER, consent)
    done = len(deeds(host))
    assert await perform(store, host, OWNER, consent) == first
    assert deeds(host)[done:] == [f"restart always {first.new_box}" if first else ""]


async def test_the_old_box_stands_still_before_the_new_one_starts_and_stays_until_commit(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    swap = await perform(store, host, OWNER, consent)
    assert swap
    assert deeds(host) == [
        f"create {swap.new_box}",
        "restart no agent",
        "stop agent",
        f"start {swap.new_box}",
        "remove agent",
        f"restart always {swap.new_box}",
    ]


async def test_the_outage_lasts_from_the_stop_of_the_old_box_to_the_first_probe_passed(store: Store) -> None:
    consent = await allowed(store)
    began = system_clock()
    swap = await perform(store, a_host(), OWNER, consent)
    took_ms = (system_clock() - began).total_seconds() * 1000
    assert swap
    assert swap.stopped_at
    assert swap.stopped_at >= began
    assert 0 < (swap.outage_ms or 0) < took_ms


async def test_how_long_the_agent_was_away_is_not_said_when_moss_died_and_the_clock_was_set_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, consent = a_host(), await allowed(store)

    async def die(name: str, grace_s: float) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(host, "stop", die)
        with pytest.raises(Killed):
            await perform(store, host, OWNER, consent)
    monkeypatch.setattr(store, "clock", lambda: system_clock() - timedelta(days=1))
    swap = await perform(store, host, OWNER, consent)
    assert swap
    assert (swap.state, swap.outage_ms) == (SwapState.live, None)
    async with store.reading() as db:
        (notice,) = await notices.listing(db, "desk")
    assert "nobody knows how long it was away" in notice.text


async def test_a_consent_whose_run_was_stopped_swaps_nothing(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    async with store.changing("desk") as change:
        run = (await consents.get(change.db, consent)).run
        assert run
        await runs.move(change, run, RunState.stopped, "carl")
    assert await perform(store, host, OWNER, consent) is None
    assert deeds(host) == []
    async with store.reading() as db:
        assert (await consents.get(db, consent)).state is ConsentState.void


async def test_a_consent_that_was_never_granted_swaps_nothing(store: Store) -> None:
    older = ZERO.model_copy(update={"until": ZERO.since})
    async with store.changing("desk") as change:
        asked = [await offered(change), await ask_for_rollback(change, older, POLICY, "carl")]
    host = a_host()
    for consent in asked:
        assert await perform(store, host, OWNER, consent.id) is None
        async with store.reading() as db:
            assert (await consents.get(db, consent.id)).state is ConsentState.asked
    assert deeds(host) == []


async def test_without_the_image_nothing_is_touched(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    del host.moods[NEW]
    await perform(store, host, OWNER, consent)
    nothing_happened(host, await told(store, consent))
    assert "is gone" in str((await told(store, consent)).swap.problem)


async def test_a_live_box_that_is_not_the_recorded_one_is_not_touched(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    host.moods["sha256:other"] = "well"
    host.boxes_["agent"] = BoxState("agent", "sha256:other", True, {})
    await perform(store, host, OWNER, consent)
    nothing_happened(host, await told(store, consent))


async def test_an_agent_that_needs_adoption_takes_no_swap(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    async with store.changing("desk") as change:
        await substrates.set_needs_adoption(change, True, "moss", "it was stuck")
    await perform(store, host, OWNER, consent)
    nothing_happened(host, await told(store, consent))


async def test_an_adoption_that_begins_at_the_last_moment_has_the_right_of_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, consent = a_host(), await allowed(store)
    begin = records.begin

    async def after_an_adoption_began(store: Store, swap: Swap) -> None:
        async with store.changing("desk") as change:
            await substrates.set_needs_adoption(change, True, "anna", "an adoption is under way")
        await begin(store, swap)

    monkeypatch.setattr(records, "begin", after_an_adoption_began)
    await perform(store, host, OWNER, consent)
    nothing_happened(host, await told(store, consent))


async def test_a_candidate_made_from_another_version_than_the_live_one_is_not_swapped_in(store: Store) -> None:
    host = a_host()
    consent = await granted_candidate(store, "desk", NEW, "c1", live_image="sha256:older")
    await perform(store, host, OWNER, consent)
    nothing_happened(host, await told(store, consent))


async def test_a_crashed_agent_may_be_cured_by_a_swap(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    host.boxes_["agent"] = BoxState("agent", OLD, False, {}, exit_code=1)
    await perform(store, host, OWNER, consent)
    all_is_live(host, await told(store, consent))


async def test_a_missing_key_is_found_before_anything_is_touched(store: Store) -> None:
    host, consent = a_host(), await allowed(store)
    keyed = DESK.model_copy(update={"run": DESK.run.model_copy(update={"env_from": ("NO_SUCH_KEY",)})})
    async with store.changing("desk") as change:
        await substrates.save(change, keyed, "moss")
    await perform(store, host, OWNER, consent)
    nothing_happened(host, await told(store, consent))
    assert "NO_SUCH_KEY" in str((await told(store, consent)).swap.problem)


async def test_keys_reach_the_box_and_never_the_record_of_its_last_words(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_KEY", "words-that-nobody-guesses")
    host, consent = a_host(**{NEW: "sick"}), await allowed(store)
    host.says = "Traceback: the key words-that-nobody-guesses was refused"
    keyed = DESK.model_copy(update={"run": DESK.run.model_copy(update={"env_from": ("DESK_KEY",)})})
    async with store.changing("desk") as change:
        await substrates.save(change, keyed, "moss")
    swap = await perform(store, host, OWNER, consent)
    assert swap
    assert host.specs[swap.new_box].env["DESK_KEY"] == "words-that-nobody-guesses"
    async with store.reading() as db:
        chain = await facts.chain(db, "desk")
    failed = next(fact for fact in chain if fact.what == "failed")
    assert failed.detail["last_words"] == "Traceback: the key [DESK_KEY] was refused"
    assert not any("nobody-guesses" in fact.to_json() for fact in chain)


async def test_a_rollback_and_its_own_rollback_are_swaps_like_any_other(store: Store) -> None:
    host = a_host()
    await perform(store, host, OWNER, await allowed(store))

    for number, wanted in ((2, 0), (3, 1)):
        version = await version_to_restore(store, host, "desk", None)
        assert version.number == wanted
        await perform(store, host, OWNER, await granted_rollback(store, version))
        async with store.reading() as db:
            live = await swaps.live_version(db, "desk")
            good = await swaps.last_good(db, "desk")
        assert live
        assert good
        assert (live.number, live.restores, live.image) == (number, wanted, version.image)
        assert (good.image, good.box) == (live.image, live.box)
        assert host.running() == [live.box] == list(host.boxes_)


async def test_a_rollback_that_fails_brings_back_what_was_live(store: Store) -> None:
    host = a_host()
    await perform(store, host, OWNER, await allowed(store))
    host.moods[OLD] = "sick"
    swap = await perform(store, host, OWNER, await granted_rollback(store, ZERO))
    assert swap
    assert swap.state is SwapState.restored
    async with store.reading() as db:
        live = await swaps.live_version(db, "desk")
    assert live
    assert (live.number, host.running()) == (1, [live.box])


async def test_questions_about_the_version_before_are_withdrawn_when_another_goes_live(store: Store) -> None:
    host, first = a_host(), await allowed(store)
    async with store.reading() as db:
        run = (await consents.get(db, first)).run
    async with store.changing("desk") as change:
        asked = await ask_for_rollback(change, ZERO.model_copy(update={"until": ZERO.since}), POLICY, "carl")
    await perform(store, host, OWNER, first)
    async with store.reading() as db:
        assert (await consents.get(db, asked.id)).state is ConsentState.void
        assert run
        assert (await runs.get(db, run)).state is RunState.applied


async def test_a_second_swap_waits_for_its_turn(store: Store) -> None:
    """A run and a rollback are allowed at the same time: the first goes live, and the other was allowed before that."""
    host = a_host()
    await perform(store, host, OWNER, await allowed(store))
    candidate = await granted_candidate(store, "desk", "sha256:" + "c" * 64, "c2", live_image=NEW)
    host.moods["sha256:" + "c" * 64] = "well"
    back = await granted_rollback(store, ZERO)
    rolled_back, swapped = await asyncio.gather(
        perform(store, host, OWNER, back), perform(store, host, OWNER, candidate)
    )
    assert [swap.state for swap in (rolled_back, swapped) if swap] == [SwapState.live]
    async with store.reading() as db:
        live = await swaps.live_version(db, "desk")
        states = {(await consents.get(db, id)).state for id in (candidate, back)}
    assert states == {ConsentState.granted, ConsentState.void}
    assert live
    assert host.running() == [live.box] == list(host.boxes_)


async def test_a_fault_of_moss_itself_brings_back_what_was_live(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    host, consent = a_host(), await allowed(store)

    async def faulty(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(room, "watch", faulty)
    await perform(store, host, OWNER, consent)
    found = await told(store, consent)
    all_is_back(host, found)
    assert "Moss itself failed with ZeroDivisionError" in str(found.swap.problem)
