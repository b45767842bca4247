"""What must hold after a fault, whatever it was, looked at from outside: on the engine, on the volume, in the store.

A diary that the agent keeps without a pause tells whether the volume is intact (tests/support/little_agent.py).
"""

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import Any

import docker

from bot import report
from bot.cards.run import run as card_of
from core.containers.host import label
from core.model.events import Noun
from core.model.run import RunState
from core.model.swap import Swap, SwapState, Version
from core.store import asking, claims, facts, notices, runs, substrates, swaps
from core.swap.plan import back_box
from core.swap.reconcile import reconcile
from tests.support import diary
from tests.support.house import BLUE, House

ENGINE_S = 60.0
DIARY_BYTES = 8_000_000
GOES_ON_S = 15.0


@dataclass(frozen=True, slots=True)
class _End:
    swap: SwapState
    run: RunState
    notice: str
    title: str
    """Of the card of the run, at the end of it all."""


class End(Enum):
    committed = _End(SwapState.live, RunState.applied, "apply-complete", "the repair is live as version")
    restored = _End(SwapState.restored, RunState.rolled_back, "swap-restored", "the repair did not go live")
    refused = _End(SwapState.restored, RunState.rolled_back, "swap-void", "the repair did not go live")
    """Nothing was touched."""
    stuck = _End(SwapState.stuck, RunState.stuck, "swap-stuck", "IS DOWN and needs a person now")
    """Nothing runs, and a person is called."""


@dataclass(frozen=True, slots=True)
class Before:
    live: Version
    diary: str
    notice: int


async def before(house: House) -> Before:
    live = await house.now_live()
    async with house.store.reading() as db:
        latest = await notices.latest(db, "little")
    return Before(live, await read_diary(house, live.box), latest)


async def problems_after(  # noqa: PLR0917 - what was, what came of it, and what should have
    house: House, engine: str, was: Before, swap: Swap, end: End, took_s: float, said: str = ""
) -> list[str]:
    """What is wrong, once Moss has tidied up: nothing, if it is well. `said` is in the sentence that people read."""
    await reconcile(house.store, house.host, house.owner)
    live = await house.now_live()
    wanted = swap.new_box if end is End.committed else was.live.box
    found = [] if live.box == wanted else [f"{live.box} is called live instead of {wanted}"]
    kept = await _images_kept(house) | ({swap.image} if end is End.stuck else set())
    found += await asyncio.to_thread(_on_the_engine, house, engine, swap, live, end, kept)
    if end is End.stuck:
        found += _of_the_volume(was, await read_diary(house, live.box))
    else:
        found += await _of_the_agent(house, was, live)
    found += await _in_the_store(house, swap, end)
    found += await _what_people_read(house, was, swap, live, end, took_s, said)
    return found + _on_the_disk(house)


def _on_the_engine(  # noqa: PLR0917 - as above
    house: House, engine: str, swap: Swap, live: Version, end: End, images_kept: set[str]
) -> list[str]:
    volume = str(house.substrate.run.volume)
    with contextlib.closing(docker.DockerClient(base_url=engine, timeout=ENGINE_S)) as client:
        every = {one.name: one for one in client.containers.list(all=True, ignore_removed=True)}
        ours = {name: one for name, one in every.items() if _is_ours(one, house, swap, volume)}
        running = sorted(name for name, one in ours.items() if one.status == "running")
        kept = sorted(name for name in ours if name != live.box)
        found = []
        if running != ([] if end is End.stuck else [live.box]):
            found.append(f"the containers {running} run, and {live.box} should")
        if kept and end is not End.stuck:  # a person finds every box as it is
            found.append(f"left behind: the containers {kept}")
        if (box := ours.get(live.box)) and end is not End.stuck:
            told = dict(one.split("=", 1) for one in box.attrs["Config"]["Env"] if "=" in one)
            if (box.attrs["Image"], told["MOSS_BOOT_ID"]) != (live.image, live.boot_id):
                found.append(f"{live.box} runs {box.attrs['Image']}, and version {live.number} is {live.image}")
            processes = [words[-1] for words in box.top()["Processes"]]
            if len(processes) != 2:
                found.append(f"in {live.box} run {len(processes)} programs: {processes[:4]}")
            policy = box.attrs["HostConfig"]["RestartPolicy"]["Name"]
            if policy != house.substrate.run.restart:
                found.append(f"the engine is told {policy!r} for when {live.box} ends")
        owned = {"label": f"{label.OWNER}={house.owner}"}
        networks = [one.name for one in client.networks.list(filters=owned)]
        images = {one.id for one in client.images.list(filters=owned)}
    if networks:
        found.append(f"left behind: the networks {networks}")
    if images != images_kept:
        found.append(f"left behind: the images {images - images_kept}; missing: {images_kept - images}")
    return found


