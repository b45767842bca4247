"""What the menus of `/moss` offer while somebody types: each an id, and a few words about it."""

from bot.places import substrate_of
from bot.settings import Settings
from bot.words import moment
from core.model.errors import MossError
from core.model.transcript import Place
from core.store import batches, consents, runs, swaps
from core.store.store import Store


async def offer(store: Store, settings: Settings, place: Place, what: str) -> list[str]:
    """Newest first."""
    try:
        name = substrate_of(settings, place).name
    except MossError:
        return []
    async with store.reading() as db:
        match what:
            case "batch":
                listed = await batches.listing(db, name)
                return [f"{one.id} {one.state}, {moment(one.opened_at)}" for one in listed]
            case "run":
                return [f"{one.id} {one.state}, {moment(one.queued_at)}" for one in await runs.listing(db, name)]
            case "question":
                return [f"{one.run or one.id} waits for approval" for one in await consents.asked(db, name)]
            case "version":
                past = [one for one in await swaps.versions(db, name) if one.until is not None]
                return [f"{one.number} live until {moment(one.until)}" for one in reversed(past)]
            case _:
                return []
