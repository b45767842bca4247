"""What the menus of `/moss` offer while somebody types: each an id, and a few words about it."""

from collections.abc import Mapping

from bot.chat import Chat, Event
from bot.permits import sight
from bot.places import substrate_of
from bot.settings import Settings
from bot.words import moment
from core.model.errors import MossError
from core.store import batches, consents, runs, swaps
from core.store.store import Store


async def offer(store: Store, settings: Settings, chats: Mapping[str, Chat], event: Event, what: str) -> list[str]:
    """Newest first, as far as whoever types may look at it."""
    try:
        name = substrate_of(settings, event.place).name
    except MossError:
        return []
    at = await sight(settings, chats, event)
    async with store.reading() as db:
        match what:
            case "batch":
                listed = await batches.listing(db, name, at=at)
                return [f"{one.id} {one.state}, {moment(one.opened_at)}" for one in listed]
            case "run":
                return [f"{one.id} {one.state}, {moment(one.queued_at)}" for one in await runs.listing(db, name, at=at)]
            case "question":
                here = {one.id for one in await runs.listing(db, name, limit=None, at=at)}
                asked = [one for one in await consents.asked(db, name) if one.run is None or one.run in here]
                return [f"{one.run or one.id} waits for approval" for one in asked]
            case "version":
                past = [one for one in await swaps.versions(db, name) if one.until is not None]
                return [f"{one.number} live until {moment(one.until)}" for one in reversed(past)]
            case _:
                return []
