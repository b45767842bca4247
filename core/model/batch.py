"""A batch: the chunks of one conversation, collected until it is sealed; sealed, it never changes again."""

from datetime import datetime
from enum import StrEnum

from core.model.moves import moves
from core.model.transcript import Place
from core.model.value import Value


class BatchState(StrEnum):
    open = "open"
    sealed = "sealed"
    resolved = "resolved"
    discarded = "discarded"


BATCH_MOVES = moves(
    "batch",
    {
        BatchState.open: (BatchState.sealed, BatchState.discarded),
        BatchState.sealed: (BatchState.resolved, BatchState.discarded),
    },
)


class Batch(Value):
    id: str
    substrate: str
    place: Place
    state: BatchState
    opened_at: datetime
    sealed_at: datetime | None = None
    sealed_by: str | None = None
    """A person, or `count`, or `age`."""
