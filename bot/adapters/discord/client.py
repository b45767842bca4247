"""The connection to Discord: discord.py's client, whose events are handed on one by one in the gateway's order."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import discord
import structlog
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot import sections
from bot.adapters.discord.embeds import NOBODY

log = structlog.get_logger(__name__)

Heard = discord.Message | discord.RawMessageUpdateEvent | discord.RawReactionActionEvent
LONGEST_LIMIT_S = 60.0
"""A limit that lasts longer is told as an error instead of being waited for."""
OTHER_COMMANDS = "Discord still shows commands of another version of Moss here; reload it, and try again."


@dataclass(frozen=True, slots=True)
class Listener:
    """What becomes of what the gateway tells. All but the last are called within its loop and must not wait."""

    heard: Callable[[Heard, str, int], None]
    """A message or a reaction, with the session and the gateway's own number of this delivery in it."""
    cleared: Callable[[], None]
    """Somebody took reactions of others away, and Discord does not say whose."""
    anew: Callable[[str], None]
    """A new session began: whatever happened between the last one and it was missed."""
    resumed: Callable[[], None]
    """The session goes on, and what was missed comes after it."""
    asked: Callable[[discord.Interaction[Any]], Awaitable[None]]
    """A button was pressed, or a form sent."""


def reach(section: sections.Discord) -> None:
    """discord.py has one address of Discord for the whole process."""
    Route.BASE = section.api
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(section.gateway)
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # nobody speaks here


def intents(section: sections.Discord) -> discord.Intents:
    wanted = discord.Intents.none()
    wanted.guilds = wanted.guild_messages = wanted.guild_reactions = True
    wanted.dm_messages = wanted.dm_reactions = section.direct_messages
    wanted.message_content = section.message_content
    return wanted


class Client(discord.Client):
    def __init__(self, section: sections.Discord, listener: Listener) -> None:
        super().__init__(
            intents=intents(section),
            allowed_mentions=NOBODY,
            max_messages=None,  # the raw events need no memory of messages
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            heartbeat_timeout=section.heartbeat_timeout_s,
            max_ratelimit_timeout=LONGEST_LIMIT_S,
        )
        self.tree = app_commands.CommandTree(self)
        self.tree.error(self._not_commanded)
        self._listener = listener
        _opens_again(self.http)
        _reads_on(self._connection.parsers)

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Here events still are in order; discord.py runs each listener as a task of its own, in any order."""
        super().dispatch(event, *args, **kwargs)
        match event:
            case "message" | "raw_message_edit" | "raw_reaction_add" | "raw_reaction_remove":
                self._listener.heard(args[0], self.ws.session_id or "", self.ws.sequence or 0)
            case "raw_reaction_clear" | "raw_reaction_clear_emoji":
                self._listener.cleared()
            case "connect":  # unlike `ready` once for each new session, and never when one is resumed
                self._listener.anew(self.ws.session_id or "")
            case "resumed":
                self._listener.resumed()

    async def on_interaction(self, one: discord.Interaction[Any]) -> None:
        if one.type in (discord.InteractionType.component, discord.InteractionType.modal_submit):
            await self._listener.asked(one)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """It is logged with its trace, and never printed."""
        log.exception("an event of Discord failed", what=event_method)

    async def _not_commanded(self, one: discord.Interaction[Any], problem: app_commands.AppCommandError) -> None:
        """Before Moss heard of it: Discord offers commands that are not these any more, or did not wait."""
        cause = getattr(problem, "original", problem)
        log.warning("a command was not heard", why=type(cause).__name__)
        with contextlib.suppress(discord.DiscordException, OSError):
            await one.response.send_message(OTHER_COMMANDS, ephemeral=True, allowed_mentions=NOBODY)


def _reads_on(parsers: dict[str, Callable[[Any], None]]) -> None:
    """An event that discord.py cannot read, as one that lacks a field, costs itself; it would cost the connection, and
    what happens until there is another one."""

    def forgiving(kind: str, parse: Callable[[Any], None]) -> Callable[[Any], None]:
        def read(data: Any) -> None:
            try:
                parse(data)
            except Exception as problem:
                log.warning("an event of Discord cannot be read", kind=kind, why=type(problem).__name__)

        return read

    for kind, parse in parsers.items():
        if kind not in ("READY", "RESUMED"):  # without these there is no session
            parsers[kind] = forgiving(kind, parse)


def _opens_again(http: discord.http.HTTPClient) -> None:
    """While Discord limits everything, discord.py closes a door for the time of one sleep; a call that is given up in
    that sleep would leave it closed for good."""
    request = http.request

    async def opening(*args: Any, **kwargs: Any) -> Any:
        try:
            return await request(*args, **kwargs)
        except asyncio.CancelledError:
            http._global_over.set()
            raise

    http.request = opening  # type: ignore[method-assign]
