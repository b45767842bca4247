"""The window: probe a fresh box until it has passed often enough in a row, its time is over, or it ended by itself."""

import asyncio
import time
from dataclasses import replace

from core import agent
from core.containers.host import Host
from core.model.errors import AgentFailed, MossError
from core.model.substrate import Substrate
from core.process import safe_env
from core.redact import Redactor, without_values
from core.swap.plan import Verdict, ended

LAST_WORDS_CHARS = 2000
_TOO_EARLY_S = 0.05
"""A host that was asked right after the start may not know yet what it waits for."""


async def watch(host: Host, box: str, substrate: Substrate, boot_id: str) -> Verdict:
    """Whatever the agent does is a verdict. A box that ends is told at once, by an event of the host."""
    limit_s = longest_s(substrate)
    probing = asyncio.create_task(_window(host, box, substrate, boot_id))
    ending = asyncio.create_task(_has_ended(host, box, limit_s))
    try:
        await asyncio.wait({probing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done() and ending.result():
            return Verdict(False, ended(await host.look(box)))
        if not probing.done():
            return Verdict(False, f"The probes did not end within {limit_s:g} s.")
        verdict = probing.result()
        return replace(verdict, sentence=without_keys(substrate, verdict.sentence))
    finally:
        for task in (probing, ending):
            task.cancel()
        await asyncio.gather(probing, ending, return_exceptions=True)


def longest_s(substrate: Substrate) -> float:
    """What a window may take, with its last probe and the canary."""
    health = substrate.health
    return health.window_s + health.timeout_s + (substrate.replay.turn_timeout_s if health.canary else 0.0)


async def _has_ended(host: Host, box: str, limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while (left := until - time.monotonic()) > 0:
        if await host.wait(box, left) is not None:
            return True
        await asyncio.sleep(_TOO_EARLY_S)
    return False


async def _window(host: Host, box: str, substrate: Substrate, boot_id: str) -> Verdict:
    health, until = substrate.health, time.monotonic() + substrate.health.window_s
    in_a_row, beat = 0, None
    first_pass_s: float | None = None
    while True:
        began = time.monotonic()
        result = await agent.probe(host, box, health, substrate.replay, boot_id=boot_id, last_beat=beat)
        beat = result.beat
        in_a_row = in_a_row + 1 if result.passed else 0
        first_pass_s = (first_pass_s or time.monotonic()) if result.passed else None
        if in_a_row >= health.passes:
            return await _canary(host, box, substrate, first_pass_s)
        if time.monotonic() + health.every_s > until:
            said = f": {result.sentence}" if not result.passed else "."
            return Verdict(False, f"No {health.passes} probes in a row passed within {health.window_s:g} s{said}")
        await asyncio.sleep(max(0.0, health.every_s - (time.monotonic() - began)))


async def _canary(host: Host, box: str, substrate: Substrate, first_pass_s: float | None) -> Verdict:
    """Once, before commit: it is a real turn, and the agent may remember it."""
    try:
        await agent.canary(host, box, substrate)
    except AgentFailed as failed:
        return Verdict(False, f"The canary turn failed: {failed.sentence}")
    return Verdict(True, f"{substrate.health.passes} probes in a row passed.", first_pass_s)


async def last_words(host: Host, box: str, substrate: Substrate) -> str:
    """Of a box that failed, for whoever reads why."""
    try:
        return without_keys(substrate, await host.logs(box))[-LAST_WORDS_CHARS:]
    except MossError:
        return ""


def without_keys(substrate: Substrate, text: str) -> str:
    names = substrate.run.env_from
    secrets = {name: value for name, value in safe_env(*names).items() if name in names}
    return Redactor().text(without_values(text, secrets))
