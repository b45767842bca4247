"""Reactions: each is one event, however many heard of it; and those that stand on a reply at this moment."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import discord
import structlog

from bot import sections
from bot.adapters.discord.channels import Channels
from bot.adapters.discord.errors import Gone, translated
from bot.adapters.discord.places import Kind, channel_of, number, person_of
from bot.adapters.missed import Seen, Standing
from bot.chat import AnyEvent, Reacted
from bot.inbox import lane
from bot.places import is_direct
from core.model.errors import Refused
from core.model.value import sha256
from core.store import inbox as letters
from core.store.turns import Turn

log = structlog.get_logger(__name__)

PEOPLE_LIMIT = 1000
SAME = timedelta(minutes=10)
"""Nobody puts the same reaction twice on a message without taking it off in between: it was heard of twice."""


async def once(db: Any, events: Sequence[AnyEvent]) -> list[AnyEvent]:
    """Each reaction with an id that says after which change of the same one it came, so that two processes that hear of
    it at the same moment mean one event; without those that are known. The connection comes from `Store.writing`."""
    known = await letters.changes(db, {lane(event) for event in events if isinstance(event, Reacted)})
    fresh: list[AnyEvent] = []
    for event in events:
        if not isinstance(event, Reacted):
            fresh.append(event)
        elif found := _after(known.setdefault((lane(event), event.emoji), []), event):
            fresh.append(found)
    return fresh


def _after(changes: list[letters.Change], event: Reacted) -> Reacted | None:
    """The event, which is noted among the changes; None when it is there already."""
    before = next((one for one in reversed(changes) if one.at <= event.at), None)
    again = before is not None and before.added == event.added and event.at - before.at < SAME
    found_gone = event.id and not event.added  # told by the names in the flag, under which no later change is found
    if again and not found_gone:
        return None
    about = f"{event.person} {event.emoji} {event.added} {before.event if before else ''}"
    id = f"reacted:{event.message}:{sha256(about.encode()).removeprefix('sha256:')[:32]}"
    changes.append(letters.Change(id, event.added, event.at))
    changes.sort(key=lambda one: one.at)
    return event.model_copy(update={"id": id})


async def seen(
    client: discord.Client,
    section: sections.Discord,
    channels: Channels,
    complains: Callable[[str], bool],
    turn: Turn,
) -> Standing | None:
    """Complaints only, super reactions included; None when nothing can be seen."""
    place = turn.place
    listened = is_direct(place) or place.workspace in section.guilds
    if not listened or not turn.message.isdigit():  # not posted yet
        return None
    guild = None if is_direct(place) else number(place.workspace)
    found, whole = [], True
    try:
        with translated("the reactions on a reply"):
            kind = Kind.flat if guild is None else (await channels.about(client, number(place.channel))).kind
            channel = client.get_partial_messageable(channel_of(place, turn.message, kind), guild_id=guild)
            message = await channel.fetch_message(number(turn.message))
            for reaction in message.reactions:
                name = reaction.emoji if isinstance(reaction.emoji, str) else reaction.emoji.name
                if not complains(name):
                    continue
                users = [user async for user in reaction.users(limit=PEOPLE_LIMIT)]
                if reaction.burst_count:
                    burst = discord.ReactionType.burst
                    users += [user async for user in reaction.users(limit=PEOPLE_LIMIT, type=burst)]
                whole = whole and len(users) >= reaction.count
                found += [Seen(person_of(user.id), name) for user in users if not user.bot]
    except Gone:
        return None
    except Refused as problem:
        log.warning("reactions cannot be compared", place=str(place), reason=problem.sentence)
        return None
    return Standing(found, whole)
