"""How fast complaints are taken: 200 reactions a second for a minute, through each platform's adapter.

A process with the adapter, the inbox and the store is told by a platform on the loopback, which lives in this process.
*Acknowledged* is when the platform hears that a reaction arrived; Discord does not ask for that, so there it is when
discord.py handed the reaction over. *Committed* is when nothing can lose it any more. What people are told, and what
becomes of the complaints, happens beside it, as always.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chat_side import pair
from benchmarks.table import Measured
from core.clock import system_clock
from tests.support import discord_server, slack_server
from tests.support.discord_server import DiscordServer
from tests.support.slack_server import loopback_slack

NAME = "chat"
RATE, SECONDS = 200, 60
GOAL_MS = 1000.0
GOAL_GROWTH = 1.10
LATE_S = 60.0
"""How long after the last reaction all have to be committed."""

Send = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Figures:
    acknowledged_ms: float
    """The 99th percentile, as the next."""
    committed_ms: float
    missing: int
    early_mb: float
    """Memory after a sixth of the time."""
    late_mb: float

    @property
    def growth(self) -> float:
        return self.late_mb / self.early_mb


class Stamped(dict[str, Any]):
    """When each key came."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, float] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        self.at.setdefault(key, time.monotonic())
        super().__setitem__(key, value)


async def measure() -> Measured:
    found = {platform: await through(platform, RATE, SECONDS) for platform in PLATFORMS}
    rows: list[tuple[str, str, str]] = []
    for platform, one in found.items():
        how = "acknowledged" if platform == "slack" else "handed over"
        rows += [
            (f"{platform}: {RATE} reactions a second, {how} (p99)", f"{one.acknowledged_ms:.0f} ms", "under 1 s"),
            ("  committed (p99)", f"{one.committed_ms:.0f} ms", "under 1 s"),
            ("  not committed", str(one.missing), "0"),
            (f"  memory after {SECONDS // 6} s", f"{one.early_mb:.0f} MB", ""),
            (f"  memory after {SECONDS} s", f"{one.late_mb:.0f} MB", "at most a tenth more"),
        ]
    return Measured(
        rows=tuple(rows),
        values={
            platform: {
                "acknowledged_p99_ms": round(one.acknowledged_ms, 1),
                "committed_p99_ms": round(one.committed_ms, 1),
                "missing": one.missing,
                "memory_growth": round(one.growth, 3),
            }
            for platform, one in found.items()
        },
        met=all(
            max(one.acknowledged_ms, one.committed_ms) < GOAL_MS and not one.missing and one.growth <= GOAL_GROWTH
            for one in found.values()
        ),
    )


async def through(platform: str, rate: int, seconds: int) -> Figures:
    total, sent = rate * seconds, dict[int, float]()
    async with PLATFORMS[platform]() as (address, send, acknowledged), _side(platform, address, total) as side:
        began = time.monotonic()
        for n in range(total):
            await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
            sent[n] = time.monotonic()
            await send(n)
        assert side.stdin
        assert side.stdout
        side.stdin.write(b"end\n")
        told: dict[str, Any] = json.loads(await asyncio.wait_for(side.stdout.readline(), LATE_S + 30))
        first = acknowledged() or _by_number(told["heard"])
    committed = _by_number(told["committed"])
    return Figures(
        acknowledged_ms=_p99([first[n] - at for n, at in sent.items() if n in first]),
        committed_ms=_p99([committed[n] - at for n, at in sent.items() if n in committed]),
        missing=total - len(committed),
        early_mb=told["memory"][len(told["memory"]) // 6] / 1e6,
        late_mb=told["memory"][-1] / 1e6,
    )


@contextlib.asynccontextmanager
async def _side(platform: str, address: str, total: int) -> AsyncIterator[asyncio.subprocess.Process]:
    side = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.chat_side", platform, address, str(total)),
        cwd=Path(__file__).parents[1],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        assert side.stdout
        assert await asyncio.wait_for(side.stdout.readline(), 60) == b"ready\n"
        yield side
    finally:
        with contextlib.suppress(ProcessLookupError):
            side.kill()
        await side.wait()


Told = tuple[str, Send, Callable[[], dict[int, float]]]
"""Where the platform is, how a reaction is put on there, and when each was acknowledged, where that can be seen."""


@contextlib.asynccontextmanager
async def _slack() -> AsyncIterator[Told]:
    async with loopback_slack() as slack:
        acks = Stamped()
        slack.acks, envelopes = acks, dict[int, str]()

        async def send(n: int) -> None:
            person, message = pair("slack", n)
            event = slack_server.reaction(message, user=person, at=slack.stamp())
            envelopes[n] = await slack.push("events_api", slack.envelope(event))

        yield slack.url, send, lambda: {n: acks.at[one] for n, one in envelopes.items() if one in acks.at}


@contextlib.asynccontextmanager
async def _discord() -> AsyncIterator[Told]:
    async with DiscordServer().running(lambda: int(system_clock().timestamp() * 1000)) as server:

        async def send(n: int) -> None:
            person, message = pair("discord", n)
            about = {"user_id": person, "channel_id": str(discord_server.CHANNEL), "message_id": message}
            about |= {"guild_id": str(discord_server.GUILD)}
            more = {"emoji": {"id": None, "name": "👎"}, "type": 0, "burst": False}
            await server.tell("MESSAGE_REACTION_ADD", about | more)

        yield server.url, send, dict


PLATFORMS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Told]]] = {
    "slack": _slack,
    "discord": _discord,
}


def _by_number(stamps: list[float]) -> dict[int, float]:
    return {n: at for n, at in enumerate(stamps) if at}


def _p99(taken: list[float]) -> float:
    return sorted(taken)[int(0.99 * (len(taken) - 1))] * 1000
