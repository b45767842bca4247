"""What an outsider finds after a story: in the database, in git, on the disk, among the processes, on the engine."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import system_clock
from core.store import facts
from core.store.store import Store
from tests.support.world import World, git

ENGINE_S = 60.0
SHOWN = 4
FILES = ("alarm.txt", "journal.txt", "memory.txt")
"""Of those on the agent's volume. The heartbeat comes and goes."""
BASE = "python:3.11-slim-bookworm"
ENDS = {
    "applied": ({"adopted", "evolution-converged", "apply-complete"}, {"candidates": 1, "swaps": 1, "versions": 2}),
    "rolled_back": ({"adopted", "evolution-converged", "swap-restored"}, {"candidates": 1, "swaps": 1, "versions": 1}),
    "stopped": ({"adopted"}, {"candidates": 0, "swaps": 0, "versions": 1}),
}
"""The notices of a story that ends so, each given once, and the rows in the database."""
ALWAYS = {"batches": 1, "chunks": 2, "runs": 1}
LASTING = (
    *("moss.db*", "moss-jobs.db*", "moss.lock", "installation", "host", "runs/run-*", "built/*", "images/sha256-*"),
    *("adopt/*/adopt-*.log", "repos/.*.git.lock", "repos/{name}.git", "boxes/{live}"),
)
"""What stands in the data directory when nothing is under way."""


