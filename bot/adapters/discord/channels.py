"""Of each channel its kind, and of each thread the channel around it. Discord tells of most; others have to be asked
for."""

from collections import OrderedDict
from dataclasses import dataclass

import discord
import structlog

from bot.adapters.discord.errors import translated
from bot.adapters.discord.places import Kind
from core.model.errors import Refused

log = structlog.get_logger(__name__)

REMEMBERED = 5000


@dataclass(frozen=True, slots=True)
class About:
    kind: Kind = Kind.threads
    parent: int | None = None


def about(channel: object) -> About:
    match channel:
        case discord.Thread():
            return About(parent=channel.parent_id)
        case discord.ForumChannel():
            return About(Kind.posts)
        case discord.VoiceChannel() | discord.StageChannel():
            return About(Kind.flat, channel.id)
        case _:
            return About()


class Channels:
    def __init__(self) -> None:
        self._asked: OrderedDict[int, About] = OrderedDict()

    async def about(self, client: discord.Client, channel: int) -> About:
        """Raises Unavailable: a thread must not be taken for a channel."""
        known = client.get_channel(channel)
        if known is not None:
            return about(known)
        if channel not in self._asked:
            try:
                with translated("a channel"):
                    self._asked[channel] = about(await client.fetch_channel(channel))
            except (Refused, discord.DiscordException) as problem:
                log.warning("a channel is not known", channel=channel, why=str(problem))
                return About()
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        return self._asked[channel]
