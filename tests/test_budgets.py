"""Runs that cost something: every call is counted where it belongs, and no run goes on beyond what it may spend."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot import verbs
from bot.report import gather, standing
from core.model.errors import Refused
from core.model.run import Failed, RunState, Stage, Trouble
from core.model.spending import Line, LineKind
from core.store import ledger
from tests.support.theatre import FIXED, Theatre, agent, eventually, theatre
from tests.support.upstream import KEY, MESSAGE, Upstream, upstream

ASKS = """
import json, os, sys, time, urllib.error, urllib.request
asked = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "x" * 400}]}
request = urllib.request.Request(
    os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
    json.dumps(asked).encode(),
    {"x-api-key": os.environ["ANTHROPIC_API_KEY"], "content-type": "application/json"},
)
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20).read()
except urllib.error.HTTPError as refused:
    print(refused.read().decode(), file=sys.stderr)
    time.sleep(60)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What a coder with a model does, in short: it asks, and then it works."""
ONE = (1200, (600 * 3 + 300 * 0.3 + 60 * 3.75 + 40 * 6 + 200 * 15) / 1e6)


@asynccontextmanager
async def costly(root: Path, api: Upstream, monkeypatch: pytest.MonkeyPatch, more: str = "") -> AsyncIterator[Theatre]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    api.says(MESSAGE)
    (root / "asks.py").write_text(ASKS)
    where = f'\n[gateway.anthropic]\nurl = "{api.url}"\n'
    async with theatre(root, more + where, root / "asks.py") as stage:
        yield stage


async def test_a_run_is_billed_stage_by_stage_and_a_step_begun_twice_for_both_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upstream() as api, costly(tmp_path, api, monkeypatch) as stage:
        stage.cast(patch=agent(FIXED))
        run = await stage.begin()
        cut_short = {
            "kind": LineKind.call,
            "substrate": "prices",
            "run": run.id,
            "n": 3,
            "stage": "locate",
            "tokens": 50,
        }
        cut_short |= {"what": "iter-1/locate", "question": "of-a-moss-that-was-killed", "provider": "openai"}
        await ledger.add(stage.moss.store, [Line.model_validate({**cut_short, "money_usd": 0.5})])
        run = await stage.end_of(run)
        assert run.state is RunState.awaiting_consent, run.sentence
        async with stage.moss.store.reading() as db:
            by_stage = await ledger.by_stage(db, run.id)
            lines = await ledger.lines(db, run.id)
        asked = [Stage.locate, Stage.plan, Stage.plan_review, Stage.implement, Stage.code_review, Stage.verdict]
        assert {name: (spend.tokens, round(spend.money_usd, 6)) for name, spend in by_stage.items()} == {
            each: (1250, round(ONE[1] + 0.5, 6)) if each is Stage.locate else (1200, round(ONE[1], 6)) for each in asked
        }
        history = await stage.history(run)
        assert {done.step.stage: done.spend.tokens for done in history if done.spend.tokens} == {
            each: 1250 if each is Stage.locate else 1200 for each in asked
        }
        questions = [line for line in lines if line.kind is LineKind.question]
        assert [(line.provider, line.tokens) for line in questions] == [("scripted", 0)] * 6
        assert all(line.seconds > 0 for line in questions)

        report = await gather(stage.moss.store, stage.moss.settings.data, run.id)
        assert (report.spend.tokens, report.month.tokens) == (6 * 1200 + 50, 6 * 1200 + 50)
        assert report.spend.seconds == pytest.approx(sum(done.spend.seconds for done in history))
        assert (await standing(stage.moss.store, "prices")).month.tokens == 6 * 1200 + 50
        leaks = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
        assert leaks == []
        assert KEY not in json.dumps([line.model_dump(mode="json") for line in lines])


async def test_a_month_that_is_used_up_ends_the_run_at_once_and_lets_none_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    month = "\n[evolve.month]\ntokens = 3000\n"
    async with upstream() as api, costly(tmp_path, api, monkeypatch, month) as stage:
        run = await stage.play(patch=agent(FIXED))
        assert run.state is RunState.over_budget, run.sentence
        assert len(api.asked) == 3
        async with stage.moss.store.reading() as db:
            assert (await ledger.of_run(db, run.id)).tokens == 3600
        with pytest.raises(Refused, match=r"No run of prices can begin: .* used 3600 of 3000 tokens this month"):
            await verbs.restart(stage.moss, run.id, "ann")
        with pytest.raises(Refused, match="raise `month` in \\[evolve\\]"):
            await stage.begin()


async def test_a_call_that_would_go_over_the_budget_is_not_made_and_its_program_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = "\n[evolve.budget]\ntokens = 1205\n"
    async with upstream() as api, costly(tmp_path, api, monkeypatch, budget) as stage:
        run = await stage.play(patch=agent(FIXED), within_s=50)
        assert run.state is RunState.over_budget
        assert "its next call would have gone over the 5 tokens that were left of the budget" in run.sentence
        assert len(api.asked) == 1
        last = (await stage.history(run))[-1]
        assert isinstance(last.result, Failed)
        assert (last.result.trouble, last.step.stage, last.step.attempt) == (Trouble.spent, Stage.plan, 1)
        await eventually(lambda: stage.cleared(run), 10)
