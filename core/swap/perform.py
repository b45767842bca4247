"""The verb: a consent that was granted becomes the live agent, or what was live comes back."""

import asyncio
import time
from dataclasses import dataclass, replace

import structlog

from core.containers.host import BoxSpec, BoxState, Host
from core.model.errors import AgentFailed, Busy, IllegalMove, MossError, Refused, Unavailable
from core.model.substrate import Substrate
from core.model.swap import LastGood, Swap, SwapState, Version
from core.process import safe_env
from core.store import asking, substrates, swaps
from core.store.store import Store
from core.swap import records
from core.swap.plan import (
    Action,
    Next,
    Scene,
    Verdict,
    back_boot_id,
    back_box,
    box_spec,
    next_action,
    objection,
    shared_volume,
)
from core.swap.probe import last_words, watch

ACTIONS_LIMIT = 30
"""An ordinary swap takes ten. Only something that undoes each action as fast as it is done reaches this; then the way
back has as many."""
PATIENCE_S = 120.0
"""How long an engine or a database may be away in the middle of a swap; a restart of an engine takes half a minute."""
RETRY_S = 2.0
TRIES = 3
"""For what the host cannot do although it answers."""
DRAIN_LOOK_S = 0.5
"""How long the end of a turn in another process may go unseen."""
TURN_S = 3600.0
"""How long a granted swap waits here for its turn."""

_log = structlog.get_logger(__name__)


async def perform(
    store: Store, host: Host, owner: str, consent_id: str, *, patience_s: float = PATIENCE_S
) -> Swap | None:
    """Begin the swap that this consent allows, or take it up where it stands, and bring it to its end.

    None when the consent allows nothing any more. Raises Unavailable when host or store stay away for longer than
    `patience_s`, or when another swap does not end; calling again goes on.
    """
    swap = await _planned(store, consent_id)
    if swap is None:
        return None
    async with store.reading() as db:
        substrate = await substrates.get(db, swap.substrate)
    return await Performance(store, host, owner, substrate, swap.id).to_the_end(patience_s)


async def _planned(store: Store, consent_id: str) -> Swap | None:
    """A swap that is in flight already, of another consent, comes first."""
    until = time.monotonic() + TURN_S
    while True:
        try:
            return await records.plan(store, consent_id)
        except Busy as busy:
            if time.monotonic() > until:
                raise Unavailable(busy.sentence) from busy
        await asyncio.sleep(RETRY_S)


