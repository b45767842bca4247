"""Commands, buttons and forms: each is written down, acknowledged within three seconds, and answered later."""

import asyncio
import contextlib
from typing import Any

import discord
import structlog

from bot import sections
from bot.adapters.discord import events
from bot.adapters.discord.channels import about
from bot.adapters.discord.chat import DiscordChat
from bot.adapters.discord.commands import FLAG_MENU
from bot.adapters.discord.embeds import NOBODY, action_of, form
from bot.adapters.discord.errors import translated
from bot.adapters.discord.offers import offer as offered
from bot.adapters.discord.places import PLATFORM, place_of
from bot.chat import AnyEvent, Inbox
from bot.permits import refusal
from bot.settings import Settings
from core.model.errors import MossError
from core.model.transcript import Place
from core.store.store import Store

log = structlog.get_logger(__name__)

ACK_S = 0.7
"""People should see a sign within a second, and Discord gives three; what is not written down by then goes on being
written down after it."""
OFFER_S = 2.0
NOT_HERE = "Moss does not listen here; its owner can change `guilds` and `direct_messages` in [discord] of moss.toml."
OLD_BUTTON = "That button is of another version of Moss; `/moss status` shows what waits for people."


class Asking:
    def __init__(
        self, store: Store, settings: Settings, section: sections.Discord, inbox: Inbox, chat: DiscordChat
    ) -> None:
        self._store, self._settings, self._section = store, settings, section
        self._inbox, self._chat = inbox, chat

    async def commanded(self, one: discord.Interaction[Any], words: list[object | None]) -> None:
        if (place := await self._admitted(one)) is not None:
            await self._write_and_defer(one, events.command(place, one, words))

    async def pressed(self, one: discord.Interaction[Any]) -> None:
        place = await self._admitted(one)
        if place is None:
            return
        id = events.custom_id(one)
        action, pressed = action_of(id), one.type is discord.InteractionType.component
        if action and action.wants_reason and pressed:
            await _ask(one, form(action.verb.capitalize(), id, "Why? A few words.", required=True))
            return
        event = events.press(place, one)
        if event is None:
            await _say(one, OLD_BUTTON)
            return
        await self._write_and_defer(one, event)

    async def flagging(self, one: discord.Interaction[Any], message: int) -> None:
        """From the menu of a message."""
        if await self._admitted(one) is not None:
            id, question = f"moss:{events.FLAG_FORM}:{message}", "What was wrong? (a few words help)"
            await _ask(one, form(FLAG_MENU, id, question, required=False))

    async def _admitted(self, one: discord.Interaction[Any]) -> Place | None:
        """Where it was asked; whoever asks elsewhere is told."""
        place = self._place(one)
        if place is None:
            await _say(one, NOT_HERE)
        return place

    async def _write_and_defer(self, one: discord.Interaction[Any], event: AnyEvent) -> None:
        """Written down first; the answer itself comes later, as a whisper."""
        deferred = self._chat.deferring(one.id)
        taking = asyncio.create_task(self._inbox.take(event))
        await asyncio.wait({taking}, timeout=ACK_S)
        try:
            await one.response.defer(ephemeral=True, thinking=True)
        except (discord.DiscordException, OSError) as problem:
            log.warning("a press was written down and not acknowledged", why=type(problem).__name__)
        finally:
            deferred.set()
        try:
            await taking
        except Exception as problem:
            why = problem.sentence if isinstance(problem, MossError) else "This failed inside Moss; its log says why."
            log.warning("a press was not written down", reason=why, exc_info=not isinstance(problem, MossError))
            with contextlib.suppress(discord.DiscordException, OSError):
                await one.edit_original_response(
                    content=f"{why} Nothing was done; please ask again.", allowed_mentions=NOBODY
                )

    async def offer(self, one: discord.Interaction[Any], what: str) -> list[str]:
        """Nothing to whoever may not look, nor when it takes too long: Discord asks again with the next letter."""
        place = self._place(one)
        if place is None:
            return []
        with contextlib.suppress(MossError, TimeoutError):
            async with asyncio.timeout(OFFER_S):
                event, chats = events.command(place, one, []), {PLATFORM: self._chat}
                if not await refusal(self._settings, chats, "status", event):
                    return await offered(self._store, self._settings, chats, event, what)
        return []

    def _place(self, one: discord.Interaction[Any]) -> Place | None:
        """Discord tells the channel with it."""
        if one.channel is None or not listens(self._section, one.guild_id):
            return None
        return place_of(one.guild_id, one.channel.id, about(one.channel).parent)


def listens(section: sections.Discord, guild: int | None) -> bool:
    return section.direct_messages if guild is None else str(guild) in section.guilds


async def _ask(one: discord.Interaction[Any], asked: discord.ui.Modal) -> None:
    try:
        with translated("a form"):
            await one.response.send_modal(asked)
    except MossError as problem:
        log.warning("a form was not shown; whoever wants it asks again", reason=problem.sentence)


async def _say(one: discord.Interaction[Any], sentence: str) -> None:
    """To the person alone, and at once."""
    with contextlib.suppress(discord.DiscordException, OSError):
        await one.response.send_message(sentence, ephemeral=True, allowed_mentions=NOBODY)
