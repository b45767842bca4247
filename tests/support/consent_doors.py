"""The doors at which the consent table is asked: of the room, of Slack by either of its ways, and of Discord."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from bot.adapters.discord.adapter import DiscordAdapter
from bot.adapters.slack.adapter import SlackAdapter
from bot.chat import Chat
from bot.inbox import Inbox
from bot.sections import Slack
from bot.settings import Settings
from core.model.transcript import Place
from core.store import Store, people
from tests.support import discord_server, rooms
from tests.support.discord_house import loopback, section
from tests.support.discord_people import USERS
from tests.support.discord_people import words_of as discord_words
from tests.support.discord_server import GUILD, DiscordServer
from tests.support.slack_people import SlackPeople, buttons, user, words_of
from tests.support.slack_server import CHANNEL, SECRET, TEAM, LoopbackSlack, loopback_slack
from tests.support.until import until


@dataclass
class RoomDoor:
    place = rooms.DESK
    tokens: dict[str, str] = field(default_factory=dict)
    house: rooms.House = field(init=False)

    @property
    def chat(self) -> Chat:
        return self.house.room.chat

    @contextlib.asynccontextmanager
    async def open(self, store: Store, settings: Settings, inbox: Inbox) -> AsyncIterator[None]:
        for name in {"anna", "ben", "eve"} - self.tokens.keys():
            self.tokens[name] = await people.add(store, name)
        async with rooms.serving(store, settings, inbox=inbox) as self.house:
            self.house.tokens = self.tokens
            yield

    async def press(self, person: str, message: str, verb: str, subject: str, reason: str = "") -> str:
        async with await self.house.client(person) as client:
            answer = await self.posted(client, message, verb=verb, subject=subject, reason=reason)
        assert answer.status_code == 202, answer.text
        return person

    async def posted(self, client: httpx.AsyncClient, message: str, **body: str) -> httpx.Response:
        return await client.post(f"/api/messages/{message}/press", json=body)

    async def told(self, pressed: object) -> str:
        async with await self.house.client(str(pressed)) as client:
            seen = (await client.get("/api/messages?channel=desk")).json()["messages"]
        return str([one for one in seen if one["private"] and one["by"]["kind"] == "moss"][-1]["text"])


@dataclass
class SlackDoor:
    slack: LoopbackSlack
    http: bool = False
    """Slack calls Moss, and signs; else Moss opens a socket."""
    place = Place(platform="slack", workspace=TEAM, channel=CHANNEL)
    people: SlackPeople = field(init=False)
    adapter: SlackAdapter = field(init=False)

    @property
    def chat(self) -> Chat:
        return self.adapter.chat

    @contextlib.asynccontextmanager
    async def open(self, store: Store, settings: Settings, inbox: Inbox) -> AsyncIterator[None]:
        reached = {"signing_secret": SECRET, "port": 0} if self.http else {"app_token": "xapp-test"}
        section = Slack.model_validate(self.slack.settings | reached)
        self.adapter = SlackAdapter(store, settings, [section], inbox, first_pause_s=0.05)
        self.adapter.listen()
        self.people = SlackPeople(self.slack, next(iter(self.adapter.ports), 0))
        serving = asyncio.create_task(self.adapter.serve())
        try:
            await until(lambda: self.adapter.health[0].connected)
            yield
        finally:
            self.adapter.stop()
            await asyncio.wait_for(serving, 30)

    async def press(self, person: str, message: str, verb: str, subject: str, reason: str = "") -> str:
        """The button of this verb and subject on the message; the same with another value where there is none."""
        there = buttons(self.slack.messages[CHANNEL, message])
        button = next(one for one in there if one["value"].startswith(verb))
        payload = self.slack.press(button | {"value": f"{verb} {subject}"}, message, user(person))
        await self.sent(payload, person, reason)
        return str(payload["response_url"])

    async def sent(self, payload: dict[str, Any], person: str, reason: str) -> None:
        if not reason:
            await self.people.send("interactive", payload)
            return
        view = await self.people.form(payload)
        await self.people.send("interactive", self.slack.submission(view, {"reason": {"value": reason}}, user(person)))

    async def told(self, pressed: object) -> str:
        (answer,) = self.slack.answered[str(pressed)]
        return words_of(answer)


@contextlib.asynccontextmanager
async def slack_door(*, http: bool = False) -> AsyncIterator[SlackDoor]:
    async with loopback_slack() as slack:
        yield SlackDoor(slack, http)


@dataclass
class DiscordDoor:
    server: DiscordServer
    place = Place(platform="discord", workspace=str(GUILD), channel=str(discord_server.CHANNEL))
    adapter: DiscordAdapter = field(init=False)

    @property
    def chat(self) -> Chat:
        return self.adapter.chat

    @contextlib.asynccontextmanager
    async def open(self, store: Store, settings: Settings, inbox: Inbox) -> AsyncIterator[None]:
        self.adapter, before = DiscordAdapter(store, settings, section(self.server), inbox), len(self.server.identified)
        serving = asyncio.create_task(self.adapter.serve())
        try:
            await until(lambda: len(self.server.identified) > before and self.adapter.health[0].connected)
            yield
        finally:
            self.adapter.stop()
            await asyncio.wait_for(serving, 30)
            await self.adapter.close()

    async def press(self, person: str, message: str, verb: str, subject: str, reason: str = "") -> str:
        """The button of this verb and subject on the message, whether it is there or not."""
        id = f"moss:{verb}:{subject}" + (":why" if verb == "decline" else "")
        token = await self.server.presses(USERS[person], id, int(message))
        asked = await self.server.callback(token)
        if not reason:
            return token
        token = await self.server.fills_in(USERS[person], asked["data"]["custom_id"], reason)
        await self.server.callback(token)
        return token

    async def told(self, pressed: object) -> str:
        return discord_words(await self.server.answer(str(pressed)))


@contextlib.asynccontextmanager
async def discord_door() -> AsyncIterator[DiscordDoor]:
    async with loopback() as server:
        yield DiscordDoor(server)
