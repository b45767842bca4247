"""The live box is woken, and laid to rest again, by a Moss whose agent should not outlive it. Nothing goes live here.

Only the box of the live version is touched, as it went live, and under a claim: not in the middle of a swap, which
brings its own box up, nor while a human has to come.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.containers.host import BoxState, Host
from core.model.errors import Busy, Refused
from core.model.substrate import Substrate
from core.model.swap import Version
from core.model.value import short
from core.store import claims, substrates, swaps
from core.store.store import Store

PATIENCE_S = 20.0
"""How long another claim on the box is waited for; a start takes a second."""
DEEDS = 3
"""Of the host, under one claim."""
LOOK_S = 1.0


async def wake(store: Store, host: Host, substrate: Substrate) -> bool:
    """As an engine starts what ran before the machine was switched off. False when it is not for us to do now; Refused
    when what stands there is not what went live."""
    async with _live_box(store, host, substrate, "it is woken") as (version, seen):
        if version is None:
            return False
        if seen is None:
            raise Refused(f"The box {version.box} of {substrate.name} is gone; run `moss adopt`.")
        if seen.image != version.image:
            raise Refused(
                f"The box {seen.name} of {substrate.name} runs {short(seen.image)} instead of {short(version.image)}, "
                "which went live; run `moss adopt`."
            )
        if not seen.running:
            await host.start(seen.name)
        await host.set_restart(seen.name, substrate.run.restart)
        return True


async def lay_to_rest(store: Store, host: Host, substrate: Substrate) -> bool:
    """False when it runs on, since it is not for us to stop it now."""
    async with _live_box(store, host, substrate, "it is laid to rest") as (version, seen):
        if version is None or seen is None or seen.image != version.image:
            return False
        await host.set_restart(seen.name, "no")
        await host.stop(seen.name, substrate.run.stop_grace_s)
        return True


@asynccontextmanager
async def _live_box(
    store: Store, host: Host, substrate: Substrate, why: str
) -> AsyncIterator[tuple[Version | None, BoxState | None]]:
    """What is live, and how its box is now, claimed for as long as the block lasts."""
    taken = await _claimed(store, host, substrate, why)
    if taken is None:
        yield None, None
        return
    version, claim = taken
    async with claims.held(store, substrate.name, claim):
        yield version, await host.look(version.box)


async def _claimed(store: Store, host: Host, substrate: Substrate, why: str) -> tuple[Version, claims.Claim] | None:
    until, changes = time.monotonic() + PATIENCE_S, -1
    while True:
        try:
            async with store.changing(substrate.name) as change:
                live = await swaps.live_version(change.db, substrate.name)
                needed = await substrates.needs_adoption(change.db, substrate.name)
                if live is None or needed or await swaps.in_flight(change.db, substrate.name):
                    return None
                await claims.check_free(change)
                for_s = DEEDS * claims.long_enough(host.silence_s) + substrate.run.stop_grace_s
                return live, await claims.take(change, live.box, why, for_s)
        except Busy:
            if time.monotonic() > until:
                raise
        changes = await store.wait_for_change(changes, LOOK_S, of=substrate.name)
