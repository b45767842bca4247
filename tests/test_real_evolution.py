"""A whole evolution of the desk with a real coding agent: a scripted model plays all seven roles behind it."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bot import data, settings, verbs
from bot.wiring import opened
from core.model.keypoints import Level
from core.model.replies import Role
from core.model.run import Dial, Done, RunState, Scored, Stage
from core.repository import begin
from core.store import runs, swaps, upgrade
from tests.support import desk
from tests.support.coding_agents import CLAUDE, CODEX, Agent
from tests.support.model_stub import INPUT_TOKENS, KEY, Asked, Read, Say, Text, Write, model
from tests.support.needs import BUBBLEWRAP
from tests.support.theatre import UNDER_WAY, eventually
from tests.support.world import MOSS, ROOT

CONFIG = """
[moss]
data = "data"
host = "process"

[substrate]
name = "desk"
repository = "desk"
trusted = true
smoke = {python_desk_help}
run.command = {python_desk_serve}
run.port = 8080
health.http = "/health"
health.every_s = 0.2
health.passes = 1
tests.command = {python_tests}
tests.paths = ["tests/**"]
scope.editable = ["desk/**"]

[coder]
provider = "{provider}"
argv = ["{program}"]
base_url = "{url}"
sandbox = "host"
timeout_s = 120

[gateway.{api}]
url = "{url}"

