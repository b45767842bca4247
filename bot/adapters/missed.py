"""What people did while nobody listened: reactions on kept replies, compared with the flags that Moss holds."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.chat import Reacted
from bot.replies import parts_of
from bot.settings import Settings
from core.model.evidence import Flag
from core.model.transcript import Place
from core.store import turns
from core.store.store import Store
from core.store.turns import Turn
from flags.emoji import kind_of, name_of
from flags.raise_flag import held

LOOKED_BACK = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Seen:
    """One person's reaction, as it stands on the platform now."""

    person: str
    """As the platform names them."""
    emoji: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The reactions on one reply."""

    seen: Collection[Seen]
    whole: bool
    """False when a platform does not name everybody: who is not among these may have reacted all the same."""


Look = Callable[[Turn], Awaitable[Standing | None]]
"""None when nothing can be seen: with its message a reaction goes too, and no complaint is taken back by that."""


def changes(
    standing: Standing, flags: Collection[Flag], settings: Settings, place: Place
) -> list[tuple[str, str, bool]]:
    """Who, as the platform names them, put an emoji there or took it away, unnoticed. Pure."""
    known = {
        (flag.person, emoji) for flag in flags if flag.withdrawn_at is None for emoji in (flag.emoji or "").split()
    }
    complaints = [one for one in standing.seen if kind_of(one.emoji, settings.flags.emoji) is not None]
    now = {(settings.person(one.person), name_of(one.emoji)): one for one in complaints}
    added = [(one.person, one.emoji, True) for who, one in now.items() if who not in known]
    gone = sorted(known - set(now)) if standing.whole else []
    return added + [(_known_as(settings, person, place), emoji, False) for person, emoji in gone]


def _known_as(settings: Settings, person: str, place: Place) -> str:
    """The platform's name for a person, so that all they did there is worked on in its order."""
    names = [name for name in settings.people.get(person, ()) if name.startswith(f"{place.platform}:")]
    here = [name for name in names if "/" not in name or name.startswith(f"{place.platform}:{place.workspace}/")]
    return here[0] if here else person


async def missed(
    store: Store,
    settings: Settings,
    platform: str,
    workspaces: Collection[str],
    look: Look,
    *,
    session: str,
    limit: int,
) -> AsyncIterator[list[Reacted]]:
    """As events, those on one reply at a time: what was found is not lost when the platform goes away in the middle.
    Each has the same id when it is found again within one session."""
    async with store.reading() as db:
        kept = await turns.latest_replies(db, platform, workspaces, store.now() - LOOKED_BACK, limit)
    for turn in kept:
        at = store.now()  # before looking: whatever is heard from now on is later
        async with store.reading() as db:
            parts = await parts_of(db, turn.place, turn.message)
        looked = {part: await look(replace(turn, message=part)) for part in parts}
        shown = {part: standing for part, standing in looked.items() if standing is not None}
        if not shown:
            continue
        everything = len(shown) == len(parts) and all(standing.whole for standing in shown.values())
        standing = Standing([one for standing in shown.values() for one in standing.seen], everything)
        async with store.reading() as db:
            flags = await held(db, turn.substrate, turn.place, turn.message)
        found = []
        for person, emoji, added in changes(standing, flags, settings, turn.place):
            way, one = "added" if added else "gone", Seen(person, emoji)
            for part in [part for part in shown if one in shown[part].seen] if added else parts:
                id = f"missed:{session}:{part}:{person}:{name_of(emoji)}:{way}"
                found.append(
                    Reacted(id=id, place=turn.place, person=person, at=at, message=part, emoji=emoji, added=added)
                )
        if found:
            yield found