@dataclass(slots=True)
class Performance:
    store: Store
    host: Host
    owner: str
    substrate: Substrate
    swap_id: str
    # What this process has seen with its own eyes. After a crash everything is probed anew.
    new_verdict: Verdict | None = None
    old_verdict: Verdict | None = None
    back_verdict: Verdict | None = None
    refusals: int = 0
    """How often in a row the action under way could not be taken."""
    drained_by: float | None = None
    """When turns under way are no longer waited for."""
    down_since_s: float | None = None
    """By the monotonic clock."""

    async def to_the_end(self, patience_s: float) -> Swap:
        until, taken = time.monotonic() + patience_s, 0
        while True:
            try:
                scene, live = await self.look_around()
                step = next_action(scene)
                _log.info("swap", swap=self.swap_id, state=scene.swap.state, action=step.action, why=step.why)
                if taken and taken % ACTIONS_LIMIT == 0 and step.action is not Action.done:
                    await self.step_back(
                        step, scene.swap, Refused("It made no progress; something else moves its boxes.")
                    )
                else:
                    await self.take(step, scene, live)
                if step.action is Action.done:
                    return scene.swap
                until, taken, self.refusals = time.monotonic() + patience_s, taken + 1, 0
            except IllegalMove as overtaken:
                # Another Moss took this one for dead and works on the same swap: look again, and go on from there.
                _log.warning("swap overtaken", swap=self.swap_id, why=overtaken.sentence)
                taken += 1
            except Unavailable as away:
                if time.monotonic() > until:
                    raise
                _log.warning("swap waits", swap=self.swap_id, why=away.sentence)
                await asyncio.sleep(RETRY_S)

    async def take(self, step: Next, scene: Scene, live: Version) -> None:
        """Whatever goes wrong leads to the way back, or is tried again while host and store are away."""
        swap = scene.swap
        try:
            await self.act(step, swap, scene, live)
        except IllegalMove:
            raise
        except Unavailable as away:
            self.refusals += 1
            if self.refusals < TRIES or not await self.all_answer():
                raise
            await self.step_back(step, swap, away)
        except MossError as failed:
            await self.step_back(step, swap, failed)
        except Exception as fault:  # a fault of ours must not leave an agent down that could be brought back
            _log.exception("swap failed", swap=swap.id, action=step.action)
            await self.step_back(step, swap, MossError(f"Moss itself failed with {type(fault).__name__}; see its log."))

    async def act(self, step: Next, swap: Swap, scene: Scene, live: Version) -> None:
        """The checklist. Between any two lines Moss may die; `next_action` then finds its place again."""
        store, host = self.store, self.host
        match step.action:
            case Action.void:
                await records.void(store, swap, step.why)
            case Action.create_new:
                await host.create(self.spec(swap, swap.new_box, swap.image, swap.commit, swap.boot_id))
            case Action.drain:
                await self.drain()
            case Action.begin:
                self.down_since_s = time.monotonic()
                await records.begin(store, swap)
            case Action.stop:
                await self.still(step.box)
                if swap.state is SwapState.stopping:  # nobody answers now, so that looking all around would be felt
                    await records.move(store, swap, SwapState.starting)
                    old = await host.look(swap.old_box)
                    if not (old and old.running):  # somebody else may start it again
                        await self.start(swap)
            case Action.begin_starting:
                await records.move(store, swap, SwapState.starting)
            case Action.start_new:
                await self.start(swap)
            case Action.probe_new:
                self.new_verdict = await self.probe(swap.new_box, swap.boot_id)
            case Action.commit:
                await records.commit(store, swap, self.outage_ms(swap, step.verdict))
            case Action.give_up:
                await self.give_up(swap, step.why)
            case Action.try_old:
                self.old_verdict = await self.revive(swap.old_box, live.boot_id)
            case Action.try_back:
                self.back_verdict = await self.revive_back(swap, scene.good)
            case Action.accept:
                fresh = scene.good if scene.back else None
                await records.accept(store, swap, live, self.outage_ms(swap, step.verdict), fresh=fresh)
            case Action.give_in:
                await records.give_in(store, swap, step.why)
            case Action.drop:
                await host.remove(step.box)
            case Action.done if swap.stopped_at and swap.state is not SwapState.stuck:
                await host.set_restart(live.box, self.substrate.run.restart)

    async def step_back(self, step: Next, swap: Swap, failed: MossError) -> None:
        """Whatever was meant to happen did not. The way back is what is left, and a human after that."""
        match swap.state:
            case SwapState.restoring if step.action is Action.try_old:
                self.old_verdict = Verdict(False, failed.sentence)
            case SwapState.restoring if step.action is Action.try_back:
                self.back_verdict = Verdict(False, failed.sentence)
            case SwapState.planned:
                await records.void(self.store, swap, failed.sentence)
            case SwapState.stopping | SwapState.starting | SwapState.probing:
                await self.give_up(swap, failed.sentence)
            case SwapState.restoring:
                await records.give_in(self.store, swap, failed.sentence)
            case _:
                raise failed

    async def give_up(self, swap: Swap, why: str) -> None:
        await records.give_up(self.store, swap, why, await last_words(self.host, swap.new_box, self.substrate))

    async def all_answer(self) -> bool:
        """Whether it is this one thing that cannot be had, such as a port, rather than the engine or the database."""
        try:
            await self.host.ping()
            await self.store.ping()
        except MossError:
            return False
        return True

    async def look_around(self) -> tuple[Scene, Version]:
        async with self.store.reading() as db:
            swap = await swaps.get(db, self.swap_id)
            live = await swaps.live_version(db, swap.substrate)
            good = await swaps.last_good(db, swap.substrate)
            versions = await swaps.versions(db, swap.substrate)
            stuck = await substrates.needs_adoption(db, swap.substrate)
        if live is None or good is None:
            raise Refused(f"Nothing of {swap.substrate} is live yet; run `moss adopt`.")
        scene = Scene(
            swap=swap,
            live_box=live.box,
            good=good,
            old=await self.host.look(swap.old_box),
            new=await self.host.look(swap.new_box),
            back=await self.host.look(back_box(swap)),
            talking=swap.state is SwapState.planned and await self.talking(),
            new_verdict=self.new_verdict,
            old_verdict=self.old_verdict,
            back_verdict=self.back_verdict,
        )
        if swap.state is SwapState.planned:
            return replace(scene, objection=await self.objection(scene, live, stuck)), live
        if swap.ended_at and not any(v.box == swap.old_box and _is(v, scene.old) for v in versions):
            scene = replace(scene, old=None)  # somebody else's by now, under the same name
        return scene, live

    async def objection(self, scene: Scene, live: Version, needs_adoption: bool) -> str | None:
        return objection(
            scene.swap,
            live_box=live.box,
            live_image=live.image,
            old=scene.old,
            needs_adoption=needs_adoption,
            has_image=await self.host.has_image(scene.swap.image),
            made_from=await records.made_from(self.store, scene.swap),
            shared=await self.shared(scene.swap),
        )

    async def shared(self, swap: Swap) -> str | None:
        volume = self.substrate.run.volume
        writers = await self.host.writers(volume) if volume else []
        return shared_volume(self.substrate, writers, {swap.old_box, swap.new_box, back_box(swap)})

    def outage_ms(self, swap: Swap, verdict: Verdict | None) -> int | None:
        """None when nobody knows. Only after a death of Moss in between the clock on the wall has to do."""
        if swap.stopped_at is None or verdict is None or verdict.first_pass_s is None:
            return None
        if self.down_since_s is not None:
            return round((verdict.first_pass_s - self.down_since_s) * 1000)
        since_pass_s = time.monotonic() - verdict.first_pass_s
        away_s = (self.store.now() - swap.stopped_at).total_seconds() - since_pass_s
        return round(away_s * 1000) if away_s > 0 else None

    def spec(self, swap: Swap, name: str, image: str, commit: str, boot_id: str) -> BoxSpec:
        secrets = safe_env(*self.substrate.run.env_from)
        return box_spec(
            self.substrate,
            name=name,
            image=image,
            commit=commit,
            boot_id=boot_id,
            owner=self.owner,
            swap=swap.id,
            secrets=secrets,
        )

    async def talking(self) -> bool:
        self.drained_by = self.drained_by or time.monotonic() + self.substrate.swap.drain_s
        async with self.store.reading() as db:
            left = await asking.any_left(db, self.substrate.name, self.store.now())
        return left and time.monotonic() < self.drained_by

    async def drain(self) -> None:
        changes = -1
        while await self.talking():
            changes = await self.store.wait_for_change(changes, DRAIN_LOOK_S)

    async def still(self, box: str) -> None:
        """Stopped, and not started again by the engine when that restarts: two agents on one volume would ruin it."""
        await self.host.set_restart(box, "no")
        await self.host.stop(box, self.substrate.run.stop_grace_s)
        seen = await self.host.look(box)
        if seen and seen.running:
            raise AgentFailed(f"The box {box} does not stop, so no other may start on its volume.")

    async def start(self, swap: Swap) -> None:
        if shared := await self.shared(swap):
            raise Refused(shared)
        await self.host.start(swap.new_box)
        await records.move(self.store, swap, SwapState.probing)

    async def probe(self, box: str, boot_id: str) -> Verdict:
        return await watch(self.host, box, self.substrate, boot_id)

    async def revive(self, box: str, boot_id: str) -> Verdict:
        seen = await self.host.look(box)
        if not (seen and seen.running):
            await self.host.start(box)
        return await self.probe(box, boot_id)

    async def revive_back(self, swap: Swap, good: LastGood) -> Verdict:
        box, boot_id = back_box(swap), back_boot_id(swap)
        if await self.host.look(box) is None:
            await self.host.create(self.spec(swap, box, good.image, good.commit, boot_id))
        return await self.revive(box, boot_id)


def _is(version: Version, box: BoxState | None) -> bool:
    return box is not None and box.image == version.image
