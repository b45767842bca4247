"""The complaints that stand on a reply at this moment, for those that were missed."""

import discord
import structlog

from bot import sections
from bot.adapters.discord.errors import Gone, translated
from bot.adapters.discord.places import channel_of, is_direct, number, person_of
from bot.adapters.missed import Seen
from core.model.errors import Refused
from core.store.turns import Turn

log = structlog.get_logger(__name__)

PEOPLE_LIMIT = 1000


async def seen(client: discord.Client, section: sections.Discord, turn: Turn) -> list[Seen] | None:
    """None when nothing can be seen."""
    place = turn.place
    listened = is_direct(place) or place.workspace in section.guilds
    if not listened or not turn.message.isdigit():  # not posted yet
        return None
    guild = None if is_direct(place) else number(place.workspace)
    channel = client.get_partial_messageable(channel_of(place, turn.message), guild_id=guild)
    found = []
    try:
        with translated("the reactions on a reply"):
            message = await channel.fetch_message(number(turn.message))
            for reaction in message.reactions:
                name = reaction.emoji if isinstance(reaction.emoji, str) else reaction.emoji.name
                async for user in reaction.users(limit=PEOPLE_LIMIT):
                    if not user.bot:
                        found.append(Seen(person_of(user.id), name))
    except Gone:
        return None
    except Refused as problem:
        log.warning("reactions cannot be compared", place=str(place), reason=problem.sentence)
        return None
    return found
