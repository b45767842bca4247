"""A Moss with nothing but durable jobs, in a process of its own, for the tests of core/durable.py.

It obeys words on standard input, answers each with a line, and notes in a journal what its performs do and when.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import structlog

from core.clock import system_clock
from core.durable import Durable, Perform
from core.store import Store


def performs(journal: Path, name: str) -> dict[str, Perform]:
    def note(what: str, job: str) -> None:
        with journal.open("a") as file:  # one short write at the end of the file: whole lines, whoever writes
            file.write(f"{time.monotonic():.4f} {name} {what} {job}\n")

    def noted(kind: str, seconds: float | None) -> Perform:
        async def perform(subject: str, n: int) -> None:
            """For so long, or until a test makes a file of the subject's name."""
            job = f"{kind}:{subject}:{n}"
            note("began", job)
            until = time.monotonic() + (seconds or 60)
            try:
                end = journal.parent / f"end-{subject}"
                while time.monotonic() < until and not end.exists():  # noqa: ASYNC110 (a file tells no event)
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                note("cancelled", job)
                raise
            note("ended", job)

        return perform

    return {"slow": noted("slow", None), "short": noted("short", 0.15), "limited": noted("limited", 0.15)}


async def work(url: str, journal: str, name: str, lease_ttl_s: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    store = await Store.open(url, system_clock)
    durable = Durable(url, store, clock=system_clock, lease_ttl_s=float(lease_ttl_s))
    for kind, perform in performs(Path(journal), name).items():
        durable.job(kind, perform, at_once=2 if kind == "limited" else None)
    await durable.start()
    words = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    os.write(1, b"ready\n")
    while line := (await words.readline()).decode().split():
        match line:
            case ["submit", kind, *subjects]:
                await asyncio.gather(*(durable.submit(kind, subject) for subject in subjects))
            case ["cancel", kind, subject]:
                await durable.cancel(kind, subject)
            case ["close"]:
                await durable.close(grace_s=2)
                await store.close()
        os.write(1, b"done\n")


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
