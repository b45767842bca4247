"""The agent hears of its own evolution by its webhook: each notice in order, until it took it, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bot import notifying
from bot.notifying import Notifier
from core.model.substrate import Substrate, Webhook
from core.store import Store, notices, substrates
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.until import until

DESK = Substrate.model_validate({"name": "desk", "repository": "/srv/desk", "health": {"http": "/"}})


@dataclass
class Agent:
    url: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    refuses: int = 0
    """So many of the next notices."""
    asked: int = 0

    async def hear(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.refuses:
            self.refuses -= 1
            return web.Response(status=503)
        self.heard.append(await request.json())
        return web.Response(text="thanks")

    @property
    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.heard]


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made, app = Agent(), web.Application()
    app.router.add_post("/moss", made.hear)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/moss"
    yield made
    await runner.cleanup()


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        async with store.changing("desk") as change:
            await substrates.save(change, DESK, "test")
        yield store


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "FIRST_PAUSE_S", 0.01)


@asynccontextmanager
async def listening(store: Store, agent: Agent, token_from: str = "") -> AsyncIterator[Notifier]:
    webhook = Webhook(url=agent.url, token_from=token_from)
    notifier = Notifier(store, DESK, webhook, {"DESK_TOKEN": "s3cret"}.get)
    running = asyncio.create_task(notifier.run())
    try:
        yield notifier
    finally:
        notifier.stop()
        await asyncio.wait_for(running, 10)


async def notice(store: Store, kind: str, subject: str = "run-1") -> None:
    async with store.changing("desk") as change:
        await notices.add(change, kind, subject, f"It is {kind}.", run="run-1")


async def listens(store: Store, agent: Agent) -> None:
    """What happened before is no news."""
    await notice(store, "before")
    async with listening(store, agent) as notifier:
        await until(lambda: _marked(store, notifier))
    assert agent.asked == 0


async def _marked(store: Store, notifier: Notifier) -> bool:
    async with store.reading() as db:
        return await notifying.marks.get(db, notifier._mark) is not None


async def test_each_notice_is_posted_in_order_with_the_token(store: Store, agent: Agent) -> None:
    await listens(store, agent)
    async with listening(store, agent, "DESK_TOKEN"):
        await notice(store, "evolution-converged")
        await notice(store, "apply-complete", "swap-1")
        await until(lambda: len(agent.heard) == 2)
    first, second = agent.heard
    assert first["id"] < second["id"]
    assert (first["substrate"], first["kind"], first["subject"]) == ("desk", "evolution-converged", "run-1")
    assert (first["text"], first["detail"]) == ("It is evolution-converged.", {"run": "run-1"})
    assert agent.tokens == ["Bearer s3cret"] * 2


async def test_what_the_agent_does_not_take_is_brought_again_and_nothing_overtakes_it(
    store: Store, agent: Agent
) -> None:
    await listens(store, agent)
    agent.refuses = 3
    await notice(store, "one")
    await notice(store, "two")
    async with listening(store, agent):
        await until(lambda: len(agent.heard) == 2)
    assert (agent.kinds, agent.asked) == (["one", "two"], 5)


async def test_what_was_told_is_not_told_again_after_a_restart_and_the_rest_is(store: Store, agent: Agent) -> None:
    await listens(store, agent)
    await notice(store, "one")
    async with listening(store, agent):
        await until(lambda: agent.kinds == ["one"])
    agent.refuses = 1000
    await notice(store, "two")
    async with listening(store, agent):
        await until(lambda: agent.asked > 1)
    agent.refuses = 0
    async with listening(store, agent):
        await until(lambda: agent.kinds == ["one", "two"])


async def test_a_notice_that_nobody_takes_for_a_day_holds_up_no_other(
    store: Store, agent: Agent, clock: HeldClock
) -> None:
    await listens(store, agent)
    await notice(store, "old")
    clock.advance(notifying.KEPT.total_seconds())
    await notice(store, "new")
    agent.refuses = 1
    async with listening(store, agent):
        await until(lambda: agent.heard)
    assert agent.kinds == ["new"]


async def test_an_agent_that_is_away_is_waited_for(store: Store, agent: Agent) -> None:
    await listens(store, agent)
    await notice(store, "one")
    gone = Agent(url="http://127.0.0.1:1/moss")
    async with listening(store, gone):
        await asyncio.sleep(0.1)
    async with listening(store, agent):
        await until(lambda: agent.kinds == ["one"])


def test_who_hears_of_it_may_be_changed_while_a_run_goes_on() -> None:
    heard = DESK.model_copy(update={"notices": Webhook(url="http://127.0.0.1/moss")})
    assert heard.digest() == DESK.digest()
