"""Of each thread the channel around it. Discord tells of threads that are in use; others have to be asked for."""

from collections import OrderedDict

import discord
import structlog

from bot.adapters.discord.errors import translated
from core.model.errors import Refused

log = structlog.get_logger(__name__)

REMEMBERED = 5000


def parent_of(channel: object) -> int | None:
    return channel.parent_id if isinstance(channel, discord.Thread) else None


class Parents:
    def __init__(self) -> None:
        self._asked: OrderedDict[int, int | None] = OrderedDict()

    async def of(self, client: discord.Client, channel: int) -> int | None:
        """None when it is no thread. Raises Unavailable: a thread must not be taken for a channel."""
        known = client.get_channel(channel)
        if known is not None:
            return parent_of(known)
        if channel not in self._asked:
            try:
                with translated("a channel"):
                    self._asked[channel] = parent_of(await client.fetch_channel(channel))
            except (Refused, discord.DiscordException) as problem:
                log.warning("a channel is not known", channel=channel, why=str(problem))
                return None
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        return self._asked[channel]
