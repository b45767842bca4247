"""Speaking to the agent under evolution: every way in which it can answer badly, and all that is asked of it."""

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from core import agent
from core.containers.host import BoxSpec, Recipe
from core.containers.process_host import ProcessHost
from core.model.errors import AgentFailed
from core.model.substrate import Health, Replay, RunAs, Substrate
from core.model.transcript import Message, Transcript
from core.turn import read, request
from tests.support.containers import until_log
from tests.support.desk import free_port, tree

OPENAI = Replay(turn_timeout_s=5)
ASKED = "Which open tickets of Sable Brewing are past their SLA?"


def user(text: str) -> Message:
    return Message(role="user", content=text)


def bot(text: str) -> Message:
    return Message(role="assistant", content=text)


# What is sent


def test_the_conversation_so_far_goes_along() -> None:
    sent = request(OPENAI, [user("a"), bot("b")], "c", "s-1")
    assert sent.path == "/v1/chat/completions"
    assert sent.headers == {"X-Session-Id": "s-1"}
    assert sent.body == {
        "model": "agent",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
        "user": "s-1",
        "stream": False,
    }


def test_an_agent_that_keeps_the_session_gets_the_new_turn_only() -> None:
    sent = request(OPENAI.model_copy(update={"history": "server"}), [user("a"), bot("b")], "c", "s-1")
    assert isinstance(sent.body, dict)
    assert sent.body["messages"] == [{"role": "user", "content": "c"}]


def test_a_template_is_filled_in_once_and_at_any_depth() -> None:
    how = Replay(
        kind="http",
        path="/talk/{session}",
        headers={"X-Conversation": "id {session}"},
        body={"text": "say: {message}", "past": "{history}", "log": ["so far:\n{history}", 7, None],
              "in": {"s": "{session}"}},
        reply="text",
    )  # fmt: skip
    sent = request(how, [user("a"), bot("b")], "I say {session} and {history}", "s/1")
    assert sent.path == "/talk/s%2F1"
    assert sent.headers == {"X-Conversation": "id s/1"}
    assert sent.body == {
        "text": "say: I say {session} and {history}",
        "past": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "log": ["so far:\nuser: a\nassistant: b", 7, None],
        "in": {"s": "s/1"},
    }


# What is read


def answer(text: Any, **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], **more}).encode()


def test_a_reply_is_read_with_its_tool_calls() -> None:
    trace = [
        {"name": "search", "arguments": {"q": "x"}, "result": [1, 2]},
        {"name": "save", "arguments": "as text", "error": "disk full"},
    ]
    found = read(OPENAI, answer(" hello\n", moss_trace=trace))
    assert found.content == "hello"
    search, save = found.tool_calls
    assert (search.name, search.arguments, search.result, search.error) == ("search", '{"q": "x"}', "[1, 2]", None)
    assert (save.arguments, save.result, save.error) == ("as text", "", "disk full")


def test_a_reply_stands_where_the_owner_says() -> None:
    how = Replay(kind="http", body={}, reply="data.0.text")
    assert read(how, b'{"data": [{"text": "here"}]}').content == "here"
    assert read(Replay(kind="exec", command=("ask",)), b"plain words\n").content == "plain words"
    assert read(Replay(kind="exec", command=("ask",), reply="said"), b'{"said": "json"}').content == "json"


def test_half_characters_and_nulls_become_harmless() -> None:
    found = read(OPENAI, b'{"choices": [{"message": {"content": "a\\ud800b\\u0000c"}}]}')
    assert found.content.encode() == "a?b\ufffdc".encode()


