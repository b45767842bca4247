"""What Moss itself takes: beside its coders and agents in each iteration, and beside the agents' delay in trials.

*Per iteration* runs the real pipeline (store, durable jobs, git, evidence, scope, scoring) with a coder, an agent and a
host that answer at once, so that whatever time an iteration takes is Moss's own. *Makespan* replays 8 tasks three times
each against real processes of an agent that thinks for a fixed time, and holds that against the best that so many
workers could do.
"""

import asyncio
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.instant import InstantCoder, InstantHost
from benchmarks.table import Measured
from bot import built_in
from core.clock import system_clock
from core.coders.catalogue import Coders, CoderSettings
from core.containers.host import Host, Recipe
from core.containers.process_host import ProcessHost
from core.dispatch import Dispatch
from core.durable import Durable
from core.model.consent import Policy
from core.model.evidence import Check, Chunk, FailureKind, Flag
from core.model.keypoints import Task, TaskKind
from core.model.replies import Role
from core.model.run import Budget, Dial, Done, Stage
from core.model.substrate import Health, Replay, RunAs, Substrate, Trials
from core.model.transcript import Message, Place, Transcript
from core.model.value import new_id
from core.pipeline import evolve as pipeline
from core.pipeline.evolve import Evolution
from core.pipeline.trial import Bench, replay_all
from core.repository import begin
from core.store import batches, runs, substrates
from core.store.store import Store, upgrade
from core.swap import adopt as adoption

NAME = "orchestration"
GOAL_ITERATION_MS = 300.0
GOAL_MAKESPAN = 1.15

ITERATIONS, CHUNKS = 8, 4
TASKS, TRIALS, WORKERS, DELAY_S = 8, 3, 4, 2.0

