"""Defects that the paper's own implementation of this idea showed when it ran: put one in, and a test fails.

What the tests of a room cover stands here by name; the rest is below.

 1. What the face sends to apply a candidate is not what the other side takes.
      test_foreign::test_a_foreign_agent_is_adopted_evolved_approved_swapped_and_rolled_back
      test_cli::test_a_known_person_is_told_what_there_is_to_decide
      test_cli::test_waiting_for_a_run_that_cannot_be_offered_ends_with_3
 2. A batch that no person sealed cannot be evolved; a run that failed blocks everything after it.
      test_reference_defects::test_a_batch_that_sealed_itself_can_be_evolved
      test_reference_defects::test_no_end_of_a_run_blocks_the_next_one
      test_reference_defects::test_no_end_of_a_swap_blocks_the_next_one
 3. A plateau on which everything fell counts as convergence; the latest candidate is taken and not the best.
      test_next_step::test_a_convergence_that_lowers_a_keypoint_is_refused_and_the_next_iteration_is_told
      test_next_step::test_when_every_keypoint_fell_the_plateau_offers_nothing
      test_next_step::test_the_best_iteration_is_offered_and_not_the_last
 4. NOT CONVERGED is read as CONVERGED.
      test_coder_reply::test_a_verdict_is_read_from_the_object_and_never_from_prose
      test_coder_reply::test_a_verdict_that_is_none_of_the_four_is_refused
      test_liars::test_not_converged_is_never_read_as_converged
 5. Exit codes are ignored: of the coder, the build, the tests, the grader.
      test_coders::test_a_failure_says_who_failed_in_which_role_and_why
      test_liars::test_a_liar_is_caught_and_its_deed_is_named
      test_hosts::test_a_failed_build_says_its_last_lines_and_logs_all
      test_tasks::test_a_grader_that_breaks_its_contract_is_named_with_the_reason
 6. Rejected code is the base of the next try, and leftovers are swept in.
      test_evolution::test_rejected_code_is_told_to_those_who_come_after_and_is_never_their_base
 7. A run starts from the installed commit and drops what was accepted since.
      test_evolution::test_a_second_run_starts_from_the_first_fix_and_may_not_lose_it
      test_swap_perform::test_a_candidate_made_from_another_version_than_the_live_one_is_not_swapped_in
 8. Reviewers get the placeholders of a template in place of the plan and the diff.
      test_brief::test_a_prompt_is_complete_and_shows_the_schema_of_its_role
      test_evolution::test_reviewers_get_the_plan_and_the_diff_that_they_judge
 9. Who must do it again is not told that, nor why.
      test_brief::test_an_implementer_is_told_why_the_earlier_try_was_rejected
      test_evolution::test_rejected_code_is_told_to_those_who_come_after_and_is_never_their_base
10. An old file on the disk passes for the new output.
      test_coders::test_a_reply_is_never_read_from_an_old_file
11. The turn with the complaint itself is cut off.
      test_flags::test_a_very_long_conversation_keeps_its_end
      test_flags::test_the_flagged_reply_is_the_last_one_unless_another_is_named
12. A stop is seen between stages only; builds and trials go on.
      test_evolution::test_a_stop_ends_at_once_what_is_at_work_and_clears_up
13. Applied is written before the swap; tags and mounted code undo a rollback; the old heartbeat passes for the new.
      test_swap_perform::test_wherever_moss_dies_the_next_moss_brings_the_swap_to_the_same_end
      test_process_host::test_what_an_agent_does_to_its_own_code_is_gone_at_the_next_start
      test_agent::test_a_heartbeat_of_another_start_does_not_count
      test_reference_defects::test_a_container_is_made_from_a_digest_and_nothing_lies_over_its_code
14. Nothing resumes after a crash.
      test_durable::test_a_job_interrupted_by_kill_9_is_performed_again_by_the_next_start
      test_swap_hosts::test_after_kill_9_in_the_middle_the_next_moss_ends_the_swap
      test_kill::test_killed_once_in_every_state_moss_ends_the_story_as_if_nothing_had_happened
15. Whoever reaches the socket may apply, the agent included.
      test_liars::test_a_coder_cannot_press_approve
      test_consent::test_a_click_means_what_the_rule_says
      test_control::test_only_the_owner_can_open_the_socket
      test_swap_perform::test_a_consent_that_was_never_granted_swaps_nothing
      test_reference_defects::test_a_container_is_made_from_a_digest_and_nothing_lies_over_its_code
16. Trials get the real key, a network, a writable disk and no limits.
      test_reference_defects::test_a_trial_has_no_key_no_network_no_disk_and_limits_on_everything_else
17. Nothing limits what a change may touch.
      test_liars::test_a_liar_is_caught_and_its_deed_is_named
      test_scope::test_protected_wins_over_editable_and_names_the_rule
18. Nothing guards earlier fixes, the budget, secrets; leaked containers are never reaped.
      test_evolution::test_a_second_run_starts_from_the_first_fix_and_may_not_lose_it
      test_evolution::test_an_accepted_fix_is_guarded_however_many_runs_came_after_it
      test_next_step::test_a_spent_budget_stops_the_run_before_the_next_stage
      test_flags::test_nothing_is_stored_before_it_is_redacted
      test_flags::test_imported_evidence_is_redacted
      test_swap_adopt::test_what_nobody_needs_goes_and_what_somebody_needs_stays
      test_reference_defects::test_what_a_crash_left_of_a_run_is_gone_after_the_next_tick
"""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from core.containers import docker_plan
from core.containers.host import BoxSpec, label
from core.model.batch import BatchState
from core.model.errors import BadInput
from core.model.keypoints import Task, TaskKind
from core.model.moves import Moves
from core.model.run import RUN_MOVES, Budget, Dial, RunState
from core.model.substrate import Substrate
from core.model.swap import SWAP_MOVES, SwapState
from core.pipeline.evolve import evolve
from core.pipeline.trial import Bench, replay_all
from core.store import Store, batches, outbox, swaps
from core.swap.plan import box_spec
from flags.raise_flag import raise_flag
from flags.seal import seal_old
from tests.support import stored
from tests.support.databases import HeldClock, opened
from tests.support.paper_host import PaperHost
from tests.support.theatre import theatre

