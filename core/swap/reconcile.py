"""At start and on a tick: what the host shows is held against what the store knows. Decided purely, then done."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog

from core.containers.host import BoxState, Host, label
from core.model.errors import MossError, NotFound
from core.model.run import RunState
from core.model.swap import Swap, Version
from core.model.value import short
from core.store import claims, consents, marks, notices, runs, substrates, swaps
from core.store.store import Store
from core.swap.drift import Looks, differences, looks_of
from core.swap.plan import boxes_of

_log = structlog.get_logger(__name__)

LIVE, CANDIDATE = "live", "candidate"
START_S = 10.0
LOOKS = "looks"
SETTLED_AFTER = timedelta(minutes=10)
"""So long the end of a swap may be under way. What still has another policy then got it from somebody else."""


class Deed(StrEnum):
    remove_box = "remove_box"
    remove_image = "remove_image"
    start_live = "start_live"
    report_down = "report_down"
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
    restart: str = "unless-stopped"
    """What its owner wants to happen when the live box ends."""


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
    if box.running and (box.by_hand or purpose == CANDIDATE):
        return None  # it has the labels of its image and none of its own: somebody looks at what was made
    if purpose != LIVE:
        return None if _at_work(known, box.labels) else Decision(Deed.remove_box, box.name, f"its {purpose} is over")
    if known.needs_adoption or (known.swap and box.name in boxes_of(known.swap)):
        return None
    if known.live and _was_made_as(known.live, box):
        return None  # a person gave it another name, or made a copy: it is for them to say which one stays
    return Decision(Deed.remove_box, box.name, "another box is live", live=True)


def _was_made_as(live: Version, box: BoxState) -> bool:
    return box.labels.get(label.BOOT_ID) == live.boot_id


def _of_live(known: Known, boxes: Mapping[str, BoxState]) -> list[Decision]:
    if known.live is None or known.swap or known.needs_adoption:
        return []
    live, box = known.live, boxes.get(known.live.box)
    if box is None:
        renamed = [other.name for other in boxes.values() if _was_made_as(live, other)]
        why = f"was renamed to {' and '.join(renamed)}" if renamed else "is gone"
        return [Decision(Deed.report_drift, live.box, f"its box {live.box} {why}")]
    if box.image != live.image:
        why = f"its box {live.box} runs {short(box.image)} instead of {short(live.image)}"
        return [Decision(Deed.report_drift, live.box, why)]
    if box.running:
        return []
    if known.restart == "no" or (known.restart == "on-failure" and box.exit_code == 0):
        ended = "is not running" if box.exit_code is None else f"ended with exit code {box.exit_code}"
        return [Decision(Deed.report_down, live.box, f'{ended}, and by `restart = "{known.restart}"` nobody starts it')]
    return [Decision(Deed.start_live, live.box, "it was not running")]


def _at_work(known: Known, labels: Mapping[str, str]) -> bool:
    """Made for an adoption or for a run that is under way; a box moreover for the very step."""
    run, step = labels.get(label.RUN), labels.get(label.STEP)
    if run is None:
        return known.needs_adoption
    if run not in known.steps:
        return False
    return labels.get(label.PURPOSE) == CANDIDATE or step is None or step == str(known.steps[run])


async def reconcile(store: Store, host: Host, owner: str) -> list[Decision]:
    """What was decided and done. What belongs to a substrate that the store does not know is left alone."""
    async with store.reading() as db:
        names = await substrates.names(db)
    decisions = [decision for name in names for decision in await _reconcile(store, host, owner, name)]
    if gone := await host.tidy():
        _log.info("reconcile", deed="tidy", names=gone, why="no box needs it")
    return decisions


async def _reconcile(store: Store, host: Host, owner: str, substrate: str) -> list[Decision]:
    """One thing that cannot be done does not keep the others from being done."""
    labels = {label.OWNER: owner, label.SUBSTRATE: substrate}
    boxes = await host.boxes(labels)
    images = {}
    for image in await host.images(labels):
        with contextlib.suppress(NotFound):  # somebody else was faster to remove it
            images[image] = await host.image_labels(image)
    known = await look_up(store, substrate)
    if known.live and known.live.box not in {box.name for box in boxes}:
        adopted = await host.look(known.live.box)  # carries no label of ours
        boxes = [*boxes, adopted] if adopted else boxes
    decisions = decide(known, boxes, images)
    if not [found for found in decisions if known.live and found.name == known.live.box]:
        decisions += await _changed_by_hand(store, host, known)
    for decision in decisions:
        try:
            await _act(store, host, known, decision)
        except MossError as failed:
            _log.warning("not reconciled", deed=decision.deed, name=decision.name, why=failed.sentence)
    return decisions


async def _changed_by_hand(store: Store, host: Host, known: Known) -> list[Decision]:
    """What the live box is like is kept once it is as it shall stay. A difference counts when two looks in a row have
    found it: a swap has its last strokes after what is live has been written down."""
    live = known.live
    if live is None or known.swap or known.needs_adoption or (seen := await host.portrait(live.box)) is None:
        return []
    mine, now = f"{LOOKS} {known.substrate} ", looks_of(seen)
    name = f"{mine}{live.number} {live.box}"
    async with store.reading() as db:
        kept = await marks.get(db, name)
    if kept is None:
        if seen.restart in (None, known.restart) or store.now() - live.since > SETTLED_AFTER:
            async with store.writing() as db:
                await marks.forget(db, mine)
                await marks.put(db, store.now(), name, {"was": now.model_dump(), "found": []})
        return []
    found = differences(Looks.model_validate(kept["was"]), now)
    if found != kept["found"]:
        async with store.writing() as db:
            await marks.put(db, store.now(), name, {**kept, "found": found})
        return []
    return [Decision(Deed.report_drift, live.box, f"its box {live.box} {', '.join(found)}")] if found else []


def newest(versions: Sequence[Version], keep: int) -> set[str]:
    """The images of that many versions, of which those that brought an older one back have none of their own."""
    images = dict.fromkeys(version.image for version in reversed(versions))
    return set(list(images)[:keep])


async def look_up(store: Store, substrate: str) -> Known:
    async with store.reading() as db:
        live, swap = await swaps.live_version(db, substrate), await swaps.in_flight(db, substrate)
        good = await swaps.last_good(db, substrate)
        wanted = await substrates.get(db, substrate)
        needed = newest(await swaps.versions(db, substrate), wanted.swap.keep_versions)
        needed |= {kept.image for kept in (live, good, swap) if kept}
        needed |= {consent.image for consent in await consents.asked(db, substrate)}
        needed |= {consent.image for consent in await consents.unused(db, substrate)}
        run, steps = await runs.in_flight(db, substrate), {}
        if run and run.state in (RunState.queued, RunState.running):
            steps[run.id] = len(await runs.history(db, run.id))
        return Known(
            substrate=substrate,
            live=live,
            swap=swap,
            needs_adoption=await substrates.needs_adoption(db, substrate),
            steps=steps,
            images=frozenset(needed),
            restart=wanted.run.restart,
        )


async def _act(store: Store, host: Host, known: Known, decision: Decision) -> None:
    _log.info("reconcile", deed=decision.deed, name=decision.name, why=decision.why)
    match decision.deed:
        case Deed.remove_box if decision.live:
            await _remove_live(store, host, known, decision)
        case Deed.remove_box:
            await host.remove(decision.name)
        case Deed.remove_image:
            await host.remove_image(decision.name)
        case Deed.start_live:
            await _start_live(store, host, known, decision)
        case Deed.report_down:
            await _report_down(store, known, decision)
        case Deed.report_drift:
            await _report_drift(store, known, decision.why)


async def _unchanged(store: Store, known: Known) -> bool:
    """Within a change: whether no swap or adoption has begun, or ended, since we looked."""
    now = await look_up(store, known.substrate)
    return (now.live, now.swap, now.needs_adoption) == (known.live, known.swap, known.needs_adoption)


async def _remove_live(store: Store, host: Host, known: Known, decision: Decision) -> None:
    async with store.changing(known.substrate) as change:
        if not await _unchanged(store, known):
            return
        await claims.check_free(change)
        claim = await claims.take(change, decision.name, decision.why, claims.long_enough(host.silence_s))
    async with claims.held(store, known.substrate, claim, "removed"):
        await host.remove(decision.name)


async def _start_live(store: Store, host: Host, known: Known, decision: Decision) -> None:
    """At most once an hour: what falls again at once needs a person, not a loop. A start whose end nobody wrote down
    does not count: its Moss died."""
    name, box = known.substrate, decision.name
    seen = await host.look(box)
    if seen is None or seen.running:
        return
    async with store.changing(name) as change:
        if not await _unchanged(store, known):
            return
        await claims.check_free(change)
        left = await claims.unfinished(change.db, name)
        hour = f"{box} {change.now:%Y-%m-%dT%H}"
        text = f"The box {box} of {name} was not running; Moss starts it again."
        first = await notices.add(change, "live-down", hour, text, box=box)
        if not first and not (left and left.box == box):
            return
        # A start that comes too late for us may yet be done, and must not come beside that of a swap.
        claim = await claims.take(change, box, decision.why, START_S + host.silence_s + claims.CLAIM_S)
    failed = await _started(host, box)  # cut short, the claim stays without an end, and the next look starts it again
    async with store.changing(name) as change:
        await claims.release(change, claim, failed or "started")
        if failed:
            text = f"{name} IS DOWN, and its box {box} cannot be started: {failed}"
            await notices.add(change, "live-lost", hour, text, box=box, loud=True)


async def _started(host: Host, box: str) -> str | None:
    """None, or why it did not start."""
    try:
        async with asyncio.timeout(START_S):
            await host.start(box)
        return None
    except MossError as failed:
        why = failed.sentence
    except TimeoutError:
        why = f"it did not start within {START_S:.0f} s."
    try:
        seen = await host.look(box)
    except MossError:
        return why
    return None if seen and seen.running else why


async def _report_down(store: Store, known: Known, decision: Decision) -> None:
    """Once a day."""
    async with store.changing(known.substrate) as change:
        if await _unchanged(store, known):
            text = (
                f"The box {decision.name} of {known.substrate} {decision.why}; start it again, or change that setting."
            )
            await notices.add(change, "live-down", f"{decision.name} {change.now:%Y-%m-%d}", text, box=decision.name)


async def _report_drift(store: Store, known: Known, why: str) -> None:
    async with store.changing(known.substrate) as change:
        if known.live and await _unchanged(store, known):
            version = known.live.number
            text = (
                f"{known.substrate} is not what went live as version {version}: {why}; undo that, or run `moss adopt`."
            )
            await notices.add(change, "live-drifted", f"version {version}: {why}", text, version=version)
