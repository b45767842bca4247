"""What the model gateway adds to a call: beside a direct call of the same model, whole and streamed.

The model is a stub on the loopback. Once it answers at once, so that all the time is the gateway's (with a line of the
ledger in SQLite before the end of each answer), and once it thinks as long as a quick model does.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx

from benchmarks.table import Measured
from core.clock import system_clock
from core.coders.coder import Account
from core.gateway.gateway import Gateway
from core.model.run import RunState
from core.store import ledger
from core.store.store import Store, upgrade
from tests.support.stored import DESK, run_in, with_substrate
from tests.support.upstream import KEY, MESSAGE_EVENTS, Upstream, upstream

NAME = "gateway"
GOAL_MS = 10.0
GOAL_RATIO = 1.05

CALLS, SLOW_CALLS, THINKING_S = 100, 10, 0.5
ASKED = {"model": "claude-sonnet-4-5", "stream": True, "messages": [{"role": "user", "content": "x" * 20_000}]}

Took = tuple[float, float, float]
"""Seconds to the first event, to the end, and of the processor."""
Ask = Callable[[], Awaitable[Took]]


async def measure(calls: int = CALLS, slow_calls: int = SLOW_CALLS) -> Measured:
    async with _both_ways() as (api, direct, through):
        api.streams(*MESSAGE_EVENTS)
        at_once = await _medians(direct, through, calls)
        api.streams(*MESSAGE_EVENTS, pause=_think)
        slowly = await _medians(direct, through, slow_calls)
    worked_ms = (at_once[1][2] - at_once[0][2]) * 1000
    first_ms = (at_once[1][0] - at_once[0][0]) * 1000
    whole_ms = (at_once[1][1] - at_once[0][1]) * 1000
    ratio = slowly[1][1] / slowly[0][1]
    return Measured(
        rows=(
            ("processor time of a call, more than direct", f"{worked_ms:.1f} ms", f"under {GOAL_MS:.0f} ms"),
            ("to the first event, more than direct", f"{first_ms:.1f} ms", ""),
            (
                "to the end, with its line of the ledger, more than direct",
                f"{whole_ms:.1f} ms",
                f"under {GOAL_MS:.0f} ms",
            ),
            (f"a model that thinks for {THINKING_S} s / direct", f"{ratio:.3f}", f"at most {GOAL_RATIO}"),
        ),
        values={"added_cpu_ms": worked_ms, "added_first_ms": first_ms, "added_ms": whole_ms, "ratio_to_direct": ratio},
        met=worked_ms < GOAL_MS and ratio <= GOAL_RATIO,
    )


async def _think(n: int) -> None:
    if n == 1:
        await asyncio.sleep(THINKING_S)


async def _medians(direct: Ask, through: Ask, calls: int) -> tuple[Took, Took]:
    """Of both ways, which take turns, so that what else the machine does hits both."""
    took: tuple[list[Took], list[Took]] = ([], [])
    for _ in range(calls):
        for ask, kept in zip((direct, through), took, strict=True):
            kept.append(await ask())
    return _median(took[0]), _median(took[1])


def _median(took: list[Took]) -> Took:
    first, whole, worked = (statistics.median(each) for each in zip(*took, strict=True))
    return first, whole, worked


@asynccontextmanager
async def _both_ways() -> AsyncIterator[tuple[Upstream, Ask, Ask]]:
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        url = f"sqlite:///{Path(scratch) / 'moss.db'}"
        await upgrade(url)
        store = await Store.open(url, system_clock)
        await with_substrate(store)
        async with store.changing(DESK) as change:
            run = await run_in(change, RunState.running)
        account = Account(DESK, run.id, 0, "plan", question="question-1")
        async with (
            upstream() as api,
            Gateway(api.settings, {"anthropic": KEY}, partial(ledger.add, store)).serving() as gateway,
            gateway.open(account, "anthropic") as lane,
            httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as http,
        ):
            here = f"http://127.0.0.1:{lane.port}/anthropic"

            async def ask(url: str, key: str) -> Took:
                """The stub and this client work in the same process, either way."""
                began, worked, first = time.perf_counter(), time.process_time(), 0.0
                asking = http.stream("POST", f"{url}/v1/messages", json=ASKED, headers={"x-api-key": key})
                async with asking as response:
                    async for _ in response.aiter_raw():
                        first = first or time.perf_counter() - began
                return first, time.perf_counter() - began, time.process_time() - worked

            yield api, partial(ask, api.url, KEY), partial(ask, here, lane.token)
        await store.close()
