"""A Moss at the loopback Discord: real discord.py, real inbox, real store; the agent's replies are on paper."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bot import sections
from bot.adapters.discord.adapter import DiscordAdapter
from bot.adapters.discord.places import PLATFORM
from bot.receive import give_up, receive
from bot.verbs import Moss
from core.clock import system_clock
from core.model.batch import Batch
from core.model.evidence import Chunk, Flag
from core.model.transcript import Message, Place
from core.store import Store, batches, leases, posts, turns
from core.store import inbox as letters
from tests.support.chat_moss import ChatMoss, anew, chat_moss
from tests.support.databases import opened
from tests.support.discord_server import CHANNEL, GUILD, ME, DiscordServer
from tests.support.until import until

ANNA, BEN, MARY, EVE = 11, 12, 13, 14
PEOPLE = {"anna": (f"discord:{ANNA}",), "ben": (f"discord:{BEN}",), "mary": (f"discord:{MARY}",)}
HELP = Place(platform=PLATFORM, workspace=str(GUILD), channel=str(CHANNEL))


def section(server: DiscordServer, **more: Any) -> sections.Discord:
    given: dict[str, Any] = {
        "token": SecretStr("not-a-token"),
        "guilds": frozenset({str(GUILD)}),
        "api": f"http://{server.url}/api/v10",
        "gateway": f"ws://{server.url}/",
    }
    return sections.Discord(**(given | more))


@dataclass
class DiscordHouse:
    server: DiscordServer
    chat: ChatMoss
    section: sections.Discord
    at: DiscordAdapter = field(init=False)
    tasks: list[asyncio.Task[None]] = field(init=False)

    @property
    def store(self) -> Store:
        return self.chat.store

    @property
    def moss(self) -> Moss:
        return self.chat.moss

    async def reply(self, text: str = "No refunds.", channel: int = CHANNEL) -> int:
        """The agent's, as if it had been posted through Moss."""
        body = {"content": text}
        one = self.server._message(channel, ME, body)
        self.server.messages.setdefault(channel, []).append(one)
        async with self.store.writing() as db:
            now = self.store.now()
            for role, words, id in (("user", "Refund?", f"q{one['id']}"), ("assistant", text, one["id"])):
                said = Message.model_validate({"role": role, "content": words, "id": id})
                seconds = 0.5 if role == "assistant" else None
                await turns.keep(db, now, "little", HELP, said=said, seconds=seconds)
            await posts.add(db, now, f"reply:{one['id']}", HELP, message=one["id"], shown="")
        return int(one["id"])

    async def idle(self) -> None:
        """What arrived is worked on."""

        async def done() -> bool:
            async with self.store.reading() as db:
                return not await letters.waiting(db, "", 1 << 30)

        await self.becomes(done)

    async def becomes(self, condition: Callable[[], Awaitable[object]], within_s: float = 60) -> None:
        """Looked at whenever the store changes."""
        seen = -1
        async with asyncio.timeout(within_s):
            while not await condition():
                seen = await self.store.wait_for_change(seen, 1)

    async def flags(self, message: int) -> list[Flag]:
        return [flag for _, chunk in await self.held(message) for flag in chunk.flags]

    async def held(self, message: int) -> list[tuple[Batch, Chunk]]:
        async with self.store.reading() as db:
            return await batches.of_turn(db, "little", HELP, str(message))

    async def standing(self, message: int) -> list[str]:
        return sorted(flag.person for flag in await self.flags(message) if flag.withdrawn_at is None)

    async def begin(self) -> None:
        self.at = DiscordAdapter(self.store, self.moss.settings, self.section, self.moss.inbox, system_clock)
        self.moss.chats[PLATFORM] = self.at.chat  # type: ignore[index]
        working = self.moss.inbox.work(partial(receive, self.moss), partial(give_up, self.moss), [PLATFORM])
        self.tasks = [asyncio.create_task(self.at.serve()), asyncio.create_task(working)]

    async def end(self) -> None:
        """As bot/wiring.py does it: nothing new is heard, what was heard is worked on, and told."""
        self.at.stop()
        await asyncio.wait({self.tasks[0]}, timeout=5)
        await self.moss.inbox.finish(2)
        await asyncio.wait({self.tasks[1]}, timeout=5)
        await self.at.close()
        for task in self.tasks:
            await task

    async def die(self) -> None:
        """As after kill -9: nothing is finished or said goodbye to."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.at.close()
        self.chat.moss = anew(self.moss)


@asynccontextmanager
async def discord_house(tmp: Path, server: DiscordServer, **more: Any) -> AsyncIterator[DiscordHouse]:
    async with (
        opened("sqlite", tmp, system_clock) as store,
        chat_moss(store, tmp) as chat,
        at_discord(chat, server, **more) as house,
    ):
        yield house


@asynccontextmanager
async def at_discord(chat: ChatMoss, server: DiscordServer, **more: Any) -> AsyncIterator[DiscordHouse]:
    """`more` is for the section of the settings."""
    chat.configure(people=PEOPLE)
    house = DiscordHouse(server, chat, section(server, **more))
    await house.begin()
    try:
        await server.connected(20)
        yield house
    finally:
        await house.end()


@asynccontextmanager
async def beside(house: DiscordHouse) -> AsyncIterator[DiscordHouse]:
    """A second process with the same token and the same store; each holds a lease, as a running Moss does."""
    chat = replace(house.chat, moss=anew(house.moss))
    for moss in (house.moss, chat.moss):
        await leases.claim(house.store, moss.inbox._holder(), 60)
    other, before = DiscordHouse(house.server, chat, house.section), len(house.server.identified)
    await other.begin()
    try:
        await until(lambda: len(house.server.identified) > before)
        yield other
    finally:
        await other.end()


@asynccontextmanager
async def loopback() -> AsyncIterator[DiscordServer]:
    def now_ms() -> int:
        return int(system_clock().timestamp() * 1000)

    async with DiscordServer().running(now_ms) as server:
        yield server
