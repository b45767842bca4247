"""The example's agent, started as a plain program, with or without a change to its source."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx

EXAMPLES = Path(__file__).parents[2] / "examples"
DESK, OWNERS = EXAMPLES / "desk", EXAMPLES / "desk-moss"

PYTHON = (sys.executable, "-S", "-B")
"""As in its image: nothing is installed beside the standard library."""


def grader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("desk_grader", OWNERS / "grader.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(target: Path, patch: str | None = None) -> Path:
    shutil.copytree(DESK, target, ignore=shutil.ignore_patterns("__pycache__"))
    if patch:
        subprocess.run(["git", "apply", str(OWNERS / patch)], cwd=target, check=True)
    return target


def lines(name: str) -> list[dict[str, Any]]:
    """Evidence and tasks alike, each with its conversation under `transcript`."""
    found = [json.loads(line) for line in (OWNERS / name).read_text().splitlines()]
    return [{"transcript": {"messages": one.get("messages")}, **one} for one in found]


def questions(task: dict[str, Any]) -> list[str]:
    return [message["content"] for message in task["transcript"]["messages"] if message["role"] == "user"]


class Running:
    def __init__(self, source: Path, state: Path, **env: str) -> None:
        self.state = state
        self.port = free_port()
        self.conversations = 0
        self.env = {"PATH": os.environ["PATH"], "PORT": str(self.port), "MOSS_STATE_DIR": str(state), **env}
        self.source = source
        began = time.monotonic()
        self.process = subprocess.Popen(
            [*PYTHON, "-m", "desk", "serve"], cwd=source, env=self.env, stderr=subprocess.DEVNULL
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, verify=False)
        while True:
            try:
                self.client.get("/health")
                break
            except httpx.TransportError:
                assert self.process.poll() is None, "the desk ended"
                assert time.monotonic() < began + 15, "the desk does not come up"
                time.sleep(0.01)
        self.start_s = time.monotonic() - began

    def say(self, messages: list[dict[str, str]], session: str) -> dict[str, Any]:
        answer = self.client.post("/v1/chat/completions", json={"user": session, "messages": messages})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def converse(self, texts: Sequence[str]) -> list[dict[str, str]]:
        """The whole conversation in a session of its own, as a replay would hold it."""
        self.conversations += 1
        messages: list[dict[str, str]] = []
        for text in texts:
            messages.append({"role": "user", "content": text})
            said = self.say(messages, f"conversation-{self.conversations}")
            messages.append({"role": "assistant", "content": said["choices"][0]["message"]["content"]})
        return messages

    def command(self, *words: str) -> int:
        return subprocess.run(
            [*PYTHON, "-m", "desk", *words], cwd=self.source, env=self.env, capture_output=True, check=False
        ).returncode

    def stop(self) -> float:
        """How long it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(timeout=10) == 0
        finally:
            self.process.kill()
            self.client.close()
        return time.monotonic() - began


@contextlib.contextmanager
def running(source: Path, state: Path, **env: str) -> Iterator[Running]:
    desk = Running(source, state, **env)
    try:
        yield desk
    finally:
        if desk.process.poll() is None:
            desk.stop()


def free_port() -> int:
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        port: int = plug.getsockname()[1]
        return port
