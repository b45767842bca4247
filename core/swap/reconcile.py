"""At start and on a tick: what the host shows is held against what the store knows. Decided purely, then done."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

import structlog

from core.containers.host import BoxState, Host, label
from core.model.errors import MossError
from core.model.run import RunState
from core.model.swap import Swap, Version
from core.store import consents, notices, runs, substrates, swaps
from core.store.store import Change, Store
from core.swap.plan import back_box, short

_log = structlog.get_logger(__name__)

LIVE, CANDIDATE = "live", "candidate"
START_S = 10.0
"""Other changes wait for this one meanwhile, and not much longer."""


class Deed(StrEnum):
    remove_box = "remove_box"
    remove_image = "remove_image"
    start_live = "start_live"
    report_drift = "report_drift"


@dataclass(frozen=True, slots=True)
class Decision:
    deed: Deed
    name: str
    """Of the box, or of the image."""
    why: str
    live: bool = False
    """It is about a box that may write to the agent's volume."""


@dataclass(frozen=True, slots=True)
class Known:
    """Of one substrate, from the store."""

    substrate: str
    live: Version | None
    swap: Swap | None
    """In flight."""
    needs_adoption: bool
    steps: Mapping[str, int]
    """For each running run, the number of its step under way."""
    images: frozenset[str]
    """That may become live, again or for the first time."""


def decide(known: Known, boxes: Sequence[BoxState], images: Mapping[str, Mapping[str, str]]) -> list[Decision]:
    """`boxes` and `images` (with their labels) are those with our owner label and this substrate's name, and the live
    box. They were listed before the store was read: whatever belongs to something begun later is not among them."""
    decisions = [decision for box in boxes if (decision := _of_box(known, box))]
    used = {box.image for box in boxes}
    for image, labels in images.items():
        if image not in used and image not in known.images and not _at_work(known, labels):
            decisions.append(Decision(Deed.remove_image, image, "nothing refers to it"))
    return decisions + _of_live(known, {box.name: box for box in boxes})


def _of_box(known: Known, box: BoxState) -> Decision | None:
    purpose = box.labels.get(label.PURPOSE)
    if known.live and box.name == known.live.box:
        return None
    if purpose == CANDIDATE and box.running:
        return None  # it has the labels of its image and none of its own: somebody looks at a candidate by hand
    if purpose != LIVE:
        return None if _at_work(known, box.labels) else Decision(Deed.remove_box, box.name, f"its {purpose} is over")
    if known.needs_adoption or (known.swap and box.name in _boxes_of(known.swap)):
        return None
    return Decision(Deed.remove_box, box.name, "another box is live", live=True)


def _of_live(known: Known, boxes: Mapping[str, BoxState]) -> list[Decision]:
    if known.live is None or known.swap or known.needs_adoption:
        return []
    live, box = known.live, boxes.get(known.live.box)
    if box is None:
        return [Decision(Deed.report_drift, live.box, f"its box {live.box} is gone")]
    if box.image != live.image:
        why = f"its box {live.box} runs {short(box.image)} instead of {short(live.image)}"
        return [Decision(Deed.report_drift, live.box, why)]
    return [] if box.running else [Decision(Deed.start_live, live.box, "it was not running")]


def _at_work(known: Known, labels: Mapping[str, str]) -> bool:
    """Made for an adoption or for a run that is under way; a box moreover for the very step."""
    run, step = labels.get(label.RUN), labels.get(label.STEP)
    if run is None:
        return known.needs_adoption
    if run not in known.steps:
        return False
    return labels.get(label.PURPOSE) == CANDIDATE or step is None or step == str(known.steps[run])


def _boxes_of(swap: Swap) -> Collection[str]:
    return {swap.old_box, swap.new_box, back_box(swap)}


async def reconcile(store: Store, host: Host, owner: str) -> list[Decision]:
    """What was decided and done. What belongs to a substrate that the store does not know is left alone."""
    async with store.reading() as db:
        names = await substrates.names(db)
    return [decision for name in names for decision in await _reconcile(store, host, owner, name)]


