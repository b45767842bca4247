"""When a swap may begin: looked at before a granted one is handed on, and again in the transaction that plans it."""

from datetime import datetime

from core.model.consent import Consent
from core.model.run import RunState
from core.model.substrate import Substrate
from core.store import consents, runs, substrates
from core.store.store import Store


def held_back(substrate: Substrate, consent: Consent, now: datetime) -> str | None:
    """Why this swap waits: a sentence, or None. A rollback that a person asked for waits for nothing. Pure."""
    if consent.version is not None and consent.starter != "moss":
        return None
    if substrate.swap.freeze:
        return f"Swaps of {substrate.name} are frozen; take `swap.freeze` back in moss.toml."
    if until := substrate.swap.quiet_until(now):
        return f"Swaps of {substrate.name} wait for the end of quiet hours, {until:%a %H:%M} {substrate.swap.timezone}."
    return None


async def waiting(store: Store, name: str) -> str | None:
    """Why the approved run of this substrate is not being swapped; None when there is none, or it is."""
    async with store.reading() as db:
        run = await runs.in_flight(db, name)
        granted = await consents.of_run(db, run.id) if run and run.state is RunState.approved else None
        return held_back(await substrates.get(db, name), granted, store.now()) if granted else None
