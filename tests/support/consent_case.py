"""One question that waits for approval, and people who press its buttons, on any platform: the same table for each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from bot.cards import parts
from bot.chat import Card, Chat, Tone
from bot.inbox import Inbox
from bot.receive import give_up, receive
from bot.settings import Settings, load
from bot.verbs import Moss
from core.containers.host import Host
from core.dispatch import Dispatch
from core.model.consent import Consent, ConsentState, Policy
from core.model.transcript import Place
from core.store import Store, consents, inbox, outbox, substrates
from tests.support import stored
from tests.support.chat_moss import StillDispatch
from tests.support.databases import HeldClock, database
from tests.support.rooms import CONFIG

PEOPLE = """
[people]
anna = ["slack:T1/UANNA", "discord:11"]
ben = ["slack:T1/UBEN", "discord:12"]
"""


class Door(Protocol):
    """One platform. People are known there as anna and ben, who are approvers, and eve, who is not."""

    @property
    def chat(self) -> Chat: ...

    @property
    def place(self) -> Place: ...

    def open(self, store: Store, settings: Settings, inbox: Inbox) -> AbstractAsyncContextManager[None]:
        """Listens, as one process does; it can be opened again afterwards."""

    async def press(self, person: str, message: str, verb: str, subject: str, reason: str = "") -> object:
        """Returns once it is written down, with what `told` takes."""

    async def told(self, pressed: object) -> str:
        """What this person was told of it, privately."""


@dataclass
class Images:
    """The host, as far as a consent asks it."""

    there: bool = True

    async def has_image(self, image: str) -> bool:
        return self.there


@dataclass
class Case:
    door: Door
    store: Store
    settings: Settings
    clock: HeldClock
    images: Images = field(default_factory=Images)
    lives: int = 0
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def offered(self, policy: Policy = stored.POLICY, starter: str = "carl") -> tuple[str, Consent]:
        """The message with the buttons, and what they decide."""
        async with self.store.changing("desk") as change:
            consent = await stored.offered(change, policy, starter)
        card = Card(title=f"A repair waits: {consent.id}", tone=Tone.asking, actions=parts.decide(consent))
        return await self.door.chat.post(self.door.place, card, consent.id), consent

    async def press(self, person: str, message: str, consent: Consent, verb: str = "approve", reason: str = "") -> str:
        """What this person is told, privately."""
        pressed = await self.door.press(person, message, verb, consent.id, reason)
        await self.work()
        return await self.door.told(pressed)

    async def work(self) -> None:
        """Until nothing that reached the inbox waits."""
        dispatch = cast(Dispatch, StillDispatch(self.store))
        worker = Inbox(self.store, self.holder)
        platform = self.door.place.platform
        chats = {platform: self.door.chat}
        moss = Moss(self.settings, self.store, cast(Host, self.images), dispatch, worker, chats)
        working = asyncio.create_task(worker.work(partial(receive, moss), partial(give_up, moss), [platform]))
        seen = -1
        async with asyncio.timeout(60):
            while await self.waiting():
                seen = await self.store.wait_for_change(seen, 1)
        await worker.finish(2)
        await working

    async def waiting(self) -> int:
        """How many events that nobody has worked on yet."""
        async with self.store.reading() as db:
            return await inbox.waiting(db, "", 1 << 30)

    async def outcome(self, consent: Consent) -> tuple[ConsentState, int]:
        """And how many swaps were set going."""
        async with self.store.reading() as db:
            swaps = [row for row in await outbox.waiting(db) if row.kind == "swap"]
            return (await consents.get(db, consent.id)).state, len(swaps)

    def holder(self) -> str:
        return f"test.{self.lives}"

    async def begin(self) -> None:
        """Another process, after the one before is gone with all that it held."""
        await self._open.aclose()
        self.lives += 1
        await self._open.enter_async_context(self.door.open(self.store, self.settings, Inbox(self.store, self.holder)))

    async def end(self) -> None:
        await self._open.aclose()


@contextlib.asynccontextmanager
async def a_case(door: Door, tmp: Path) -> AsyncIterator[Case]:
    file = tmp / "moss.toml"
    file.write_text(CONFIG.format(data=tmp / "data") + PEOPLE)
    settings, clock = load(file, {}), HeldClock()
    settings.data.mkdir()
    async with database("sqlite", tmp) as url:
        store = await Store.open(url, clock)
        for substrate in settings.substrate:
            async with store.changing(substrate.name) as change:
                await substrates.save(change, substrate, "moss.toml")
        case = Case(door, store, settings, clock)
        try:
            await case.begin()
            yield case
        finally:
            await case.end()
            await store.close()
