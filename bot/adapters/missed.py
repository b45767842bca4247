"""What people did while nobody listened: reactions on kept replies, compared with the flags that Moss holds."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import timedelta

from bot.chat import Reacted
from bot.settings import Settings
from core.model.evidence import Flag
from core.store import batches, turns
from core.store.store import Store
from core.store.turns import Turn
from flags.emoji import kind_of, name_of

LOOKED_BACK = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Seen:
    """One person's reaction, as it stands on the platform now."""

    person: str
    """As the platform names them."""
    emoji: str


Look = Callable[[Turn], Awaitable[Collection[Seen] | None]]
"""None when nothing can be seen: with its message a reaction goes too, and no complaint is taken back by that."""


def changes(seen: Collection[Seen], flags: Collection[Flag], settings: Settings) -> list[tuple[str, str, bool]]:
    """Who put an emoji there or took it away, unnoticed. Pure."""
    standing = {
        (flag.person, emoji) for flag in flags if flag.withdrawn_at is None for emoji in (flag.emoji or "").split()
    }
    complaints = [one for one in seen if kind_of(one.emoji, settings.flags.emoji) is not None]
    now = {(settings.person(one.person), name_of(one.emoji)): one for one in complaints}
    added = [(one.person, one.emoji, True) for who, one in now.items() if who not in standing]
    return added + [(person, emoji, False) for person, emoji in sorted(standing - set(now))]


async def missed(
    store: Store, settings: Settings, platform: str, look: Look, *, session: str, limit: int
) -> list[Reacted]:
    """As events: each has the same id when it is found again within one session."""
    async with store.reading() as db:
        kept = await turns.latest_replies(db, platform, store.now() - LOOKED_BACK, limit)
    found = []
    for turn in kept:
        at = store.now()  # before looking: whatever is heard from now on is later
        seen = await look(turn)
        if seen is None:
            continue
        async with store.reading() as db:
            held = await batches.of_turn(db, turn.substrate, turn.place, turn.message)
        flags = [flag for _, chunk in held for flag in chunk.flags]
        for person, emoji, added in changes(seen, flags, settings):
            way = "added" if added else "gone"
            id = f"missed:{session}:{turn.message}:{person}:{name_of(emoji)}:{way}"
            found.append(
                Reacted(id=id, place=turn.place, person=person, at=at, message=turn.message, emoji=emoji, added=added)
            )
    return found
