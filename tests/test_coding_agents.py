"""The real coding agents against a model on loopback: what arrives, what comes back, what they may not do."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core import process
from core.coders import check
from core.coders.ask import ask
from core.coders.events import standing_orders
from core.coders.program import Program
from core.gateway.gateway import Gateway
from core.gateway.settings import GatewaySettings
from core.model.errors import CoderFailed, Misconduct
from core.model.replies import Diagnosis, Implementation, Role
from core.model.run import Spend
from core.repository import Change, Clone
from tests.support.bench import Bench
from tests.support.coding_agents import AGENTS, CLAUDE, CODEX, Agent, as_nobody
from tests.support.hostile_checkout import MARK, hostile
from tests.support.model_stub import (
    INPUT_TOKENS,
    KEY,
    OUTPUT_TOKENS,
    Asked,
    Cut,
    Endless,
    Read,
    Refuse,
    Say,
    Shell,
    Silent,
    Text,
    Write,
    model,
)

DIAGNOSIS = json.dumps(
    {
        "summary": "s",
        "failure_class": "routing",
        "depth": "surface",
        "suspects": [{"path": "agent.py", "why": "w"}],
        "siblings": [],
    }
)
FOUND = Text(f"I looked at it.\n{DIAGNOSIS}")
DONE = Text('{"summary": "done"}')

SLOW = {"opencode": [pytest.mark.sweep]}
"""It takes most of a minute to start where several programs run at once."""
every = pytest.mark.parametrize(
    "agent", [pytest.param(each, id=each.name, marks=[each.needs(), *SLOW.get(each.name, [])]) for each in AGENTS]
)

Prepared = tuple[Clone, str, Change]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return asyncio.run(check.prepare(tmp_path_factory.mktemp("prepared")))


@pytest.fixture
def bench(tmp_path: Path, prepared: Prepared) -> Iterator[Bench]:
    # Two that run at once must not have one tag: each would take the other's program for a leftover of its own.
    where = tmp_path / f"{tmp_path.name[-8:]}-{os.getpid()}"
    where.mkdir()
    yield Bench(where, *prepared)
    assert process.survivors(f"run-{where.name}/") == []


async def complaint(bench: Bench, coder: Program, role: Role = Role.locate, **different: object) -> tuple[str, Spend]:
    with pytest.raises(CoderFailed) as failed:
        await bench.ask(coder, role, **{"timeout_s": 120.0, **different})
    assert failed.value.spend is not None
    return failed.value.sentence, failed.value.spend


@every
async def test_an_edit_lands_and_the_reply_comes_with_what_it_cost(agent: Agent, bench: Bench) -> None:
    new = bench.where / "checkout/new.py"
    with model(Read(str(bench.where / "evidence/brief.json")), Write(str(new), "fresh = True\n"), DONE) as stub:
        brief = await bench.brief(Role.implement, timeout_s=120)
        coder = agent.program(stub)
        reply, spend = await ask(coder, brief)
    assert reply == Implementation(summary="done")
    assert new.read_text() == "fresh = True\n"
    last = stub.last
    assert '"sample' in last.results[0].replace("\\", ""), "the evidence can be read, though it lies elsewhere"
    assert spend.tokens == 3 * (INPUT_TOKENS + OUTPUT_TOKENS)
    assert (spend.money_usd > 0) == agent.price
    assert 0 < spend.seconds < 120
    assert {asked.key for asked in stub.asked} == {KEY}
    assert "Do what `plan.json` says" in last.said
    assert brief.prompt in last.said
    assert standing_orders() in last.system
    assert stub.others == [], "it speaks to its model and to nobody else"
    said = (bench.where / "artefacts/stdout.txt").read_text()
    heard = agent.provider.hear(said, "", 0)
    assert heard.problem is None
    assert len(heard.session) > 10
    assert agent.provider.hear(said.rstrip().rpartition("\n")[0], "", 0).problem, "the last event was needed"


@every
async def test_it_works_through_the_gateway_which_has_nothing_to_refuse(agent: Agent, bench: Bench) -> None:
    new = bench.where / "checkout/new.py"
    says = [Read(str(bench.where / "evidence/brief.json")), Write(str(new), "fresh = True\n"), DONE]
    with model(*says) as stub, capture_logs() as logs:
        one = {"url": stub.url}
        settings = GatewaySettings.model_validate({"anthropic": one, "openai": one, "gemini": one})
        async with Gateway(settings, {"anthropic": KEY, "openai": KEY, "gemini": KEY}).serving() as lanes:
            coder = replace(agent.program(stub), lanes=lanes)
            reply, spend = await bench.ask(coder, Role.implement, timeout_s=120)
    assert reply == Implementation(summary="done")
    assert new.read_text() == "fresh = True\n"
    assert spend.tokens == 3 * (INPUT_TOKENS + OUTPUT_TOKENS)
    assert {asked.key for asked in stub.asked} == {KEY}
    assert [each for each in logs if each["event"].startswith("gateway")] == []


@every
async def test_a_write_outside_is_refused(agent: Agent, bench: Bench) -> None:
    outside = bench.where / "outside.txt"
    says: list[Say] = [Write(str(outside), "x\n"), Shell(f"echo x > {outside}"), DONE]
    for provider, lands in ((agent.provider, False), (agent.loose(), True)):
        with model(*says) as stub:
            reply, _ = await bench.ask(agent.program(stub, provider), Role.implement, timeout_s=120)
        assert reply == Implementation(summary="done")
        assert len(stub.last.results) == 2
        assert outside.exists() == lands, stub.last.results


@every
@pytest.mark.parametrize("how", ["write", "shell"])
async def test_a_role_that_reads_cannot_write(agent: Agent, bench: Bench, how: str) -> None:
    new = bench.where / "checkout/new.txt"
    say: Say = Write(str(new), "x\n") if how == "write" else Shell(f"echo x > {new}")
    with model(say, FOUND) as stub:
        reply, _ = await bench.ask(agent.program(stub), timeout_s=120)
    assert isinstance(reply, Diagnosis)
    assert not new.exists()
    assert len(stub.last.results) == 1
    with model(say, FOUND) as stub, pytest.raises(Misconduct, match=r"changed new\.txt, though"):
        await bench.ask(agent.program(stub, agent.loose()), timeout_s=120)


REFUSALS = {
    401: (Refuse(401, "authentication_error", "invalid x-api-key"), "does not accept its key"),
    404: (Refuse(404, "not_found_error", "no such model"), "does not know the model"),
    500: (Refuse(500, "api_error", "boom"), "failed"),
    529: (Refuse(529, "overloaded_error", "Overloaded"), "its model's service"),
}


@every
@pytest.mark.parametrize("status", REFUSALS)
async def test_a_model_that_does_not_answer_is_named_in_good_time(agent: Agent, bench: Bench, status: int) -> None:
    refuse, words = REFUSALS[status]
    if agent.stubborn and status >= 500:
        with model(refuse) as stub:
            await cut_short(bench, agent.program(stub), lambda: len(stub.asked) > 1)
        return
    with model(refuse) as stub:
        sentence, spend = await complaint(bench, agent.program(stub))
    assert sentence.startswith(f"Coder {agent.name} failed in role locate: its model's service")
    assert words in sentence or refuse.message in sentence  # not every program tells the status
    assert spend.seconds < (90 if agent.slow else 45)
    assert len(stub.asked) < 25


@every
async def test_a_stream_that_breaks_is_no_answer(agent: Agent, bench: Bench) -> None:
    if agent.stubborn:
        with model(Cut()) as stub:
            await cut_short(bench, agent.program(stub), lambda: len(stub.asked) > 1)
        return
    with model(Cut()) as stub:
        sentence, _ = await complaint(bench, agent.program(stub))
    assert f"Coder {agent.name} failed in role locate: it" in sentence
    assert "on and on" not in sentence


@every
async def test_a_stream_without_end_is_ended(agent: Agent, bench: Bench) -> None:
    with model(Endless()) as stub:
        if agent.slow:
            await cut_short(bench, agent.program(stub), lambda: bool(stub.asked))
            return
        sentence, _ = await complaint(bench, agent.program(stub), timeout_s=5.0)
    assert stub.asked
    assert "did not end within 5 s and was killed" in sentence


@every
async def test_an_answer_without_a_word_is_none(agent: Agent, bench: Bench) -> None:
    with model(Text("")) as stub:
        sentence, _ = await complaint(bench, agent.program(stub))
    assert "it ended without a word" in sentence or "its model's service failed" in sentence


@every
@pytest.mark.parametrize("deaf", ["model", "shell"])
async def test_whoever_hangs_is_killed_with_all_that_it_started(agent: Agent, bench: Bench, deaf: str) -> None:
    mark = f"{30_000 + os.getpid()}.{abs(hash(bench.where)) % 1000}"
    command = f"trap '' TERM; setsid sleep {mark} & sleep {mark}; wait"
    says: list[Say] = [Shell(command), DONE] if deaf == "shell" else [Silent()]
    provider = agent.provider if agent.shell else agent.loose()
    with model(*says) as stub:
        coder = agent.program(stub, provider)
        await cut_short(
            bench, coder, lambda: len(_running(mark)) == 2 if deaf == "shell" else bool(stub.asked), Role.implement
        )
    assert _running(mark) == []


async def cut_short(bench: Bench, coder: Program, at_work: Callable[[], bool], role: Role = Role.locate) -> None:
    """Ended by Moss, as by a stop, as soon as it is at work. That nothing of it is left, the bench sees."""
    asked = asyncio.create_task(bench.ask(coder, role, timeout_s=300.0))
    async with asyncio.timeout(300):
        while not at_work():
            assert not asked.done(), asked.result()
            await asyncio.sleep(0.05)
    began = time.monotonic()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert time.monotonic() - began < 10


def _running(mark: str) -> list[str]:
    """By what they were called with, not by what they carry."""
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in said.splitlines() if line.split()[:2] == ["sleep", mark]]


@every
async def test_the_repository_does_not_configure_who_edits_it(agent: Agent, bench: Bench) -> None:
    pwned = bench.where / "pwned"
    new = bench.where / "checkout/new.txt"
    with model(FOUND) as elsewhere:
        brief = await bench.brief(timeout_s=120)
        for name, text in hostile(pwned, elsewhere.url).items():
            path = brief.checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        says: list[Say] = [Read(str(brief.checkout / "agent.py")), Write(str(new), "x\n"), Shell(f"touch {new}"), FOUND]
        with model(*says) as stub:
            reply, _ = await ask(agent.program(stub), brief)
    assert isinstance(reply, Diagnosis)
    assert "ROUTES" in stub.last.results[0]
    assert len(stub.last.results) == 3
    assert [asked for asked in stub.asked if MARK in json.dumps(asked.body)] == [], "instructions of the repository"
    assert elsewhere.asked == []
    assert elsewhere.others == []
    assert {asked.key for asked in stub.asked} == {KEY}
    assert not pwned.exists()
    assert not new.exists()


def corrected(asked: Asked) -> Say:
    return FOUND if "could not be used" in asked.said else Text('{"summary": "s", "depth": "shallow"}')


@every
async def test_a_reply_that_is_invalid_gets_one_more_try(agent: Agent, bench: Bench) -> None:
    with model(script=corrected) as stub:
        reply, spend = await bench.ask(agent.program(stub), timeout_s=120)
    assert isinstance(reply, Diagnosis)
    assert spend.tokens == 2 * (INPUT_TOKENS + OUTPUT_TOKENS)


@every
async def test_a_reply_that_is_missing_twice_fails_with_the_price_of_both(agent: Agent, bench: Bench) -> None:
    with model(Text("I would rather not.")) as stub:
        sentence, spend = await complaint(bench, agent.program(stub))
    assert "its reply cannot be used, it holds no JSON object" in sentence
    assert spend.tokens == 2 * (INPUT_TOKENS + OUTPUT_TOKENS)


@every
async def test_a_prompt_of_a_megabyte_arrives_whole(agent: Agent, bench: Bench) -> None:
    brief = await bench.brief(timeout_s=120)
    prompt = f"BEGIN {'lorem ipsum ' * 85_000} END\n{brief.prompt}"
    assert len(prompt) > 1_000_000
    with model(FOUND) as stub:
        reply, _ = await ask(agent.program(stub), replace(brief, prompt=prompt))
    assert isinstance(reply, Diagnosis)
    assert prompt.strip() in stub.last.said


@pytest.mark.parametrize("agent", [pytest.param(CLAUDE, id="claude", marks=CLAUDE.needs())])
async def test_claude_ends_at_its_number_of_turns(agent: Agent, bench: Bench) -> None:
    provider = replace(agent.provider, max_turns=2)  # type: ignore[type-var]
    with model(Read(str(bench.where / "checkout/agent.py"))) as stub:
        sentence, spend = await complaint(bench, agent.program(stub, provider))
    assert "it came to no end within 2 turns" in sentence
    assert spend.tokens == 2 * (INPUT_TOKENS + OUTPUT_TOKENS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("agent", [pytest.param(each, id=each.name, marks=each.needs()) for each in (CLAUDE, CODEX)])
async def test_a_normal_user_is_as_well_off_as_root(agent: Agent, prepared: Prepared) -> None:
    with as_nobody(agent) as (where, coder):
        bench = Bench(where, *prepared)
        new, outside = where / "checkout/new.py", where / "outside.txt"
        says = [Read(str(where / "evidence/brief.json")), Write(str(new), "x\n"), Write(str(outside), "x\n"), DONE]
        with model(*says) as stub:
            reply, _ = await bench.ask(coder(stub), Role.implement, timeout_s=120)
        assert reply == Implementation(summary="done")
        assert "sample" in stub.last.results[0]
        assert new.read_text() == "x\n"
        assert new.stat().st_uid != 0
        assert not outside.exists()
        with model(Write(str(new), "x\n"), Shell(f"echo x > {new}"), FOUND) as stub:
            await bench.ask(coder(stub), timeout_s=120)
        assert not new.exists()
