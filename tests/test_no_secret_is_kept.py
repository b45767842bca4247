"""A whole evolution in which everybody and everything lets secrets slip; afterwards none is found anywhere.

A real `moss run` on plain processes, its room over HTTP, a coder and an agent that talk too much. Every secret belongs
to one place, so that one that is found names what leaked.
"""

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.planted import TOKENS, Maker
from bot import cards
from bot.report import gather
from core.clock import system_clock
from core.store import Store
from tests.support import previews
from tests.support.outsider import end_everything
from tests.support.scripted_coder import calls, scripted
from tests.support.short import tmp_path as tmp_path  # noqa: PLC0414 (the fixture of this name)
from tests.support.theatre import CONFIG, FILES, TASKS, agent
from tests.support.world import World, git

PIECE_CHARS = 10
SPOKEN = "({0})"
SLIPS = {
    # by whom, where: how it is said
    "a person, to the agent": "pear is what I want, by the way my password is {password}",
    "a person, of a card": "charge {card} for it",
    "the agent, live and on trial": SPOKEN,
    "a person, why": "it forgot the pear, my token {token} would have shown it",
    "an import, what was said": "apple pear {email}",
    "an import, what a tool was asked": '{{"url": "https://anna:{plain}@shop.internal/"}}',
    "an import, what a tool answered": "200 {token}",
    "an import, what went wrong in a tool": "403 for Bearer {plain}",
    "an import, why": "call me, +49 151 {digits}, and use {token}",
    "an import, who": "{email}",
    "the build": SPOKEN,
    "the tests": SPOKEN,
    "the coder, before its reply": "I found {token} in my memory",
    "the coder, on standard error": "warning: API_KEY={plain}",
    "the coder, in its diagnosis": "The cause is that {token} is not known.",
    "the coder, in its plan": "Read it from {token}.",
    "the coder, in a remark": "Fine, as long as {token} stays valid.",
    "the coder, in the summary that becomes the commit's message": "It waits now; password: {password}",
    "the coder, in the code": 'KEY = "{token}"\n',
    "the coder, of its own key": "I was given {shapeless}",
    "the coder, of its own key, in the code": "# {shapeless}\n",
    "the coder, in its verdict": "Converged; IBAN {iban} may be billed.",
    "an approver, why not": "No: {token} must be rotated first.",
}


OWN = ("", ", in the code")
"""Where the coder says a key that it was given, and that looks like nothing."""


class Planted:
    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.secret: dict[str, str] = {}
        make, kinds = Maker(99), list(TOKENS)
        for n, (place, words) in enumerate(SLIPS.items()):
            token, secret = make.token(kinds[(7 * n) % len(kinds)])
            values = {
                "token": token,
                "password": f"{make.word()}-{make.some('23456789abcdefgh', 10)}",
                "card": make.card(),
                "email": f"{make.name()}.{make.some('abcdefghij', 12)}@mail.example.com",
                "plain": make.some("abcdefghijkmnpqrstuvwxyz23456789", 32),
                "digits": make.some("0123456789", 8),
                "iban": make.iban().upper(),
                "shapeless": make.some("abcdefghijkm", 24),
            }
            used = re.findall(r"\{(\w+)\}", words)[-1]
            self.said[place] = words.format(token, **values)
            self.secret[place] = secret if used in ("0", "token") else values[used]
            if used == "email":
                self.secret[place] = values[used].partition("@")[0]

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """What must be nowhere: of each secret its begin, its middle and its end."""
        for place, secret in self.secret.items():
            middle = len(secret) // 2 - PIECE_CHARS // 2
            for piece in (secret[:PIECE_CHARS], secret[max(middle, 0) :][:PIECE_CHARS], secret[-PIECE_CHARS:]):
                yield place, piece.encode()


