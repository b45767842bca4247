"""Reactions: each is one event, however many heard of it; and those that stand on a reply at this moment."""

from datetime import timedelta
from typing import Any

import discord
import structlog

from bot import sections
from bot.adapters.discord.errors import Gone, translated
from bot.adapters.discord.places import channel_of, is_direct, number, person_of
from bot.adapters.missed import Seen
from bot.chat import Reacted
from bot.inbox import lane
from core.model.errors import Refused
from core.store import inbox as letters
from core.store.turns import Turn

log = structlog.get_logger(__name__)

PEOPLE_LIMIT = 1000
SAME = timedelta(minutes=10)
"""Nobody puts the same reaction twice on a message without taking it off in between: it was heard of twice."""


async def once(db: Any, event: Reacted) -> Reacted | None:
    """With an id that says after which change of the same reaction it came, so that two processes that hear of it at
    the same moment mean one event; None when it is known already. The connection comes from `Store.writing`."""
    before = await letters.last_reaction(db, lane(event), event.emoji, event.at)
    again = before is not None and before.added == event.added and event.at - before.at < SAME
    found_gone = event.id and not event.added  # told by the names in the flag, under which no later change is found
    if again and not found_gone:
        return None
    way, after = "on" if event.added else "off", before.id if before else 0
    return event.model_copy(update={"id": f"reacted:{event.message}:{event.person}:{event.emoji}:{way}:{after}"})


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
