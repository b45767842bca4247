"""Evidence: flags that people raised on the agent's turns, and the chunks they become."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field, model_validator

from core.model.transcript import Message, Place, Transcript
from core.model.value import Value


class FailureKind(StrEnum):
    """What went wrong, as far as a flag or a diagnosis can tell."""

    wrong_tool = "wrong_tool"
    retrieval = "retrieval"
    plan = "plan"
    wrong_format = "format"
    permission = "permission"
    stopping = "stopping"
    routing = "routing"
    state = "state"
    incomplete = "incomplete"
    wrong_answer = "wrong_answer"
    tone = "tone"
    other = "other"


class Flag(Value):
    """One person's complaint about one turn."""

    id: str
    person: str
    kind: FailureKind = FailureKind.other
    emoji: str | None = None
    """Every reaction of theirs that stands for it, with spaces between."""
    reason: str | None = None
    at: datetime
    withdrawn_at: datetime | None = None


class Check(Value):
    """A keypoint that code can decide: the reply must hold, or must not hold, a text or a pattern."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    text: str
    contains: str | None = None
    absent: str | None = None
    matches: str | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> "Check":
        if sum(rule is not None for rule in (self.contains, self.absent, self.matches)) != 1:
            raise ValueError("give exactly one of contains, absent, matches")
        return self


class Chunk(Value):
    """A slice of a conversation that ends with the flagged turn. Flagged by five people it is still one chunk."""

    id: str
    batch: str
    place: Place
    turn: str
    """Identifies the flagged turn in its place: the platform's message id."""
    transcript: Transcript
    flags: tuple[Flag, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def flagged(self) -> Message:
        return self.transcript.messages[-1]

    @property
    def weight(self) -> int:
        return len({flag.person for flag in self.flags if flag.withdrawn_at is None})

    @property
    def kinds(self) -> frozenset[FailureKind]:
        return frozenset(flag.kind for flag in self.flags if flag.withdrawn_at is None)
