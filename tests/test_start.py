"""On a real terminal: what `moss run` says, and what `evolve --wait` shows; and what a program gets instead."""

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.cards.progress import DOING
from tests.support.kill_story import end_everything
from tests.support.world import FOREIGN, MOSS, World

LIMIT_S = 240


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.foreign(tmp_path, "process")
    yield made
    end_everything(made)


class Terminal:
    """What a person would see."""

    def __init__(self, world: World, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*MOSS, "--config", str(world.root / "moss.toml"), *words],
            cwd=world.root,
            env=world.environment() | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.text = ""

    def until(self, words: str) -> str:
        end = time.monotonic() + LIMIT_S
        while words not in self.text:
            assert time.monotonic() < end, self.text
            ready, _, _ = select.select([self._ours], [], [], 1)
            if ready:
                try:
                    self.text += os.read(self._ours, 65536).decode()
                except OSError:  # the other end is closed
                    assert words in self.text, self.text
        return self.text


def test_a_person_is_told_where_everything_is_what_to_do_and_what_happens(world: World) -> None:
    terminal = Terminal(world, "run")
    world.process = terminal.process
    said = terminal.until("moss evolve --wait")
    assert "works, process" in said
    assert str(world.root / "data") in said
    assert "http://127.0.0.1:" in said
    assert "moss adopt" in said
    assert "moss people add ann" in said
    world.moss("adopt")
    terminal.until("version added")
    world.moss("import", str(FOREIGN / "batch.jsonl"))
    assert "flagged, by ann" in terminal.until("flagged, by bob")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(timeout=40) == 0
    terminal.until("ending")


def test_whoever_waits_at_a_terminal_sees_each_stage_and_what_goes_on_right_now(world: World) -> None:
    world.start()
    world.moss("adopt")
    world.moss("import", str(FOREIGN / "batch.jsonl"))
    terminal = Terminal(world, "evolve", "--wait")
    said = terminal.until("is awaiting_consent")
    assert terminal.process.wait(timeout=30) == 0
    assert any(f"{doing}, iteration 1" in said for doing in DOING.values()), said
    assert "cause found: incomplete, structural" in said
    assert "candidate: 18 of 18" in said
    assert "moss approve run-" in terminal.until("moss approve")


def test_a_program_is_told_once_on_one_line(world: World) -> None:
    world.process = subprocess.Popen(
        [*MOSS, "--config", str(world.root / "moss.toml"), "run", "--json"],
        cwd=world.root,
        env=world.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert world.process.stdout
    told = json.loads(world.process.stdout.readline())
    assert told["pid"] == world.process.pid
    assert told["data"] == str(world.root / "data")
    assert told["room"].startswith("http://127.0.0.1:")
    assert told["live"] == {"prices": None}
    world.process.send_signal(signal.SIGTERM)
    out, err = world.process.communicate(timeout=40)
    assert (world.process.returncode, out) == (0, "")
    assert all(json.loads(line)["event"] for line in err.splitlines()), "the log is JSON where nobody reads along"
