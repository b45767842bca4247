"""The long fault sweep: Moss is killed before and after each durable write, and at random moments. `make sweep`.

Each row of the table is a whole story in a world of its own: adopt, import, evolve, approve, swap.
"""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kill_story import Story, end_everything, problems_after, settle
from tests.support.needs import needs_engine
from tests.support.world import World

RANDOM_SEEDS = range(12)
KILLS_EACH = 5
MOST_WRITES = 200

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.parametrize("host", ["process", pytest.param("docker", marks=needs_engine)]),
]


def test_killed_at_each_durable_write(host: str, tmp_path: Path) -> None:
    wrong = [row for row in _each_write(host, tmp_path) if row]
    assert not wrong, wrong


def test_killed_at_random_moments(host: str, tmp_path: Path) -> None:
    wrong = []
    for seed in RANDOM_SEEDS:
        story = _story(host, tmp_path / str(seed))
        story.moments, story.chance = ["some time"] * KILLS_EACH, random.Random(seed)
        wrong += _told(story, f"random, seed {seed}")
    assert not wrong, wrong


def _each_write(host: str, where: Path) -> Iterator[list[str]]:
    for number in range(1, MOST_WRITES):
        for when in ("before", "after"):
            story = _story(host, where / f"{when}-{number}")
            story.moments = [f"{when}:{number}"]
            yield _told(story, f"{when} write {number}")
        if not story.deaths:
            return  # the story has no more writes than this


def _story(host: str, where: Path) -> Story:
    where.mkdir(parents=True)
    return Story(World.foreign(where, host), [], limit_s=180)


def _told(story: Story, name: str) -> list[str]:
    began = time.monotonic()
    try:
        state = story.tell()
        settle(story)
        problems = problems_after(story, state)
    finally:
        end_everything(story.world)
    seconds = time.monotonic() - began
    row = f"{story.world.host:8} {name:22} {story.deaths} deaths  {seconds:6.1f} s  {'; '.join(problems) or 'sound'}"
    print(row, file=sys.stderr, flush=True)
    return [f"{name}: {problem}" for problem in problems]
