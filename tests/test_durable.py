"""What was submitted is performed: after kill -9, by another process, and never by two at once."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing

from core.clock import system_clock
from core.durable import Durable, Perform
from core.model.errors import AgentFailed, Unavailable
from core.store import Store, leases
from tests.support.databases import DATABASES, database
from tests.support.needs import POSTGRES_URL
from tests.support.town import Town, appears, other_code

LONG_S = 120.0
"""A lease for which nobody waits: what may not wait for one takes half of it at most, however busy the machine is."""


@pytest.fixture(params=DATABASES)
async def town(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    """Processes of their own, which can be killed."""
    async with database(request.param, tmp_path) as url:
        town = Town(url, tmp_path / "journal")
        yield town
        await town.emptied()


async def test_a_job_interrupted_by_kill_9_is_performed_again_by_the_next_start(town: Town) -> None:
    first = await town.worker("first", lease_ttl_s=LONG_S)
    await first.told("submit slow a")
    await appears(lambda: town.who("began", "slow:a:0"))
    await first.killed()
    killed = time.monotonic()
    second = await town.worker("second")
    await appears(lambda: "second" in town.who("began", "slow:a:0"))
    assert time.monotonic() - killed < LONG_S / 2, "a lease is not waited for where its holder is certainly dead"
    town.let_end("a")
    await appears(lambda: town.who("ended", "slow:a:0"))
    await second.closed()
    third = await town.worker("third")
    await third.told("submit slow a")
    await third.closed()
    assert town.who("began", "slow:a:0") == ["first", "second"]


async def test_a_silent_process_loses_its_job_to_a_live_one_and_lets_go_when_it_wakes(town: Town) -> None:
    first, second = await asyncio.gather(town.worker("first", lease_ttl_s=6), town.worker("second", lease_ttl_s=6))
    await first.told("submit slow a")
    await asyncio.sleep(6.5)
    assert town.who("began", "slow:a:0") == ["first"], "a healthy lease is renewed"
    first.stopped()
    await appears(lambda: "second" in town.who("began", "slow:a:0"))
    first.woken()
    await appears(lambda: town.who("cancelled", "slow:a:0") == ["first"])
    town.let_end("a")
    await appears(lambda: town.who("ended", "slow:a:0") == ["second"])
    await first.told("submit short b")
    await appears(lambda: town.who("ended", "short:b:0") == ["first"])
    assert town.who("began", "slow:a:0") == ["first", "second"]
    await second.told("submit slow a")
    assert town.who("began", "slow:a:0") == ["first", "second"]


async def test_two_processes_perform_each_job_once_and_together_keep_to_the_limit(town: Town) -> None:
    both = await asyncio.gather(town.worker("first"), town.worker("second"))
    for kind in ("short", "limited"):
        jobs = " ".join(f"{kind}{n}" for n in range(12))
        await asyncio.gather(*(worker.told(f"submit {kind} {jobs}") for worker in both))
    await appears(lambda: len(town.notes("ended")) == 24)
    assert sorted(note.job for note in town.notes("began")) == sorted(
        f"{kind}:{kind}{n}:0" for kind in ("short", "limited") for n in range(12)
    )
    if town.url.startswith("postgresql"):
        assert town.most_at_once("limited") == 2
    assert town.most_at_once("short") > 2
    await asyncio.gather(*(worker.closed() for worker in both))
    assert len(town.notes("began")) == 24


async def test_cancelling_reaches_a_perform_in_another_process(town: Town) -> None:
    first, second = await asyncio.gather(*(town.worker(name, lease_ttl_s=LONG_S) for name in ("first", "second")))
    await first.told("submit slow a a2")
    await second.told("cancel slow a")
    asked = time.monotonic()
    await appears(lambda: town.who("cancelled", "slow:a:0") == ["first"])
    assert time.monotonic() - asked < LONG_S / 2, "no lease is waited for"
    assert town.who("cancelled", "slow:a2:0") == []
    await first.killed()
    await second.told("submit slow a")
    town.let_end("a2")
    await appears(lambda: town.who("ended", "slow:a2:0") == ["second"])
    assert town.who("began", "slow:a:0") == ["first"], "what was cancelled is not resumed and not submitted anew"


async def test_what_a_process_closes_upon_is_resumed_by_a_live_one_at_once(town: Town) -> None:
    first, second = await asyncio.gather(*(town.worker(name, lease_ttl_s=LONG_S) for name in ("first", "second")))
    await first.told("submit slow a")
    await first.told("submit limited b")
    await appears(lambda: town.who("began", "slow:a:0"))
    await first.closed()
    assert town.who("cancelled", "slow:a:0") == ["first"]
    await appears(lambda: town.who("began", "slow:a:0") == ["first", "second"], within_s=LONG_S / 2)
    await appears(lambda: town.who("ended", "limited:b:0"))
    town.let_end("a")
    await second.closed()


async def test_a_job_written_down_by_older_code_is_performed_by_newer_code(tmp_path: Path) -> None:
    async with database("sqlite", tmp_path) as url:
        town = Town(url, tmp_path / "journal")
        first = await town.worker("first")
        await first.told("submit slow a")
        await appears(lambda: town.who("began", "slow:a:0"))
        await first.killed()
        await town.worker("upgraded", source=other_code(tmp_path))
        await appears(lambda: town.who("began", "slow:a:0") == ["first", "upgraded"])
        await town.emptied()


async def test_a_moss_that_falls_without_closing_loses_no_job(tmp_path: Path) -> None:
    async with database("sqlite", tmp_path) as url:
        town = Town(url, tmp_path / "journal")
        first = await town.worker("first")
        await first.told("submit slow a")
        await appears(lambda: town.who("began", "slow:a:0"))
        await first.fallen()
        assert town.who("cancelled", "slow:a:0") == ["first"]
        await town.worker("second")
        await appears(lambda: town.who("began", "slow:a:0") == ["first", "second"])
        await town.emptied()


@pytest.fixture
def quick_tick(monkeypatch: pytest.MonkeyPatch) -> float:
    """Looks around more often; the seconds after which it has looked as often as it ever does before it acts."""
    monkeypatch.setattr("core.durable._TICK_S", 0.1)
    return 0.8


@asynccontextmanager
async def moss(url: str, grace_s: float = 1.0, **performs: Perform) -> AsyncIterator[Durable]:
    """Durable jobs in this process."""
    store = await Store.open(url, system_clock)
    durable = Durable(url, store, clock=system_clock)
    for kind, perform in performs.items():
        durable.job(kind, perform, at_once=1 if kind == "single" else None)
    await durable.start()
    try:
        yield durable
    finally:
        await durable.close(grace_s)
        await store.close()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with database("sqlite", tmp_path) as url:
        yield url


class Performs:
    """Notes what it performs, and lasts until it is let go."""

    def __init__(self) -> None:
        self.began: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []
        self.cancelled: list[tuple[str, int]] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.may_end = asyncio.Event()

    async def __call__(self, subject: str, n: int) -> None:
        self.began.append((subject, n))
        self.loops.add(asyncio.get_running_loop())
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.append((subject, n))
            raise
        self.ended.append((subject, n))


async def test_a_close_lets_go_and_the_next_start_resumes_in_its_own_loop(url: str, quick_tick: float) -> None:
    performs = Performs()
    async with moss(url, slow=performs, single=performs) as durable:
        await durable.submit("slow", "a", 7)
        await durable.submit("single", "b")
        await appears(lambda: len(performs.began) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 8
    assert sorted(performs.cancelled) == [("a", 7), ("b", 0)]
    async with moss(url, slow=performs, single=performs):
        await appears(lambda: len(performs.began) == 4)
        performs.may_end.set()
        await appears(lambda: sorted(performs.ended) == [("a", 7), ("b", 0)])
    assert performs.loops == {asyncio.get_running_loop()}
    async with moss(url, slow=performs, single=performs):
        await asyncio.sleep(quick_tick)
    assert len(performs.began) == 4


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_job_that_waits_for_its_turn_can_be_cancelled(kind: str, tmp_path: Path) -> None:
    performs = Performs()
    async with database(kind, tmp_path) as url, moss(url, single=performs) as durable:
        for subject in ("a", "b", "c"):
            await durable.submit("single", subject)
        await appears(lambda: performs.began)
        await asyncio.sleep(0.3)
        assert performs.began == [("a", 0)]
        await durable.cancel("single", "b")
        performs.may_end.set()
        await appears(lambda: performs.ended == [("a", 0), ("c", 0)])


async def test_cancelling_in_the_same_process_waits_for_no_tick(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.durable._TICK_S", 60)
    performs = Performs()
    async with moss(url, slow=performs) as durable:
        await durable.submit("slow", "a:b")
        await durable.submit("slow", "a")
        await appears(lambda: len(performs.began) == 2)
        await durable.cancel("slow", "a")
        await appears(lambda: performs.cancelled)
        await asyncio.sleep(0.1)
        assert performs.cancelled == [("a", 0)], "the name of another subject may begin alike"


async def test_when_a_cancel_returns_the_perform_in_this_process_has_ended(url: str) -> None:
    began, tidied = asyncio.Event(), asyncio.Event()

    async def tidy(subject: str, n: int) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
            tidied.set()

    async with moss(url, slow=tidy) as durable:
        await durable.submit("slow", "a")
        await began.wait()
        await durable.cancel("slow", "a")
        assert tidied.is_set()


async def test_a_perform_that_will_not_end_does_not_hold_up_the_close(url: str) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def stubborn(subject: str, n: int) -> None:
        began.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async with moss(url, grace_s=0.3, slow=stubborn) as durable:
        await durable.submit("slow", "a")
        await began.wait()
        closing = time.monotonic()
    assert time.monotonic() - closing < 8
    may_end.set()


async def test_a_close_leaves_the_threads_of_the_loop_in_order(url: str) -> None:
    async with moss(url, slow=Performs()) as durable:
        await durable.submit("slow", "a")
    assert await asyncio.to_thread(lambda: "works") == "works"
    with pytest.raises(Unavailable, match="closing"):
        await durable.submit("slow", "b")


async def test_a_perform_may_submit_the_next_and_cancelling_ends_the_chain(url: str, quick_tick: float) -> None:
    seen: list[int] = []

    async def chain(subject: str, n: int) -> None:
        seen.append(n)
        if n == 3:
            await asyncio.sleep(60)
        await durable.submit("chain", subject, n + 1)

    async with moss(url, chain=chain) as durable:
        await durable.submit("chain", "a")
        await appears(lambda: seen == [0, 1, 2, 3])
        await durable.cancel("chain", "a")
    async with moss(url, chain=chain) as durable:
        await asyncio.sleep(quick_tick)
    assert seen == [0, 1, 2, 3]


async def test_a_perform_that_is_resumed_may_submit_something_else_than_before(url: str) -> None:
    submitted = iter(("x", "y"))
    quick: list[str] = []

    async def performed(subject: str, n: int) -> None:
        quick.append(subject)

    for expected in (["x"], ["x", "y"]):

        async def decides(subject: str, n: int) -> None:
            await durable.submit("quick", next(submitted))
            await asyncio.sleep(60)

        async with moss(url, decides=decides, quick=performed) as durable:
            await durable.submit("decides", "a")
            await appears(lambda expected=expected: quick == expected)


async def test_a_submit_whose_caller_is_cancelled_is_still_carried_through(url: str) -> None:
    performs = Performs()
    performs.may_end.set()
    with structlog.testing.capture_logs() as logs:
        async with moss(url, slow=performs) as durable:
            for n in range(20):
                caller = asyncio.create_task(durable.submit("slow", "a", n))
                await asyncio.sleep(n / 5000)
                caller.cancel()
                await asyncio.wait({caller})
            await appears(lambda: len(performs.ended) == 20)
    assert logs == [], "none had to be found idle"


async def test_a_perform_that_fails_while_it_is_let_go_is_resumed_all_the_same(url: str) -> None:
    began: list[int] = []

    async def fails_to_clean_up(subject: str, n: int) -> None:
        began.append(n)
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("the engine does not answer")

    for n in (1, 2):
        async with moss(url, slow=fails_to_clean_up) as durable:
            await durable.submit("slow", "a")
            await appears(lambda n=n: len(began) == n)


async def test_a_database_that_is_away_for_longer_than_the_lease_ends_no_job(tmp_path: Path) -> None:
    import asyncpg  # noqa: PLC0415 (an extra)

    performs = Performs()
    async with database("postgresql", tmp_path) as url:
        store = await Store.open(url, system_clock)
        durable = Durable(url, store, clock=system_clock, lease_ttl_s=1.5)
        durable.job("slow", performs)
        await durable.start()
        await durable.submit("slow", "a")
        server, name = await asyncpg.connect(POSTGRES_URL), url.rpartition("/")[2]
        with structlog.testing.capture_logs() as logs:
            await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await appears(lambda: performs.cancelled)
            await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await appears(lambda: len(performs.began) == 2)
        assert "the lease is lost; letting go of every job" in [log["event"] for log in logs]
        performs.may_end.set()
        await appears(lambda: performs.ended)
        await durable.close(1)
        await store.close()
        await server.close()


async def test_a_failure_is_logged_in_one_line_without_its_words_and_ends_the_job(
    url: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, quick_tick: float
) -> None:
    calls: list[str] = []

    async def fails(subject: str, n: int) -> None:
        calls.append(subject)
        if subject == "known":
            raise AgentFailed("The agent did not answer; see its log.")
        if subject == "itself":
            raise asyncio.CancelledError
        raise RuntimeError("the key is sk-secret")

    with structlog.testing.capture_logs() as logs:
        async with moss(url, fails=fails) as durable:
            for subject in ("unknown", "known", "itself"):
                await durable.submit("fails", subject)
            await appears(lambda: len(calls) == 3 == len(logs))
        async with moss(url, fails=fails):
            await asyncio.sleep(quick_tick)
    assert calls == ["unknown", "known", "itself"]
    unknown, known, itself = logs
    assert (unknown["event"], unknown["job"], unknown["log_level"]) == ("a job failed", "fails:unknown:0", "error")
    assert unknown["error"].startswith("RuntimeError at test_durable.py:")
    assert known["sentence"] == "The agent did not answer; see its log."
    assert (itself["event"], itself["job"]) == ("a job cancelled itself", "fails:itself:0")
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir() if "-jobs" in file.name)
    assert b"sk-secret" not in written
    assert b"fails:unknown:0" in written
    assert capfd.readouterr() == ("", "")


async def test_a_lost_lease_makes_moss_let_go_and_begin_anew(url: str) -> None:
    performs = Performs()
    store = await Store.open(url, system_clock)
    durable = Durable(url, store, clock=system_clock, lease_ttl_s=1.5)
    durable.job("slow", performs)
    await durable.start()
    await durable.submit("slow", "a")
    async with store.reading() as db:
        [(slot, holder)] = (await leases.holders(db)).items()
    await leases.release(store, slot, holder)
    with structlog.testing.capture_logs() as logs:
        await appears(lambda: len(performs.began) == 2)
    assert performs.cancelled == [("a", 0)]
    assert {"jobs": ["slow:a:0"], "event": "the lease is lost; letting go of every job", "log_level": "warning"} in logs
    async with store.reading() as db:
        assert holder not in (await leases.holders(db)).values()
    await durable.submit("slow", "b")
    await appears(lambda: len(performs.began) == 3)
    await durable.close(1)
    await store.close()


@pytest.mark.usefixtures("quick_tick")
async def test_a_job_that_lies_idle_under_a_healthy_lease_is_started_again(url: str, tmp_path: Path) -> None:
    performs = Performs()
    performs.may_end.set()
    async with moss(url, slow=performs) as durable:
        await durable.submit("slow", "a")
        await appears(lambda: performs.ended)
        await asyncio.sleep(0.2)
        [jobs] = [file for file in tmp_path.iterdir() if file.name.endswith("-jobs.db")]
        with sqlite3.connect(jobs) as beside:  # as if its outcome could not be written
            beside.execute("UPDATE workflow_status SET status = 'PENDING'")
        beside.close()
        await appears(lambda: len(performs.ended) == 2)


async def test_the_jobs_of_a_sqlite_moss_lie_beside_it_in_a_private_file(url: str, tmp_path: Path) -> None:
    async with moss(url, slow=Performs()):
        [jobs] = [file for file in tmp_path.iterdir() if file.name.endswith("-jobs.db")]
        assert jobs.name.removesuffix("-jobs.db") + ".db" == Path(url.removeprefix("sqlite:///")).name
        assert jobs.stat().st_mode & 0o777 == 0o600
        with sqlite3.connect(jobs) as beside:
            assert beside.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        beside.close()


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_job_starts_at_once_where_it_is_submitted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.durable._TICK_S", 60)
    monkeypatch.setattr("core.durable._QUEUE_POLL_S", 60)
    began: list[str] = []

    async def perform(subject: str, n: int) -> None:
        began.append(subject)

    async with database(kind, tmp_path) as url, moss(url, quick=perform) as durable:
        for subject in map(str, range(15)):
            await durable.submit("quick", subject)
            await appears(lambda subject=subject: began[-1:] == [subject])
