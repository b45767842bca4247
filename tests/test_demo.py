"""`moss demo`: the whole story, told by the real command; what it shows came about, and nothing of it is left."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from bot.demo import script, stage
from bot.demo.screen import Screen
from bot.demo.story import Ending, Options, Play, up
from core.process_table import survivors
from tests.support.needs import needs_engine
from tests.support.renamed import names, renamed_tree
from tests.support.short import tmp_path as tmp_path  # noqa: PLC0414 (the fixture of this name)
from tests.support.world import MOSS, ROOT

KEYS = {
    "flags", "batch", "run", "run_state", "iterations", "score_before", "score_control", "score_after",
    "reply_before", "reply_after", "commit", "image", "swap_state", "outage_ms", "seconds",
}  # fmt: skip
LIMIT_S = 280


@dataclass(frozen=True)
class Told:
    exit_code: int
    shown: str
    ending: dict[str, Any]
    scratch: Path
    """Where it kept its directory."""


def environment(scratch: Path, source: Path = ROOT) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(source), "TMPDIR": str(scratch)}


def tell(scratch: Path, *words: str, source: Path = ROOT) -> Told:
    scratch.mkdir()
    said = subprocess.run(
        [*MOSS, "demo", "--headless", "--host", "process", "--json", *words],
        cwd=scratch,
        env=environment(scratch, source),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert said.stdout.strip(), said.stderr[-4000:]
    return Told(said.returncode, said.stderr, json.loads(said.stdout.splitlines()[-1]), scratch)


def left_of(scratch: Path) -> list[str]:
    """Files and processes."""
    found = [str(path) for path in scratch.iterdir()]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            told = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(scratch) in told and int(pid) != os.getpid():
            found.append(f"process {pid}")
    return found


def tell_on_a_terminal(scratch: Path, *words: str, source: Path) -> Told:
    """Somebody sits there and presses Enter when they are asked to."""
    scratch.mkdir()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    demo = subprocess.Popen(
        [*MOSS, "demo", "--host", "process", "--json", *words],
        cwd=scratch,
        env=environment(scratch, source) | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown, asked, until = b"", False, time.monotonic() + LIMIT_S
    with contextlib.suppress(OSError):  # so a terminal says that nobody writes to it any more
        while time.monotonic() < until:
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65_536)
            if not asked and b"Press Enter" in shown:
                asked = True
                os.write(ours, b"\n")
    os.close(ours)
    out, _ = demo.communicate(timeout=30)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace")).replace("\r", "\n")
    assert asked, text[-4000:]
    return Told(demo.returncode, text, json.loads(out.splitlines()[-1]), scratch)


# One telling on a terminal, with everything in it renamed. It is kept, so that its Moss can be started again.


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    where = tmp_path_factory.mktemp("r")
    return tell_on_a_terminal(where / "t", "--keep", source=renamed_tree(where / "moss"))


def test_the_recorded_repair_scores_whatever_things_are_called(recorded: Told) -> None:
    ending = recorded.ending
    assert recorded.exit_code == 0, recorded.shown[-3000:]
    assert ending.keys() == KEYS
    assert ending["flags"] == 2
    assert ending["run_state"] == "applied"
    assert ending["swap_state"] == "live"
    assert ending["iterations"] == 1
    assert ending["score_before"] == ending["score_control"] < 0.7
    assert ending["score_after"] == 1
    assert re.fullmatch("[0-9a-f]{40}", ending["commit"])
    assert ending["image"].startswith("sha256:")
    assert 0 < ending["outage_ms"] < 30_000
    assert ending["seconds"] > 0


def test_no_word_of_the_story_stands_in_the_demo(recorded: Told) -> None:
    told = recorded.shown + json.dumps(recorded.ending)
    assert [old for old in names() if re.search(rf"\b{re.escape(old)}\b", told)] == []
    assert any(new in recorded.ending["reply_after"] for new in names().values())


def test_the_answer_gets_better(recorded: Told) -> None:
    before, after = recorded.ending["reply_before"], recorded.ending["reply_after"]
    assert len(after.splitlines()) > len(before.splitlines())
    assert " ".join(before.split()) in " ".join(recorded.shown.split())


def test_it_says_what_is_a_recording_and_what_is_not(recorded: Told) -> None:
    shown = " ".join(recorded.shown.split())
    for sentence in script.honesty("recorded"):
        assert sentence in shown
    for step in ("control", "iter-1/locate", "iter-1/evaluate", "offer"):
        assert step in shown
    assert "recorded" in next(line for line in recorded.shown.splitlines() if "iter-1/locate" in line)
    assert "recorded" not in next(line for line in recorded.shown.splitlines() if "iter-1/evaluate" in line)
    assert "█" in shown
    assert "+++ b/desk/dispatch.py" in shown


def test_what_is_kept_can_be_taken_up_again_and_its_people_keep_their_tokens(recorded: Told) -> None:
    (kept,) = recorded.scratch.iterdir()
    ready, moss = begin(kept)
    try:
        assert ready["tokens"] == {}
        assert ready["problem"] is None
        assert ready["room"].startswith("http://127.0.0.1:")
        assert desk_of(kept), "the desk was woken"
    finally:
        moss.send_signal(signal.SIGTERM)
        assert moss.wait(timeout=40) == 0
    assert not desk_of(kept), "the desk went to rest with the Moss that is tried out"
    (version,) = [one for one in moss_json(kept, "history") if one["until"] is None]
    assert version["restores"] == 0


def test_a_desk_that_does_not_go_live_is_told_and_people_come_in_all_the_same(tmp_path: Path) -> None:
    ready, moss = begin(tmp_path, MOSS_SUBSTRATE__HEALTH__CANARY_EXPECT="what it never says")
    moss.send_signal(signal.SIGTERM)
    assert moss.wait(timeout=40) == 0
    assert "canary" in ready["problem"]
    assert ready["live"] == {"desk": None}
    assert ready["tokens"].keys() == {"operator", "user"}
    assert not desk_of(tmp_path)


def begin(where: Path, **environ: str) -> tuple[dict[str, Any], "subprocess.Popen[str]"]:
    """`moss run` in a directory without a moss.toml."""
    moss = subprocess.Popen(
        [*MOSS, "run", "--json"],
        cwd=where,
        env=environment(where) | {"MOSS_ROOM__PORT": "0"} | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert moss.stdout is not None
    return json.loads(moss.stdout.readline()), moss


def moss_json(where: Path, *words: str) -> Any:
    argv = [*MOSS, *words, "--json"]
    return json.loads(subprocess.run(argv, cwd=where, env=environment(where), capture_output=True, check=True).stdout)


def desk_of(where: Path) -> list[int]:
    return [
        pid
        for box in (where / stage.DATA / "boxes").glob("*/box.json")
        for pid in survivors(json.loads(box.read_text())["tag"])
    ]


@pytest.mark.parametrize(("typed", "pressed"), [(b"\n", True), (b"y\n", True), (b"\x04", False), (b"hang up", False)])
async def test_only_enter_is_enter_and_the_end_of_input_is_nobody(
    typed: bytes, pressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        asked = asyncio.create_task(Screen(stderr=True).enter("Press Enter."))
        await asyncio.sleep(0.05)
        assert not asked.done()
        os.write(ours, typed)
        if typed == b"hang up":
            os.close(ours)
        assert await asyncio.wait_for(asked, 5) is pressed
    if typed != b"hang up":
        os.close(ours)


# Repairs that are none


@pytest.mark.sweep
@pytest.mark.parametrize("fix", ["none", "wrong"])
def test_without_a_repair_nothing_is_offered_and_nothing_is_left(fix: str, tmp_path: Path) -> None:
    told = tell(tmp_path / "t", "--fix", fix)
    ending = told.ending
    assert told.exit_code == 3, told.shown[-3000:]
    assert ending.keys() == KEYS
    assert ending["run_state"] == "exhausted"
    assert ending["score_after"] <= ending["score_before"]
    assert ending["swap_state"] is ending["outage_ms"] is ending["commit"] is ending["image"] is None
    assert "asks the operator" not in told.shown
    assert left_of(told.scratch) == []


# Endings that come too early


def start(scratch: Path) -> tuple["subprocess.Popen[bytes]", Path]:
    """A demo, as soon as its Moss can be talked to."""
    scratch.mkdir()
    demo = subprocess.Popen(
        [*MOSS, "demo", "--headless", "--host", "process"],
        cwd=scratch,
        env=environment(scratch),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not (sockets := list(scratch.glob(f"{stage.PREFIX}*/{stage.DATA}/moss.sock"))):
        assert demo.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return demo, sockets[0].parents[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ended_in_the_middle_it_leaves_nothing(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, root = start(tmp_path / "t")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    assert await stage.reap() == [], "it is played, so that another demo leaves it alone"
    assert root.is_dir()
    demo.send_signal(number)
    assert demo.wait(timeout=60) == 130
    assert left_of(tmp_path / "t") == []


async def test_what_a_killed_demo_left_the_next_one_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo, root = start(tmp_path / "t")
    demo.kill()
    demo.wait()
    strangers = tmp_path / "t" / f"{stage.PREFIX}of-somebody"
    strangers.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    assert await stage.reap() == [root]
    assert left_of(tmp_path / "t") == [str(strangers)], "what no demo signed is not ours to remove"


# On an engine


@needs_engine
async def test_on_docker_the_container_runs_the_new_digest_and_keeps_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = Options("docker", "", "recorded", headless=True, browser=False, keep=False)
    async with asyncio.timeout(LIMIT_S), up(options, Screen(stderr=True)) as play:
        await play.complain()
        before = remembered(play)
        assert await play.evolve()
        assert await play.decide()
        engine = docker.from_env()
        (live,) = containers(play)
        assert live.attrs["Image"] == play.ending.image
        assert live.attrs["State"]["Running"]
        assert before.items() <= remembered(play).items(), "nothing that the old one knew is lost"
        await play.ask_again()
        await play.roll_back()
        await play.digest()
        owner, volume = owner_of(play), live.attrs["Mounts"][0]["Name"]
    better(play.ending)
    mine = {"label": f"moss.owner={owner}"}
    assert engine.containers.list(all=True, filters=mine) == []
    assert engine.images.list(all=True, filters=mine) == []
    assert volume not in {one.name for one in engine.volumes.list()}
    engine.close()
    assert list(tmp_path.iterdir()) == []


def owner_of(play: Play) -> str:
    return (play.stage.data / "installation").read_text().strip()


def containers(play: Play) -> list[Any]:
    filters = {"label": [f"moss.owner={owner_of(play)}", "moss.purpose=live"], "status": "running"}
    return list(docker.from_env().containers.list(filters=filters))


def remembered(play: Play) -> dict[str, str]:
    """What stands on the desk's volume: the sessions, by name."""
    (live,) = containers(play)
    code, said = live.exec_run(["sh", "-c", "cd /state/sessions && grep -H . *.jsonl"])
    assert code == 0
    found: dict[str, str] = {}
    for line in said.decode().splitlines():
        name, _, text = line.partition(":")
        found[f"{name} {len([one for one in found if one.startswith(name)])}"] = text
    return found


def better(ending: Ending) -> None:
    assert ending.run_state == "applied"
    assert ending.score_after == 1
    assert ending.reply_before and ending.reply_after  # noqa: PT018
    assert len(ending.reply_after) > len(ending.reply_before)


def test_a_real_coder_is_named_and_nothing_is_called_a_recording_then() -> None:
    first, second = script.honesty("claude")
    assert first.startswith("Diagnosis, plan and diff are no recording: Claude Code is asked for them here and now.")
    assert second.startswith("Nor are the levels: the owner's grader")


def test_a_real_coder_takes_the_place_of_the_stand_in_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-1234567")
    monkeypatch.setenv("MOSS_CODER__MODEL", "opus")
    monkeypatch.setenv("MOSS_CODER__TIMEOUT_S", "1")
    given = stage.thinking("claude")
    assert given["ANTHROPIC_API_KEY"] == "key-1234567"
    ours = {name: text for name, text in given.items() if name.startswith("MOSS_")}
    assert ours == {
        "MOSS_CODER__PROVIDER": "claude",
        "MOSS_CODER__NAME": "claude",
        "MOSS_CODER__ARGV": '["claude"]',
        "MOSS_CODER__MODEL": "opus",
    }
    assert stage.thinking("recorded") == {}
