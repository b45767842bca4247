"""Sealing: a batch that is full, old, or wanted by somebody takes no more evidence."""

from datetime import timedelta

from core.model.batch import Batch, BatchState
from core.model.errors import Refused
from core.store import Change, Store, batches

SEAL_COUNT = 8
SEAL_AGE_S = 7 * 24 * 3600.0


async def seal(store: Store, batch_id: str, who: str) -> Batch:
    """By hand. Sealing what somebody else has just sealed is fine; sealing nothing is refused."""
    async with store.reading() as db:
        substrate = (await batches.get(db, batch_id)).substrate
    async with store.changing(substrate) as change:
        batch = await batches.get(change.db, batch_id)
        if batch.state is BatchState.sealed:
            return batch
        if batch.state is BatchState.open and not await batches.chunks(change.db, batch_id):
            raise Refused(f"Batch {batch_id} holds no evidence; flag a reply first.")
        return await batches.move(change, batch_id, BatchState.sealed, who)


async def seal_if_full(change: Change, batch: Batch, count: int) -> Batch:
    """In the transaction that added to it."""
    if await batches.count(change.db, batch.id) < count:
        return batch
    return await batches.move(change, batch.id, BatchState.sealed, "count")


async def seal_old(store: Store, age_s: float = SEAL_AGE_S) -> list[Batch]:
    """Every open batch of this age that holds something. An empty one stays open."""
    async with store.reading() as db:
        due = await batches.open_since(db, store.now() - timedelta(seconds=age_s))
    sealed = []
    for old in due:
        async with store.changing(old.substrate) as change:
            batch = await batches.get(change.db, old.id)
            if batch.state is BatchState.open and await batches.chunks(change.db, old.id):
                sealed.append(await batches.move(change, old.id, BatchState.sealed, "age"))
    return sealed
