"""Facts: what happened, in the past tense, hash-chained. Cards, metrics, digest and audit all read these."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from core.model.value import Value, sha256


class Noun(StrEnum):
    substrate = "substrate"
    batch = "batch"
    run = "run"
    consent = "consent"
    swap = "swap"
    person = "person"


INSTALLATION = "@installation"
"""In the place of a substrate's name: the chain of what belongs to none, such as who was given a token."""


class Fact(Value):
    """One link of the chain of one substrate, or of the installation."""

    substrate: str
    seq: int
    at: datetime
    who: str
    noun: Noun
    id: str
    what: str
    before: str | None = None
    after: str | None = None
    detail: dict[str, Any] = Field(default_factory=dict)
    previous_hash: str
    hash: str = ""

    def sealed(self) -> "Fact":
        return self.model_copy(update={"hash": self.computed_hash()})

    def computed_hash(self) -> str:
        return sha256(self.model_copy(update={"hash": ""}).to_json().encode())


GENESIS = "sha256:" + "0" * 64


def broken_link(chain: list[Fact]) -> Fact | None:
    """The first fact that does not follow from the one before it, or None for a sound chain."""
    previous, expected = GENESIS, 1
    for fact in chain:
        if fact.seq != expected or fact.previous_hash != previous or fact.hash != fact.computed_hash():
            return fact
        previous, expected = fact.hash, expected + 1
    return None
