"""What DBOS keeps of jobs that are long over is dropped, and nothing of one that is not."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import system_clock
from core.durable import Durable
from core.model.errors import AgentFailed
from core.store import Store
from tests.support.databases import DATABASES, database
from tests.support.theatre import eventually


@pytest.fixture(params=DATABASES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with database(request.param, tmp_path) as url:
        yield url


async def test_jobs_that_are_over_are_forgotten_and_those_that_are_not_are_performed(url: str) -> None:
    let_go, performed = asyncio.Event(), []

    async def perform(subject: str, n: int) -> None:
        if subject == "waits":
            await let_go.wait()
        performed.append(subject)
        if subject == "fails":
            raise AgentFailed("It is ill; heal it.")

    async def has(*subjects: str) -> bool:
        return set(performed) >= set(subjects)

    store = await Store.open(url, system_clock)
    durable = Durable(url, store, clock=system_clock)
    durable.job("job", perform)
    await durable.start()
    try:
        for subject in ("works", "fails", "waits"):
            await durable.submit("job", subject)
        await eventually(lambda: has("works", "fails"), 20)
        hour = timedelta(hours=1)
        assert await durable.forget(system_clock() - hour) == 0, "not long ago"
        async with asyncio.timeout(20):
            found = 0
            while found < 2:
                found += await durable.forget(system_clock() + hour)
        assert found == 2
        assert await durable.forget(system_clock() + hour) == 0
        await durable.submit("job", "waits")
        let_go.set()
        await eventually(lambda: has("waits"), 20)
        assert sorted(performed) == ["fails", "waits", "works"], "each of them once"
    finally:
        await durable.close(1.0)
        await store.close()
