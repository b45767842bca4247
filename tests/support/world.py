"""A world for a Moss of its own: a repository with an agent, a data directory, a `moss.toml`, the `moss` command."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import warm

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "tests" / "foreign"
MOSS = (sys.executable, "-c", "from bot.cli import main; main()")

FOREIGN_CONFIG = """
[moss]
data = "data"
host = "{host}"

[[substrate]]
name = "{name}"
repository = "repository"
trusted = true
tasks = ["tasks.jsonl"]

[substrate.run]
command = ["sh", "agent.sh", "serve"]
volume = "{volume}"
stop_grace_s = 2

[substrate.replay]
kind = "exec"
command = ["sh", "agent.sh", "ask"]

[substrate.health]
heartbeat = "/state/heartbeat.json"
canary = "apple"
canary_expect = "costs 2"
window_s = 10
every_s = 0.25

[substrate.tests]
command = ["sh", "tests/run.sh"]

[coder]
provider = "command"
argv = ["sh", "{coder}"]
sandbox = "host"

[consent]
approvers = ["ann", "bob"]

[evolve]
depth = "shallow"

[room]
port = 0
"""


def git(repository: Path, *words: str) -> str:
    clean = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Owner",
        "GIT_AUTHOR_EMAIL": "owner@example.com",
        "GIT_COMMITTER_NAME": "Owner",
        "GIT_COMMITTER_EMAIL": "owner@example.com",
    }
    said = subprocess.run(["git", *words], cwd=repository, env=clean, capture_output=True, text=True, check=True)
    return said.stdout.strip()


def repository_of(source: Path, target: Path) -> Path:
    """A fresh repository with the files of a directory as its first commit."""
    shutil.copytree(source, target)
    git(target, "init", "--quiet", "--initial-branch=main")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "--message=The agent")
    return target


class Wrong(Exception):
    """A `moss` command ended as it should not."""


class World:
    def __init__(self, root: Path, config: str, host: str, volume: str, name: str = "") -> None:
        self.root, self.host, self.volume, self.name = root, host, volume, name
        self.log = root / "moss.log"
        self.tmp = root / "tmp"
        self.tmp.mkdir()
        self.keys: dict[str, str] = {}
        """Of Moss's own environment."""
        self.process: subprocess.Popen[bytes] | subprocess.Popen[str] | warm.Run | None = None
        (root / "moss.toml").write_text(config)

    @classmethod
    def foreign(cls, root: Path, host: str, coder: Path = FOREIGN / "coder.sh", name: str = "prices") -> "World":
        """The agent and the coder that are written in shell."""
        volume = str(root / "state") if host == "process" else f"moss-test-{secrets.token_hex(4)}"
        repository_of(FOREIGN / "agent", root / "repository")
        shutil.copy(FOREIGN / "tasks.jsonl", root)
        return cls(root, FOREIGN_CONFIG.format(name=name, host=host, volume=volume, coder=coder), host, volume, name)

    def moss(self, *words: str, token: str | None = None, code: int | None = 0, timeout_s: float = 120) -> Any:
        """What `moss ... --json` prints; the exit code must be this one, if one is named."""
        env = self.environment() | ({"MOSS_TOKEN": token} if token else {})
        argv = ["--config", str(self.root / "moss.toml"), *words, "--json"]
        ended, out, err = warm.call(argv, cwd=self.root, env=env, timeout_s=timeout_s)
        if code is not None and ended != code:
            raise Wrong(f"moss {' '.join(words)}: exit code {ended}\n{out}\n{err}\n{self.tail()}")
        last = (out.strip() or err.strip()).splitlines()[-1:]
        return json.loads(last[0]) if last else None

    def start(self) -> None:
        """`moss run`; returns when it answers."""
        words = ["--config", str(self.root / "moss.toml"), "run"]
        self.process = warm.Run(words, cwd=self.root, env=self.environment(), log=self.log)
        until = time.monotonic() + 120
        while not (self.root / "data" / "moss.sock").exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise Wrong(f"moss run did not come up\n{self.tail()}")
            time.sleep(0.05)

    def end(self) -> int:
        """As a service manager ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_for(self, run: str, *states: str, timeout_s: float = 300) -> dict[str, Any]:
        """The run, once it is in one of the states."""
        until = time.monotonic() + timeout_s
        while True:
            found: dict[str, Any] = self.moss("run", "show", run)
            if found["run"]["state"] in states:
                return found
            if time.monotonic() > until:
                raise Wrong(f"run {run} is {found['run']['state']}: {found['run']['sentence']}\n{self.tail()}")
            time.sleep(0.4)

    def tail(self) -> str:
        return self.log.read_text()[-6000:] if self.log.exists() else ""

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "DOCKER_HOST") if name in os.environ}
        return kept | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.tmp)} | self.keys
