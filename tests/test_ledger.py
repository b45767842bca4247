"""The ledger: every sum that budgets and cards go by, on both databases; and that no kill takes a line out of it."""

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection

from core.model.run import RunState, Spend
from core.model.spending import Line, LineKind
from core.store import Store, ledger, runs, schema
from core.store.engine import address, connect, for_changes, transaction
from tests.support import stored
from tests.support.databases import DATABASES, START, HeldClock, database, opened
from tests.support.stored import DESK, with_substrate
from tests.support.upstream import KEY, MESSAGE, upstream


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        await with_substrate(store)
        yield store


async def a_run(store: Store, substrate: str = DESK) -> str:
    async with store.changing(substrate) as change:
        return (await stored.run_in(change, RunState.running)).id


def line(run: str, n: int = 0, stage: str = "plan", **more: object) -> Line:
    told = {"kind": LineKind.call, "substrate": DESK, "run": run, "n": n, "stage": stage, "what": stage}
    told |= {"question": f"q-{n}", "provider": "openai", "model": "m", "tokens": 100, "money_usd": 0.5}
    return Line.model_validate(told | more)


async def test_spend_is_summed_by_step_run_stage_question_month_and_substrate(store: Store, clock: HeldClock) -> None:
    await with_substrate(store, "lab")
    run, other = await a_run(store), await a_run(store, "lab")
    await ledger.add(store, [line(run, 0), line(run, 0, tokens=3_000_000_000), line(run, 1, "locate")])
    clock.advance(40 * 24 * 3600)
    await ledger.add(store, [line(run, 2, money_usd=None, unpriced_tokens=100), line(other, substrate="lab")])
    async with store.reading() as db:
        assert await ledger.of_step(db, run, 0) == Spend(money_usd=1, tokens=3_000_000_100)
        assert await ledger.of_run(db, run) == Spend(money_usd=1.5, tokens=3_000_000_300, unpriced_tokens=100)
        assert await ledger.of_question(db, "q-1") == Spend(money_usd=0.5, tokens=100)
        assert await ledger.by_stage(db, run) == {
            "plan": Spend(money_usd=1, tokens=3_000_000_200, unpriced_tokens=100),
            "locate": Spend(money_usd=0.5, tokens=100),
        }
        month = ledger.month_of(store.now())
        assert month == (START + timedelta(days=40)).replace(day=1, hour=0)
        assert await ledger.of_substrate(db, DESK, month) == Spend(tokens=100, unpriced_tokens=100)
        assert await ledger.of_substrate(db, DESK, START) == await ledger.of_run(db, run)
        assert await ledger.of_step(db, run, 9) == Spend()
        assert [each.n for each in await ledger.lines(db, run)] == [0, 0, 1, 2]


async def test_a_program_that_tells_a_price_after_all_takes_its_tokens_off_the_unpriced(store: Store) -> None:
    run = await a_run(store)
    await ledger.add(store, [line(run, money_usd=None, unpriced_tokens=100)])
    told = line(run, kind=LineKind.question, tokens=0, money_usd=0.25, unpriced_tokens=-100)
    await ledger.add(store, [told])
    async with store.reading() as db:
        assert await ledger.of_run(db, run) == Spend(money_usd=0.25, tokens=100)


@pytest.mark.parametrize("kind", DATABASES)
async def test_what_was_spent_before_there_was_a_ledger_is_taken_over(kind: str, tmp_path: Path) -> None:
    async with database(kind, tmp_path) as url:
        store = await Store.open(url, HeldClock())
        await with_substrate(store)
        async with store.changing(DESK) as change:
            run = await stored.run_in(change, RunState.running)
            await runs.append(change, run.id, stored.done(0, Spend(money_usd=0.5, tokens=7)))
            await runs.append(change, run.id, stored.done(1))
        await store.close()
        await _moved(url, "0004")
        await _moved(url, "head")
        store = await Store.open(url, HeldClock())
        async with store.reading() as db:
            assert await ledger.of_run(db, run.id) == Spend(money_usd=0.5, tokens=7)
            assert list(await ledger.by_stage(db, run.id)) == [stored.done(0).step.stage]
            assert len(await ledger.lines(db, run.id)) == 1
        await store.close()


async def _moved(url: str, revision: str) -> None:
    """To an older schema by hand, and back by the migration."""

    def move(connection: Connection) -> None:
        config = schema._config()
        config.attributes["connection"] = connection
        if revision == "head":
            command.upgrade(config, revision)
        else:
            connection.exec_driver_sql("DROP TABLE ledger")
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")

    where = address(url)
    engine = connect(where)
    async with transaction(for_changes(engine), where) as db:
        await db.run_sync(move)
    await engine.dispose()


PROGRAM = """
import asyncio, json, sys
from functools import partial
import httpx
from core.clock import system_clock
from core.coders.coder import Account
from core.gateway.gateway import Gateway
from core.gateway.settings import GatewaySettings
from core.store import Store, ledger

async def main(url, upstream, key, run):
    store = await Store.open(url, system_clock)
    gateway = Gateway(GatewaySettings.model_validate({"anthropic": {"url": upstream}}), {"anthropic": key},
                      partial(ledger.add, store))
    async with gateway.serving(), gateway.open(Account("desk", run, 3, "plan", question="q"), None) as lane:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            for n in range(3):
                await http.post(f"http://127.0.0.1:{lane.port}/anthropic/v1/messages",
                                headers={"x-api-key": lane.token}, json={"model": "claude-sonnet-4-5"})
                print(n, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_kill_in_the_middle_of_a_question_loses_no_call_that_was_answered(tmp_path: Path) -> None:
    async with database("sqlite", tmp_path) as url, upstream() as api:
        store = await Store.open(url, HeldClock())
        await with_substrate(store)
        run = await a_run(store)
        await store.close()
        third = asyncio.Event()
        api.says(MESSAGE)
        say = api.answering
        assert say is not None

        async def answer(request, send) -> None:  # type: ignore[no-untyped-def]
            if len(api.asked) == 3:
                third.set()
                await asyncio.Event().wait()
            await say(request, send)

        api.answering = answer
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, api.url, KEY, run)
        try:
            async with asyncio.timeout(60):
                await third.wait()
        finally:
            child.send_signal(signal.SIGKILL)
            await child.wait()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        found = db.execute("SELECT tokens, n, question FROM ledger").fetchall()
    assert found == [(1200, 3, "q"), (1200, 3, "q")]
    assert KEY not in json.dumps(found)
