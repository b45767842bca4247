"""Moss is killed with SIGKILL in every state it can be in, and an outsider finds nothing wrong afterwards.

The long half, every durable write and random moments, is `make sweep`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kill_story import Story, end_everything, problems_after, settle
from tests.support.world import World

IN_EVERY_STATE = [
    "before:substrate.adopted",
    "before:batch.opened",
    "after:run.queued",
    "before:run.moved.running",
    "after:run.stepped.control",
    "before:run.stepped.iter-1/implement-1",
    "before:run.stepped.iter-1/code-review-1",
    "before:run.stepped.iter-1/build",
    "before:run.stepped.iter-1/evaluate",
    "before:run.moved.awaiting_consent",
    "after:run.moved.awaiting_consent",
    "after:run.moved.approved",
    "after:swap.planned",
    "after:swap.moved.stopping",
    "after:swap.moved.starting",
    "before:swap.moved.probing",
    "before:swap.moved.live",
    "after:swap.moved.live",
]


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    world = World.foreign(tmp_path, "process")
    yield Story(world, [])
    end_everything(world)


def test_killed_once_in_every_state_moss_ends_the_story_as_if_nothing_had_happened(story: Story) -> None:
    story.moments, story.limit_s = list(IN_EVERY_STATE), 240
    state = story.tell()
    left = f"it ended as {state}, and these moments never came: {story.moments}\n{story.world.tail()}"
    assert not story.moments, left
    settle(story)
    assert problems_after(story, state) == []


@pytest.mark.parametrize(("bug", "ends"), [("none", "applied"), ("state-before-effect", "never ended")])
def test_the_sweep_finds_a_state_that_is_written_before_its_effect(story: Story, bug: str, ends: str) -> None:
    story.moments, story.bug, story.limit_s = ["after:outbox"], bug, 30
    assert story.tell() == ends


def test_the_sweep_finds_that_nobody_reaps(story: Story) -> None:
    story.moments, story.bug = ["before:run.stepped.iter-1/evaluate"], "nobody-reaps"
    state = story.tell()
    settle(story)
    found = problems_after(story, state)
    assert any(problem.startswith("left behind") for problem in found), found
