"""For how long an agent is away while it is replaced, seen from its port and by the people who talk to it through Moss.

The same small agent in containers, under the same knocks every 5 ms, replaced in three ways in turn: by Moss, by hand
(a container that was made before is started as soon as the old one has stopped: nobody who keeps one writer on the
volume is faster), and by `docker-compose up --force-recreate` where that is installed. Then people talk to it through
Moss without a pause while it is swapped.
"""

import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import docker

from benchmarks.table import Measured
from bot.receive import give_up, receive
from core.model.swap import SwapState
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.house import House, a_house, little
from tests.support.until import until

NAME = "swap"
GOAL_RATIO = 1.15
ROUNDS = 5
PEOPLE = 8
PROBES = {"every_s": 0.1, "passes": 3, "canary": None, "canary_expect": None}


async def measure() -> Measured:
    by_moss: list[float] = []
    by_hand: list[float] = []
    by_compose: list[float] = []
    for _ in range(ROUNDS):
        by_moss.append(await _away(_moss))
        by_hand.append(await _away(_hand))
        if shutil.which("docker-compose"):
            by_compose.append(await _compose())
    moss_s, floor_s = statistics.median(by_moss), statistics.median(by_hand)
    turns, failed, longest_s = await _fronting()
    ratio = moss_s / floor_s
    composed = f"{statistics.median(by_compose) * 1000:.0f} ms" if by_compose else "not there"
    return Measured(
        rows=(
            ("away, by Moss, published port (median)", f"{moss_s * 1000:.0f} ms", ""),
            ("  by hand: stop, start what was made before", f"{floor_s * 1000:.0f} ms", ""),
            ("  docker-compose up --force-recreate", composed, ""),
            ("  Moss / by hand", f"{ratio:.2f}", f"at most {GOAL_RATIO}"),
            (f"turns of {PEOPLE} people through Moss meanwhile", str(turns), ""),
            ("  of them failed", str(failed), "0"),
            ("  the longest that one waited", f"{longest_s * 1000:.0f} ms", ""),
        ),
        values={
            "moss_ms": round(moss_s * 1000),
            "floor_ms": round(floor_s * 1000),
            "compose_ms": round(statistics.median(by_compose) * 1000) if by_compose else None,
            "ratio_to_floor": round(ratio, 3),
            "turns_fronting": turns,
            "failed_turns_fronting": failed,
            "longest_turn_ms": round(longest_s * 1000),
        },
        met=ratio <= GOAL_RATIO and failed == 0,
    )


@asynccontextmanager
async def _house(mood: str) -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        async with a_house("docker", Path(scratch), little("docker", health=PROBES)) as house:
            await house.live(mood)
            yield house


@asynccontextmanager
async def _knocked_at(port: int) -> AsyncIterator[dict[str, float]]:
    """What the knocks found is in the yielded dictionary once the block has ended."""
    found: dict[str, float] = {}
    prober = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.prober",
        str(port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await asyncio.sleep(0.5)
        yield found
        await asyncio.sleep(0.5)
    finally:
        said, _ = await prober.communicate(b"")
    found.update(json.loads(said))


async def _away(replace: Callable[[House, str], Awaitable[None]]) -> float:
    """How long nobody answered at the port."""
    async with _house("well") as house:
        image, port = await house.image("1", "well"), house.substrate.run.publish
        assert port
        async with _knocked_at(port) as found:
            await replace(house, image)
        assert found["failed"], "it was never away, so the knocks saw nothing"
        return found["silent_s"]


async def _moss(house: House, image: str) -> None:
    swap = await house.swap_to(image)
    assert swap.state is SwapState.live, swap.problem


async def _hand(house: House, image: str) -> None:
    live = await house.now_live()
    await house.host.create(house.spec("bench-by-hand", image))

    def work() -> None:
        with contextlib.closing(docker.from_env()) as engine:
            engine.api.stop(live.box, timeout=1)
            engine.api.start("bench-by-hand")

    await asyncio.to_thread(work)
    await house.ask("bench-by-hand", "Are you there?")


async def _compose() -> float:
    """The same agent under docker-compose, with the engine's own names for the same things."""
    async with _house("well") as house:
        live, port = await house.now_live(), house.substrate.run.publish
        image = await house.image("1", "well")
        assert port
        await house.host.stop(live.box, 1)
        where = house.tmp / "compose"
        where.mkdir()

        async def up(image: str, *words: str) -> None:
            service = {
                "image": image,
                "init": True,
                "ports": [f"{port}:8000"],
                "environment": {"PORT": "8000", "MOSS_STATE_DIR": "/state"},
                "volumes": ["state:/state"],
                "stop_grace_period": "1s",
            }
            file = {"version": "3.7", "services": {"agent": service}, "volumes": {"state": {}}}
            (where / "docker-compose.yml").write_text(json.dumps(file))
            await _run(where, "up", "--detach", *words)

        try:
            await up(live.image)
            await asyncio.sleep(2)
            async with _knocked_at(port) as found:
                await up(image, "--force-recreate")
                await asyncio.sleep(2)
        finally:
            await _run(where, "down", "--volumes", "--timeout", "1")
        return found["silent_s"]


async def _run(where: Path, *words: str) -> None:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec("docker-compose", *words, cwd=where, stdout=quiet, stderr=quiet)
    assert await process.wait() == 0, f"docker-compose {' '.join(words)} failed"


async def _fronting() -> tuple[int, int, float]:
    """Turns, how many of them failed, and how long the slowest took."""
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        substrate = little("docker", health=PROBES)
        async with a_house("docker", Path(scratch), substrate) as house:
            await house.live("slow", greet="0")
            image = await house.image("1", "slow")
            async with chat_moss(house.store, Path(scratch), host=house.host, substrate=substrate) as chat:
                chat.permit(talk_per_minute=10_000)
                return await _talk_through_a_swap(house, chat, image)


async def _talk_through_a_swap(house: House, chat: ChatMoss, image: str) -> tuple[int, int, float]:
    moss = chat.moss
    working = asyncio.create_task(moss.inbox.work(partial(receive, moss), partial(give_up, moss), list(moss.chats)))
    ending, taken_s = asyncio.Event(), []

    async def talk(person: int) -> None:
        clock, n = asyncio.get_running_loop().time, 0
        while not ending.is_set():
            n += 1
            message, began = f"m{person}-{n}", clock()
            await chat.take(chat.said("0.05", message=message, addressed=True, person=f"paper:p{person}"))
            await until(partial(_is_answered, chat, message), 60)
            taken_s.append(clock() - began)

    async with asyncio.TaskGroup() as group:
        for person in range(PEOPLE):
            group.create_task(talk(person))
        await asyncio.sleep(1)
        swap = await house.swap_to(image)
        await asyncio.sleep(1)
        ending.set()
    await moss.inbox.finish(5)
    await working
    assert swap.state is SwapState.live, swap.problem
    spoken = [str(shown.what) for shown in chat.chat.shown]
    failed = [said for said in [*spoken, *chat.chat.told()] if "hears you" not in said]
    return len(spoken), len(failed), max(taken_s)


def _is_answered(chat: ChatMoss, message: str) -> bool:
    return any(shown.place.thread == message for shown in chat.chat.shown)
