"""The real coding agents, where they are installed, each beside a model that says what a test wants."""

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.coders.claude import EDITING, READING, Claude
from core.coders.coder import Account, Api, Brief, Ended, Heard, Lane, Order, Provider, Start, Versions, Way
from core.coders.codex import Codex
from core.coders.gemini import Gemini
from core.coders.host_sandbox import HostSandbox
from core.coders.opencode import OpenCode
from core.coders.program import Program
from core.model.run import Spend
from tests.support.model_stub import KEY, ModelStub


def _bundled(package: str, inside: str) -> str | None:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / inside
    return str(path) if path.exists() else None


def _installed(name: str, package: str = "", inside: str = "") -> str | None:
    """Named by MOSS_TEST_<NAME>, from a Python package of the lock, or on PATH."""
    named = os.environ.get(f"MOSS_TEST_{name.upper()}")
    return named or (_bundled(package, inside) if package else None) or shutil.which(name)


@dataclass(frozen=True)
class Agent:
    name: str
    path: str | None
    provider: Provider
    price: bool
    """Whether it tells what it cost."""
    shell: bool
    """Whether it has a shell in the role that edits."""
    loosened: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Our words, and those in their place with which it may do what it may not do under ours."""
    more: tuple[str, ...] = ()
    """Further words for the same."""
    slow: bool = False
    """It takes seconds of a processor before it asks its model anything."""
    stubborn: bool = False
    """It asks a service that fails again and again: only a limit of ours ends that."""

    def needs(self) -> pytest.MarkDecorator:
        if self.path or os.environ.get("CI") == "true":
            return pytest.mark.coding_agent
        return pytest.mark.skip(reason=f"{self.name} is not installed; name it in MOSS_TEST_{self.name.upper()}")

    def loose(self) -> "Loose":
        return Loose(self.provider, self.loosened, self.more)

    def program(self, stub: ModelStub, provider: Provider | None = None) -> Program:
        assert self.path, f"{self.name} is not installed"
        return Program(self.name, (self.path,), provider or self.provider, lanes=StubLanes(stub))


@dataclass(frozen=True)
class Loose:
    """A provider whose words were changed, to see that it was they that held a program back."""

    inner: Provider
    loosened: Mapping[str, str] = field(hash=False)
    more: tuple[str, ...]

    @property
    def api(self) -> Api | None:
        return self.inner.api

    @property
    def versions(self) -> Versions | None:
        return self.inner.versions

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        start = self.inner.start(brief, home, way)
        words = tuple(self.loosened.get(word, word) for word in start.arguments)
        texts = {name: _replaced(text, self.loosened) for name, text in start.files.items()}
        env = {name: _replaced(text, self.loosened) for name, text in start.env.items()}
        assert (words, texts, env) != (start.arguments, start.files, start.env)
        return Start((*self.more, *words), env, texts)

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        return self.inner.hear(said, complaint, exit_code)


def _replaced(text: str, loosened: Mapping[str, str]) -> str:
    for ours, theirs in loosened.items():
        text = text.replace(ours, theirs)
    return text


@dataclass(frozen=True)
class StubLane:
    port: int
    token: str = KEY
    socket: Path = Path("/nowhere")
    spend: Spend = field(default_factory=Spend)

    async def exhausted(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


@dataclass(frozen=True)
class StubLanes:
    """Lead to the stub, with nothing metered."""

    stub: ModelStub

    def open(self, account: Account | None, api: Api | None) -> AbstractAsyncContextManager[StubLane]:
        @asynccontextmanager
        async def lane() -> AsyncIterator[StubLane]:
            yield StubLane(self.stub.port)

        return lane()


CLAUDE = Agent(
    "claude",
    _installed("claude", "claude_agent_sdk", "_bundled/claude"),
    Claude(),
    price=True,
    shell=False,
    loosened={
        "--restricted": "--no-chrome",
        READING: f"{EDITING},Bash",
        EDITING: f"{EDITING},Bash",
        "dontAsk": "acceptEdits",
    },
    more=("--allowedTools", "Bash,Write,Edit"),
)
CODEX = Agent(
    "codex",
    _installed("codex", "codex_cli_bin", "bin/codex"),
    Codex(),
    price=False,
    shell=True,
    loosened={"read-only": "danger-full-access", "workspace-write": "danger-full-access"},
)
OPENCODE = Agent(
    "opencode",
    _installed("opencode"),
    OpenCode("some-model"),
    price=False,
    shell=False,
    loosened={'"deny"': '"allow"'},
    slow=True,
    stubborn=True,
)
GEMINI = Agent(
    "gemini",
    _installed("gemini"),
    Gemini(),
    price=False,
    shell=False,
    loosened={
        '"read_file",': '"read_file", "write_file", "run_shell_command",',
        "default": "yolo",
        "auto_edit": "yolo",
    },
    slow=True,
)
AGENTS = (CLAUDE, CODEX, OPENCODE, GEMINI)

NOBODY = 65534


class Nobody:
    """A sandbox that is none: the program runs as a normal user, who owns what it needs."""

    name = "nobody"
    confines = False
    has_programs = False

    async def ping(self) -> str:
        return self.name

    def url(self, lane: Lane) -> str:
        return HostSandbox().url(lane)

    async def run(self, order: Order) -> Ended:
        for root in (order.home.parent, order.brief.checkout):
            for folder, folders, files in os.walk(root):
                for name in (".", *folders, *files):
                    os.chown(Path(folder, name), NOBODY, NOBODY, follow_symlinks=False)
        who = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
        setpriv = shutil.which("setpriv")
        assert setpriv
        return await HostSandbox().run(replace(order, argv=(setpriv, *who, *order.argv)))


@contextmanager
def as_nobody(agent: Agent) -> Iterator[tuple[Path, Callable[[ModelStub], Program]]]:
    """A directory that everybody can enter, and the program as a normal user runs it."""
    assert agent.path
    with tempfile.TemporaryDirectory(prefix="moss-nobody-") as name:
        where = Path(name).resolve()
        where.chmod(0o755)
        path = Path(agent.path).resolve()
        if not all(parent.stat().st_mode & 0o001 for parent in path.parents):
            copied = where / "program"
            shutil.copytree(path.parents[1], copied)
            path = copied / path.relative_to(path.parents[1])
        yield where, lambda stub: replace(agent.program(stub), argv=(str(path),), sandbox=Nobody())
