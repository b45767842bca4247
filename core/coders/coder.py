"""The Protocol of a coder: a role and a brief go in, a text comes out. `ask` turns the text into a checked reply."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.model.errors import CoderFailed
from core.model.replies import Role
from core.model.run import Spend

STDOUT, STDERR = "stdout.txt", "stderr.txt"
"""The names under which a provider keeps its program's output among the artefacts, as it comes."""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a coder said, before anybody believed it."""

    text: str
    spend: Spend


class Coder(Protocol):
    @property
    def name(self) -> str: ...

    async def ping(self) -> str:
        """One line: which program, which version. Raises Unavailable with the mend."""

    async def answer(self, brief: Brief, home: Path) -> Answer:
        """Run the program once. `home` is a fresh directory for its configuration. Raises CoderFailed."""


def failed(coder: Coder, brief: Brief, reason: str, spend: Spend | None = None) -> CoderFailed:
    """`Coder aider failed in role plan: it exited with 1 (no such model).`"""
    error = CoderFailed(f"Coder {coder.name} failed in role {brief.role}: {reason.rstrip('.')}.")
    error.spend = spend
    return error
