"""A room that really listens: real store, real inbox, real HTTP on a port of its own; the agent's part is played."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import TypeAdapter
from sqlalchemy import select

from bot.adapters.room.server import Room
from bot.chat import AnyEvent, Card, Commanded, Said
from bot.inbox import Delivery, Inbox
from bot.settings import Settings, load
from core.clock import Clock, system_clock
from core.model.transcript import Place
from core.store import Store, people, substrates
from core.store.tables import inbox
from tests.support.databases import database

CONFIG = """
[moss]
data = "{data}"
[[substrate]]
name = "desk"
repository = "/srv/desk"
[substrate.run]
port = 8000
[substrate.health]
http = "/healthz"
[[substrate]]
name = "sales"
repository = "/srv/sales"
[substrate.run]
port = 8000
[substrate.health]
http = "/healthz"
[coder]
argv = ["/bin/true"]
[consent]
approvers = ["anna", "ben"]
[room]
port = 0
"""
DESK = Place(platform="room", workspace="room", channel="desk")
_events: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


@dataclass
class House:
    room: Room
    store: Store
    settings: Settings
    inbox: Inbox
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.room.url

    async def token(self, name: str) -> str:
        if name not in self.tokens:
            self.tokens[name] = await people.add(self.store, name)
        return self.tokens[name]

    async def client(self, name: str | None = None, **headers: str) -> httpx.AsyncClient:
        """Whoever uses it closes it."""
        if name is not None:
            headers["Authorization"] = f"Bearer {await self.token(name)}"
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, verify=False)

    async def heard(self) -> list[AnyEvent]:
        """What reached the inbox, in order."""
        async with self.store.reading() as db:
            rows = (await db.execute(select(inbox.c.body).order_by(inbox.c.id))).scalars().all()
        return [_events.validate_python(body) for body in rows]

    async def say(self, what: Card | str, place: Place = DESK, *, agent: str = "", key: str = "") -> str:
        return await self.room.chat.post(place, what, key or f"test:{what}"[:80], as_agent=agent)


@contextlib.asynccontextmanager
async def a_room(
    tmp: Path, *, kind: str = "sqlite", clock: Clock = system_clock, more: str = "", holder: str = "test.1"
) -> AsyncIterator[House]:
    data = tmp / "data"
    data.mkdir(exist_ok=True)
    file = tmp / "moss.toml"
    file.write_text(CONFIG.format(data=data) + more)
    settings = load(file, {})
    async with database(kind, tmp) as url:
        store = await Store.open(url, clock)
        for substrate in settings.substrate:
            async with store.changing(substrate.name) as change:
                await substrates.save(change, substrate, "moss.toml")
        try:
            async with serving(store, settings, holder) as house:
                yield house
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def serving(
    store: Store, settings: Settings, holder: str = "test.1", inbox: Inbox | None = None
) -> AsyncIterator[House]:
    inbox = inbox or Inbox(store, lambda: holder)
    room = Room(store, settings, inbox)
    room.listen()
    task = asyncio.create_task(room.serve())
    try:
        yield House(room, store, settings, inbox)
    finally:
        room.stop()
        await asyncio.wait_for(task, 30)


@contextlib.asynccontextmanager
async def answering(house: House, answer: Callable[[Said | Commanded], Awaitable[None]]) -> AsyncIterator[None]:
    """What people say is answered as the test says; everything else is only heard."""

    async def perform(delivery: Delivery) -> None:
        if isinstance(delivery.event, Said | Commanded):
            await answer(delivery.event)

    async def give_up(delivery: Delivery, problem: Exception) -> None:
        raise AssertionError(delivery.key) from problem

    working = asyncio.create_task(house.inbox.work(perform, give_up, ["room"]))
    try:
        yield
    finally:
        await house.inbox.finish(2)
        await working


@contextlib.asynccontextmanager
async def stream(client: httpx.AsyncClient, since: int | None = None, **headers: str) -> AsyncIterator["Events"]:
    parameters = {} if since is None else {"since": since}
    async with client.stream("GET", "/api/events", params=parameters, headers=headers) as response:
        yield Events(response)


@dataclass
class Events:
    """The stream, as a client written from docs/room.md reads it."""

    response: httpx.Response
    last: str = ""

    def __post_init__(self) -> None:
        self._lines = self.response.aiter_lines()

    async def next(self, within_s: float = 60) -> tuple[str, dict[str, Any]]:
        """The name of the next event, and its data."""
        name, data = "message", ""
        async with asyncio.timeout(within_s):
            async for line in self._lines:
                if line.startswith("id: "):
                    self.last = line.removeprefix("id: ")
                elif line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data += line.removeprefix("data: ")
                elif not line and data:
                    return name, json.loads(data)
        raise EOFError


async def say(client: httpx.AsyncClient, text: str, **more: object) -> str:
    """The id of the message."""
    answer = await client.post("/api/messages", json={"channel": "desk", "text": text} | more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """With one sentence."""
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert re.search(words, sentence), sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


async def heard(house: House, kind: type, count: int = 1) -> list:  # type: ignore[type-arg]
    """The events of a kind, once there are so many."""
    seen, found = -1, []
    async with asyncio.timeout(60):
        while len(found) < count:
            seen = await house.store.wait_for_change(seen, 8)
            found = [event for event in await house.heard() if isinstance(event, kind)]
    assert len(found) == count
    return found
