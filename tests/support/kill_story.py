"""The whole story with a Moss that is killed on the way, and what an outsider finds afterwards."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bot.control import Client
from core.model.errors import MossError
from tests.support.world import FOREIGN, ROOT, World, Wrong, git

MORTAL = ROOT / "tests" / "support" / "mortal_moss.py"
SETTLE_S = 3.0
FINAL = ("applied", "exhausted", "failed", "rolled_back", "stuck")


@dataclass
class Story:
    """Each step looks first whether it is done, so that it can be told again after every death."""

    world: World
    moments: list[str]
    """Each start of Moss gets the next one, and plain life once they are used up."""
    bug: str = "none"
    chance: random.Random | None = None
    """Kills at random moments instead, one per entry of `moments`."""
    limit_s: float = 90
    deaths: int = 0
    token: str = ""
    run: str = ""

    def tell(self) -> str:
        """The state in which the run ended."""
        self.world.moss("db", "upgrade")
        self.token = self.world.moss("people", "add", "bob")["token"]
        until = time.monotonic() + self.limit_s
        while time.monotonic() < until:
            self._keep_alive()
            with contextlib.suppress(MossError, sqlite3.OperationalError):  # it died, or has not begun
                state = self._next()
                if state in FINAL:
                    return state
            time.sleep(0.05)
        return "never ended"

    def _keep_alive(self) -> None:
        process = self.world.process
        if process is not None and process.poll() is None:
            return
        self.deaths += process is not None
        moment = self.moments.pop(0) if self.moments else "never"
        with contextlib.suppress(Wrong):  # it may die before it answers
            if self.chance is None:
                self.world.start(sys.executable, str(MORTAL), moment, self.bug, "--")
                return
            self.world.start(sys.executable, str(MORTAL), "never", self.bug, "--")
            if moment != "never":
                threading.Timer(self.chance.uniform(0, 4), self._kill).start()

    def _kill(self) -> None:
        process = self.world.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)

    def _next(self) -> str:
        """Looks into the database, since a process for every look would be slow, and acts over the control socket."""
        if not self._rows("SELECT 1 FROM versions"):
            self._ask("adopt")
            return "adopted"
        if not self._rows("SELECT 1 FROM chunks"):
            self._ask("import", lines=(FOREIGN / "batch.jsonl").read_text().splitlines())
            return "imported"
        run = self._rows("SELECT id, state FROM runs ORDER BY queued_at DESC")
        if not run:
            self._ask("evolve")
            return "evolved"
        self.run, state = run[0]
        if state == "awaiting_consent":
            self._ask("approve", run=self.run)
        return str(state)

    def _rows(self, query: str) -> list[tuple[str, ...]]:
        with sqlite3.connect(self.world.root / "data" / "moss.db") as db:
            return db.execute(query).fetchall()

    def _ask(self, verb: str, **payload: object) -> None:
        client = Client(self.world.root / "data" / "moss.sock")
        asyncio.run(client.ask(verb, payload, token=self.token, timeout_s=30))


def settle(story: Story) -> None:
    """One more ordinary start, with time for its first tick, and an ordinary end."""
    story.world.kill()
    story.world.start(sys.executable, str(MORTAL), "never", story.bug, "--")
    time.sleep(SETTLE_S)
    story.world.end()


def problems_after(story: Story, state: str) -> list[str]:
    """What is wrong with the world, seen from outside, after Moss had time to tidy up and was ended."""
    world, found = story.world, []
    if state != "applied":
        found.append(f"the run ended as {state!r}")
    with sqlite3.connect(world.root / "data" / "moss.db") as db:
        kinds = db.execute("SELECT kind, count(*) FROM notices GROUP BY kind, subject").fetchall()
        accepted = db.execute("SELECT done FROM steps").fetchall()
    results = [json.loads(row[0])["result"] for row in accepted]
    found += [f"{count} notices of {kind}" for kind, count in kinds if count != 1]
    wanted = {"evolution-converged", "apply-complete"}
    if state == "applied" and not wanted <= {kind for kind, _ in kinds}:
        found.append(f"notices are missing: {sorted(wanted - {kind for kind, _ in kinds})}")
    if not world.moss("db", "verify", code=None)["sound"]:
        found.append("the audit chain is broken")
    found += _commits(world, sum(result.get("verdict") == "APPROVE" and "commit" in result for result in results))
    state_dir = world.root / "state"
    if (state_dir / "alarm.txt").exists():
        found.append("two agents wrote to the volume at once")
    if not (state_dir / "journal.txt").read_text().startswith("started\n"):
        found.append("the volume lost its content")
    running = [words for _, words in _processes(world)]
    if running.count("sh agent.sh serve") != 1:
        found.append(f"{running.count('sh agent.sh serve')} agents are running")
    if others := [words for words in running if "agent.sh serve" not in words and not words.startswith("sleep ")]:
        found.append(f"processes are left: {others}")
    found += [f"left behind: {path}" for path in _leftovers(world)]
    return found


def _commits(world: World, accepted: int) -> list[str]:
    repos = world.root / "data" / "repos" / "prices.git"
    kinds = git(repos, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)").split()
    made = kinds.count("commit") - 1  # the owner's own
    return [] if made == accepted else [f"{made} commits for {accepted} accepted implementations"]


def _processes(world: World) -> list[tuple[int, str]]:
    """Everything that runs on behalf of this world, Moss itself left out."""
    moss = world.process.pid if world.process else 0
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if b"MOSS_TAG=" in environment and str(world.root).encode() in environment and int(pid) != moss and words:
                found.append((int(pid), words))
    return found


def _leftovers(world: World) -> list[Path]:
    data = world.root / "data"
    live = set(_live_boxes(world))
    left = list((data / "work").glob("*")) if (data / "work").exists() else []
    left += [path for path in (data / "boxes").glob("*") if path.name not in live and not path.name.startswith(".")]
    left += [path for path in (data / "repos").glob("*") if ".partial" in path.name]
    return left + [path for where in (world.tmp, data / "tmp") for path in where.iterdir()]


def _live_boxes(world: World) -> list[str]:
    with sqlite3.connect(world.root / "data" / "moss.db") as db:
        return [row[0] for row in db.execute("SELECT box FROM versions WHERE until IS NULL")]


def end_everything(world: World) -> None:
    world.kill()
    for pid, _ in _processes(world):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
