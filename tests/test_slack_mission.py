"""The whole mission in Slack: a real `moss run`, real slack-bolt by both of its ways, the example's agent."""

from pathlib import Path

import pytest

from tests.support.house import a_free_port
from tests.support.needs import HOST, needs_engine
from tests.support.short import tmp_path as tmp_path  # noqa: PLC0414 (the fixture of this name)
from tests.support.slack_people import SlackPeople, sections
from tests.support.slack_server import loopback_slack
from tests.support.story import desk, running, tell

SLACKS_PATIENCE_S = 3.0


@pytest.mark.parametrize("way", ["socket", pytest.param("http", marks=needs_engine)])
async def test_two_flags_become_a_repair_that_a_second_maintainer_approves(tmp_path: Path, way: str) -> None:
    port = a_free_port() if way == "http" else 0
    async with loopback_slack() as slack, running(desk(tmp_path, HOST, sections(slack, port))):
        people = SlackPeople(slack, port)
        await tell(people)
        *most, slowest = sorted(people.acks)
        assert most[-1] < (1.0, ""), "also while a run is busy"
        assert slowest < (SLACKS_PATIENCE_S, ""), "also when the library is loaded that draws"
