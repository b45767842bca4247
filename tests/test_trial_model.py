"""An agent on trial reaches its model through the gateway, and nothing else; what it costs counts."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from core.coders.coder import Account
from core.containers.host import Recipe, label
from core.gateway.gateway import Gateway
from core.model.errors import OverBudget, Refused
from core.model.keypoints import Task, TaskKind
from core.model.run import Cap, Spend
from core.model.spending import Line
from core.model.substrate import Substrate
from core.model.transcript import Message, Transcript
from core.pipeline.trial import Bench, Trial, replay_all
from tests.support.containers import DOCKERFILE, a_host
from tests.support.needs import needs_engine
from tests.support.until import until
from tests.support.upstream import CHAT, KEY, Upstream, upstream

AGENT = """
import json, os, socket, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Agent(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        said = {"seen": sorted(value for name, value in os.environ.items() if "real" in value)}
        asked = {"model": "gpt-5.1", "messages": [{"role": "user", "content": "Hi."}]}
        order = urllib.request.Request(
            os.environ["OPENAI_BASE_URL"] + "/chat/completions",
            json.dumps(asked).encode(),
            {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(order) as answer:
                said["model"] = json.load(answer)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as refused:
            said["refused"] = refused.code
        try:
            socket.create_connection(("192.0.2.1", 80), 1).close()
            said["away"] = True
        except OSError:
            said["away"] = False
        self.answer({"choices": [{"message": {"role": "assistant", "content": json.dumps(said)}}]})

    def answer(self, told):
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Agent).serve_forever()
"""
TASK = Task(
    id="t1",
    kind=TaskKind.batch,
    transcript=Transcript(
        messages=(Message(role="user", content="Hello?"), Message(role="assistant", content="No.")),
    ),
)
ACCOUNT = Account("little", "run-1", 2, "control/trials", stage="control", question="question-1")


class Stage:
    def __init__(self, bench: Bench, image: str, model: Upstream, lines: list[Line]) -> None:
        self.bench = bench
        self.image = image
        self.model = model
        self.lines = lines
        self.paid: list[Spend] = []

    async def replayed(self, account: Account = ACCOUNT, **run: object) -> list[Trial]:
        substrate = self.bench.substrate.model_copy(update=run)
        bench = replace(self.bench, account=account, substrate=substrate, paid=self.paid.append)
        return await replay_all(bench, self.image, [TASK], 2)


@pytest.fixture(params=["process", pytest.param("docker", marks=needs_engine)])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    substrate = Substrate.model_validate(
        {
            "name": "little",
            "repository": "/srv/little",
            "trusted": True,
            "run": {"port": 8000, "command": ["python3", "-S", "agent.py"], "env_from": ["OPENAI_API_KEY"]},
            "health": {"http": "/"},
        }
    )
    source, lines = tmp_path / "source", list[Line]()
    source.mkdir()
    (source / "agent.py").write_text(AGENT)
    (source / "Dockerfile").write_text(DOCKERFILE)

    async def record(new: object) -> None:
        lines.extend(new)  # type: ignore[call-overload]

    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(upstream())
        model.says(CHAT)
        gateway = Gateway(model.settings, {"openai": KEY}, record)
        lanes = await stack.enter_async_context(gateway.serving())
        host = a_host(request.param, tmp_path / "data", f"test-{tmp_path.name}")
        stack.push_async_callback(host.close)
        labels = {label.OWNER: f"test-{tmp_path.name}", label.SUBSTRATE: "little", label.COMMIT: "c1"}
        image = await host.build(Recipe(source, "Dockerfile", ".", None, False, 60, labels, tmp_path / "log"))
        stack.push_async_callback(host.remove_image, image)
        bench = Bench(host, substrate, f"t-{tmp_path.name[-12:]}", labels, tmp_path / "laid", lanes)
        yield Stage(bench, image, model, lines)


def told(trial: Trial) -> dict[str, object]:
    reply = trial.transcript.reply
    assert reply is not None
    assert reply.error is None, reply.error
    found: dict[str, object] = json.loads(reply.content)
    return found


async def test_it_reaches_its_model_with_a_token_and_nothing_else(stage: Stage) -> None:
    said = [told(trial) for trial in await stage.replayed()]
    words = CHAT["choices"][0]["message"]["content"]
    assert said == [{"seen": [], "model": words, "away": False}] * 2
    assert {asked.headers["authorization"] for asked in stage.model.asked} == {f"Bearer {KEY}"}
    assert [(line.run, line.n, line.stage) for line in stage.lines] == [("run-1", 2, "control")] * 2
    assert sum(line.tokens for line in stage.lines) == sum(spend.tokens for spend in stage.paid) > 0


async def test_other_names_are_filled_in(stage: Stage) -> None:
    trials = stage.bench.substrate.trials.model_copy(
        update={"env": {"OPENAI_BASE_URL": "{gateway}/openai/v1", "OPENAI_API_KEY": "{token}"}}
    )
    run = stage.bench.substrate.run.model_copy(update={"env_from": ()})
    said = [told(trial) for trial in await stage.replayed(trials=trials, run=run)]
    assert all("model" in each for each in said)
    assert len(stage.model.asked) == 2


async def test_what_is_left_of_a_budget_holds_for_trials_too(stage: Stage) -> None:
    with pytest.raises(OverBudget, match=r"The agent on trial was stopped: .* tokens that were left of the budget"):
        await stage.replayed(replace(ACCOUNT, left=Cap(tokens=1)))

    async def gone() -> bool:
        return not await stage.bench.host.boxes({})

    await until(gone)


async def test_a_way_that_leads_nowhere_is_named_before_anything_starts(stage: Stage) -> None:
    stage.bench = replace(stage.bench, lanes=None)
    trials = stage.bench.substrate.trials.model_copy(update={"env": {"MY_KEY": "{token}"}})
    with pytest.raises(
        Refused, match=r"`trials.env` of little leads to the model gateway, and no model API is configured"
    ):
        await stage.replayed(trials=trials)