def _is_ours(container: Any, house: House, swap: Swap, volume: str) -> bool:
    """By its name, by its label, or because it holds the volume; and it is no foreigner that a test has put there."""
    names = {swap.old_box, swap.new_box, back_box(swap)}
    if container.name in house.foreigners:
        return False
    mounted = {mount.get("Name") or mount.get("Source") for mount in container.attrs["Mounts"]}
    labels = container.attrs["Config"]["Labels"] or {}
    prefixes = tuple(f"{name}-" for name in names)
    by_name = container.name in names or container.name.startswith(prefixes)
    return by_name or labels.get(label.OWNER) == house.owner or volume in mounted


async def _images_kept(house: House) -> set[str]:
    """That one may go back to, and that is live."""
    async with house.store.reading() as db:
        good = await swaps.last_good(db, "little")
        return {version.image for version in await swaps.versions(db, "little")} | ({good.image} if good else set())


async def _of_the_agent(house: House, was: Before, live: Version) -> list[str]:
    found = []
    says = await house.ask(live.box, "Who are you?")
    if says != f"version {house.images[live.image]} hears you":
        found.append(f"the agent says {says!r}")
    if BLUE not in await house.memory():
        found.append("the agent has forgotten what it was told before")
    if await house.had_two_writers():
        found.append("two agents wrote to the volume at once")
    now = await read_diary(house, live.box)
    try:
        async with asyncio.timeout(GOES_ON_S):
            while len(later := await read_diary(house, live.box)) <= len(now):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.05)
    except TimeoutError:
        later = now
        found.append("nobody writes to the volume any more")
    if (last := diary.last_writer(later)) != (house.images[live.image], live.boot_id):
        found.append(f"version {last[0]} ({last[1]}) writes to the volume")
    return found + _of_the_volume(was, later)


def _of_the_volume(was: Before, now: str) -> list[str]:
    found = [] if now.startswith(was.diary) else ["the volume lost what stood on it"]
    torn = diary.problem(now)
    return [*found, torn] if torn else found


async def _in_the_store(house: House, swap: Swap, end: End) -> list[str]:
    found = []
    async with house.store.reading() as db:
        now = await swaps.get(db, swap.id)
        run = await runs.get(db, str(swap.run))
        chain = await facts.chain(db, "little")
        broken = await facts.verify(db, "little")
        if await swaps.in_flight(db, "little"):
            found.append("a swap is in flight")
        if await claims.unfinished(db, "little"):
            found.append("a claim is left")
        if await asking.any_left(db, "little", house.store.now()):
            found.append("a turn is left")
        if await substrates.needs_adoption(db, "little") != (end is End.stuck):
            found.append("whether a person is needed is not known")
    if (now.state, run.state) != (end.value.swap, end.value.run):
        found.append(f"the swap is {now.state} and its run {run.state}: {now.problem}")
    about = [fact.after for fact in chain if fact.noun is Noun.swap and fact.id == swap.id and fact.after]
    ends = [after for after in about if after in (SwapState.live, SwapState.restored, SwapState.stuck)]
    if ends != [end.value.swap]:
        found.append(f"the audit log has {ends} for the end of the swap")
    if broken:
        found.append(broken.sentence)
    added = [fact for fact in chain if fact.what == "version_added" and fact.detail["swap"] == swap.id]
    if len(added) != (end is End.committed):
        found.append(f"the audit log has {len(added)} versions that came of the swap")
    return found


async def _what_people_read(  # noqa: PLR0917 - as above
    house: House, was: Before, swap: Swap, live: Version, end: End, took_s: float, said: str
) -> list[str]:
    found = []
    async with house.store.reading() as db:
        told = [notice for notice in await notices.listing(db, "little") if notice.id > was.notice]
    if [notice.kind for notice in told] != [end.value.notice]:
        found.append(f"people are told {[(notice.kind, notice.text) for notice in told]}")
    for away_ms in [notice.detail["outage_ms"] for notice in told if "outage_ms" in notice.detail]:
        if away_ms is None or not 0 < away_ms < took_s * 1000:
            found.append(f"the agent is said to have been away for {away_ms} ms, in a swap of {took_s:.1f} s")
    told_of = await report.gather(house.store, house.tmp / "data", str(swap.run))
    card = card_of(told_of)
    title = f"little: {end.value.title}" if end is not End.stuck else f"little {end.value.title}"
    if end is End.committed:
        title = f"{title} {live.number}"
    if card.title != title:
        found.append(f"the card says {card.title!r} instead of {title!r}")
    if end is End.committed:
        said = said or f"version {live.number} "
    for where in (told_of.run.sentence, *(notice.text for notice in told)):
        if said not in where:
            found.append(f"people read {where!r}, without {said!r}")
    return found


def _on_the_disk(house: House) -> list[str]:
    data = house.tmp / "data"
    left = [path for path in data.rglob("*") if not path.is_dir() and not path.is_relative_to(data / "built")]
    return [f"left behind: {path}" for path in left]


async def read_diary(house: House, box: str) -> str:
    return (await house.host.read(box, "/state/diary", DIARY_BYTES) or b"").decode()
