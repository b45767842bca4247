"""Several processes that share one database of durable jobs, and the journal in which they note what they do."""

import asyncio
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from core import process

HOME = Path(__file__).parents[2]


async def appears(condition: Callable[[], object], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (another process tells no event)
            await asyncio.sleep(0.01)


@dataclass
class Worker:
    """tests/support/worker.py, alive."""

    name: str
    child: asyncio.subprocess.Process

    async def told(self, words: str) -> None:
        assert self.child.stdin
        assert self.child.stdout
        self.child.stdin.write(words.encode() + b"\n")
        async with asyncio.timeout(60):
            assert await self.child.stdout.readline() == b"done\n"

    async def killed(self) -> None:
        self.child.kill()
        await self.child.wait()

    async def closed(self) -> None:
        await self.told("close")
        await self.fallen()

    async def fallen(self) -> None:
        """The program ends; unless it was told to, without closing anything."""
        assert self.child.stdin
        self.child.stdin.close()
        async with asyncio.timeout(60):
            assert await self.child.wait() == 0

    def stopped(self) -> None:
        self.child.send_signal(signal.SIGSTOP)

    def woken(self) -> None:
        self.child.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Note:
    at: float
    who: str
    what: str
    job: str


@dataclass
class Town:
    url: str
    journal: Path
    workers: list[Worker] = field(default_factory=list)

    async def worker(self, name: str, *, lease_ttl_s: float = 15.0, source: Path = HOME) -> Worker:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HOME / "tests" / "support" / "worker.py"),
            *(self.url, str(self.journal), name, str(lease_ttl_s)),
            env=process.safe_env(PYTHONPATH=str(source)),
            cwd=source,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        worker = Worker(name, child)
        self.workers.append(worker)
        assert child.stdout
        async with asyncio.timeout(90):
            assert await child.stdout.readline() == b"ready\n"
        return worker

    async def emptied(self) -> None:
        for worker in self.workers:
            if worker.child.returncode is None:
                await worker.killed()

    def notes(self, what: str) -> list[Note]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        notes = [Note(float(at), who, said, job) for at, who, said, job in (line.split(" ") for line in lines)]
        return [note for note in notes if note.what == what]

    def who(self, what: str, job: str) -> list[str]:
        """Who noted this of the job, in order."""
        return [note.who for note in self.notes(what) if note.job == job]

    def most_at_once(self, kind: str) -> int:
        edges = [(note.at, 1) for note in self.notes("began") if note.job.startswith(kind)]
        edges += [(note.at, -1) for note in self.notes("ended") if note.job.startswith(kind)]
        running = most = 0
        for _, step in sorted(edges):
            running += step
            most = max(most, running)
        return most

    def let_end(self, subject: str) -> None:
        (self.journal.parent / f"end-{subject}").touch()


def other_code(directory: Path) -> Path:
    """A copy of core in which the function that DBOS knows reads differently, as after an upgrade."""
    target = directory / "upgraded"
    shutil.copytree(HOME / "core", target / "core", ignore=shutil.ignore_patterns("__pycache__"))
    durable = target / "core" / "durable.py"
    source = durable.read_text()
    before = "await self._perform(kind, subject, n)\n"
    assert source.count(before) == 1
    durable.write_text(
        source.replace(before, "performed = self._perform(kind, subject, n)\n            await performed\n")
    )
    return target
