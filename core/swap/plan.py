"""Planning a swap: names, the box to create, what forbids it, and the next action. Pure: no store, no host.

`next_action` looks at nothing but what was written down and what the host shows now. So a swap whose Moss was killed
between any two lines goes on as if nothing had happened. Two rules run through it: the old box stands still before
the new one starts, and nothing is removed before its successor has proved itself.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.containers.host import BoxSpec, BoxState, Limits, Volume, label
from core.model.errors import BadInput
from core.model.substrate import Substrate
from core.model.swap import LastGood, Swap, SwapState, Version
from core.model.value import short


class Action(StrEnum):
    void = "void"
    """Planned only: end it without having touched the live box."""
    create_new = "create_new"
    drain = "drain"
    """The agent still answers: turns under way come to their end, and new ones wait for what goes live."""
    begin = "begin"
    """From here on the agent is down until somebody passes a probe."""
    stop = "stop"
    begin_starting = "begin_starting"
    start_new = "start_new"
    probe_new = "probe_new"
    commit = "commit"
    give_up = "give_up"
    try_old = "try_old"
    """Start the box that was live before, and probe it."""
    try_back = "try_back"
    """Start a fresh box of the last good image, and probe it."""
    accept = "accept"
    """What was live before is live again."""
    give_in = "give_in"
    """Not even that: a human must come, and finds every box as it is."""
    drop = "drop"
    done = "done"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a window of probes came to."""

    passed: bool
    sentence: str
    first_pass_s: float | None = None
    """By the monotonic clock, as wall clocks jump."""


@dataclass(frozen=True, slots=True)
class Scene:
    swap: Swap
    live_box: str
    """The box of the version that the store calls live."""
    good: LastGood
    old: BoxState | None
    new: BoxState | None
    back: BoxState | None
    talking: bool = False
    """Turns of people are under way, and there is time to wait for them."""
    objection: str | None = None
    new_verdict: Verdict | None = None
    old_verdict: Verdict | None = None
    back_verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Next:
    action: Action
    why: str = ""
    box: str = ""
    """To be stopped or dropped."""
    verdict: Verdict | None = None
    """On which the action rests."""


def next_action(scene: Scene) -> Next:
    old, new = scene.old, scene.new
    match scene.swap.state:
        case SwapState.planned:
            if scene.objection:
                return Next(Action.void, scene.objection)
            if new is None or new.running or not _is_of(new, scene.swap):
                return Next(Action.create_new)
            return Next(Action.drain if scene.talking else Action.begin)
        case SwapState.stopping | SwapState.starting | SwapState.probing if old and old.running:
            return Next(Action.stop, box=old.name)
        case SwapState.stopping | SwapState.starting | SwapState.probing if new is None:
            return Next(Action.give_up, "The new box is gone.")
        case SwapState.stopping:
            return Next(Action.begin_starting)
        case SwapState.starting:
            return Next(Action.start_new)
        case SwapState.probing:
            return _judge(new, scene.new_verdict)
        case SwapState.restoring:
            return _restore(scene)
        case SwapState.live | SwapState.restored:
            return _tidy(scene)
        case SwapState.stuck:
            return Next(Action.done)


def _judge(new: BoxState | None, verdict: Verdict | None) -> Next:
    if verdict and not verdict.passed:
        return Next(Action.give_up, verdict.sentence)
    if new is None or not new.running:
        return Next(Action.give_up, ended(new))
    return Next(Action.commit, verdict=verdict) if verdict else Next(Action.probe_new)


def _restore(scene: Scene) -> Next:
    old, back = scene.old, scene.back
    if scene.new and scene.new.running:
        return Next(Action.stop, box=scene.new.name)
    old_failed = scene.old_verdict is not None and not (scene.old_verdict.passed and old and old.running)
    if back is None and old and old.image == scene.good.image and not old_failed:
        return Next(Action.accept, verdict=scene.old_verdict) if scene.old_verdict else Next(Action.try_old)
    if old and old.running:
        return Next(Action.stop, box=old.name)
    if scene.back_verdict is None:
        return Next(Action.try_back)
    if scene.back_verdict.passed and back and back.running:
        return Next(Action.accept, verdict=scene.back_verdict)
    return Next(Action.give_in, ended(back) if scene.back_verdict.passed else scene.back_verdict.sentence)


def _tidy(scene: Scene) -> Next:
    """Of the boxes of a finished swap only the live one stays."""
    for box in (scene.new, scene.old, scene.back):
        if box and box.name != scene.live_box:
            return Next(Action.drop, box=box.name)
    return Next(Action.done)


