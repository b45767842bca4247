"""What was spent: one line of the ledger per call of a model, and per question where its program tells of more."""

from enum import StrEnum

from pydantic import Field

from core.model.value import Value


class LineKind(StrEnum):
    call = "call"
    """One call of a model, as the gateway saw it."""
    question = "question"
    """A question as a whole, once it is answered: how long it took, and what its program told beyond all calls."""
    past = "past"
    """A step that was taken before there was a ledger."""


class Line(Value):
    kind: LineKind
    substrate: str
    run: str
    n: int
    """The step of the run."""
    stage: str
    what: str
    """For people: the step's name, and the question's where a step asks several."""
    question: str
    """An id that all lines of one question share."""
    provider: str
    """The API of a call; the coder of a question."""
    model: str = ""
    input_tokens: int = Field(default=0, ge=0)
    """Beside cached ones."""
    output_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    """Read from a cache, or written into one."""
    tokens: int = Field(default=0, ge=0)
    """In all."""
    money_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """None where nobody knows it."""
    unpriced_tokens: int = 0
    """Of the tokens, those whose price nobody knows. Below zero where a program told what they cost after all."""
    estimated: bool = False
    """Nobody told the tokens; they follow from the size of what was said."""
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
