"""The table of faults: whatever is done to a swap on a real engine, the same things hold afterwards.

Exactly one agent runs, the right one; nothing is lost on its volume, to which it writes all the time; nothing is left
behind; people read one true sentence, and the audit log has one end of it. `tests/support/aftermath.py` looks.

Other faults have tables of their own, with the same or stricter checks after each:

- SIGKILL of Moss in every state, before and after each durable write, and while the engine works: tests/test_kill.py,
  tests/test_sweep.py (whole stories, judged by tests/support/outsider.py), and at every call of the host on paper:
  tests/test_swap_perform.py.
- SIGKILL of the engine during build, trial, stop, start and probe: tests/test_engine_deaths.py, with these same looks.
- The clock jumping under leases and claims: tests/test_clock_jumps.py.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path

import pytest

from bot.cards.run import run as card_of
from bot.report import gather
from core.clock import system_clock
from core.containers.docker_host import SOCKET, DockerHost
from core.containers.host import Recipe
from core.model.errors import MossError, Unavailable
from core.model.events import Noun
from core.model.run import RunState
from core.store import facts, notices
from core.swap import perform as room
from core.swap.perform import TRIES, perform
from tests.support import diary, foreigner
from tests.support.aftermath import End, before, problems_after
from tests.support.house import SHORT_S, House, a_house, lay_agent, little
from tests.support.needs import needs_engine
from tests.support.own_engine import BASE, NEEDS_ROOT, OwnEngine, own_engine
from tests.support.swaps import granted_candidate
from tests.support.theatre import AGENT, FIXED, diff, eventually, theatre


@dataclass(frozen=True, slots=True)
class Case:
    """A candidate was allowed, and its swap is about to be performed."""

    house: House
    image: str

    @property
    def volume(self) -> str:
        return str(self.house.substrate.run.volume)

    @property
    def port(self) -> int:
        return int(self.house.substrate.run.publish or 0)


Meddling = Callable[[Case], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def nobody(case: Case) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def who_deletes_the_image(case: Case) -> AsyncIterator[None]:
    await case.house.host.remove_image(case.image)
    yield


@asynccontextmanager
async def who_writes_to_the_volume(case: Case) -> AsyncIterator[None]:
    async with foreigner.beside(case.house, SOCKET, case.volume):
        yield


@asynccontextmanager
async def who_reads_the_volume(case: Case) -> AsyncIterator[None]:
    async with foreigner.beside(case.house, SOCKET, case.volume, "ro"):
        yield


def right_after(what: str, then: Callable[[Case], AbstractAsyncContextManager[None]]) -> Meddling:
    """As soon as the host has done this for the first time."""

    @asynccontextmanager
    async def meddling(case: Case) -> AsyncIterator[None]:
        host, done = case.house.host, getattr(case.house.host, what)
        arrived = then(case)
        came = False

        async def and_then(*words: object) -> None:
            nonlocal came
            await done(*words)
            if not came:
                came = True
                await arrived.__aenter__()

        setattr(host, what, and_then)
        try:
            yield
        finally:
            setattr(host, what, done)
            if came:
                await arrived.__aexit__(None, None, None)
        assert came, f"nobody was asked to {what}"

    return meddling


@asynccontextmanager
async def who_takes_the_port(case: Case) -> AsyncIterator[None]:
    with socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plug.bind(("0.0.0.0", case.port))
        plug.listen()
        yield


def until_refused(times: int, meddling: Meddling) -> Meddling:
    """Somebody who goes away once so many starts were refused."""

    @asynccontextmanager
    async def leaving(case: Case) -> AsyncIterator[None]:
        host, start, refused = case.house.host, case.house.host.start, 0

        async def start_or_not(name: str) -> None:
            nonlocal refused
            try:
                await start(name)
            except MossError:
                refused += 1
                if refused == times:
                    await there.aclose()
                raise

        async with AsyncExitStack() as there:
            await there.enter_async_context(meddling(case))
            host.start = start_or_not
            yield

    return leaving


def jumping() -> Callable[[], datetime]:
    """A wall clock that is hours ahead or behind, and others at each look."""
    jumps = cycle([timedelta(hours=7 * n % 41 - 20) for n in range(41)])
    return lambda: system_clock() + next(jumps)


async def at_once(house: House) -> None:
    pass


async def until_it_came_back(house: House) -> None:
    """Of itself, since nobody told the engine otherwise."""
    before = (await house.state_file("starts")).count("1")
    async with asyncio.timeout(60):
        while (await house.state_file("starts")).count("1") == before:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Row:
    fault: str
    ends: End
    said: str = ""
    """In the sentence that people read."""
    candidate: str = "well"
    live: str = "well"
    """How the candidate behaves, and the agent that was live before."""
    somebody: Meddling = nobody
    health: dict[str, object] = field(default_factory=dict)
    run: dict[str, object] = field(default_factory=dict)
    clock: Callable[[], datetime] = system_clock
    lives_on: Callable[[House], Awaitable[None]] = at_once
    """What is waited for before anybody looks."""
    sweep: bool = False


TABLE = [
    Row("nothing at all", End.committed, sweep=True),
    Row("it never gets healthy", End.restored, "503", "sick", sweep=True),
    Row("it dies at once", End.restored, "ended with exit code 1", "dying", sweep=True),
    Row(
        "it dies after 20 s of probes",
        End.restored,
        "ended with exit code 3",
        "mortal",
        health={"passes": 25, "every_s": 1, "window_s": 60},
        sweep=True,
    ),
    Row("it dies after 20 s, live by then", End.committed, candidate="mortal", lives_on=until_it_came_back, sweep=True),
    Row("it answers health and no turns", End.restored, "nonsense. Version 0 ", "confused"),
    Row("it shows the heartbeat of the one before", End.restored, "heartbeat", "heartless", sweep=True),
    Row("it beats as somebody else", End.restored, "heartbeat", "impostor", sweep=True),
    Row("its heart stands still", End.restored, "heartbeat", "frozen", sweep=True),
    Row("it ignores SIGTERM", End.restored, "503", "stubborn-sick", sweep=True),
    Row("the one before ignores SIGTERM", End.committed, live="stubborn"),
    Row("it forks without end", End.restored, "No 3 probes", "breeding", run={"pids": 40}),
    Row("its image is deleted", End.refused, "is gone", somebody=who_deletes_the_image),
    Row("somebody writes to its volume", End.refused, "`a-foreigner", somebody=who_writes_to_the_volume),
    Row("somebody reads its volume, and may", End.committed, somebody=who_reads_the_volume, sweep=True),
    Row(
        "somebody comes to its volume in the middle",
        End.restored,
        "`a-foreigner",
        somebody=right_after("stop", who_writes_to_the_volume),
        sweep=True,
    ),
    Row(
        "somebody takes its port and goes away again",
        End.restored,
        "which is taken",
        somebody=right_after("stop", until_refused(TRIES, who_takes_the_port)),
    ),
    Row(
        "somebody takes its port for good",
        End.stuck,
        "which is taken",
        somebody=right_after("stop", who_takes_the_port),
        sweep=True,
    ),
    Row("the clock jumps", End.committed, clock=jumping()),
    Row("the clock jumps, and it never gets healthy", End.restored, "503", "sick", clock=jumping(), sweep=True),
]


@needs_engine
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.fault, marks=[pytest.mark.sweep] if row.sweep else []) for row in TABLE]
)
async def test_after_a_fault_one_agent_runs_the_right_one(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "RETRY_S", 0.2)
    health = {"window_s": SHORT_S, **row.health}
    substrate = little("docker", run=row.run, health=health)
    async with a_house("docker", tmp_path, substrate, clock=row.clock) as house:
        live = await house.live(row.live)
        await house.host.set_restart(live.box, substrate.run.restart)
        case = Case(house, await house.image("1", row.candidate))
        consent = await granted_candidate(house.store, "little", case.image, "c1", live_image=live.image)
        was, began = await before(house), time.monotonic()
        async with row.somebody(case):
            swap = await perform(house.store, house.host, house.owner, consent)
            took_s = time.monotonic() - began
            assert swap
            await row.lives_on(house)
            assert not (found := await problems_after(house, SOCKET, was, swap, row.ends, took_s, row.said)), found


SMALL_MB = 500
"""Room for the base image while it is loaded, and for little besides."""


@pytest.fixture
def cramped() -> Iterator[OwnEngine]:
    with own_engine(SMALL_MB) as engine:
        yield engine


def too_big(where: Path, how: str) -> Path:
    lay_agent(where, "2", "well")
    if how == "by what it copies":
        with (where / "ballast").open("wb") as ballast:
            ballast.truncate(SMALL_MB << 20)
    else:
        (where / "Dockerfile").write_text("FROM python:3.11-slim-bookworm\nRUN cat /dev/zero >/ballast\n")
    return where


@needs_engine
@NEEDS_ROOT
@pytest.mark.sweep
async def test_after_a_build_that_fills_the_disk_one_agent_runs_and_the_next_build_goes_live(
    cramped: OwnEngine, tmp_path: Path
) -> None:
    """The volume is on the same disk."""
    substrate = little("docker", run={"publish": None}, health={"window_s": 30})
    async with a_house("docker", tmp_path, substrate, cramped.url) as house:
        assert isinstance(house.host, DockerHost)
        house.host.spare_bytes = 0  # as with an engine whose disk Moss cannot look at
        live = await house.live()
        await house.host.set_restart(live.box, substrate.run.restart)
        was, began = await before(house), time.monotonic()
        for how in ("by what it copies", "by what it runs"):
            with pytest.raises(Unavailable, match=r"disk.*free space"):
                await house.host.build(house.recipe(too_big(tmp_path / how, how), "2"))
            assert await house.ask(live.box, "Who are you?") == "version 0 hears you"
            assert [box.name for box in await house.boxes()] == [live.box]
            with contextlib.closing(cramped.client()) as client:
                assert [one.name for one in client.containers.list(all=True)] == [live.box]
                images = {one.id for one in client.images.list() if "moss/relay" not in str(one.tags)}
                assert images == {client.images.get(BASE).id, live.image}
        image = await house.image("1", "well")
        consent = await granted_candidate(house.store, "little", image, "c1", live_image=live.image)
        swap = await perform(house.store, house.host, house.owner, consent)
        assert swap
        took_s = time.monotonic() - began
        assert not (found := await problems_after(house, cramped.url, was, swap, End.committed, took_s)), found


async def test_a_run_whose_build_fills_the_disk_says_so_once_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes of the error above: tried once more, and the coder is not sent to mend what is not its fault."""
    said, builds = "The build filled the engine's disk; free space, such as by `docker image prune`.", []

    async def full(recipe: Recipe) -> str:
        builds.append(recipe)
        raise Unavailable(said)

    async with theatre(tmp_path) as stage:
        before = await stage.outside()
        monkeypatch.setattr(stage.moss.host, "build", full)
        run = await stage.play(roles={"implement": [{"patch": diff(AGENT, FIXED)}]})
        assert (run.state, len(builds)) == (RunState.failed, 2)
        assert said in run.sentence
        report = await gather(stage.moss.store, stage.moss.settings.data, run.id)
        assert card_of(report).title == "prices: the run failed"
        async with stage.moss.store.reading() as db:
            told = [(one.kind, one.text) for one in await notices.listing(db, "prices")]
            ends = [fact.after for fact in await facts.about(db, Noun.run, run.id) if fact.after == RunState.failed]
        assert told[1:] == [("evolution-failed", run.sentence)]
        assert ends == [RunState.failed]
        assert await stage.outside() == before
        await eventually(lambda: stage.cleared(run), 20)


def test_the_diary_shows_what_was_lost_doubled_torn_or_written_by_two() -> None:
    lines, seal = [], ""
    for number in range(4):
        line = diary.line(seal, f"{number} 0 boot-0")
        lines.append(line)
        seal = line.split()[-1]
    whole = "".join(lines)
    assert diary.problem(whole) is None
    other = diary.line(lines[0].split()[-1], "1 1 boot-1")
    for broken in (
        whole.replace(lines[1], ""),
        whole.replace(lines[1], 2 * lines[1]),
        whole[:-3],
        whole.replace(lines[1], lines[1] + other),
        whole.replace("boot-0", "boot-9", 1),
    ):
        assert diary.problem(broken) is not None, broken