HERE = Path(__file__).parent
IMAGE = "sha256:" + "a" * 64

S = TypeVar("S", RunState, SwapState)


def test_every_defect_has_a_test_that_exists() -> None:
    numbers = [int(number) for number in re.findall(r"^ ?(\d+)\. ", str(__doc__), re.MULTILINE)]
    assert numbers == list(range(1, 19))
    named = re.findall(r"^ {6}(\S+)::(\S+)$", str(__doc__), re.MULTILINE)
    assert len(named) > len(numbers)
    missing = [name for file, name in named if f"def {name}(" not in (HERE / f"{file}.py").read_text()]
    assert not missing


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path, clock) as store:
        await stored.with_substrate(store)
        yield store


@pytest.mark.parametrize("seal_count", [1, 8], ids=["by count", "by age"])
async def test_a_batch_that_sealed_itself_can_be_evolved(seal_count: int, store: Store, clock: HeldClock) -> None:
    said = stored.transcript("Refund?", "No.")
    flag = stored.flag("anna")
    batch = (await raise_flag(store, stored.DESK, stored.PLACE, "t1", said, flag, seal_count=seal_count)).batch.id
    clock.advance(1)
    await seal_old(store, age_s=0.5)
    async with store.reading() as db:
        assert (await batches.get(db, batch)).state is BatchState.sealed
    run = await evolve(store, batch, Dial.shallow, Budget(), "ben")
    async with store.reading() as db:
        assert [row.subject for row in await outbox.waiting(db)] == [run.id]


def ways(moves: Moves[S], first: S) -> dict[S, tuple[S, ...]]:
    """To each state, a shortest way from the first one."""
    found: dict[S, tuple[S, ...]] = {first: ()}
    todo = [first]
    for state in todo:
        new = sorted(moves.edges.get(state, frozenset()) - found.keys())
        found |= {after: (*found[state], after) for after in new}
        todo += new
    return found


AT_WORK = ("queued", "running", "approved", "swapping")
RUN_ENDS = [way for state, way in ways(RUN_MOVES, RunState.queued).items() if state not in AT_WORK]
SWAP_ENDS = [way for state, way in ways(SWAP_MOVES, SwapState.planned).items() if SWAP_MOVES.is_final(state)]


@pytest.mark.parametrize("way", RUN_ENDS, ids=lambda way: way[-1])
async def test_no_end_of_a_run_blocks_the_next_one(way: tuple[RunState, ...], store: Store) -> None:
    async with store.changing(stored.DESK) as change:
        assert (await stored.run_in(change, *way)).state is way[-1]
        assert (await stored.queued_run(change)).state is RunState.queued


