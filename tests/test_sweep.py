"""The kill sweep, `make sweep`: Moss is killed before and after each durable write, and at random moments.

It prints a table. Several deaths make one story, and each story is told in a world of its own.
"""

from pathlib import Path

import pytest

from tests.support.kill_story import AT_THE_CODER
from tests.support.needs import needs_engine
from tests.support.sweep import Sweep, table, unsound

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.parametrize("host", ["process", pytest.param("docker", marks=needs_engine)]),
]


def test_killed_at_each_durable_write_moss_ends_the_story_as_if_nothing_had_happened(host: str, tmp_path: Path) -> None:
    sweep = Sweep(host, tmp_path)
    rows = sweep.kill_at_each(sweep.moments())
    print(f"\n{host}: {len(rows)} deaths on the way to what people approved\n{table(rows)}", flush=True)
    assert len(rows) > 150, "the rehearsal missed most of the story"
    assert unsound(rows) == []


@pytest.mark.parametrize(("ends", "since"), [("rolled_back", "after swap.moved.probing"), ("stopped", AT_THE_CODER)])
def test_killed_at_each_durable_write_of_another_end_moss_comes_to_that_end(
    host: str, ends: str, since: str, tmp_path: Path
) -> None:
    sweep = Sweep(host, tmp_path, ends=ends, since=since)
    rows = sweep.kill_at_each(sweep.moments())
    print(f"\n{host}: {len(rows)} deaths {since}, in a run that is {ends}\n{table(rows)}", flush=True)
    assert unsound(rows) == []


def test_killed_at_random_moments_moss_ends_the_story_as_if_nothing_had_happened(host: str, tmp_path: Path) -> None:
    rows = Sweep(host, tmp_path).kill_at_random(range(6), kills=5)
    print(f"\n{host}: deaths at random", *(row.kill for row in rows), sep="\n", flush=True)
    assert unsound(rows) == []


@pytest.mark.parametrize(
    ("bug", "moment", "found"),
    [
        ("state-before-effect", "after outbox", "nobody works on it"),
        ("nobody-reaps", "after run.stepped.control", "left behind"),
    ],
)
def test_a_planted_bug_makes_the_sweep_fail(host: str, bug: str, moment: str, found: str, tmp_path: Path) -> None:
    (complaint,) = unsound(Sweep(host, tmp_path, ends="stopped", bug=bug).kill_at_each([moment]))
    assert complaint.startswith(f"killed {moment}: ")
    assert found in complaint
