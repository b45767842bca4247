"""Which durable job serves which row of the outbox: the only file that knows all verbs of core."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from core import consent
from core.containers.host import Host
from core.durable import Durable
from core.model.errors import Busy, MossError, Unavailable
from core.model.run import Run
from core.model.swap import Swap, SwapState
from core.pipeline import evolve
from core.pipeline.evolve import Evolution
from core.store import consents, outbox, substrates, swaps
from core.store.outbox import OutboxRow
from core.store.store import Store
from core.swap import perform, reconcile, records
from core.swap.window import held_back

RUN, SWAP = "run", "swap"
LIVE_BRANCH, VERSION_TAG = "moss/live", "moss/v"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
PASSES = (Unavailable, Busy)
"""What waiting mends: something that is away comes back, and a swap, a claim or quiet hours end."""
SWAP_PAUSES_S = (0.5, 2.0, 5.0, 15.0, 30.0)
"""Between two tries of a swap that fails in a way that waiting does not mend."""
JOBS_KEPT = timedelta(days=30)
FORGET_EVERY_S = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Dispatch:
    store: Store
    durable: Durable
    host: Host
    evolution: Evolution
    owner: str
    _passing_on: asyncio.Lock = field(default_factory=asyncio.Lock)
    _forgot_s: float | None = None
    """By the monotonic clock."""

    async def start(self) -> None:
        """The engine resumes at once what a crash interrupted, so it must know every verb before."""
        self.durable.job(RUN, _patient(self.evolution.perform))
        self.durable.job(SWAP, _patient(self._swap))
        await self.durable.start()
        await self.wake()

    async def _swap(self, consent_id: str, n: int) -> None:
        swap = await self._performed(consent_id)
        if swap and swap.state is SwapState.live:
            await self._show_in_git(swap)

    async def _performed(self, consent_id: str) -> Swap | None:
        """A swap is tried again whatever went wrong, since nobody else would bring the agent back; but not for ever:
        after the last try it is written down what it came to, and people are told. What passes is waited for."""
        why = ""
        for pause_s in (*SWAP_PAUSES_S, 0.0):
            try:
                return await perform.perform(self.store, self.host, self.owner, consent_id)
            except PASSES:
                raise
            except MossError as problem:
                why = problem.sentence
            except Exception as fault:
                _log.exception("a swap failed", consent=consent_id)
                why = f"Moss itself failed with {type(fault).__name__}; see its log."
            _log.warning("a swap is refused", consent=consent_id, why=why, pause_s=pause_s)
            await asyncio.sleep(pause_s)
        return await records.refuse(self.store, consent_id, why)

    async def _show_in_git(self, swap: Swap) -> None:
        """`moss/live` follows what is live, and each version has its tag. The owner's repository being away must not
        look like a failed swap."""
        async with self.store.reading() as db:
            substrate = await substrates.get(db, swap.substrate)
            versions = await swaps.versions(db, swap.substrate)
        tag = next((f"{VERSION_TAG}{version.number}" for version in versions if version.swap == swap.id), None)
        try:
            clone = await self.evolution.clone(substrate)
            await clone.set_branch(LIVE_BRANCH, swap.commit)
            if tag:
                await clone.tag(tag, swap.commit)
            if substrate.publish:
                await clone.publish(LIVE_BRANCH, substrate.repository, tag)
        except MossError as error:
            _log.warning("git does not show what is live", swap=swap.id, why=error.sentence)

    async def wake(self) -> None:
        """Pass waiting rows on. A row is done once its job exists; after a crash in between it is passed on again, and
        that is the same job."""
        async with self._passing_on:
            async with self.store.reading() as db:
                rows = await outbox.waiting(db)
            for row in rows:
                if row.kind == SWAP and await self._held_back(row):
                    continue
                await self.durable.submit(row.kind, row.subject)
                async with self.store.changing(row.substrate) as change:
                    await outbox.done(change, row.id)

    async def _held_back(self, row: OutboxRow) -> bool:
        """In quiet hours and under a freeze a granted swap stays in the outbox, and its run `approved`."""
        async with self.store.reading() as db:
            asked, substrate = await consents.get(db, row.subject), await substrates.get(db, row.substrate)
        return held_back(substrate, asked, self.store.now()) is not None

    async def tick(self) -> None:
        """What falls due with time, and what crashes left behind."""
        await consent.expire_due(self.store, self.store.now())
        await consent.remind_due(self.store, self.store.now())
        await self.wake()
        await self.evolution.sweep_all()
        await self._forget()
        await reconcile.reconcile(self.store, self.host, self.owner)  # last, since it needs an engine that answers

    async def _forget(self) -> None:
        """Of what is over the store keeps the history; that its jobs were performed need not be known for ever."""
        now_s = time.monotonic()
        if self._forgot_s is not None and now_s - self._forgot_s < FORGET_EVERY_S:
            return
        if not await self.durable.forget(self.store.now() - JOBS_KEPT):
            self._forgot_s = now_s

    async def stop(self, run_id: str, who: str) -> Run:
        """First the state, so that nothing more begins; then the job that is at work."""
        stopped = await evolve.stop(self.store, run_id, who)
        await self.durable.cancel(RUN, run_id)
        await self.evolution.clear_away(run_id)
        return stopped


def _patient(perform: Callable[[str, int], Awaitable[None]]) -> Callable[[str, int], Awaitable[None]]:
    """A database or an engine that is away must not end a job, or an outage would leave a run or a swap half done.
    So there is no limit here: the job waits until what it needs is back, or Moss is ended and resumes it later."""

    async def performed(subject: str, n: int) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await perform(subject, n)
            except PASSES as problem:
                _log.warning("a job waits", subject=subject, n=n, why=problem.sentence, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    return performed