def backwards(text: str) -> str:
    """As it may stand in source code, where it is not to be found."""
    return repr(text[::-1]) + "[::-1]"


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def world(tmp_path: Path, planted: Planted) -> Iterator[World]:
    repository = tmp_path / "repository"
    said = planted.said
    source = FILES["agent.py"].replace(
        "    print(answer(sys.stdin.read()))",
        f"    print(answer(sys.stdin.read()), {backwards(said['the agent, live and on trial'])})",
    )
    tests = FILES["tests/test_prices.py"] + f"\nprint({backwards(said['the tests'])})\n"
    build = f'python3 -S -B -c "import agent; print({backwards(said["the build"])})"\n'.replace('"', "'", 0)
    files = {"agent.py": source, "build.sh": build, "tests/test_prices.py": tests}
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=The agent")
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))

    chatty = {"before": f"{said['the coder, before its reply']}\n{said['the coder, of its own key']}"}
    fixed = agent(source.replace("split()[:1]", "split()"))
    summary = {"summary": said["the coder, in the summary that becomes the commit's message"]}
    argv, _ = scripted(
        tmp_path,
        roles={
            "locate": [{**chatty, "reply": {"summary": said["the coder, in its diagnosis"]}}],
            "plan": [{**chatty, "reply": {"summary": said["the coder, in its plan"]}}],
            "plan_review": [{"reply": {"remarks": said["the coder, in a remark"]}}],
            "implement": [
                {"patch": agent(fixed["files"]["agent.py"], **{"keys.py": said[f"the coder, {where}"]})}
                for where in ("in the code", "of its own key, in the code")
            ]
            + [
                {"patch": fixed, "reply": summary},
            ],
            "verdict": [{"reply": {"reason": said["the coder, in its verdict"]}}],
        },
    )
    complain = f"echo '{said['the coder, on standard error']}' >&2; exec \"$@\""
    argv = ("sh", "-c", complain, "coder", argv[0], "-S", "-E", *argv[1:])
    keys = {f"KEY_{n}": planted.secret[f"the coder, of its own key{where}"] for n, where in enumerate(OWN)}
    config = CONFIG.format(argv=f"{json.dumps(argv)}\nenv_from = {json.dumps([*keys])}") + "\n[room]\nport = 0\n"
    made = World(tmp_path, config, "process", "", "prices")
    made.keys = keys
    made.start()
    try:
        yield made
    finally:
        end_everything(made)


