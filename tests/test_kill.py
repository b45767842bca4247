"""Moss is killed with SIGKILL in every state it can be in, and an outsider finds nothing wrong afterwards.

The long half, every durable write and random moments, is `make sweep`.
"""

from pathlib import Path

import pytest

from tests.support.kill_story import Story
from tests.support.needs import needs_engine
from tests.support.sweep import Sweep, unsound

IN_EVERY_STATE = [
    "before substrate.version_added",
    "before batch.opened",
    "after run.queued",
    "after outbox",
    "before run.moved.running",
    "after run.stepped.control",
    "after spawn sh in iter-1/implement-1",
    "before run.stepped.iter-1/code-review-1",
    "before run.stepped.iter-1/build",
    "before run.stepped.iter-1/evaluate",
    "before run.moved.awaiting_consent",
    "after run.moved.awaiting_consent",
    "after run.moved.approved",
    "after swap.planned",
    "after swap.moved.stopping",
    "after swap.moved.starting",
    "before swap.moved.probing",
    "before swap.moved.live",
    "after swap.moved.live",
]
WHERE_THE_ENGINE_WORKS = [
    "after engine build",
    "after engine create trial in control",
    "after engine start trial in control",
    "after engine create tests-put in iter-1/build",
    "after engine create the next",
    "after engine stop the first",
    "after engine start the next",
    "before swap.moved.live",
]
ON_THE_WAY_BACK = [
    "after swap.moved.restoring",
    "before swap.moved.restored",
    "after swap.moved.restored",
]


def test_killed_once_in_every_state_moss_ends_the_story_as_if_nothing_had_happened(tmp_path: Path) -> None:
    assert Story.foreign(tmp_path, "process", IN_EVERY_STATE).tell() == []


@needs_engine
def test_killed_while_the_engine_builds_tries_stops_starts_and_probes_moss_ends_the_same(tmp_path: Path) -> None:
    assert Story.foreign(tmp_path, "docker", WHERE_THE_ENGINE_WORKS).tell() == []


def test_killed_while_a_bad_candidate_is_taken_back_moss_still_brings_the_last_good_one_back(tmp_path: Path) -> None:
    story = Story.foreign(tmp_path, "process", ON_THE_WAY_BACK, ends="rolled_back", since="after swap.moved.probing")
    assert story.tell() == []


@pytest.mark.parametrize(
    ("bug", "moment", "found"),
    [
        ("state-before-effect", "after outbox", "nobody works on it"),
        ("nobody-reaps", "after run.stepped.control", "left behind"),
    ],
)
def test_a_planted_bug_makes_the_sweep_fail_and_name_the_moment(
    bug: str, moment: str, found: str, tmp_path: Path
) -> None:
    (complaint,) = unsound(Sweep("process", tmp_path, ends="stopped", bug=bug).kill_at_each([moment]))
    assert complaint.startswith(f"killed {moment}: ")
    assert found in complaint


def test_a_moss_that_comes_to_a_halt_ends_the_story_which_says_where(tmp_path: Path) -> None:
    where, state, *_ = Story.foreign(tmp_path, "process", [], bug="falls-asleep", halt_s=2).tell()
    assert where.startswith("its last word was 'after ")
    assert state == "the run ended as 'never ended'"
