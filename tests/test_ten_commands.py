"""The ten commands of the README, word by word, on an agent that knows nothing of Moss."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kill_story import end_everything
from tests.support.needs import HOST
from tests.support.short import tmp_path as tmp_path  # noqa: PLC0414 (the fixture of this name)
from tests.support.world import FOREIGN, ROOT, World, repository_of

HEADING = "## Your own agent in ten commands"
LIMIT_S = 240


def ten_commands() -> list[str]:
    section = (ROOT / "README.md").read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    block = re.findall(r"^    (.+)$", section, re.MULTILINE)
    assert block[0] == "cd my-agent"
    return [line.partition("#")[0].strip() for line in block[1:]]


def test_they_are_ten_and_all_of_moss() -> None:
    commands = ten_commands()
    assert len(commands) == 10
    assert all(command.startswith("moss ") for command in commands)


class Owner(World):
    """Whoever types them: in the repository, with a coding agent on PATH, and with nothing of Moss there yet."""

    def __init__(self, root: Path, host: str) -> None:
        self.root, self.host, self.name = (
            repository_of(FOREIGN / "shop", root / f"shop-{host}-{root.name[-3:]}"),
            host,
            "",
        )
        self.volume = f"{self.root.name.lower().replace('_', '-')}-state"
        self.log, self.tmp, self.process = root / "moss.log", root / "tmp", None
        self.keys, self.bin = {}, root / "bin"
        self.tmp.mkdir()
        self.bin.mkdir()
        shutil.copy(FOREIGN / "shop" / "coder.sh", self.bin / "thinker")
        (self.bin / "claude").write_text("#!/bin/sh\nexit 1\n")
        launcher = f"#!/bin/sh\nexec {sys.executable} -c 'from bot.cli import main; main()' \"$@\"\n"
        (self.bin / "moss").write_text(launcher)
        for program in self.bin.iterdir():
            program.chmod(0o755)
        shutil.copy(FOREIGN / "shop" / "batch.jsonl", self.root)

    def environment(self) -> dict[str, str]:
        given = super().environment()
        quick = {"MOSS_EVOLVE__DEPTH": "shallow", "MOSS_SUBSTRATE__HEALTH__EVERY_S": "0.3", "MOSS_ROOM__PORT": "0"}
        return given | quick | {"PATH": f"{self.bin}:{given['PATH']}"}

    def type(self, command: str, **more: str) -> str:
        """Standard output; anything but exit code 0 is a failure."""
        done = subprocess.run(
            shlex.split(command), cwd=self.root, env=self.environment() | more, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.tail()}"
        return done.stdout

    def choose(self) -> None:
        """Whoever reads what `init` wrote may put another coding agent in place of the one it found."""
        file = self.root / "moss.toml"
        found = re.compile(r'^provider = "claude".*$', re.MULTILINE)
        text, changed = found.subn(f'argv = ["{self.bin}/thinker"]', file.read_text())
        assert changed == 1
        file.write_text(text)

    def begin(self, command: str) -> None:
        """In a terminal of its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                shlex.split(command),
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 60
        while not (self.root / "moss-data" / "moss.sock").exists():
            assert self.process.poll() is None, self.tail()
            assert time.monotonic() < until, self.tail()
            time.sleep(0.1)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    made = Owner(tmp_path, HOST)
    yield made
    end_everything(made)


def test_they_lead_from_a_repository_to_a_repaired_agent_that_is_live(owner: Owner) -> None:
    run, token = "", ""
    for typed in ten_commands():
        command = typed.replace("RUN", run)
        match command.split()[1:3]:
            case ["init", *_]:
                owner.type(f"{command} --host process --trusted" if owner.host == "process" else command)
                owner.choose()
            case ["run"]:
                owner.begin(command)
            case ["evolve", *_]:
                run = re.findall(r"run-[0-9a-z]+", owner.type(command))[0]
            case ["people", *_]:
                token = owner.type(command).splitlines()[0]
            case ["approve", *_]:
                owner.type(command, MOSS_TOKEN=token)
            case _:
                owner.type(command)
    until = time.monotonic() + 60
    while len(history := json.loads(owner.type("moss history --json"))) < 2:
        assert time.monotonic() < until, owner.tail()
        time.sleep(0.3)
    assert [version["number"] for version in history] == [0, 1]
    shown = owner.type(f"moss run show {run} diff")
    assert '+    return ", ".join(f"{good}: {PRICES[good]}" for good in goods)' in shown
    live = history[1]["box"]
    released = owner.type("moss release --stop", MOSS_TOKEN=token)
    assert f"Stopped: {live}" in released
    assert owner.volume in released
    assert json.loads(owner.type("moss status --json"))["substrates"][0]["live"] is None
    assert owner.end() == 0
    assert not os.listdir(owner.root / "moss-data" / "tmp")
