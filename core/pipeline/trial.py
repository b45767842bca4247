"""Trials: every task several times, each against a fresh isolated box of the very image that would be promoted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from errno import ENOSPC
from os import strerror
from pathlib import Path

from core import agent
from core.coders.coder import Account, Lane, Lanes
from core.coders.customary import CUSTOMARY
from core.containers.host import BoxSpec, Host, Limits, label
from core.model.errors import AgentFailed, NotFound, OverBudget, Refused
from core.model.keypoints import Task
from core.model.run import Spend
from core.model.substrate import Substrate
from core.model.transcript import Message, Transcript
from core.pipeline.fixture import with_fixture

_NEARLY_ALL = 0.9
"""Of its processes: those of a bomb come and go."""


@dataclass(frozen=True, slots=True)
class Trial:
    task: Task
    k: int
    """Counts the trials of one task, from 1."""
    transcript: Transcript

    @property
    def name(self) -> str:
        return f"{self.task.id}-{self.k}"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the isolated boxes of one step stand."""

    host: Host
    substrate: Substrate
    prefix: str
    """Begins the name of every box; a repeated step finds and replaces what the first one left."""
    labels: dict[str, str]
    scratch: Path
    """For files on their way into a box."""
    lanes: Lanes | None = None
    """How an agent on trial reaches its model."""
    account: Account | None = None
    """Who pays for that."""
    paid: Callable[[Spend], None] = lambda _: None
    """Told what each of them cost."""

    def box(self, name: str, image: str, purpose: str, command: tuple[str, ...] | None = None) -> BoxSpec:
        """The agent's plain settings, but none of its keys, no state of the live one, and no network."""
        run, given = self.substrate.run, self.substrate.trials
        name = f"{self.prefix}-{name}"
        return BoxSpec(
            name=name,
            image=image,
            labels={**self.labels, label.SUBSTRATE: self.substrate.name, label.PURPOSE: purpose},
            command=command or run.command,
            entrypoint=command is None,
            env={**run.env, "MOSS_BOOT_ID": name},
            port=run.port,
            user=run.user,
            isolated=True,
            state_path=run.state_path,
            limits=Limits(memory_mb=given.memory_mb, cpus=given.cpus, pids=given.pids, tmp_mb=given.tmp_mb),
        )


async def replay_all(bench: Bench, image: str, tasks: Sequence[Task], trials: int) -> list[Trial]:
    """All trials, as many at once as the substrate allows. An agent that fails has failed that trial, not the run."""
    places = asyncio.Semaphore(bench.substrate.trials.workers)

    async def one(number: int, task: Task, k: int) -> Trial:
        async with places:
            box = bench.box(str(number), image, "trial")
            return Trial(task, k, await _on_trial(bench, box, task.transcript))

    wanted = [(task, k) for task in tasks for k in range(1, trials + 1)]
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(number, task, k)) for number, (task, k) in enumerate(wanted)]
    except ExceptionGroup as failed:  # the first says why; the others were cancelled by it
        raise failed.exceptions[0] from failed
    return [task.result() for task in running]


async def _on_trial(bench: Bench, wanted: BoxSpec, recorded: Transcript) -> Transcript:
    """Raises OverBudget when the agent's model has used up what was left."""
    async with equipped(bench, wanted) as (box, lane):
        if lane is None:
            return await _replay(bench.host, bench.substrate, box, recorded)
        replaying = asyncio.create_task(_replay(bench.host, bench.substrate, box, recorded))
        closing = asyncio.create_task(lane.exhausted())
        try:
            await asyncio.wait({replaying, closing}, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                raise OverBudget(f"The agent on trial was stopped: {closing.result()}.")
            return replaying.result()
        finally:
            closing.cancel()
            replaying.cancel()
            await asyncio.gather(replaying, closing, return_exceptions=True)


@asynccontextmanager
async def equipped(bench: Bench, box: BoxSpec) -> AsyncIterator[tuple[BoxSpec, Lane | None]]:
    """The box with all that an agent has on trial."""
    async with (
        with_fixture(box, bench.substrate.trials, bench.scratch) as provided,
        _with_model(bench, provided) as made,
    ):
        yield made


@asynccontextmanager
async def _with_model(bench: Bench, box: BoxSpec) -> AsyncIterator[tuple[BoxSpec, Lane | None]]:
    """The box with a way to the model of its agent, where the agent has one and Moss knows how to lead there."""
    run, given = bench.substrate.run, bench.substrate.trials.env
    box = replace(box, env={**box.env, **given})
    known = bench.lanes.apis if bench.lanes else ()
    led = [CUSTOMARY[api] for api in known if CUSTOMARY[api][2] in run.env_from]
    asks = any("{gateway}" in value or "{token}" in value for value in given.values())
    if asks and not known:
        raise Refused(
            f"`trials.env` of {bench.substrate.name} leads to the model gateway, and no model API is configured; set "
            "a key such as OPENAI_API_KEY before Moss starts, or take it out."
        )
    if bench.lanes is None or not (led or asks):
        yield box, None
        return
    async with bench.lanes.open(bench.account, None) as lane:
        url = f"http://127.0.0.1:{bench.host.lane_port or lane.port}"
        env = dict(box.env)
        for address, below, key in led:
            env |= {address: url + below, key: lane.token}
        for name, value in given.items():
            env[name] = value.replace("{gateway}", url).replace("{token}", lane.token)
        try:
            yield replace(box, env=env, lane=lane.socket if bench.host.lane_port else None), lane
        finally:
            bench.paid(lane.spend)


async def _replay(host: Host, substrate: Substrate, box: BoxSpec, recorded: Transcript) -> Transcript:
    try:
        *said, last = (await _conversation(host, substrate, box, recorded)).messages
        if last.error is not None:
            last = last.model_copy(update={"error": f"{await limits_met(host, box)}{last.error}"})
        return Transcript(messages=(*said, last))
    finally:
        await asyncio.shield(host.remove(box.name))


async def _conversation(host: Host, substrate: Substrate, box: BoxSpec, recorded: Transcript) -> Transcript:
    limit_s = substrate.trials.timeout_s
    try:
        async with asyncio.timeout(limit_s):
            await host.create(box)
            await host.start(box.name)
            await agent.wait_ready(host, box.name, substrate)
            return await agent.replay(host, box.name, substrate.replay, recorded, session=box.name)
    except TimeoutError:
        problem = f"The agent did not finish the conversation within {limit_s:.0f} s."
    except AgentFailed as failed:
        problem = failed.sentence
    return Transcript(messages=(*recorded.user_turns(), Message(role="assistant", content="", error=problem)))


async def limits_met(host: Host, box: BoxSpec) -> str:
    """What a box that failed had met of its limits: a sentence to stand before the one that says how it failed, or
    nothing. A full disk the kernel tells the agent alone, so that it is known from its log."""
    strain, limits, met = await host.strain(box.name), box.limits, []
    if strain.memory_ended:
        met.append(f"the kernel ended what took more than {limits.memory_mb} MB of memory (`trials.memory_mb`)")
    if strain.processes >= limits.pids * _NEARLY_ALL:
        met.append(f"it had {strain.processes} of its {limits.pids} processes (`trials.pids`)")
    if host.isolates and strerror(ENOSPC) in await _log_of(host, box.name):
        met.append(f"a directory of its was full at {limits.tmp_mb} MB (`trials.tmp_mb`)")
    return f"It met a limit: {', and '.join(met)}. " if met else ""


async def _log_of(host: Host, box: str) -> str:
    try:
        return await host.logs(box)
    except NotFound:  # it was never made
        return ""