WRONG = {
    "not JSON": b"<html>Bad gateway</html>",
    "nothing at all": b"",
    "cut off": answer("hello")[:-3],
    "nested too deeply": b"[" * 200_000,
    "no object": b"7",
    "no choices": b"{}",
    "empty choices": b'{"choices": []}',
    "choices of another kind": b'{"choices": {"0": 1}}',
    "no message": b'{"choices": [{}]}',
    "null": answer(None),
    "a number": answer(7),
    "a list of parts": answer([{"type": "text", "text": "x"}]),
    "an empty text": answer(""),
    "only space": answer(" \n\t"),
    "a trace that is no list": answer("hello", moss_trace={"name": "x"}),
    "a call without a name": answer("hello", moss_trace=[{"arguments": 1}]),
    "a call that is a text": answer("hello", moss_trace=["search"]),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_every_wrong_answer_is_one_sentence(data: bytes) -> None:
    with pytest.raises(AgentFailed) as failed:
        read(OPENAI, data)
    assert is_a_sentence(failed.value.sentence)


def is_a_sentence(text: str) -> bool:
    return text.startswith(("The ", "A ", "There ", "No ", "`")) and "\n" not in text and len(text) < 400


# One turn over a real connection


@contextlib.asynccontextmanager
async def answering(say: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[httpx.AsyncClient]:
    """A server that reads one request and then does as it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
            await say(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:
        yield client
    server.close()


def raw(head: str, body: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return say


async def close_at_once(writer: asyncio.StreamWriter) -> None:
    pass


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def dribble(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{")
    await writer.drain()


BAD = {
    "closes": (close_at_once, "broke off"),
    "breaks off": (break_off, "broke off"),
    "no HTTP": (raw("what?", b""), "broke off"),
    "500": (raw("500 Oops", b"Traceback:\n  boom"), "answered 500"),
    "401": (raw("401 No", b""), "answered 401"),
    "redirects": (raw("302 Found\r\nLocation: http://example.com/", b""), "answered 302"),
    "packs": (raw("200 OK\r\nContent-Encoding: gzip", gzip.compress(b"0" * 10_000_000)), "packs"),
    "silent": (say_nothing, "within 0.4 s"),
    "dribbles": (dribble, "within 0.4 s"),
    "floods": (flood, "longer than 4096"),
}


@pytest.mark.parametrize(("say", "sentence"), BAD.values(), ids=BAD.keys())
async def test_a_bad_connection_is_one_sentence_in_good_time(
    say: Callable[[asyncio.StreamWriter], Awaitable[None]], sentence: str, host: ProcessHost
) -> None:
    how = Replay(turn_timeout_s=0.4 if "within" in sentence else 20, reply_limit_bytes=4096)
    began = time.monotonic()
    async with answering(say) as client:
        with pytest.raises(AgentFailed, match=sentence) as failed:
            await agent.say(client, host, "none", how, (), message="hello", session="s")
    assert is_a_sentence(failed.value.sentence)
    assert time.monotonic() - began < 15


async def test_nobody_listening_is_a_sentence(host: ProcessHost) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}", trust_env=False, verify=False) as client:
        with pytest.raises(AgentFailed, match="broke off"):
            await agent.say(client, host, "none", OPENAI, (), message="hello", session="s")


# A whole agent


@pytest.fixture
def host(tmp_path: Path) -> ProcessHost:
    return ProcessHost(tmp_path / "data", "test")


class Desk:
    """The example's agent in boxes of a host of processes."""

    def __init__(self, host: ProcessHost, image: str) -> None:
        self.host = host
        self.image = image
        self.boxes: list[str] = []

    async def start(self, *command: str, ready: bool = True, **env: str) -> str:
        name = f"box-{len(self.boxes)}"
        self.boxes.append(name)
        spec = BoxSpec(
            name=name,
            image=self.image,
            labels={},
            command=command or ("python3", "-S", "-m", "desk", "serve"),
            env={"MOSS_BOOT_ID": name, **env},
        )
        await self.host.create(spec)
        await self.host.start(name)
        if ready:
            await agent.wait_ready(self.host, name, SUBSTRATE)
        return name


SUBSTRATE = Substrate(name="desk", repository="x", health=Health(http="/health"), run=RunAs(port=8080))


def substrate(**replay: Any) -> Substrate:
    return SUBSTRATE.model_copy(update={"replay": Replay(**replay)})


@pytest.fixture
async def desk(host: ProcessHost, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(host, await host.build(recipe(tree(tmp_path / "source"), tmp_path)))
    yield made
    for box in made.boxes:
        await host.remove(box)


def recipe(source: Path, tmp: Path) -> Recipe:
    (source / "asks.py").write_text(ASKS)
    return Recipe(
        source=source,
        dockerfile="Dockerfile",
        context=".",
        command=None,
        network=False,
        timeout_s=30,
        labels={},
        log=tmp / "build.log",
    )


ASKS = """
import pathlib, os, sys, time
said = sys.stdin.read()
notes = pathlib.Path(os.environ["MOSS_STATE_DIR"], sys.argv[1])
before = notes.read_text().split("|") if notes.exists() else []
notes.write_text("|".join([*before, said]))
if said == "fail":
    sys.exit("the model is gone")
if said == "sleep":
    time.sleep(30)
if said == "flood":
    print("x" * 100_000)
print(f"{said} after {before}")
"""

RECORDED = Transcript(
    messages=(
        Message(role="system", content="You are the desk."),
        user("Tell me about T-1047."),
        bot("recorded, and not to be seen again"),
        user("Is it late?"),
        bot("recorded too"),
    )
)


@pytest.mark.parametrize("history", ["client", "server"])
async def test_a_replay_puts_every_user_turn_again(desk: Desk, history: str) -> None:
    box = await desk.start()
    said = await agent.replay(desk.host, box, Replay(history=history), RECORDED, "session-1")
    assert [message.role for message in said.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert said.messages[2].content.startswith("T-1047 of Millbrook Bakery")
    assert said.messages[4].content.startswith("T-1047 of Millbrook Bakery is within its SLA")
    assert [call.name for call in said.messages[4].tool_calls] == ["tickets.search", "sla.check"]
    assert said.messages[1] == RECORDED.messages[1]


async def test_a_replay_over_templated_json(desk: Desk) -> None:
    box = await desk.start()
    how = Replay(
        kind="http",
        path="/v1/chat/completions",
        history="server",
        body={"user": "{session}", "messages": [{"role": "user", "content": "{message}"}]},
        reply="choices.0.message.content",
    )
    said = await agent.replay(desk.host, box, how, RECORDED, "session-2")
    assert said.messages[-1].content.startswith("T-1047 of Millbrook Bakery is within its SLA")


async def test_a_replay_by_a_command_keeps_its_session(desk: Desk) -> None:
    box = await desk.start()
    how = Replay(kind="exec", command=("python3", "-S", "asks.py", "{session}"))
    said = await agent.replay(desk.host, box, how, Transcript(messages=(user("one"), user("two"))), "s1")
    assert [message.content for message in said.messages] == ["one", "one after []", "two", "two after ['one']"]


@pytest.mark.parametrize(
    ("message", "sentence"),
    [("fail", "exit code 1: the model is gone"), ("sleep", "within 0.5 s"), ("flood", "longer than 2048")],
)
async def test_a_command_that_fails_is_one_sentence(desk: Desk, message: str, sentence: str) -> None:
    box, limit_s = await desk.start(), 0.5 if message == "sleep" else 20
    command = ("python3", "-S", "asks.py", "{session}")
    how = Replay(kind="exec", command=command, turn_timeout_s=limit_s, reply_limit_bytes=2048)
    with pytest.raises(AgentFailed, match=sentence) as failed:
        await agent.say(None, desk.host, box, how, (), message=message, session="s1")
    assert is_a_sentence(failed.value.sentence)


async def test_a_failed_turn_ends_the_replay_and_says_why(desk: Desk) -> None:
    box = await desk.start()
    how = Replay(kind="exec", command=("python3", "-S", "asks.py", "{session}"))
    said = await agent.replay(desk.host, box, how, Transcript(messages=(user("a"), user("fail"), user("b"))), "s1")
    assert [message.content for message in said.messages] == ["a", "a after []", "fail", ""]
    assert "the model is gone" in (said.messages[-1].error or "")


async def test_a_recording_in_which_only_the_agent_speaks_is_a_failed_turn(desk: Desk) -> None:
    box = await desk.start()
    said = await agent.replay(desk.host, box, OPENAI, Transcript(messages=(bot("Good morning!"),)), "s1")
    assert said.messages[-1].error is not None


# Readiness


async def test_any_answer_at_all_is_ready(desk: Desk) -> None:
    await desk.start("python3", "-S", "-m", "http.server", "--bind", "127.0.0.1", "{port}")


async def test_an_agent_that_ends_is_noticed_at_once_with_its_last_words(desk: Desk) -> None:
    box = await desk.start("python3", "-S", "-c", "import sys; sys.exit('no key in the environment')", ready=False)
    began = time.monotonic()
    with pytest.raises(AgentFailed, match=r"exit code 1.*no key in the environment"):
        await agent.wait_ready(desk.host, box, substrate(ready_timeout_s=30))
    assert time.monotonic() - began < 10


async def test_an_agent_that_never_listens_is_given_up(desk: Desk) -> None:
    box = await desk.start(
        "python3", "-S", "-c", "import time; print('thinking', flush=True); time.sleep(60)", ready=False
    )
    await until_log(desk.host, box, "thinking")
    with pytest.raises(AgentFailed, match=r"within 1 s.*thinking"):
        await agent.wait_ready(desk.host, box, substrate(ready_timeout_s=1))


async def test_an_agent_without_a_port_is_ready_while_it_runs(desk: Desk) -> None:
    portless = substrate(kind="exec", command=("ask",)).model_copy(update={"run": RunAs()})
    box = await desk.start("sleep", "60", ready=False)
    await agent.wait_ready(desk.host, box, portless)
    await desk.host.stop(box, 1)
    with pytest.raises(AgentFailed, match="ended"):
        await agent.wait_ready(desk.host, box, portless)


# Health

HEARTBEAT = "/state/heartbeat.json"


async def probed(desk: Desk, box: str, health: Health, beat: str | None = None) -> agent.ProbeResult:
    return await agent.probe(desk.host, box, health, OPENAI, boot_id=box, last_beat=beat)


async def until_it_beats(desk: Desk, box: str) -> None:
    async with asyncio.timeout(15):
        while await desk.host.read(box, HEARTBEAT) is None:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)


async def test_a_well_agent_passes_every_probe_and_the_canary(desk: Desk) -> None:
    box = await desk.start()
    await until_it_beats(desk, box)
    health = Health(
        http="/health",
        heartbeat=HEARTBEAT,
        commands=(("python3", "-S", "-m", "desk", "status"),),
        canary="Is T-1044 late?",
        canary_expect="T-1044",
    )
    first = await probed(desk, box, health)
    assert first.passed, first.sentence
    async with asyncio.timeout(15):
        while not (second := await probed(desk, box, health, first.beat)).passed:
            assert "stands still" in second.sentence
            await asyncio.sleep(0.1)
    assert second.beat != first.beat
    await agent.canary(desk.host, box, SUBSTRATE.model_copy(update={"health": health}))


async def test_a_canary_that_sings_another_song_has_failed(desk: Desk) -> None:
    box = await desk.start()
    health = Health(canary="Is T-1044 late?", canary_expect="all is well")
    with pytest.raises(AgentFailed, match="does not hold `all is well`"):
        await agent.canary(desk.host, box, SUBSTRATE.model_copy(update={"health": health}))


@pytest.mark.parametrize(
    ("health", "sentence"),
    [
        (Health(http="/nowhere"), "answered 404 on GET /nowhere"),
        (Health(heartbeat="/state/none.json"), "no heartbeat"),
        (Health(heartbeat="README.md"), "not `boot_id` and `beat`"),
        (Health(commands=(("python3", "-S", "-c", "raise SystemExit('unwell')"),)), "exit code 1: unwell"),
        (Health(commands=(("sleep", "30"),), timeout_s=0.3), "did not end within"),
        (Health(commands=(("no-such-program",),)), "exit code 127"),
    ],
    ids=["http", "no heartbeat", "no JSON", "exit code", "too long", "no program"],
)
async def test_a_probe_that_fails_says_which_and_why(desk: Desk, health: Health, sentence: str) -> None:
    result = await probed(desk, await desk.start(), health)
    assert not result.passed
    assert sentence in result.sentence
    assert is_a_sentence(result.sentence)


async def test_a_heartbeat_of_another_start_does_not_count(desk: Desk) -> None:
    box = await desk.start(MOSS_BOOT_ID="the-start-before")
    await until_it_beats(desk, box)
    result = await probed(desk, box, Health(heartbeat=HEARTBEAT))
    assert not result.passed
    assert "of another start" in result.sentence


@pytest.mark.parametrize("seen", [None, "3"])
async def test_a_heartbeat_that_stands_still_does_not_count(desk: Desk, seen: str | None) -> None:
    code = "import os, time; open(os.environ['MOSS_STATE_DIR'] + '/heartbeat.json', 'w').write("
    code += (
        "'{\"boot_id\": \"%s\", \"beat\": 3}' % os.environ['MOSS_BOOT_ID']); print('beat', flush=True); time.sleep(60)"
    )
    box = await desk.start("python3", "-S", "-c", code, ready=False)
    await until_log(desk.host, box, "beat")
    result = await probed(desk, box, Health(heartbeat=HEARTBEAT, timeout_s=0.4), seen)
    assert not result.passed
    assert "stands still at 3" in result.sentence


async def test_an_agent_that_has_ended_fails_its_probe(desk: Desk) -> None:
    box = await desk.start()
    await desk.host.stop(box, 2)
    result = await probed(desk, box, Health(http="/health"))
    assert not result.passed
    assert "ended with exit code" in result.sentence


async def test_a_hung_agent_fails_its_probe_in_time(desk: Desk) -> None:
    code = "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])));"
    box = await desk.start("python3", "-S", "-c", f"{code} print('listens', flush=True); time.sleep(60)", ready=False)
    await until_log(desk.host, box, "listens")
    result = await probed(desk, box, Health(http="/health", timeout_s=0.3))
    assert not result.passed
    assert "did not answer on GET /health within 0.3 s" in result.sentence
