"""A Moss as chats see it: real store, real settings, a paper chat; the pipeline stands still."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

from bot.chat import AnyEvent, Commanded, Flagged, Pressed, Reacted, Replied, Said
from bot.inbox import Inbox
from bot.receive import give_up, receive
from bot.settings import Settings, load
from bot.verbs import Moss
from core.containers.host import Host
from core.dispatch import Dispatch
from core.model.run import Run
from core.model.substrate import Substrate
from core.model.transcript import Message, Place
from core.pipeline import evolve as pipeline
from core.store import Store, substrates, turns
from core.store import inbox as letters
from tests.support.paper_chat import PAPER, PaperChat
from tests.support.until import until

CONFIG = """
[substrate]
name = "little"
repository = "/srv/little"
[substrate.run]
port = 8000
[substrate.health]
http = "/"
[coder]
argv = ["/bin/true"]
[consent]
approvers = ["anna", "ben"]
[permits]
maintainers = ["mary"]
[people]
anna = ["paper:anna"]
ben = ["paper:ben"]
mary = ["paper:mary"]
"""


@dataclass
class StillDispatch:
    """Notes what it is woken for, and stops runs as the real one does; nothing runs."""

    store: Store
    woken: int = 0

    @property
    def evolution(self) -> "StillDispatch":
        return self

    async def check(self, substrate: Substrate) -> None:
        pass

    async def wake(self) -> None:
        self.woken += 1

    async def stop(self, run: str, who: str) -> Run:
        return await pipeline.stop(self.store, run, who)


class NoHost:
    """Every image is there."""

    async def has_image(self, image: str) -> bool:
        return True


def settings(tmp: Path, more: str = "", substrate: Substrate | None = None) -> Settings:
    file = tmp / "moss.toml"
    file.write_text(CONFIG + more)
    loaded = load(file, {})
    return loaded.model_copy(update={"substrate": (substrate,)}) if substrate else loaded


@dataclass
class ChatMoss:
    moss: Moss
    chat: PaperChat
    numbers: Any = field(default_factory=lambda: count(1))

    @property
    def store(self) -> Store:
        return self.moss.store

    @property
    def inbox(self) -> Inbox:
        return self.moss.inbox

    async def take(self, *events: AnyEvent) -> list[bool]:
        return [await self.inbox.take(event) for event in events]

    async def work(self, within_s: float = 60, *, restart: bool = True) -> None:
        """Until nothing in the inbox is left to be done; then Moss starts again, unless it is to remember things."""
        working = asyncio.create_task(
            self.inbox.work(partial(receive, self.moss), partial(give_up, self.moss), list(self.moss.chats))
        )
        try:
            await until(lambda: working.done() or self.is_idle(), within_s)
        finally:
            await self.inbox.finish(1)
            await working
        heard = self.moss.inbox.heard
        self.restart()
        if not restart:
            self.moss.inbox.heard = heard

    def restart(self) -> None:
        """What it had in memory is gone."""
        self.moss = anew(self.moss)

    def permit(self, **permits: object) -> None:
        """From now on."""
        self._set("permits", permits)

    def limit(self, **flags: object) -> None:
        """From now on."""
        self._set("flags", flags)

    def configure(self, **sections: object) -> None:
        """From now on."""
        self.moss = replace(self.moss, settings=self.moss.settings.model_copy(update=sections))

    def _set(self, section: str, changes: dict[str, object]) -> None:
        changed = getattr(self.moss.settings, section).model_copy(update=changes)
        self.configure(**{section: changed})

    async def is_idle(self) -> bool:
        async with self.store.reading() as db:
            return not await letters.waiting(db, "", 1 << 30)

    async def did(self, *events: AnyEvent, restart: bool = True) -> None:
        await self.take(*events)
        await self.work(restart=restart)

    async def reply(self, text: str = "No.", place: Place = PAPER, question: str = "Refund?") -> str:
        """A reply of the agent, as if it had answered here before; the message's id."""
        id = f"r{next(self.numbers)}"
        async with self.store.writing() as db:
            for role, words, message in (("user", question, f"q-{id}"), ("assistant", text, id)):
                said = Message.model_validate({"role": role, "content": words, "id": message})
                seconds = 0.5 if role == "assistant" else None
                await turns.keep(db, self.store.now(), "little", place, said=said, seconds=seconds)
        return id

    # Events, each with an id of its own unless it is given

    def said(self, text: str, place: Place = PAPER, **more: Any) -> Said:
        n = next(self.numbers)
        return Said(**self._event(more, place), message=more.pop("message", f"s{n}"), text=text, **more)

    def replied(self, text: str, place: Place = PAPER, **more: Any) -> Replied:
        return Replied(
            **self._event(more, place), message=more.pop("message", f"a{next(self.numbers)}"), text=text, **more
        )

    def reacted(self, message: str, emoji: str = "thumbsdown", added: bool = True, **more: Any) -> Reacted:
        return Reacted(**self._event(more), message=message, emoji=emoji, added=added)

    def flagged(self, message: str, reason: str, **more: Any) -> Flagged:
        return Flagged(**self._event(more), message=message, reason=reason, **more)

    def commanded(self, words: str, place: Place = PAPER, **more: Any) -> Commanded:
        return Commanded(**self._event(more, place), words=words, **more)

    def pressed(self, verb: str, subject: str, **more: Any) -> Pressed:
        return Pressed(**self._event(more), message="card", verb=verb, subject=subject, **more)

    def _event(self, more: dict[str, Any], place: Place = PAPER) -> dict[str, Any]:
        at: datetime = more.pop("at", self.store.now())
        id = more.pop("id", f"e{next(self.numbers)}")
        return {"id": id, "place": more.pop("place", place), "person": more.pop("person", "paper:eve"), "at": at}


def anew(moss: Moss) -> Moss:
    """The same Moss after a restart: what it had in memory is gone."""
    holder = f"test.{secrets.token_hex(4)}"
    return replace(moss, inbox=Inbox(moss.store, lambda: holder))


@asynccontextmanager
async def chat_moss(
    store: Store, tmp: Path, *, host: Host | None = None, substrate: Substrate | None = None, config: str = ""
) -> AsyncIterator[ChatMoss]:
    chat = PaperChat()
    known = settings(tmp, config, substrate)
    for each in known.substrate:
        async with store.changing(each.name) as change:
            await substrates.save(change, each, "moss.toml")
    dispatch = cast(Dispatch, StillDispatch(store))
    made = Moss(
        known, store, host or cast(Host, NoHost()), dispatch, Inbox(store, lambda: "test.first"), {"paper": chat}
    )
    yield ChatMoss(made, chat)
