"""A whole Moss in this process, with a small agent that is really live and a scripted coder: a stage for liars."""

import asyncio
import contextlib
import difflib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot import control, data, settings, verbs
from bot.answers import answers, follow
from bot.verbs import Moss
from bot.wiring import opened
from core.coders.catalogue import RoleSettings
from core.consent import Decision
from core.containers.content import digest
from core.containers.host import label
from core.model.candidate import Candidate
from core.model.consent import Consent
from core.model.replies import Role
from core.model.run import Dial, Done, Run, RunState
from core.store import consents, runs, swaps, upgrade
from tests.support.scripted_coder import scripted
from tests.support.world import git

AGENT = """\
\"\"\"A price desk: `serve` lives, `ask` answers the message on standard input.\"\"\"
import sys
import time

PRICES = {"apple": 2, "pear": 3, "plum": 5, "quince": 8}


def price(good):
    return PRICES.get(good, "nothing we know")


def answer(message):
    goods = message.split()[:1]
    return " ".join(f"{good} costs {price(good)}." for good in goods)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        time.sleep(100_000)
    print(answer(sys.stdin.read()))
"""
FIXED = AGENT.replace("split()[:1]", "split()")
NO_BETTER = AGENT.replace('f"{good} costs', 'f"Well, {good} costs')
SILENT = AGENT.replace("print(answer(sys.stdin.read()))", 'print("We are closed.")')
LISTENING = FIXED.replace("PRICES.get(good,", "PRICES.get(good.lower(),")
DEAF_AGAIN = AGENT.replace("PRICES.get(good,", "PRICES.get(good.lower(),")
WRONG_PRICES = FIXED.replace('"apple": 2', '"apple": 20')
LEARNT_BY_HEART = AGENT.replace("PRICES =", "ANSWERS = @ANSWERS@\nPRICES =").replace(
    "    goods =", "    if message in ANSWERS:\n        return ANSWERS[message]\n    goods ="
)

FILES = {
    "agent.py": AGENT,
    "build.sh": "python3 -S -B -c 'import agent'\n",
    "tests/test_prices.py": """\
import sys

sys.path.insert(0, ".")
from agent import price

assert price("apple") == 2
assert price("brick") == "nothing we know"
""",
}

TASKS = (
    {
        "id": "one-good",
        "kind": "golden",
        "transcript": {"messages": [{"role": "user", "content": "quince"}]},
        "checks": [{"id": "price", "text": "prices the quince", "contains": "quince costs 8"}],
    },
    {
        "id": "three-goods",
        "kind": "holdout",
        "kinds": ["incomplete"],
        "transcript": {"messages": [{"role": "user", "content": "quince plum pear"}]},
        "checks": [{"id": "third", "text": "prices the pear", "contains": "pear costs 3"}],
    },
)

CONFIG = """
[moss]
data = "data"
host = "process"

[[substrate]]
name = "prices"
repository = "repository"
trusted = true
tasks = ["tasks.jsonl"]
build.command = ["sh", "build.sh"]
run.command = ["python3", "-S", "agent.py", "serve"]
run.stop_grace_s = 1
replay.kind = "exec"
replay.command = ["python3", "-S", "agent.py", "ask"]
health.canary = "apple"
health.canary_expect = "costs 2"
health.every_s = 0.05
health.passes = 1
trials.workers = 3
tests.command = ["python3", "-S", "-B", "tests/test_prices.py"]

[coder]
name = "scripted"
argv = {argv}
timeout_s = 60
sandbox = "host"

[consent]
approvers = ["ann", "bob"]

[evolve]
depth = "shallow"
"""

UNDER_WAY = (RunState.queued, RunState.running)


def complaint(asked: str, replied: str, *wanted: str, kind: str = "incomplete") -> str:
    """A line of evidence: two people flagged a reply that lacks what they wanted."""
    return json.dumps(
        {
            "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": replied}],
            "feedback": [{"who": who, "kind": kind} for who in ("carl", "dora")],
            "checks": [
                {"id": f"wants-{n}", "text": f"Says {text}.", "contains": text} for n, text in enumerate(wanted)
            ],
        }
    )


HALF_AN_ANSWER = complaint("apple pear", "apple costs 2.", "apple costs 2", "pear costs 3")
WITHOUT_CHECKS = complaint("apple pear", "apple costs 2.")
SHOUTED = complaint("PLUM", "PLUM costs nothing we know.", "costs 5", kind="wrong_answer")


@dataclass(frozen=True)
class Outside:
    """All that a run may not change before people allowed it."""

    version: Any
    last_good: Any
    process: Any
    files: str
    branches: str
    consents: int


