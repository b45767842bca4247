"""Somebody in the room, as its HTTP interface knows them: talks, reacts, commands, presses, and sees what happens."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from core.model.errors import MossError, Refused, Unavailable

WAIT_S = 60.0
RETRIES = 5
"""How often in a row the stream of events may break off."""

Message = dict[str, Any]
"""As docs/room.md describes one."""
T = TypeVar("T")


class Person:
    def __init__(self, name: str, http: httpx.AsyncClient, channel: str) -> None:
        self.name = name
        self._http = http
        self._channel = channel
        self._seen: dict[str, Message] = {}
        self._seq = 0
        self._changed = asyncio.Condition()
        self._problem: MossError | None = None

    @classmethod
    @asynccontextmanager
    async def entered(cls, url: str, name: str, token: str, channel: str) -> AsyncIterator["Person"]:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False, verify=False) as http:
            person = cls(name, http, channel)
            following = asyncio.create_task(person._follow())
            try:
                yield person
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    # Doing

    async def say(self, text: str, thread: str | None = None) -> str:
        """The message's id."""
        said = {"channel": self._channel, "thread": thread, "text": text, "key": secrets.token_hex(8)}
        id: str = (await self._ask("POST", "/api/messages", said))["id"]
        return id

    async def ask(self, text: str, thread: str | None = None) -> Message:
        """Say something to the agent, and wait for its answer."""
        asked = await self.say(text, thread)
        return await self.until(lambda seen: _answers(seen, thread or asked, asked), f"the agent's answer to “{text}”")

    async def react(self, message: str, emoji: str) -> Message:
        """What Moss says to it, in private."""
        return await self._and_hear(self._ask("PUT", f"/api/messages/{message}/reactions/{emoji}"), "an answer")

    async def complain(self, message: str, failure: str, reason: str) -> Message:
        said = {"failure": failure, "reason": reason}
        return await self._and_hear(self._ask("POST", f"/api/messages/{message}/flag", said), "an answer")

    async def command(self, words: str) -> Message:
        """What Moss answers, in private."""
        said = {"channel": self._channel, "words": words, "key": secrets.token_hex(8)}
        return await self._and_hear(self._ask("POST", "/api/commands", said), f"the answer to `/moss {words}`")

    async def press(self, message: str, verb: str, subject: str) -> None:
        await self._ask("POST", f"/api/messages/{message}/press", {"verb": verb, "subject": subject})

    async def press_and_hear(self, message: str, verb: str, subject: str) -> Message:
        """What Moss answers, in private."""
        return await self._and_hear(self.press(message, verb, subject), f"what `{verb}` shows")

    async def _and_hear(self, act: Any, what: str) -> Message:
        before = self._seq
        await act
        return await self.until(lambda seen: _whispered(seen, before), what)

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as problem:
            raise Unavailable(f"The room does not answer ({type(problem).__name__}); its log says why.") from None
        if not answer.is_success:
            raise Refused(str(answer.json().get("error", "The room refused it.")))
        return answer.json() if answer.content else None

    # Seeing

    async def until(self, wanted: Callable[[Message], bool], what: str, limit_s: float = WAIT_S) -> Message:
        """The newest message that is as wanted, now or once it is."""

        def found() -> Message | None:
            return next((seen for seen in sorted(self._seen.values(), key=_seq, reverse=True) if wanted(seen)), None)

        try:
            async with asyncio.timeout(limit_s), self._changed:
                await self._changed.wait_for(lambda: self._problem or found())
        except TimeoutError:
            raise Unavailable(f"Waited {limit_s:.0f} s for {what}, and it did not come; Moss's log says why.") from None
        if self._problem:
            raise self._problem
        message = found()
        assert message is not None
        return message

    async def _follow(self) -> None:
        """One stream of events, taken up where it broke off."""
        broken = 0
        while broken < RETRIES:
            with contextlib.suppress(httpx.HTTPError):
                headers = {"Last-Event-ID": str(self._seq)}
                async with self._http.stream("GET", "/api/events", headers=headers, timeout=60) as events:
                    events.raise_for_status()
                    async for event, data in _events(events):
                        broken = 0
                        if event == "message":
                            await self._see(json.loads(data))
            broken += 1
            await asyncio.sleep(0.2 * broken)
        async with self._changed:
            self._problem = Unavailable("The room's stream of events broke off; Moss's log says why.")
            self._changed.notify_all()

    async def _see(self, message: Message) -> None:
        async with self._changed:
            self._seen[message["id"]] = message
            self._seq = max(self._seq, message["seq"])
            self._changed.notify_all()


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The kind and the data of each server-sent event."""
    event, data = "message", []
    async for line in answer.aiter_lines():
        name, _, value = line.partition(":")
        if name == "event":
            event = value.strip()
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield event, "\n".join(data)
            event, data = "message", []


def _seq(message: Message) -> int:
    seq: int = message["seq"]
    return seq


def _answers(message: Message, thread: str, asked: str) -> bool:
    by_agent = message["by"]["kind"] == "agent"
    return by_agent and message["thread"] == thread and int(message["id"]) > int(asked)


def _whispered(message: Message, before: int) -> bool:
    return bool(message["private"]) and message["by"]["kind"] == "moss" and message["seq"] > before
