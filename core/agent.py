"""Speaking to the agent under evolution: one turn, a replay, readiness, a probe, a canary.

What it answers may be broken or hostile. Every answer is bounded in time and size, and each one that is not what
`docs/substrate.md` asks for is AgentFailed, with a sentence that can be shown.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

import httpx

from core.containers.host import Host
from core.model.errors import AgentFailed
from core.model.substrate import Command, Health, Replay, Substrate
from core.model.transcript import Message, Transcript
from core.turn import Request, clean, quoted, read, request

RESERVED_SESSION = "moss-canary"

_LAST_WORDS_CHARS = 400
_HEARTBEAT_LIMIT_BYTES = 4096
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_BEAT_PAUSE_S = 0.1


# One turn


async def say(
    client: httpx.AsyncClient | None,
    host: Host,
    box: str,
    replay: Replay,
    history: Sequence[Message],
    *,
    message: str,
    session: str,
) -> Message:
    """Put one user turn to the agent. Without a client, a door is opened for this turn."""
    try:
        async with asyncio.timeout(replay.turn_timeout_s):
            if replay.kind == "exec":
                return await _by_command(host, box, replay, message, session)
            async with nullcontext(client) if client else host.door(box) as opened:
                data = await _post(opened, request(replay, history, message, session), replay.reply_limit_bytes)
    except TimeoutError:
        raise AgentFailed(f"The agent did not answer a turn within {replay.turn_timeout_s:g} s.") from None
    return read(replay, data)


async def _post(client: httpx.AsyncClient, what: Request, limit_bytes: int) -> bytes:
    headers = {"Accept-Encoding": "identity", **what.headers}  # a few packed bytes can become very many
    data = bytearray()
    try:
        async with client.stream("POST", what.path, json=what.body, headers=headers, timeout=None) as answer:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise AgentFailed("The agent packs its answer although it was asked not to.")
            async for part in answer.aiter_raw():
                data += part
                if len(data) > limit_bytes:
                    raise AgentFailed(f"The agent's answer is longer than {limit_bytes} bytes.")
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        said = str(problem) or type(problem).__name__
        raise AgentFailed(f"The agent broke off the turn: {quoted(said)}") from problem
    if not answer.is_success:
        raise AgentFailed(f"The agent answered {answer.status_code} on POST {what.path}: {quoted(bytes(data))}")
    return bytes(data)


async def _by_command(host: Host, box: str, replay: Replay, message: str, session: str) -> Message:
    command = tuple(word.replace("{session}", session) for word in replay.command or ())
    limit_bytes = replay.reply_limit_bytes
    said = await host.run(box, command, stdin=message, timeout_s=replay.turn_timeout_s, limit_bytes=limit_bytes)
    if said.timed_out:
        raise AgentFailed(f"The agent did not answer a turn within {replay.turn_timeout_s:g} s.")
    if said.cut:
        raise AgentFailed(f"The agent's answer is longer than {limit_bytes} bytes.")
    if said.exit_code != 0:
        raise AgentFailed(f"`{command[0]}` ended with exit code {said.exit_code}: {quoted(said.text)}")
    return read(replay, said.text.encode("utf-8", "replace"))


# A conversation


async def replay(host: Host, box: str, replay: Replay, transcript: Transcript, session: str) -> Transcript:
    """Put every recorded user turn again, in order, with the agent's own new replies in between.

    A turn at which the agent fails ends the conversation: its reply is empty and carries the sentence in `error`.
    """
    said: list[Message] = []
    door: AbstractAsyncContextManager[httpx.AsyncClient | None]
    door = nullcontext() if replay.kind == "exec" else host.door(box)
    async with door as client:
        for message in transcript.messages:
            if message.role == "system":
                said.append(message)
            elif message.role == "user":
                try:
                    reply = await say(client, host, box, replay, said, message=message.content, session=session)
                except AgentFailed as failed:
                    reply = _failed(failed.sentence)
                said += (message, reply)
                if reply.error is not None:
                    break
    if not transcript.user_turns():
        said.append(_failed("Nobody but the agent speaks in this recording, so there is nothing to replay."))
    return Transcript(messages=tuple(said))


def _failed(sentence: str) -> Message:
    return Message(role="assistant", content="", error=sentence)


# Readiness


async def wait_ready(host: Host, box: str, substrate: Substrate) -> None:
    """Until the agent's port answers anything at all. An agent without a port is ready while its box runs."""
    replay = substrate.replay
    if replay.kind == "exec" and substrate.run.port is None:
        await _must_run(host, box)
        return
    limit_s = replay.ready_timeout_s
    ending = asyncio.create_task(host.wait(box, limit_s))
    knocking = asyncio.create_task(_knock(host, box))
    try:
        await asyncio.wait({ending, knocking}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if knocking.done() and knocking.exception() is None:
            return
        await _must_run(host, box)
        if knocking.done():
            knocking.result()  # raises
        raise AgentFailed(f"The agent did not open its port within {limit_s:g} s. {await _last_words(host, box)}")
    finally:
        ending.cancel()
        knocking.cancel()
        await asyncio.gather(ending, knocking, return_exceptions=True)


async def _knock(host: Host, box: str) -> None:
    pause_s = _FIRST_PAUSE_S
    async with host.door(box) as client:
        while True:
            try:
                async with client.stream("GET", "/"):
                    return
            except httpx.TransportError:
                await asyncio.sleep(pause_s)
                pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


async def _must_run(host: Host, box: str) -> None:
    state = await host.look(box)
    if state is None:
        raise AgentFailed(f"The agent's box `{box}` is gone.")
    if not state.running:
        how = "needed more memory than it may" if state.out_of_memory else f"ended with exit code {state.exit_code}"
        raise AgentFailed(f"The agent {how}. {await _last_words(host, box)}")


async def _last_words(host: Host, box: str) -> str:
    said = " ".join((await host.logs(box))[-_LAST_WORDS_CHARS:].split())
    return f"Its last words: {clean(said)}" if said else "It said nothing."


# Health


@dataclass(frozen=True, slots=True)
class ProbeResult:
    passed: bool
    beat: str | None = field(repr=False)
    """The heartbeat as last seen: the next probe wants another one."""
    sentence: str


async def probe(
    host: Host, box: str, health: Health, replay: Replay, *, boot_id: str, last_beat: str | None
) -> ProbeResult:
    """Ask once everything that the owner named, except for the canary, which is a turn and is put once."""
    beat = last_beat
    try:
        await _must_run(host, box)
        if health.http:
            await _http(host, box, health.http, replay.headers, health.timeout_s)
        if health.heartbeat:
            beat = await _heartbeat(host, box, health, boot_id, last_beat)
        for command in health.commands:
            await _command(host, box, command, health.timeout_s)
    except AgentFailed as failed:
        return ProbeResult(False, beat, failed.sentence)
    return ProbeResult(True, beat, "The agent is well.")


async def _http(host: Host, box: str, path: str, headers: Mapping[str, str], timeout_s: float) -> None:
    try:
        async with (
            asyncio.timeout(timeout_s),
            host.door(box) as client,
            client.stream("GET", path, headers=dict(headers), timeout=None) as answer,
        ):
            if not answer.is_success:
                raise AgentFailed(f"The agent answered {answer.status_code} on GET {path}.")
    except TimeoutError:
        raise AgentFailed(f"The agent did not answer on GET {path} within {timeout_s:g} s.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        said = str(problem) or type(problem).__name__
        raise AgentFailed(f"The agent did not answer on GET {path}: {quoted(said)}") from problem


async def _heartbeat(host: Host, box: str, health: Health, boot_id: str, last_beat: str | None) -> str:
    """No clocks are compared: a beat counts when it is of this start and differs from the one before.

    The first probe has none before, and waits for a second one: the file may have been left by an earlier life.
    """
    path = health.heartbeat or ""
    beat = await _beat(host, box, path, boot_id)
    if last_beat is None:
        last_beat = beat
        for _ in range(int(health.timeout_s / _BEAT_PAUSE_S)):
            if beat != last_beat:
                break
            await asyncio.sleep(_BEAT_PAUSE_S)
            beat = await _beat(host, box, path, boot_id)
    if beat == last_beat:
        raise AgentFailed(f"The heartbeat in {path} stands still at {beat}.")
    return beat


async def _beat(host: Host, box: str, path: str, boot_id: str) -> str:
    data = await host.read(box, path, _HEARTBEAT_LIMIT_BYTES)
    if data is None:
        raise AgentFailed(f"There is no heartbeat at {path}.")
    try:
        found = json.loads(data)
        beat, carries = found["beat"], found["boot_id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise AgentFailed(f"The heartbeat in {path} is not `boot_id` and `beat` in JSON: {quoted(data)}") from None
    if carries != boot_id:
        raise AgentFailed(f"The heartbeat in {path} is of another start of the agent: {quoted(str(carries))}")
    return quoted(json.dumps(beat))


async def _command(host: Host, box: str, command: Command, timeout_s: float) -> None:
    said = await host.run(box, command, timeout_s=timeout_s)
    if said.timed_out:
        raise AgentFailed(f"`{' '.join(command)}` did not end within {timeout_s:g} s.")
    if said.exit_code != 0:
        raise AgentFailed(f"`{' '.join(command)}` ended with exit code {said.exit_code}: {quoted(said.text)}")


async def canary(host: Host, box: str, substrate: Substrate) -> None:
    """One real turn in a session of its own, if the owner named one. Raises AgentFailed."""
    health = substrate.health
    if health.canary is None:
        return
    session = f"{RESERVED_SESSION}-{box}"
    reply = await say(None, host, box, substrate.replay, (), message=health.canary, session=session)
    if health.canary_expect is not None and health.canary_expect not in reply.content:
        raise AgentFailed(f"The canary's reply does not hold `{health.canary_expect}`: {quoted(reply.content)}")