AGENT = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(b"{}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(sys.argv[1]))
        self.answer(b'{"choices": [{"message": {"content": "It is done."}}]}')
    def answer(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Requests).serve_forever()
"""


async def measure() -> Measured:
    taken = await iterations()
    makespan_s = await _makespan()
    ideal_s = math.ceil(TASKS * TRIALS / WORKERS) * DELAY_S
    own_ms = statistics.median(taken)
    ratio = makespan_s / ideal_s
    return Measured(
        rows=(
            (f"Moss itself, per iteration (median of {len(taken)})", f"{own_ms:.0f} ms", "under 300 ms"),
            ("  the slowest of them", f"{max(taken):.0f} ms", ""),
            (f"{TASKS} tasks x {TRIALS} trials of {DELAY_S:g} s, {WORKERS} workers", f"{makespan_s:.1f} s", ""),
            ("  the best that so many workers could do", f"{ideal_s:.1f} s", ""),
            ("  makespan / ideal", f"{ratio:.3f}", f"at most {GOAL_MAKESPAN}"),
        ),
        values={
            "iteration_ms": round(own_ms, 1),
            "iteration_ms_max": round(max(taken), 1),
            "makespan_s": round(makespan_s, 2),
            "ideal_s": ideal_s,
            "makespan_ratio": round(ratio, 3),
        },
        met=own_ms < GOAL_ITERATION_MS and ratio <= GOAL_MAKESPAN,
    )


# Per iteration


async def iterations() -> list[float]:
    """Milliseconds from the first step of each iteration to the end of its last one."""
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        async with _moss(Path(scratch)) as (dispatch, substrate):
            batch = await _evidence(dispatch.store, substrate)
            run = await pipeline.evolve(dispatch.store, batch, Dial.deep, Budget(), "bench")
            await dispatch.wake()
            history = await _ended(dispatch.store, run.id)
    taken = []
    for iteration in range(1, ITERATIONS + 1):
        steps = [done for done in history if done.step.iteration == iteration and done.step.stage is not Stage.offer]
        assert steps[-1].step.stage is Stage.verdict, f"iteration {iteration} ended with {steps[-1]}"
        taken.append((steps[-1].ended_at - steps[0].started_at).total_seconds() * 1000)
    return taken


@asynccontextmanager
async def _moss(root: Path) -> AsyncIterator[tuple[Dispatch, Substrate]]:
    """Composed as in bot/wiring.py, with the instant host and coder."""
    shutil.copytree(built_in.examples() / built_in.DESK, root / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    await begin(root / "desk", "The desk")
    substrate = Substrate(
        name="desk",
        repository=str(root / "desk"),
        publish=False,
        replay=Replay(kind="exec", command=("ask",)),
        health=Health(canary="hello", every_s=0.01, passes=1),
    )
    url = f"sqlite:///{root / 'moss.db'}"
    await upgrade(url)
    async with AsyncExitStack() as stack:
        store = await Store.open(url, system_clock)
        stack.push_async_callback(store.close)
        host, coder, owner = InstantHost(), InstantCoder(), new_id("moss")
        async with store.changing(substrate.name) as change:
            await substrates.save(change, substrate, "bench")
        durable = Durable(url, store, clock=system_clock)
        evolution = Evolution(
            store=store,
            host=host,
            coders=Coders(CoderSettings(argv=("instant",)), dict.fromkeys(Role, coder)),
            policy=Policy(),
            owner=owner,
            data=root,
            clock=system_clock,
            submit=durable.submit,
            person=str,
        )
        dispatch = Dispatch(store=store, durable=durable, host=host, evolution=evolution, owner=owner)
        stack.push_async_callback(durable.close, 5.0)
        await dispatch.start()
        clone = await evolution.clone(substrate)
        await adoption.adopt(store, host, owner, substrate, "bench", clone=clone, work=root / "adopt")
        yield dispatch, substrate


async def _evidence(store: Store, substrate: Substrate) -> str:
    """Flagged replies that could be better in more ways than there are iterations."""
    place = Place(platform="file", workspace="bench", channel="bench")
    checks = tuple(Check(id=f"word-{n}", text=f"Says word {n}.", contains=f"<{n}>") for n in range(1, ITERATIONS + 2))
    async with store.changing(substrate.name) as change:
        batch = await batches.open_batch(change, place, "bench")
        for n in range(CHUNKS):
            flag = Flag(id=new_id("flag"), person="bench", kind=FailureKind.incomplete, at=change.now)
            said = (Message(role="user", content=f"Question {n}?"), Message(role="assistant", content="<0>"))
            chunk = Chunk(
                id=new_id("chunk"),
                batch=batch.id,
                place=place,
                turn=f"turn-{n}",
                transcript=Transcript(messages=said),
                flags=(flag,),
                checks=checks,
            )
            await batches.add_chunk(change, chunk, "bench")
    return batch.id


async def _ended(store: Store, run: str) -> list[Done]:
    async with asyncio.timeout(120):
        while True:
            async with store.reading() as db:
                found, history = await runs.get(db, run), await runs.history(db, run)
            if found.ended_at or found.state == "awaiting_consent":
                return history
            await asyncio.sleep(0.5)


# Makespan


async def _makespan() -> float:
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        root, owner = Path(scratch), new_id("moss")
        host: Host = ProcessHost(root, owner)
        source = root / "source"
        source.mkdir()
        (source / "agent.py").write_text(AGENT)
        image = await host.build(Recipe(source, "", ".", None, False, 60, {}, root / "log"))
        substrate = Substrate(
            name="slow",
            repository="nowhere",
            trusted=True,
            run=RunAs(command=(*built_in.THIS_PYTHON, "agent.py", str(DELAY_S)), port=8080),
            health=Health(http="/"),
            trials=Trials(workers=WORKERS),
        )
        bench = Bench(host, substrate, "moss-bench", {}, root / "laid")
        asked = Transcript(messages=(Message(role="user", content="Do it."),))
        tasks = [Task(id=f"task-{n}", kind=TaskKind.batch, transcript=asked) for n in range(TASKS)]
        began = time.monotonic()
        trials = await replay_all(bench, image, tasks, TRIALS)
        taken_s = time.monotonic() - began
        said: list[Any] = [trial.transcript.reply for trial in trials]
        assert all(reply and reply.content == "It is done." for reply in said), said
        return taken_s