def test_no_secret_is_kept_wherever_it_was_let_slip(world: World, planted: Planted) -> None:
    said = planted.said
    world.moss("adopt")
    token = world.moss("people", "add", "ann")["token"]
    room = json.loads((world.root / "data" / "room.json").read_text())["url"]
    with httpx.Client(base_url=room, headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        reply = ""
        for place in ("a person, of a card", "a person, to the agent"):
            reply = answered(http, said[place])
        flagged = http.post(
            f"/api/messages/{reply}/flag", json={"failure": "incomplete", "reason": said["a person, why"]}
        )
        assert flagged.status_code == 202
        (world.root / "batch.jsonl").write_text(json.dumps(imported(said)) + "\n")
        world.moss("import", str(world.root / "batch.jsonl"))
        run = world.moss("evolve", batch_of(world))["run"]["id"]
        found = world.wait_for(run, "awaiting_consent", "exhausted", "failed")
        assert found["run"]["state"] == "awaiting_consent", found["run"]["sentence"]
        shown = [json.dumps(found), *everything_shown(world, http, run)]
        world.moss("decline", run, "--reason", said["an approver, why not"], token=token)
        until(lambda: "declined" in json.dumps(http.get("/api/messages", params={"channel": "prices"}).json()))
        shown += everything_shown(world, http, run)
        shown += asyncio.run(as_cards(world, run))
    assert world.end() == 0

    told = json.dumps([{**call, "environment": None} for call in calls(world.root / "scenario.json")])
    kept = {str(path.relative_to(world.root)): path.read_bytes() for path in files_below(world.root / "data")}
    places = {
        "a face": "\n".join(shown).encode(),
        "what the coder was told": told.encode(),
        "the log": world.log.read_bytes(),
        "the owner's repository": objects(world.root / "repository", "moss/"),
        **kept,
        **{f"objects of {path}": objects(path) for path in (world.root / "data" / "repos").glob("*.git")},
    }
    leaks = sorted(
        {
            f"{place} is in {where}"
            for place, piece in planted.pieces()
            for where, content in places.items()
            if piece in content
        }
    )
    assert leaks == []
    witnesses(world, run, places)


def witnesses(world: World, run: str, places: dict[str, bytes]) -> None:
    """Everybody did let them slip: where a secret was, its placeholder is."""
    folder = f"data/runs/{run}"
    for name in (
        "iter-1/locate/stdout.txt",
        "iter-1/locate/stderr.txt",
        "iter-1/locate/reply.json",
        "iter-1/plan-1/reply.json",
        "iter-1/plan-review-1/reply.json",
        "iter-1/implement-1/diff.patch",
        "iter-3/implement-1/reply.json",
        "iter-3/build/build.log",
        "iter-3/build/checks.log",
        "iter-3/evaluate/trials/one-good-1.json",
    ):
        assert b"REDACTED" in places[f"{folder}/{name}"], name
    assert b"I was given [KEY_0]" in places[f"{folder}/iter-1/locate/stdout.txt"]
    assert b"+# [KEY_1]" in places[f"{folder}/iter-2/implement-1/diff.patch"]
    assert b"puts what KEY_1 holds into keys.py" in places["a face"]
    assert b"keys.py (" in places["a face"], "the first change was refused for its secret"
    assert re.search(rb"person-\w{4}@redacted.example", places["what the coder was told"])
    assert b"+999 " in places["what the coder was told"]
    assert b"must be rotated first" in places["data/moss.db"] + places.get("data/moss.db-wal", b"")
    assert b"It waits now; password: REDACTED" in places[f"objects of {world.root}/data/repos/prices.git"]
    assert b"my password is REDACTED" in places["a face"]


def imported(said: dict[str, str]) -> dict[str, Any]:
    tool = {
        "name": "shop",
        "arguments": said["an import, what a tool was asked"],
        "result": said["an import, what a tool answered"],
        "error": said["an import, what went wrong in a tool"],
    }
    return {
        "place": {"platform": "room", "workspace": "room", "channel": "prices"},
        "messages": [
            {"role": "user", "content": said["an import, what was said"], "who": said["an import, who"]},
            {"role": "assistant", "content": "apple costs 2.", "tool_calls": [tool]},
        ],
        "feedback": [{"who": "carl", "kind": "incomplete", "reason": said["an import, why"]}],
        "checks": [{"id": "pear", "text": "Says pear costs 3.", "contains": "pear costs 3"}],
    }


def answered(http: httpx.Client, words: str) -> str:
    """The id of the agent's answer."""
    sent = http.post("/api/messages", json={"channel": "prices", "text": words})
    assert sent.status_code == 201, sent.text
    thread, found = sent.json()["id"], []

    def answers() -> bool:
        shown = http.get("/api/messages", params={"channel": "prices", "thread": thread}).json()["messages"]
        found[:] = [message["id"] for message in shown if message["by"]["kind"] == "agent"]
        return bool(found)

    until(answers)
    return str(found[0])


def batch_of(world: World) -> str:
    """The one batch, once it holds the flag from the room and the imported line."""
    ids: list[str] = []

    def whole() -> bool:
        ids[:] = re.findall(r"batch-\w+", json.dumps(world.moss("batches")))
        held = json.dumps([world.moss("batch", id) for id in set(ids)])
        return "would have shown it" in held and "call me, +999" in held

    until(whole)
    assert len(set(ids)) == 1
    return ids[0]


def everything_shown(world: World, http: httpx.Client, run: str) -> Iterator[str]:
    yield http.get("/api/messages", params={"channel": "prices"}).text
    for message in http.get("/api/messages", params={"channel": "prices"}).json()["messages"]:
        yield http.get("/api/messages", params={"channel": "prices", "thread": message["id"]}).text
        yield http.get(f"/c/prices/{message['id']}").text
    pages = ("/", "/c/prices", "/batches", "/history", f"/runs/{run}")
    parts = ("diagnosis", "plan", "diff", "trials", "matrix", "log")
    for page in (*pages, *(f"/runs/{run}/{part}" for part in parts)):
        answer = http.get(page, follow_redirects=True)
        assert (answer.status_code, "/enter" in str(answer.url)) == (200, False), page
        yield answer.text
    for part in parts:
        yield json.dumps(world.moss("run", "show", run, part))
    yield json.dumps(world.moss("status"))
    yield json.dumps(world.moss("digest"))


async def as_cards(world: World, run: str) -> list[str]:
    data = world.root / "data"
    store = await Store.open(f"sqlite:///{data / 'moss.db'}", system_clock)
    try:
        report = await gather(store, data, run)
    finally:
        await store.close()
    made = [cards.run(report), *(cards.receipt(report, each) for each in report.exchanges)]
    return [draw(card) for card in made for draw in (previews.in_slack, previews.in_discord)]


def files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(place, name)).is_file() and not path.is_symlink())


def objects(repository: Path, branches: str = "") -> bytes:
    """All that a repository holds, unpacked; or only what is on some branches."""
    words = ["cat-file", "--batch", "--batch-all-objects"]
    if branches:
        words = ["log", "--patch", f"--glob=refs/heads/{branches}*"]
    return subprocess.run(["git", *words], cwd=repository, capture_output=True, check=True, timeout=60).stdout


def until(holds: Any, within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.2)