def ended(box: BoxState | None) -> str:
    if box is None:
        return "The box disappeared."
    if box.out_of_memory:
        return "The agent ended: it ran out of memory."
    return (
        f"The agent ended with exit code {box.exit_code}." if box.exit_code is not None else "The agent is not running."
    )


def objection(
    swap: Swap,
    *,
    live_box: str,
    live_image: str,
    old: BoxState | None,
    needs_adoption: bool,
    has_image: bool,
    made_from: str | None,
    shared: str | None,
) -> str | None:
    """Why a planned swap must not begin, or None. `made_from` is the image that was live when the run began, and
    `shared` says who else writes to the volume."""
    if needs_adoption:
        return f"{swap.substrate} takes no swap until a human has looked at it; run `moss adopt`."
    if swap.old_box != live_box:
        return f"{swap.substrate} went live in another box since this swap was planned; ask again."
    if old is None:
        return f"The live box {live_box} is gone; start it again, or run `moss adopt`."
    if old.image != live_image:
        return f"The live box {live_box} runs {short(old.image)}, but {short(live_image)} went live; run `moss adopt`."
    if not has_image:
        return f"The image {short(swap.image)} is gone; start the run again to build it anew."
    if swap.image == live_image:
        return f"The image {short(swap.image)} is live already; nothing is to be done."
    if made_from and made_from != live_image:
        return (
            "Another version went live since this run began, and the swap would drop its changes; start the run again."
        )
    return shared


def shared_volume(substrate: Substrate, writers: Iterable[str], own: Collection[str]) -> str | None:
    """Who may write to the agent's volume besides its own boxes: one sentence, or None."""
    strangers = sorted(set(writers) - set(own))
    if not strangers:
        return None
    names = ", ".join(f"`{name}`" for name in strangers)
    return (
        f"The volume `{substrate.run.volume}` of {substrate.name} is open to {names} as well, and two writers may ruin "
        "it; stop that, or mount the volume read-only there, and try again."
    )


def swap_id(consent: str) -> str:
    """One consent allows one swap, so that a repeated job finds the first one's."""
    return f"swap-{_suffix(consent)}"


def new_box(substrate: str, consent: str) -> str:
    return f"moss-{substrate}-{_suffix(consent)}"


def back_box(swap: Swap) -> str:
    return f"moss-{swap.substrate}-{_suffix(swap.id)}-back"


def boxes_of(swap: Swap) -> set[str]:
    return {swap.old_box, swap.new_box, back_box(swap)}


def back_boot_id(swap: Swap) -> str:
    return f"{swap.boot_id}-back"


def next_number(versions: Sequence[Version]) -> int:
    return versions[-1].number + 1 if versions else 0


def adopted_box(substrate: str, owner: str, number: int) -> str:
    """Two installations may have agents of one name on one engine."""
    return f"moss-{substrate}-{hashlib.sha256(owner.encode()).hexdigest()[:6]}-v{number}"


def box_spec(
    substrate: Substrate,
    *,
    name: str,
    image: str,
    commit: str,
    boot_id: str,
    owner: str,
    swap: str | None,
    secrets: Mapping[str, str],
) -> BoxSpec:
    """The live box. Everything comes from the substrate's own file, so that it can always be made again."""
    run = substrate.run
    missing = [name for name in run.env_from if name not in secrets]
    if missing:
        raise BadInput(
            f"`run.env_from` names {', '.join(missing)}, which Moss's own environment lacks; set it and restart."
        )
    labels = {
        label.OWNER: owner,
        label.SUBSTRATE: substrate.name,
        label.PURPOSE: "live",
        label.COMMIT: commit,
        label.BOOT_ID: boot_id,
    }
    return BoxSpec(
        name=name,
        image=image,
        labels=labels | ({label.SWAP: swap} if swap else {}),
        command=run.command,
        env={**run.env, **{name: secrets[name] for name in run.env_from}, "MOSS_BOOT_ID": boot_id},
        port=run.port,
        publish=run.publish,
        volume=Volume(run.volume, run.state_path) if run.volume else None,
        user=run.user,
        isolated=False,
        limits=Limits(pids=run.pids),
        state_path=run.state_path,
    )


def _suffix(id: str) -> str:
    return id.partition("-")[2] or id


def _is_of(box: BoxState, swap: Swap) -> bool:
    return box.labels.get(label.BOOT_ID) == swap.boot_id and box.image == swap.image