async def _reconcile(store: Store, host: Host, owner: str, substrate: str) -> list[Decision]:
    """One thing that cannot be done does not keep the others from being done."""
    labels = {label.OWNER: owner, label.SUBSTRATE: substrate}
    boxes = await host.boxes(labels)
    images = {image: await host.image_labels(image) for image in await host.images(labels)}
    known = await look_up(store, substrate)
    if known.live and known.live.box not in {box.name for box in boxes}:
        adopted = await host.look(known.live.box)  # carries no label of ours
        boxes = [*boxes, adopted] if adopted else boxes
    decisions = decide(known, boxes, images)
    for decision in decisions:
        try:
            await _act(store, host, known, decision)
        except MossError as failed:
            _log.warning("not reconciled", deed=decision.deed, name=decision.name, why=failed.sentence)
    return decisions


async def look_up(store: Store, substrate: str) -> Known:
    async with store.reading() as db:
        live, swap = await swaps.live_version(db, substrate), await swaps.in_flight(db, substrate)
        good = await swaps.last_good(db, substrate)
        needed = {version.image for version in await swaps.versions(db, substrate)}
        needed |= {good.image} if good else set()
        needed |= {swap.image} if swap else set()
        needed |= {consent.image for consent in await consents.asked(db, substrate)}
        run, steps = await runs.in_flight(db, substrate), {}
        if run and run.state in (RunState.queued, RunState.running):
            steps[run.id] = len(await runs.history(db, run.id))
        elif run and (granted := await consents.of_run(db, run.id)):
            needed.add(granted.image)
        return Known(
            substrate=substrate,
            live=live,
            swap=swap,
            needs_adoption=await substrates.needs_adoption(db, substrate),
            steps=steps,
            images=frozenset(needed),
        )


async def _act(store: Store, host: Host, known: Known, decision: Decision) -> None:
    _log.info("reconcile", deed=decision.deed, name=decision.name, why=decision.why)
    match decision.deed:
        case Deed.remove_box if decision.live:
            async with _unchanged(store, known) as change:
                if change:
                    await host.remove(decision.name)
        case Deed.remove_box:
            await host.remove(decision.name)
        case Deed.remove_image:
            await host.remove_image(decision.name)
        case Deed.start_live:
            await _start_live(store, host, known, decision.name)
        case Deed.report_drift:
            await _report_drift(store, known, decision.why)


@asynccontextmanager
async def _unchanged(store: Store, known: Known) -> AsyncIterator[Change | None]:
    """A change during which no swap or adoption begins. None when one has begun, or ended, since we looked."""
    async with store.changing(known.substrate) as change:
        now = await look_up(store, known.substrate)
        same = (now.live, now.swap, now.needs_adoption) == (known.live, known.swap, known.needs_adoption)
        yield change if same else None


async def _start_live(store: Store, host: Host, known: Known, box: str) -> None:
    """At most once an hour: what falls again at once needs a person, not a loop."""
    name = known.substrate
    async with _unchanged(store, known) as change:
        seen = await host.look(box)
        if change is None or seen is None or seen.running:
            return
        hour = f"{box} {change.now:%Y-%m-%dT%H}"
        text = f"The box {box} of {name} was not running; Moss starts it again."
        if not await notices.add(change, "live-down", hour, text, box=box):
            return
        try:
            async with asyncio.timeout(START_S):
                await host.start(box)
        except (MossError, TimeoutError) as failed:
            why = failed.sentence if isinstance(failed, MossError) else f"it did not start within {START_S:.0f} s."
            text = f"{name} IS DOWN, and its box {box} cannot be started: {why}"
            await notices.add(change, "live-lost", hour, text, box=box, loud=True)


async def _report_drift(store: Store, known: Known, why: str) -> None:
    async with _unchanged(store, known) as change:
        if change and known.live:
            version = known.live.number
            text = f"{known.substrate} is not what went live as version {version}: {why}; run `moss adopt`."
            await notices.add(change, "live-drifted", f"version {version}: {why}", text, version=version)