[consent]
approvers = ["ann", "bob"]
"""

ROLES = {
    "# Score one reply": Role.evaluate,
    "# Locate the cause": Role.locate,
    "# Plan the change": Role.plan,
    "# Review the plan": Role.plan_review,
    "# Implement the plan": Role.implement,
    "# Review the change": Role.code_review,
    "# Judge the iteration": Role.verdict,
}
WHERE = "desk/dispatch.py"

REPLIES: dict[Role, object] = {
    Role.locate: {
        "summary": "Case.keep holds one record of each kind, so that all further ones are lost.",
        "failure_class": "incomplete",
        "depth": "structural",
        "suspects": [{"path": WHERE, "why": "Case.keep drops rows."}],
        "siblings": ["any question that several tickets answer"],
    },
    Role.plan: {
        "summary": "The case holds every record.",
        "changes": [{"path": WHERE, "change": "Case.keep holds lists."}],
        "expect_better": [],
        "may_hurt": [],
    },
    Role.plan_review: {"verdict": "APPROVE", "remarks": "The only place where rows are lost."},
    Role.implement: {"summary": "The dispatcher dropped all but the first record it found."},
    Role.code_review: {"verdict": "APPROVE", "remarks": "Does what the plan says."},
    Role.verdict: {"verdict": "CONVERGED", "reason": "Every late ticket is named."},
}
KEYPOINTS = {
    "counts": ("Says how many are late.", r"3 open tickets of Harbor Foods are past"),
    "compressor": ("Names T-1042.", r"- T-1042 \("),
    "freezer": ("Names T-1038.", r"- T-1038 \("),
    "display": ("Names T-1029.", r"- T-1029 \("),
}


def player(fixed: str, played: list[Role]) -> Callable[[Asked], Say]:
    """What the model says in each role; it looks at what it judges, and reads a file before it writes it."""

    def say(asked: Asked) -> Say:
        role = next(role for heading, role in ROLES.items() if heading in asked.said)
        evidence = re.search(r"below `([^`]+)`", asked.said)
        assert evidence
        told = json.dumps(asked.body)
        found = re.search(r"orking directory: ([^\s\\\"]+)|<cwd>([^<]+)</cwd>", told)
        assert found, told[:4000]
        checkout = Path(found[1] or found[2])
        step = len(asked.results)
        if role is Role.evaluate:
            if step == 0:
                return Read(f"{evidence[1]}/transcript.json")
            played.append(role)
            return Text(json.dumps(scores(asked.results[0])))
        if role is Role.implement and step < 2:
            return Read(str(checkout / WHERE)) if step == 0 else Write(str(checkout / WHERE), fixed)
        if step == 0:
            return Read(f"{evidence[1]}/brief.json")
        played.append(role)
        return Text(f"That is what I found.\n{json.dumps(REPLIES[role])}")

    return say


def scores(transcript: str) -> object:
    points = [
        {"id": name, "text": text, "level": int(Level.strong if re.search(pattern, transcript) else Level.weak)}
        for name, (text, pattern) in KEYPOINTS.items()
    ]
    return {"keypoints": points}


@pytest.mark.parametrize("agent", [pytest.param(each, id=each.name, marks=each.needs()) for each in (CLAUDE, CODEX)])
async def test_a_real_coding_agent_repairs_the_desk(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = (desk.tree(tmp_path / "fixed", "fix.patch") / WHERE).read_text()
    played: list[Role] = []
    with model(script=player(fixed, played)) as stub:
        await begin(desk.tree(tmp_path / "desk"), "The desk")
        evidence = json.loads((desk.OWNERS / "batch.jsonl").read_text().splitlines()[0])
        python = [*desk.PYTHON, "-m"]
        (tmp_path / "moss.toml").write_text(
            CONFIG.format(
                provider=agent.name,
                program=agent.path,
                sandbox="bubblewrap" if BUBBLEWRAP else "host",
                api=agent.provider.api,
                url=stub.url,
                python_desk_help=json.dumps([*python, "desk", "--help"]),
                python_desk_serve=json.dumps([*python, "desk", "serve"]),
                python_tests=json.dumps([*python, "unittest"]),
            )
        )
        monkeypatch.setenv({"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY"}[agent.name], KEY)
        chosen = settings.load(tmp_path / "moss.toml", {})
        owner = data.prepare(chosen.data)
        await upgrade(chosen.database_url)
        async with opened(chosen, owner) as (moss, _):
            try:
                await verbs.adopt(moss, None, None, "ann", token=None)
                await verbs.add_evidence(moss, None, (json.dumps(evidence),), "ann")
                run = await verbs.evolve(moss, None, None, Dial.shallow, "ann")

                async def ended() -> bool:
                    async with moss.store.reading() as db:
                        return (await runs.get(db, run.id)).state not in UNDER_WAY

                await eventually(ended, within_s=240)
                async with moss.store.reading() as db:
                    run, history = await runs.get(db, run.id), await runs.history(db, run.id)
                    (found,) = await runs.candidates(db, run.id)
                assert run.state is RunState.awaiting_consent, run.sentence
                await verbs.decide(moss, run.id, "bob", True, None)

                async def applied() -> bool:
                    async with moss.store.reading() as db:
                        return (await runs.get(db, run.id)).state is RunState.applied

                await eventually(applied, within_s=60)
                async with moss.store.reading() as db:
                    live = await swaps.live_version(db, "desk")
            finally:
                for box in await moss.host.boxes({}):
                    await moss.host.remove(box.name)
    assert set(played) == set(ROLES.values())
    assert [role for role in played if role is not Role.evaluate] == list(REPLIES)
    assert {asked.key for asked in stub.asked} == {KEY}
    assert found.files == (WHERE,)
    assert live is not None
    assert live.commit == found.commit
    baseline, candidate = totals(history, Stage.baseline), totals(history, Stage.evaluate)
    assert (baseline, candidate) == (1 + 3 + 1 + 1, 12)
    asking = [done for done in history if done.step.stage in (Stage.locate, Stage.implement, Stage.verdict)]
    assert len(asking) == 3
    assert all(done.spend.tokens > 2 * INPUT_TOKENS for done in asking)
    assert all((done.spend.money_usd > 0) == agent.price for done in asking)


@pytest.mark.sweep
@pytest.mark.parametrize("agent", [pytest.param(each, id=each.name, marks=each.needs()) for each in (CLAUDE, CODEX)])
def test_the_demo_is_played_to_its_end_with_a_real_coding_agent(agent: Agent, tmp_path: Path) -> None:
    fixed = (desk.tree(tmp_path / "fixed", "fix.patch") / WHERE).read_text()
    played: list[Role] = []
    with model(script=player(fixed, played)) as stub:
        of = {"claude": "ANTHROPIC", "codex": "OPENAI"}[agent.name]
        told = {f"{of}_API_KEY": KEY, f"MOSS_GATEWAY__{of}__URL": stub.url, "TMPDIR": str(tmp_path)}
        path = f"{Path(agent.path).parent}:{os.environ['PATH']}"
        demo = subprocess.run(
            [*MOSS, "demo", "--headless", "--host", "process", "--json", "--coder", agent.name],
            env=told | {"PATH": path, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert demo.returncode == 0, demo.stderr[-4000:]
    ending = json.loads(demo.stdout.splitlines()[-1])
    assert ending["reply_after"].startswith("3 open tickets of Harbor Foods")
    assert [role for role in played if role is not Role.evaluate] == list(REPLIES)


def totals(history: list[Done], stage: Stage) -> int:
    (matrix,) = [done.result.matrix for done in history if done.step.stage is stage and isinstance(done.result, Scored)]
    return matrix.total
