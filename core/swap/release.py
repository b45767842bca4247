"""Release: Moss lets go of an agent. What it made around the live box is removed; that box runs on, or is stopped.

Evidence, history and the volume stay as they are, and `adopt` takes the agent back. First it is written down that
nothing is live, so that whatever a crash leaves behind is nobody's live agent; called again, it goes on.
"""

from dataclasses import dataclass

from core.consent import withdraw_grants, withdraw_questions
from core.containers.host import BoxState, Host, label
from core.model.errors import Busy, MossError
from core.model.substrate import Substrate
from core.store import claims, runs, substrates, swaps
from core.store.store import Store
from core.swap.plan import adopted_box, boxes_of, next_number

LIVE = "live"


@dataclass(frozen=True, slots=True)
class Released:
    substrate: str
    running: tuple[str, ...]
    """Boxes that run on."""
    stopped: tuple[str, ...]
    boxes: tuple[str, ...]
    """That were removed."""
    images: tuple[str, ...]
    left: tuple[str, ...]
    """What could not be removed, and why."""


async def what_lives(store: Store, host: Host, owner: str, substrate: str) -> list[BoxState]:
    """The boxes that may write to the agent's volume: those that Moss made to be live, and the one that was adopted."""
    async with store.reading() as db:
        versions, planned = await swaps.versions(db, substrate), await swaps.listing(db, substrate)
    cut_off = adopted_box(substrate, owner, next_number(versions))  # by an adoption that did not come to its end
    recorded = {cut_off, *(version.box for version in versions)}.union(*map(boxes_of, planned))
    last = versions[-1:]
    made = await host.boxes({label.OWNER: owner, label.SUBSTRATE: substrate, label.PURPOSE: LIVE})
    boxes = [box for box in made if box.name in recorded and not box.by_hand]
    if last and last[0].box not in {box.name for box in made} and (adopted := await host.look(last[0].box)):
        boxes = [*boxes, adopted]
    return boxes


async def release(store: Store, host: Host, owner: str, substrate: Substrate, who: str, *, stop: bool) -> Released:
    """Under a claim from the first line to the last, so that no adoption begins among boxes that are being removed."""
    claim = await _write_down(store, host, substrate, who, stop)
    async with claims.held(store, substrate.name, claim, "released", _longest(host, substrate)) as holding:
        return await _let_go(store, host, owner, substrate, holding, stop=stop)


async def _let_go(
    store: Store, host: Host, owner: str, substrate: Substrate, holding: claims.Held, *, stop: bool
) -> Released:
    name = substrate.name
    lives = await what_lives(store, host, owner, name)
    stopped, removed, left = [], [], []
    for box in lives:
        ours = box.labels.get(label.OWNER) == owner
        if stop and box.running:
            await holding.on(box.name)
            await host.set_restart(box.name, "no")
            await host.stop(box.name, substrate.run.stop_grace_s)
            stopped.append(box.name)
        if ours and (stop or not box.running):
            await holding.on(box.name)
            await host.remove(box.name)
            removed.append(box.name)
    mine, seen_to = {label.OWNER: owner, label.SUBSTRATE: name}, {box.name for box in lives}
    for box in await host.boxes(mine):
        if box.name in seen_to:
            continue
        if box.by_hand or box.labels.get(label.PURPOSE) == LIVE:
            left.append(f"The box {box.name} is somebody's copy of ours, or was renamed; stop and remove it yourself.")
        else:
            await holding.on(box.name)
            await host.remove(box.name)
            removed.append(box.name)
    kept = {box.image for box in await host.boxes(mine)} | ({box.image for box in lives} if not stop else set())
    images = []
    for image in await host.images(mine):
        if image in kept:
            continue
        await holding.on(image)
        try:
            await host.remove_image(image)
            images.append(image)
        except MossError as problem:
            left.append(problem.sentence)
    async with store.reading() as db:
        others = [other for other in await substrates.names(db) if await swaps.live_version(db, other)]
    if not others:
        await host.pack_up()
    running = tuple(box.name for box in lives if box.running and not stop)
    return Released(name, running, tuple(stopped), tuple(removed), tuple(images), tuple(left))


async def _write_down(store: Store, host: Host, substrate: Substrate, who: str, stop: bool) -> claims.Claim:
    name = substrate.name
    async with store.changing(name) as change:
        if swap := await swaps.in_flight(change.db, name):
            raise Busy(f"{name} is in the middle of {swap.id}; release it when that has ended.")
        if run := await runs.in_flight(change.db, name):
            raise Busy(f"{run.id} of {name} is {run.state}; end it first with `moss stop {run.id}`.")
        await claims.check_free(change)
        await withdraw_questions(change, f"{name} was released by {who}")
        await withdraw_grants(change, f"{name} was released by {who}")
        await swaps.end_live(change, who, stopped=stop)
        return await claims.take(change, name, "it is released", _longest(host, substrate))


def _longest(host: Host, substrate: Substrate) -> float:
    """What one box may take, to be stopped for good."""
    return 2 * claims.long_enough(host.silence_s) + substrate.run.stop_grace_s
