"""Moss at Discord: it stays connected, writes down what it hears in order, and answers each press in time."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import discord
import structlog

from bot import sections
from bot.adapters.discord import events
from bot.adapters.discord.asking import Asking, listens
from bot.adapters.discord.chat import DiscordChat
from bot.adapters.discord.client import Client, Heard, Listener, reach
from bot.adapters.discord.commands import commands
from bot.adapters.discord.places import DIRECT, PLATFORM, place_of
from bot.adapters.discord.reactions import once, seen
from bot.adapters.discord.registering import register
from bot.adapters.missed import missed
from bot.chat import AnyEvent, Health, Inbox
from bot.settings import Settings
from core.clock import Clock, system_clock
from core.model.errors import MossError, Unavailable
from core.model.transcript import Place
from core.store.store import Store
from flags.emoji import kind_of

log = structlog.get_logger(__name__)

GRACE_S = 2.0
"""How long what was heard may take to be written down at the end."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STEADY_S = 300.0
"""A connection that held so long was a good one: the next try comes at once."""
LOGIN_S = 60.0
COMMANDS_PAUSE_S = 3600.0
"""At most between two tries to register the commands."""
TRIES = 5
"""To find out where something happened, while Discord is away."""
AT_ONCE = 200
"""How many events are written down in one transaction."""
WAITING = 20_000
"""How many may wait for that. Beyond it reactions are compared again later."""
LOOKED_AT = 100
"""How many replies are looked at after a new session began; each takes one request, and one more for each emoji."""


@dataclass(frozen=True, slots=True)
class Waiting:
    what: Heard
    at: datetime


