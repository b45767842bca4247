"""The whole story with a Moss that is killed on the way, and what an outsider finds afterwards."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        if not self.rows("SELECT 1 FROM versions"):
            self._ask("adopt")
            return "adopted"
        if not self.rows("SELECT 1 FROM chunks"):
            self._ask("import", lines=(FOREIGN / "batch.jsonl").read_text().splitlines())
            return "imported"
        run = self.rows("SELECT id, state FROM runs ORDER BY queued_at DESC")
        if not run:
            self._ask("evolve")
            return "evolved"
        self.run, state = run[0]
        if state == "awaiting_consent":
            self._ask("approve", run=self.run)
        return str(state)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
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
    kinds = dict(story.rows("SELECT kind || ' ' || subject, count(*) FROM notices GROUP BY kind, subject"))
    found += [f"{count} notices of {kind}" for kind, count in kinds.items() if count != 1]
    for wanted in ("evolution-converged", "apply-complete"):
        if state == "applied" and sum(kind.startswith(wanted) for kind in kinds) != 1:
            found.append(f"{wanted} was not told once")
    if not world.moss("db", "verify", code=None)["sound"]:
        found.append("the audit chain is broken")
    results = [json.loads(row[0])["result"] for row in story.rows("SELECT done FROM steps")]
    found += _commits(world, sum(result.get("verdict") == "APPROVE" and "commit" in result for result in results))
    look = _look_at_containers if world.host == "docker" else _look_at_processes
    agents, left, volume = look(story)
    if agents != 1:
        found.append(f"{agents} agents are running")
    if "alarm.txt" in volume:
        found.append("two agents wrote to the volume at once")
    if not volume.get("journal.txt", "").startswith("started\n"):
        found.append("the volume lost its content")
    scratch = [world.root / "data" / "work", world.root / "data" / "tmp", world.tmp]
    left += [str(path) for where in scratch if where.exists() for path in where.iterdir()]
    left += [str(path) for path in (world.root / "data" / "repos").glob("*.partial")]
    return found + [f"left behind: {what}" for what in left]


def _commits(world: World, accepted: int) -> list[str]:
    repos = world.root / "data" / "repos" / "prices.git"
    kinds = git(repos, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)").split()
    made = kinds.count("commit") - 1  # the owner's own
    return [] if made == accepted else [f"{made} commits for {accepted} accepted implementations"]


Seen = tuple[int, list[str], dict[str, str]]
"""Running agents, what was left behind, and the files on the agent's volume."""


def _look_at_processes(story: Story) -> Seen:
    running = [words for _, words in processes(story.world)]
    agents = running.count("sh agent.sh serve")
    left = [words for words in running if "agent.sh serve" not in words and not words.startswith("sleep ")]
    live = {row[0] for row in story.rows("SELECT box FROM versions WHERE until IS NULL")}
    left += [str(path) for path in (story.world.root / "data" / "boxes").iterdir() if path.name not in live]
    state = Path(story.world.volume)
    return agents, left, {path.name: path.read_text() for path in state.iterdir() if path.is_file()}


def _look_at_containers(story: Story) -> Seen:
    live = {row[0] for row in story.rows("SELECT box FROM versions WHERE until IS NULL")}
    images = {row[0] for row in story.rows("SELECT image FROM versions")}
    boxes = ours(story.world, "container", "{{.Names}} {{.State}}")
    left = [box for box in boxes if box.split()[0] not in live]
    kept = ours(story.world, "image", "{{.ID}}", "--no-trunc")
    left += [image for image in kept if image not in images]
    files = {}
    for box in live:
        for name in docker("exec", box, "sh", "-c", "cd /state && ls -p | grep -v /").split():
            files[name] = docker("exec", box, "cat", f"/state/{name}") + "\n"
    return sum(box.endswith(" running") for box in boxes), left, files


def ours(world: World, what: str, form: str, *more: str) -> list[str]:
    owner = (world.root / "data" / "installation").read_text().strip()
    said = docker(what, "ls", "--all", "--filter", f"label=moss.owner={owner}", "--format", form, *more)
    return list(dict.fromkeys(said.splitlines()))


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


def processes(world: World) -> list[tuple[int, str]]:
    """Everything that runs on behalf of this world, Moss itself left out."""
    moss = world.process.pid if world.process else 0
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if b"MOSS_TAG=" in environment and str(world.root).encode() in environment and pid != moss and words:
                found.append((pid, words))
    return found


def end_everything(world: World) -> None:
    world.kill()
    for pid, _ in processes(world):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if world.host == "docker" and (world.root / "data" / "installation").exists():
        for what, form in (("container", "{{.Names}}"), ("image", "{{.ID}}")):
            for name in ours(world, what, form):
                subprocess.run(["docker", what, "rm", "--force", name], capture_output=True, check=False)
        docker("volume", "rm", "--force", world.volume)