class Theatre:
    def __init__(self, root: Path, moss: Moss, scenario: Path) -> None:
        self.root, self.moss, self.scenario = root, moss, scenario

    def cast(self, **scenario: Any) -> None:
        """What the coder does from now on."""
        Path(f"{self.scenario}.calls.jsonl").unlink(missing_ok=True)
        Path(f"{self.scenario}.pwned").unlink(missing_ok=True)
        scripted(self.scenario.parent, **scenario)

    @property
    def pwned(self) -> bool:
        """Whether anybody ran what the coder planted."""
        return Path(f"{self.scenario}.pwned").exists()

    async def play(self, *evidence: str, dial: Dial = Dial.shallow, within_s: float = 90, **scenario: Any) -> Run:
        """A whole run of a fresh batch."""
        self.cast(**scenario)
        return await self.end_of(await self.begin(*evidence, dial=dial), within_s)

    async def begin(self, *evidence: str, dial: Dial = Dial.shallow) -> Run:
        lines = evidence or (HALF_AN_ANSWER,)
        await verbs.add_evidence(self.moss, None, lines, "ann")
        return await verbs.evolve(self.moss, None, None, dial, "ann")

    async def end_of(self, run: Run, within_s: float = 90) -> Run:
        async def ended() -> bool:
            return (await self.look(run.id)).state not in (*UNDER_WAY, RunState.approved, RunState.swapping)

        await eventually(ended, within_s)
        return await self.look(run.id)

    async def approve(self, run: Run, who: str = "bob") -> Decision:
        return await verbs.decide(self.moss, run.id, who, True)

    async def look(self, run: str) -> Run:
        async with self.moss.store.reading() as db:
            return await runs.get(db, run)

    async def history(self, run: Run) -> list[Done]:
        async with self.moss.store.reading() as db:
            return await runs.history(db, run.id)

    async def consent_of(self, run: Run) -> Consent | None:
        async with self.moss.store.reading() as db:
            return await consents.of_run(db, run.id)

    async def candidate_of(self, run: Run) -> Candidate:
        async with self.moss.store.reading() as db:
            (found,) = await runs.candidates(db, run.id)
        return found

    def artefact(self, run: Run, name: str) -> Path:
        return self.moss.settings.data / "runs" / run.id / name

    async def outside(self) -> Outside:
        async with self.moss.store.reading() as db:
            version, good = await swaps.live_version(db, "prices"), await swaps.last_good(db, "prices")
            asked = await consents.asked(db, "prices")
        assert version is not None
        tree = self.moss.settings.data / "boxes" / version.box / "tree"
        return Outside(
            version,
            good,
            (await self.moss.host.look(version.box), self.pid_of(version.box)),
            digest(tree, {}),
            git(self.root / "repository", "for-each-ref"),
            len(asked),
        )

    def pid_of(self, box: str) -> int:
        return int((self.moss.settings.data / "boxes" / box / "pid").read_text())

    @contextlib.contextmanager
    def impatient(self, role: Role, timeout_s: float) -> Iterator[None]:
        """Another time limit for a role. Durable jobs exist once per process, so that no second Moss can have it."""
        roles = self.moss.settings.coder.roles
        roles[role] = RoleSettings(timeout_s=timeout_s)
        try:
            yield
        finally:
            del roles[role]

    async def cleared(self, run: Run) -> bool:
        return not await self.left_of(run)

    async def left_of(self, run: Run) -> list[str]:
        """What a run that is over has left behind where it should not: boxes, scratch, processes."""
        left = [box.name for box in await self.moss.host.boxes({label.RUN: run.id})]
        left += [str(path) for path in (self.moss.settings.data / "work").glob("*")]
        return left + self.at_work()

    def at_work(self) -> list[str]:
        """Every process of this theatre but the live agent's."""
        live = {os.getsid(int(path.read_text())) for path in self.root.glob("data/boxes/moss-prices-*-v*/pid")}
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                about = Path(f"/proc/{pid}/environ").read_bytes() + os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
                if words and os.fsencode(self.root) in about and os.getsid(int(pid)) not in live:
                    found.append(f"{pid} {words}")
        return found

    @asynccontextmanager
    async def box_office(self) -> AsyncIterator[control.Client]:
        """The control socket."""
        moss = self.moss
        server = control.Server(moss.settings.socket, answers(moss), lambda name, since: follow(moss, name, since))
        server.listen()
        serving = asyncio.create_task(server.serve())
        try:
            yield control.Client(moss.settings.socket)
        finally:
            server.stop()
            await serving


@asynccontextmanager
async def theatre(
    root: Path, more: str = "", before: Path | None = None, config: str = CONFIG, coder: Path | None = None
) -> AsyncIterator[Theatre]:
    """Open until the end of the block, and then nothing of it runs any more. `more` is added to the settings; `before`
    is a program that runs before each entry of the coder, and puts it on stage; `coder` is another program than
    scripted_coder.py that plays a scenario."""
    repository = root / "repository"
    for name, text in FILES.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=The agent")
    (root / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    argv, scenario = scripted(root)
    argv = (argv[0], "-S", "-E", str(coder or argv[1]), *argv[2:])
    if before:
        argv = (argv[0], "-S", "-E", str(before), *argv)
    (root / "moss.toml").write_text(config.format(argv=json.dumps(argv)) + more)
    chosen = settings.load(root / "moss.toml", {})
    owner = data.prepare(chosen.data)
    await upgrade(chosen.database_url)
    async with opened(chosen, owner) as (moss, _):
        try:
            await verbs.adopt(moss, None, None, "ann", token=None)
            yield Theatre(root, moss, scenario)
        finally:
            for box in await moss.host.boxes({}):
                await moss.host.remove(box.name)


def agent(source: str, **more: str) -> dict[str, Any]:
    """What an implementer leaves in the working directory."""
    return {"files": {"agent.py": source, **more}}


def diff(before: str, after: str) -> dict[str, Any]:
    """The same as a diff, which fits on exactly one base."""
    lines = (text.splitlines(keepends=True) for text in (before, after))
    return {"diff": "".join(difflib.unified_diff(*lines, "a/agent.py", "b/agent.py"))}


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float) -> float:
    """How long it took until the condition held."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 (the store, and other processes, tell no event)
            await asyncio.sleep(0.05)
    return time.monotonic() - began
