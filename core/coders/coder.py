"""What a coder is: a role and a brief go in, a text comes out. `ask` turns the text into a checked reply.

A coder is one program put to work: `program.Program`. Three things are plugged into it, and their Protocols stand here:
a Provider knows how one kind of program is spoken to, a Sandbox starts it where it can do no harm, and Lanes lead it
to its model.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from core import process
from core.model.errors import CoderFailed
from core.model.replies import Role
from core.model.run import Cap, Spend

STDOUT, STDERR = "stdout.txt", "stderr.txt"
"""The names under which a program's output is kept among the artefacts, as it comes."""
NOTES = "sandbox.txt"
"""What it tried in its sandbox, where it tried something."""

Api = Literal["anthropic", "openai", "gemini"]
"""The model APIs that a lane may lead to, by whose they are."""


@dataclass(frozen=True, slots=True)
class Account:
    """On whose account a question is put to a model."""

    substrate: str
    run: str
    n: int
    """The step of the run."""
    what: str
    """For people: the step's name, and the question's where a step asks several."""
    left: Cap = field(default_factory=Cap)
    """What may still be spent before the run is over its budget, or the month over its cap."""
    stage: str = ""
    question: str = ""
    """An id, under which all that is spent for one answer is written down."""

    def after(self, spend: Spend) -> "Account":
        return replace(self, left=self.left.without(spend))


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything a coder gets for one stage. Evidence lies in files; the prompt only says where."""

    role: Role
    tag: str
    """`<run>/<step name>`, and `<run>/<question>` for the judge of a reply; in the environment of every process of the
    coder, and of nothing else that runs meanwhile."""
    prompt: str
    checkout: Path
    """The working directory: the code at the commit under work, with a throw-away git directory."""
    evidence: Path
    """A directory of read-only files: redacted, written by Moss."""
    artefacts: Path
    """Where Moss keeps prompt, output and reply of this stage."""
    may_write: bool
    timeout_s: float
    output_limit_bytes: int = 8_000_000
    account: Account | None = None
    """None when nobody's run asks, as in `moss coder check`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a coder said, before anybody believed it."""

    text: str
    spend: Spend
    session: str = ""
    """Under which name the program itself knows this question, where it has one."""


class Doubtful(str):
    """A sign of life that a person should read before relying on it."""

    __slots__ = ()


class Coder(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def secrets(self) -> Mapping[str, str]:
        """What the program is given and may repeat nowhere, by the names of the variables."""

    async def ping(self) -> str:
        """One line: which program, which version; Doubtful when that is none that was tried. Raises Unavailable with
        the mend."""

    async def answer(self, brief: Brief, home: Path) -> Answer:
        """Run the program once. `home` is a fresh directory for its configuration, and what lies beside it is nobody
        else's either. Raises CoderFailed."""


# What differs between programs


@dataclass(frozen=True, slots=True)
class Way:
    """Where the model is reached during one question, as the program sees it."""

    url: str
    """Such as `http://127.0.0.1:4100`; each Api lies below it under its name."""
    token: str = field(repr=False)
    """In place of a key: it counts for this question alone."""
    confined: bool = False
    """The program works in a sandbox of Moss's, in which it can make none of its own, and needs none."""
    apis: tuple[Api, ...] = ()
    """Those that lie below it."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a program is started for one question, beyond what all have in common."""

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    """Laid in its fresh home before it starts, by their names in it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a program's output says, once it has ended."""

    text: str
    spend: Spend = field(default_factory=Spend)
    """By its own account. Seconds are not asked for."""
    problem: str | None = None
    """Why this is no final, successful answer, as the rest of a sentence about the program."""
    session: str = ""
    denied: tuple[str, ...] = ()
    """What the program itself did not allow its model, in its words. No fault: the model was told, and went on."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Of one kind of program: those it was measured with, both included."""

    oldest: tuple[int, ...]
    newest: tuple[int, ...]


class Provider(Protocol):
    """How one kind of program is spoken to. Does nothing by itself: no input, no output."""

    @property
    def api(self) -> Api | None:
        """Which model API the program must reach; None when that is the program's own affair."""

    @property
    def versions(self) -> Versions | None:
        """None when any will do, and the program is not asked for its version."""

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start: ...

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        """From standard output and standard error. Never raises: what cannot be read is a problem."""


# Where a program is started


class Lane(Protocol):
    """The way of one question to the model, kept open while the program works."""

    @property
    def token(self) -> str: ...
    @property
    def port(self) -> int:
        """On 127.0.0.1 of this machine."""

    @property
    def socket(self) -> Path:
        """The same as a unix socket, for a sandbox that has no network."""

    @property
    def spend(self) -> Spend:
        """What was metered so far."""

    async def exhausted(self) -> str:
        """Returns when no further call will be let through, since a budget would not last, with the reason as the rest
        of a sentence."""


class Lanes(Protocol):
    @property
    def apis(self) -> tuple[Api, ...]:
        """Those that are configured."""

    def open(self, account: Account | None, api: Api | None) -> AbstractAsyncContextManager[Lane]:
        """To one API, or to all that are configured. Raises Unavailable where that API is not."""


@dataclass(frozen=True, slots=True)
class Order:
    """One start of one program."""

    argv: tuple[str, ...]
    """The program by its absolute path, or as it was named where the sandbox has programs; and its arguments."""
    env: Mapping[str, str]
    brief: Brief
    home: Path
    lane: Lane | None
    shows: tuple[Path, ...] = ()
    """Further files and directories that it may read."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What of the environment is not to be told of again."""


@dataclass(frozen=True, slots=True)
class Ended:
    finished: process.Finished
    deeds: tuple[str, ...] = ()
    """What it tried and could not do, each as the rest of a sentence about the program."""
    excess: str | None = None
    """What it took too much of, for which it was ended, likewise."""


class Sandbox(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def confines(self) -> bool:
        """Whether it keeps anything from anybody."""

    @property
    def has_programs(self) -> bool:
        """Whether it brings programs of its own, so that those of this machine are of no use in there."""

    async def ping(self) -> str:
        """One line. Raises Unavailable with the mend when it does not work here."""

    def url(self, lane: Lane) -> str:
        """Where the lane is, as seen from inside."""

    async def run(self, order: Order) -> Ended:
        """To its end, with all that it started. Output is kept among the artefacts as it comes."""


def failed(coder: Coder, brief: Brief, reason: str, spend: Spend | None = None) -> CoderFailed:
    """`Coder aider failed in role plan: it exited with 1 (no such model).`"""
    error = CoderFailed(f"Coder {coder.name} failed in role {brief.role}: {reason.rstrip('.')}.")
    error.spend = spend
    return error
