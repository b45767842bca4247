"""The whole mission at Discord: a real `moss run`, real discord.py, the example's agent."""

from pathlib import Path

from tests.support.discord_house import loopback
from tests.support.discord_people import DiscordPeople, sections
from tests.support.needs import needs_engine
from tests.support.short import tmp_path as tmp_path  # noqa: PLC0414 (the fixture of this name)
from tests.support.story import desk, running, tell


@needs_engine
async def test_two_flags_become_a_repair_that_a_second_maintainer_approves(tmp_path: Path) -> None:
    async with loopback() as server, running(desk(tmp_path, "docker", sections(server))):
        await server.connected(30)
        await tell(DiscordPeople(server))