class DiscordAdapter:
    def __init__(
        self, store: Store, settings: Settings, section: sections.Discord, inbox: Inbox, clock: Clock = system_clock
    ) -> None:
        self.chat = DiscordChat(store, int(section.agent_user) if section.agent_user else None, clock)
        """How Moss speaks there."""
        self._store, self._settings, self._section = store, settings, section
        self._inbox, self._clock = inbox, clock
        self._client: Client | None = None
        self._waiting: asyncio.Queue[Waiting] = asyncio.Queue(WAITING)
        self._session, self._number, self._looks = "", 0, 0
        self._login = asyncio.Event()
        self._missed = asyncio.Event()
        self._ending = asyncio.Event()
        self._health = Health(platform=PLATFORM)

    # Living

    async def serve(self) -> None:
        """Until `stop`: then nothing more is heard, and all that was heard is written down."""
        reach(self._section)
        with contextlib.suppress(MossError):
            await self.chat.prune()
        working = [asyncio.create_task(one) for one in (self._write_down(), self._reconcile(), self._register())]
        staying = asyncio.create_task(self._stay())
        try:
            await self._ending.wait()
        finally:
            await _ended([staying])
            await self._hang_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._waiting.join()
            await _ended(working)

    def listen(self) -> None:
        """Nothing is needed of this machine: Moss calls Discord."""

    def stop(self) -> None:
        self._ending.set()

    async def close(self) -> None:
        """The end of speaking, too."""
        await self.chat.close()
        if self._client is not None:
            await self._client.close()

    @property
    def health(self) -> tuple[Health, ...]:
        connected = self._client is not None and self._client.ws is not None and self._client.ws.open
        now = "" if connected else self._health.problem
        return (self._health.model_copy(update={"connected": connected, "problem": now}),)

    async def _stay(self) -> None:
        """Connected. discord.py comes back by itself from most troubles, but not from a first try that fails, a token
        that is refused, or a close for good."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                client = await self._logged_in()
                await self._connected(client)
            except Exception as problem:
                self._note(problem=_why(problem))
                log.warning("discord is away", why=self._health.problem, pause_s=pause_s)
                await self._hang_up()  # discord.py leaves a socket open on which it could not read a frame
            if time.monotonic() - began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connected(self, client: Client) -> None:
        """Until it is over. discord.py waits longer and longer between its own tries, up to a quarter of an hour: after
        a long outage it is begun anew, so that Moss hears soon when Discord is back."""
        connecting, away = asyncio.create_task(client.connect()), False
        try:
            while not connecting.done():
                await asyncio.wait({connecting}, timeout=LONGEST_PAUSE_S)
                gone = client.ws is None or not client.ws.open
                if gone and away and not connecting.done():
                    raise Unavailable("Discord was away for long; it is called anew.")
                away = gone
            await connecting
        finally:
            await _ended([connecting])

    def _note(self, **changes: Any) -> None:
        self._health = self._health.model_copy(update=changes)

    async def _logged_in(self) -> Client:
        if self._client is not None and not self._client.is_closed():
            return self._client
        asking = Asking(self._store, self._settings, self._section, self._inbox, self.chat)
        client = Client(self._section, Listener(self._heard, self._missed.set, self._anew, self._back, asking.pressed))
        for command in commands(asking.commanded, asking.offer, asking.flagging):
            client.tree.add_command(command)
        try:
            async with asyncio.timeout(LOGIN_S):
                await client.login(self._section.token.get_secret_value())
        except BaseException:
            await client.close()
            raise
        self._client = self.chat.client = client
        self._login.set()
        return client

    async def _register(self) -> None:
        """The commands, however often that fails. Reactions and buttons work without, so nothing waits for it."""
        while True:
            await self._login.wait()
            self._login.clear()
            pause_s = FIRST_PAUSE_S
            while self._client is not None:
                try:
                    await register(self._store, self._client)
                    break
                except Exception as problem:
                    why = problem.sentence if isinstance(problem, MossError) else type(problem).__name__
                    log.warning("commands are not registered", why=why, again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(4 * pause_s, COMMANDS_PAUSE_S)

    async def _hang_up(self) -> None:
        """The gateway only: what was heard is still to be answered."""
        if self._client is not None and self._client.ws is not None and self._client.ws.open:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(GRACE_S):
                    await self._client.ws.close(code=1000)

    # Hearing

    def _heard(self, what: Heard, session: str, number: int) -> None:
        self._note(last_event_at=self._clock())
        again = session == self._session and number <= self._number
        if again or self._ending.is_set():
            return
        self._session, self._number = session, number
        try:
            self._waiting.put_nowait(Waiting(what, self._clock()))
        except asyncio.QueueFull:
            log.error("more happens at Discord than can be written down; reactions are compared later")
            self._missed.set()

    def _back(self) -> None:
        now, before = self._clock(), self._health
        self._note(since=now, reconnects=before.reconnects + (before.since is not None), problem="")
        log.info("discord is connected")

    def _anew(self, session: str) -> None:
        self._back()
        self._session, self._number = session, 0
        self._missed.set()

    async def _write_down(self) -> None:
        while True:
            some = [await self._waiting.get()]
            while len(some) < AT_ONCE and not self._waiting.empty():
                some.append(self._waiting.get_nowait())
            try:
                found = [event for one in some if (event := await self._event(one)) is not None]
                await self._take(found)
            finally:
                for _ in some:
                    self._waiting.task_done()

    async def _take(self, found: Sequence[AnyEvent]) -> None:
        """All of it, however long the store is away: nobody sends it again."""
        pause_s = FIRST_PAUSE_S
        while found:
            try:
                async with self._store.writing() as db:
                    if fresh := await once(db, found):
                        await self._inbox.add_all(db, fresh)
                self._inbox.wake()
                return
            except Unavailable as problem:
                log.warning("what Discord told waits", reason=problem.sentence, again_in_s=pause_s)
            except Exception:
                if len(found) == 1:
                    log.exception("what Discord told is not understood", kind=found[0].kind)
                    return
                for event in found:  # one that cannot be kept takes no other with it
                    await self._take([event])
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _event(self, one: Waiting) -> AnyEvent | None:
        pause_s, kind = FIRST_PAUSE_S, type(one.what).__name__
        for _ in range(TRIES):
            try:
                return await self._read(one)
            except Unavailable as problem:
                log.warning("nobody knows yet where this happened", kind=kind, reason=problem.sentence)
            except Exception:
                log.exception("what Discord told is not understood", kind=kind)
                return None
            await asyncio.sleep(pause_s)
            pause_s *= 2
        log.error("nobody knows where this happened, so it is left out; reactions are compared later", kind=kind)
        self._missed.set()
        return None

    async def _read(self, one: Waiting) -> AnyEvent | None:
        client, what = self._client, one.what
        if client is None or client.user is None:
            return None
        agent = int(self._section.agent_user) if self._section.agent_user else None
        if isinstance(what, discord.RawMessageUpdateEvent):
            said = what.message
            if agent is None or said.author.id != agent:
                return None
            place = await self._place(what.guild_id, what.channel_id)
            return events.edited(place, said, agent) if place else None
        if isinstance(what, discord.Message):
            guild = (
                what.guild.id if what.guild else getattr(what.channel, "guild_id", None)
            )  # one that nobody told of yet
            place = await self._place(guild, what.channel.id)
            return events.message(place, what, client.user.id, agent) if place else None
        place = await self._place(what.guild_id, what.channel_id)
        return events.reaction(place, what, client.user.id, one.at) if place else None

    async def _reconcile(self) -> None:
        """After each beginning of a session; again when it failed."""
        while True:
            await self._missed.wait()
            self._missed.clear()
            client, pause_s = self._client, FIRST_PAUSE_S
            if client is None:
                continue
            try:
                look = partial(seen, client, self._section, self.chat.channels, self._complains)
                session = f"{self._session}.{self._looks}"
                guilds, count = {*self._section.guilds, DIRECT}, 0
                found = missed(self._store, self._settings, PLATFORM, guilds, look, session=session, limit=LOOKED_AT)
                async for some in found:
                    await self._take(some)
                    count += len(some)
                self._looks += 1
                if count:
                    log.info("reactions were missed and are made up for", count=count)
            except Unavailable as problem:
                log.warning("reactions are compared later", reason=problem.sentence)
                self._missed.set()
                pause_s = LONGEST_PAUSE_S
            except Exception:
                log.exception("reactions are not compared")
            await asyncio.sleep(pause_s)

    def _complains(self, emoji: str) -> bool:
        return kind_of(emoji, self._settings.flags.emoji) is not None

    # Where

    async def _place(self, guild: int | None, channel: int) -> Place | None:
        if not listens(self._section, guild):
            return None
        client = self._client
        assert client is not None
        if guild is None:
            return place_of(None, channel, None)
        return place_of(guild, channel, (await self.chat.channels.about(client, channel)).parent)


def _why(problem: Exception) -> str:
    """Never the problem's own words: they may hold a token or an address with one."""
    match problem:
        case discord.LoginFailure():
            return "Discord refuses the token; give Moss the bot's present one, and start it again."
        case discord.PrivilegedIntentsRequired():
            return (
                "Discord gives no message content; switch that intent on for the application, or set "
                "`message_content = false` in [discord]."
            )
        case MossError():
            return problem.sentence
        case _:
            return f"Discord cannot be reached ({type(problem).__name__})."


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
