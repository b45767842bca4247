"""How many trials a minute, beside bare `docker run` of the same work, two at a time.

A trial is a fresh isolated box: the agent starts, is found ready, takes one turn that costs its model a while, and is
removed. Bare, the same image runs the same in one container with no network and without its limits: a shell starts the
agent, waits until it answers, asks it, and ends.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.table import Measured
from core.containers.host import label
from core.model.keypoints import Task, TaskKind
from core.model.transcript import Message, Transcript
from core.pipeline.trial import Bench, replay_all
from tests.support.house import House, a_house, little

NAME = "trials"
GOAL_RATIO = 1.2
TRIALS, ROUNDS, WORKERS = 12, 2, 2
THINKING_S = 2.0
"""What a turn of an agent with a quick model takes."""

ASKING = """
import http.client, json, subprocess, sys, time
agent = subprocess.Popen([sys.executable, "-S", "agent.py"], stderr=subprocess.DEVNULL)
def ask(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
    connection.request(method, path, body)
    return connection.getresponse().read()
while True:
    try:
        ask("GET", "/")
        break
    except OSError:
        time.sleep(0.02)
said = {"messages": [{"role": "user", "content": sys.argv[1]}]}
print(json.loads(ask("POST", "/v1/chat/completions", json.dumps(said)))["choices"][0]["message"]["content"])
agent.kill()
"""


async def measure(trials: int = TRIALS, rounds: int = ROUNDS) -> Measured:
    async with _house() as (house, image):
        found: dict[float, tuple[float, float]] = {}
        for thinking_s in (THINKING_S, 0.0):
            bare = moss = 0.0
            for _ in range(rounds):
                bare += await _timed(partial(_bare, image, trials, thinking_s))
                moss += await _timed(partial(_moss, house, image, trials, thinking_s))
            found[thinking_s] = (rounds * trials * 60 / moss, rounds * trials * 60 / bare)
    moss, bare = found[THINKING_S]
    quick_moss, quick_bare = found[0.0]
    return Measured(
        rows=(
            (f"trials a minute, a turn of {THINKING_S:.0f} s", f"{moss:.0f}", ""),
            ("  bare `docker run`", f"{bare:.0f}", ""),
            ("  bare / Moss", f"{bare / moss:.2f}", f"at most {GOAL_RATIO}"),
            ("trials a minute, a turn that takes no time", f"{quick_moss:.0f}", ""),
            ("  bare `docker run`", f"{quick_bare:.0f}", ""),
        ),
        values={
            "per_minute": round(moss, 1),
            "bare_per_minute": round(bare, 1),
            "ratio_to_bare": round(bare / moss, 3),
            "quick_per_minute": round(quick_moss, 1),
            "quick_bare_per_minute": round(quick_bare, 1),
        },
        met=bare / moss <= GOAL_RATIO,
    )


@asynccontextmanager
async def _house() -> AsyncIterator[tuple[House, str]]:
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        substrate = little("docker", trials={"workers": WORKERS, "timeout_s": 60}, health={"every_s": 0.5})
        async with a_house("docker", Path(scratch), substrate) as house:
            yield house, await house.image("1", "slow")


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.monotonic()
    await work()
    return time.monotonic() - began


async def _moss(house: House, image: str, trials: int, thinking_s: float) -> None:
    said = Transcript(messages=(Message(role="user", content=str(thinking_s)),))
    task = Task(id="t1", kind=TaskKind.batch, transcript=said)
    bench = Bench(house.host, house.substrate, "moss-bench", {label.OWNER: house.owner}, house.tmp)
    for trial in await replay_all(bench, image, [task], trials):
        answer = trial.transcript.messages[-1]
        assert "hears you" in answer.content, answer.error


async def _bare(image: str, trials: int, thinking_s: float) -> None:
    places = asyncio.Semaphore(WORKERS)

    async def one() -> None:
        async with places:
            run = await asyncio.create_subprocess_exec(
                *("docker", "run", "--rm", "--network", "none", "--tmpfs", "/state", "--env", "MOSS_STATE_DIR=/state"),
                *("--env", "PORT=8000", "--entrypoint", "python3", image, "-S", "-c", ASKING, str(thinking_s)),
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await run.communicate()
            assert b"hears you" in said, said

    async with asyncio.TaskGroup() as group:
        for _ in range(trials):
            group.create_task(one())
