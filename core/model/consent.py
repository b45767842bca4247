"""Consent: who allowed which candidate, or which rollback, to become the live agent."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from core.model.moves import moves
from core.model.value import Unordered, Value


class ConsentState(StrEnum):
    asked = "asked"
    granted = "granted"
    declined = "declined"
    expired = "expired"
    void = "void"
    """Something it was bound to has changed: a newer candidate, another image, a stopped run."""


CONSENT_MOVES = moves(
    "consent",
    {
        ConsentState.asked: (
            ConsentState.granted,
            ConsentState.declined,
            ConsentState.expired,
            ConsentState.void,
        ),
        ConsentState.granted: (ConsentState.void,),
    },
)


class Policy(Value):
    """Who may approve. Kept with each consent as it stood when the consent was asked for."""

    approvers: Unordered[str] = frozenset()
    """Nobody named means nobody may."""
    quorum: int = Field(default=1, ge=1)
    """How many of them must approve."""
    allow_sole_approver: bool = False
    """A single approver may also approve what they started or alone complained about; every question then says so."""
    expires_after_s: int = Field(default=7 * 24 * 3600, gt=0)
    """How long a question waits for an answer."""
    remind_after_s: int = Field(default=24 * 3600, ge=0)
    """How long it waits before its approvers are reminded, once; 0 for never."""


class Vote(Value):
    person: str
    approve: bool
    at: datetime
    reason: str | None = None


class Consent(Value):
    id: str
    substrate: str
    run: str | None
    """None for a rollback."""
    candidate: str | None
    version: int | None
    """The version to go back to, for a rollback."""
    commit: str
    image: str
    diff_hash: str
    matrix_hash: str
    policy: Policy
    starter: str
    flaggers: Unordered[str]
    state: ConsentState
    asked_at: datetime
    expires_at: datetime
    votes: tuple[Vote, ...] = ()
