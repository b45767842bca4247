"""What Moss adds to one call of a coding agent, on the host: everything but the program itself.

The program is a shell that looks at its checkout, writes to it and replies at once; what it takes when it is started
bare, without Moss, is taken off. What is left: a fresh home and environment, evidence and checkout compared with how
they were, output kept as it comes, the sweep for what it left behind, the reply checked.
"""

import asyncio
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.table import Measured
from bot import built_in
from core import process
from core.coders import sample
from core.coders.ask import ask
from core.coders.claude import Claude
from core.coders.coder import Api, Brief, Heard, Provider, Start, Versions, Way
from core.coders.codex import Codex
from core.coders.command import Command
from core.coders.program import Program
from core.folders import lay
from core.model.replies import Role
from core.repository import Clone, begin

NAME = "coder"
GOAL_MS = 150.0
CALLS = 30

REPLY = json.dumps({"summary": "done"})
CLAUDE = json.dumps(
    {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": REPLY,
        "session_id": "s",
        "total_cost_usd": 0.1,
        "modelUsage": {"m": {"inputTokens": 1000, "outputTokens": 50}},
    }
)
CODEX = "\n".join(
    json.dumps(event)
    for event in (
        {"type": "thread.started", "thread_id": "t"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": REPLY}},
        {"type": "turn.completed", "usage": {"input_tokens": 1000, "output_tokens": 50}},
    )
)


class Speechless:
    """A provider whose words the shell does not get, since it would take them for its own."""

    def __init__(self, inner: Provider) -> None:
        self.inner = inner

    @property
    def api(self) -> Api | None:
        return self.inner.api

    @property
    def versions(self) -> Versions | None:
        return self.inner.versions

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        start = self.inner.start(brief, home, way)
        return Start((), start.env, start.files)

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        return self.inner.hear(said, complaint, exit_code)


KINDS: dict[str, tuple[Provider, str]] = {
    "command": (Command(), REPLY),
    "claude": (Speechless(Claude()), CLAUDE),
    "codex": (Speechless(Codex()), CODEX),
}


async def measure() -> Measured:
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        found = await overheads(Path(scratch), CALLS)
    medians = {kind: statistics.median(each) for kind, each in found.items()}
    rows = [
        (f"beside a call of `{kind}` (median of {CALLS})", f"{ms:.0f} ms", "under 150 ms")
        for kind, ms in medians.items()
    ]
    worst = max(ms for each in found.values() for ms in each)
    return Measured(
        rows=(*rows, ("  the slowest of them", f"{worst:.0f} ms", "")),
        values={f"{kind}_ms": round(ms, 1) for kind, ms in medians.items()} | {"slowest_ms": round(worst, 1)},
        met=max(medians.values()) < GOAL_MS,
    )


async def overheads(where: Path, calls: int) -> dict[str, list[float]]:
    """Milliseconds of Moss per call, by the kind of program. The checkout is that of the desk."""
    source = where / "source"
    shutil.copytree(built_in.examples() / built_in.DESK, source, ignore=shutil.ignore_patterns("__pycache__"))
    await begin(source, "The desk")
    clone = await Clone.of(str(source), where / "clone.git")
    base = await clone.head("main")
    found: dict[str, list[float]] = {}
    for kind, (provider, says) in KINDS.items():
        script = f"cat >/dev/null; ls >/dev/null; echo '# x' >> desk/dispatch.py; cat <<'END'\n{says}\nEND\n"
        argv = ("sh", "-c", script)
        coder = Program(kind, argv, provider)
        found[kind] = []
        for n in range(calls):
            checkout, evidence = where / "checkout", where / "evidence"
            await clone.checkout(base, checkout)
            lay(evidence, sample.evidence(Role.implement, ""))
            prompt = sample.prompt(Role.implement, str(evidence))
            bare_ms = await _bare(argv, checkout, prompt)
            await clone.checkout(base, checkout)
            brief = Brief(
                role=Role.implement,
                tag=f"bench-{kind}/{n}",
                prompt=prompt,
                checkout=checkout,
                evidence=evidence,
                artefacts=where / "artefacts" / kind / str(n),
                may_write=True,
                timeout_s=60,
            )
            began = time.perf_counter()
            reply, _ = await ask(coder, brief)
            found[kind].append(max(0.0, (time.perf_counter() - began) * 1000 - bare_ms))
            assert reply.model_dump()["summary"] == "done"
    return found


async def _bare(argv: tuple[str, ...], cwd: Path, prompt: str) -> float:
    """The program alone, as anybody would start it."""
    began = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=process.safe_env(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    with contextlib.suppress(BrokenPipeError):
        await child.communicate(prompt.encode())
    return (time.perf_counter() - began) * 1000