@pytest.mark.parametrize("way", SWAP_ENDS, ids=lambda way: way[-1])
async def test_no_end_of_a_swap_blocks_the_next_one(way: tuple[SwapState, ...], store: Store) -> None:
    async with store.changing(stored.DESK) as change:
        for states in (way, ()):
            swap = stored.swap_of(await stored.offered(change))
            await swaps.plan(change, swap)
            for state in states:
                await swaps.move(change, swap.id, state, "moss")
        assert await swaps.in_flight(change.db, stored.DESK) == swap


AGENT = Substrate.model_validate(
    {
        "name": "desk",
        "repository": "/srv/desk",
        "run": {"command": ["desk"], "env_from": ["MODEL_KEY"], "volume": "desk-state", "state_path": "/data"},
        "replay": {"kind": "exec", "command": ["ask"]},
        "health": {"canary": "hello"},
        "trials": {"memory_mb": 100, "cpus": 0.5, "pids": 20, "tmp_mb": 3, "workers": 1},
    }
)
TASK = Task(id="t1", kind=TaskKind.batch, transcript=stored.transcript("Refund?", "No."))


def live_box() -> BoxSpec:
    names = {"name": "moss-desk-1", "image": IMAGE, "commit": "c1", "boot_id": "boot-1", "owner": "moss", "swap": None}
    return box_spec(AGENT, **names, secrets={"MODEL_KEY": "sk-real"})  # type: ignore[arg-type]


def test_a_container_is_made_from_a_digest_and_nothing_lies_over_its_code() -> None:
    """Neither the owner's source tree nor a directory of Moss, where the control socket is."""
    made = docker_plan.box(live_box(), "moss", None)
    assert made["Image"] == IMAGE
    assert made["HostConfig"]["Mounts"] == [{"Type": "volume", "Source": "desk-state", "Target": "/data"}]
    assert not {"Binds", "VolumesFrom", "Volumes"} & (made.keys() | made["HostConfig"].keys())
    with pytest.raises(BadInput, match="a tag may move"):
        docker_plan.box(replace(live_box(), image="desk:latest"), "moss", None)


async def test_a_trial_has_no_key_no_network_no_disk_and_limits_on_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "sk-real")
    host = PaperHost(moods={IMAGE: "well"})
    bench = Bench(host, AGENT, "moss-run-1-2", {label.OWNER: "moss"}, tmp_path)
    await replay_all(bench, IMAGE, [TASK], trials=2)
    assert len(host.specs) == 2
    for spec in host.specs.values():
        assert spec.isolated
        assert not spec.volume
        made = docker_plan.box(spec, "moss", relay="the-relay")
        assert "sk-real" not in str(made)
        config = made["HostConfig"]
        assert config["NetworkMode"] == "container:the-relay"
        assert (config["ReadonlyRootfs"], config["CapDrop"]) == (True, ["ALL"])
        assert (config["Memory"], config["MemorySwap"]) == (100 << 20, 100 << 20)
        assert (config["NanoCpus"], config["PidsLimit"]) == (500_000_000, 20)
        (scratch,) = config["Mounts"]
        assert "Source" not in scratch
        assert "size=3m" in scratch["VolumeOptions"]["DriverConfig"]["Options"]["o"]
        assert "size=3m" in config["Tmpfs"]["/tmp"]
        assert not {"Binds", "VolumesFrom", "Devices", "Privileged", "CapAdd"} & config.keys()


async def test_what_a_crash_left_of_a_run_is_gone_after_the_next_tick(tmp_path: Path) -> None:
    async with theatre(tmp_path) as stage:
        moss, live = stage.moss, (await stage.outside()).version
        labels = {label.SUBSTRATE: "prices", label.PURPOSE: "trial", label.RUN: "run-gone", label.STEP: "7"}
        await moss.host.create(BoxSpec("moss-run-gone-7-0", live.image, labels, command=("sleep", "600")))
        await moss.host.start("moss-run-gone-7-0")
        scratch = moss.settings.data / "work" / "run-gone"
        scratch.mkdir(parents=True)
        await moss.dispatch.tick()
        assert [box.name for box in await moss.host.boxes({})] == [live.box]
        assert not scratch.exists()