def problems_after(world: World, state: str, memory: str, ends: str) -> list[str]:
    """What is wrong after Moss had time to tidy up and was ended. `memory` stood on the volume before Moss came, and
    `ends` is the state in which the run was to end."""
    found = _in_the_database(world, ends) if state == ends else [f"the run ended as {state!r}"]
    if broken := asyncio.run(_broken_link(world)):
        found.append(broken)
    found += [f"job {job} is {end}" for job, end in jobs(world) if end not in ("SUCCESS", "CANCELLED")]
    found += _commits(world)
    ((live, image),) = ours(world, "SELECT box, image FROM versions WHERE until IS NULL") or [("nothing", "")]
    seen = (_look_at_containers if world.host == "docker" else _look_at_processes)(world, live)
    if seen.agents != 1:
        found.append(f"{seen.agents} agents are running")
    if seen.image != image:
        found.append(f"{live} runs {seen.image} instead of {image}")
    if "alarm.txt" in seen.files:
        found.append("two agents wrote to the volume at once")
    if (world.root / "coder-alarm.txt").exists():
        found.append("two coders worked in one checkout at once")
    if seen.files.get("journal.txt", "").count("started") < len(ours(world, "SELECT 1 FROM versions")):
        found.append("a version did not start on the volume")
    if _sum(seen.files.get("memory.txt", "")) != _sum(memory):
        found.append("the volume lost what stood on it")
    left = [*seen.left, *map(str, world.tmp.iterdir()), *map(str, _unexpected(world, live))]
    more = [f"and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    return found + [f"left behind: {what}" for what in left[:SHOWN]] + more


def _in_the_database(world: World, ends: str) -> list[str]:
    notices, counts = ENDS[ends]
    told = sorted(kind for (kind,) in ours(world, "SELECT kind FROM notices"))
    wrong = [] if told == sorted(notices) else [f"the notices are {', '.join(told)}"]
    for table, wanted in (ALWAYS | counts).items():
        ((count,),) = ours(world, f"SELECT count(*) FROM {table}")
        if count != wanted:
            wrong.append(f"{count} {table} instead of {wanted}")
    twice = ours(world, "SELECT text FROM room_posts GROUP BY channel, thread, text HAVING count(*) > 1")
    return wrong + [f"posted twice: {text}" for (text,) in twice]


async def _broken_link(world: World) -> str | None:
    store = await Store.open(f"sqlite:///{world.root / 'data' / 'moss.db'}", system_clock)
    try:
        async with store.reading() as db:
            broken = await facts.verify(db, world.name)
            return broken.sentence if broken else None
    finally:
        await store.close()


def _commits(world: World) -> list[str]:
    """Exactly one per accepted implementation, besides the owner's own."""
    results = [json.loads(done)["result"] for (done,) in ours(world, "SELECT done FROM steps")]
    accepted = [result["commit"] for result in results if result.get("verdict") == "APPROVE" and "commit" in result]
    repository = world.root / "data" / "repos" / f"{world.name}.git"
    kinds = git(repository, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)").split()
    made = kinds.count("commit") - 1
    wrong = [] if made == len(accepted) else [f"{made} commits for {len(accepted)} accepted implementations"]
    for (live,) in ours(world, 'SELECT "commit" FROM versions WHERE until IS NULL AND swap IS NOT NULL'):
        if git(repository, "rev-parse", "moss/live") != live:
            wrong.append("`moss/live` is not what is live")
    return wrong + [f"left behind: {path}" for path in repository.rglob("*.lock")]


@dataclass(frozen=True, slots=True)
class Seen:
    agents: int
    image: str
    """Of the live box."""
    left: list[str]
    files: dict[str, str]
    """On the agent's volume."""


def _look_at_processes(world: World, live: str) -> Seen:
    about = world.root / "data" / "boxes" / live / "box.json"
    box = json.loads(about.read_text()) if about.exists() else {"tag": "", "spec": {"image": ""}}
    found = processes(world)
    left = [words for *_, tag, words in found if tag != box["tag"]]
    left += [
        path.name for path in about.parents[2].glob("images/*") if path.name.replace("-", ":") not in _images(world)
    ]
    return Seen(
        agents=len({session for _, session, _, words in found if "agent.sh serve" in words}),
        image=box["spec"]["image"],
        left=left,
        files={path.name: path.read_text() for path in Path(world.volume).iterdir() if path.name in FILES},
    )


def _look_at_containers(world: World, live: str) -> Seen:
    boxes = dict(line.split() for line in on_the_engine(world, "container", "{{.Names}} {{.State}}", "--all"))
    running = boxes.get(live) == "running"
    names = docker("exec", live, "ls", "/state").split() if running else []
    left = [f"{name} ({state})" for name, state in boxes.items() if name != live]
    left += [image for image in on_the_engine(world, "image", "{{.ID}}", "--no-trunc") if image not in _images(world)]
    return Seen(
        agents=list(boxes.values()).count("running"),
        image=docker("inspect", "--format", "{{.Image}}", live) if running else "",
        left=left + [words for *_, words in processes(world)],
        files={name: docker("exec", live, "cat", f"/state/{name}") for name in names if name in FILES},
    )


def _images(world: World) -> set[str]:
    """One may roll back to each of them."""
    return {image for (image,) in ours(world, "SELECT image FROM versions")}


def _unexpected(world: World, live: str) -> list[Path]:
    data = world.root / "data"
    lasting = {path for pattern in LASTING for path in data.glob(pattern.format(live=live, name=world.name))}
    folders = {data, *filter(Path.is_dir, data.iterdir())}
    folders |= {folder for path in lasting for folder in path.parents if folder.is_relative_to(data)}
    return [path for folder in folders - lasting for path in folder.iterdir() if path not in lasting | folders]


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def ours(world: World, query: str) -> list[tuple[Any, ...]]:
    return rows(world.root / "data" / "moss.db", query)


def jobs(world: World) -> list[tuple[Any, ...]]:
    return rows(world.root / "data" / "moss-jobs.db", "SELECT workflow_uuid, status FROM workflow_status")


def on_the_engine(world: World, what: str, form: str, *more: str) -> list[str]:
    owner = (world.root / "data" / "installation").read_text().strip()
    said = docker(what, "ls", "--filter", f"label=moss.owner={owner}", "--format", form, *more)
    return list(dict.fromkeys(said.splitlines()))


def docker(*words: str) -> str:
    said = subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=ENGINE_S)
    return said.stdout.strip()


def processes(world: World) -> list[tuple[int, int, str, str]]:
    """Number, session, tag and words of all that was started on behalf of this world, by its Moss or by what that
    started. Each box and each coder has a session of its own."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            tag = re.search(rb"(?:^|\0)MOSS_TAG=([^\0]*)", environment)
            if tag and words and str(world.root).encode() in environment:
                found.append((pid, os.getsid(pid), tag[1].decode(), words))
    return found


def end_everything(world: World) -> None:
    world.kill()
    for pid, *_ in processes(world):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if world.host == "docker" and (world.root / "data" / "installation").exists():
        for name in on_the_engine(world, "container", "{{.Names}}", "--all"):
            with contextlib.suppress(subprocess.CalledProcessError):  # gone with another
                docker("container", "rm", "--force", "--volumes", name)
        for image in on_the_engine(world, "image", "{{.ID}}"):
            with contextlib.suppress(subprocess.CalledProcessError):
                docker("image", "rm", "--force", image)
        docker("volume", "rm", "--force", world.volume)
