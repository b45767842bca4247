"""A swap: one replacement of the live container; and versions, what ran live from when to when."""

from datetime import datetime
from enum import StrEnum

from core.model.moves import moves
from core.model.value import Value


class SwapState(StrEnum):
    planned = "planned"
    stopping = "stopping"
    starting = "starting"
    probing = "probing"
    live = "live"
    restoring = "restoring"
    restored = "restored"
    stuck = "stuck"


SWAP_MOVES = moves(
    "swap",
    {
        # A swap that fails while still planned never touched the live agent: nothing is there to restore.
        SwapState.planned: (SwapState.stopping, SwapState.restored),
        SwapState.stopping: (SwapState.starting, SwapState.restoring, SwapState.stuck),
        SwapState.starting: (SwapState.probing, SwapState.restoring, SwapState.stuck),
        SwapState.probing: (SwapState.live, SwapState.restoring, SwapState.stuck),
        SwapState.restoring: (SwapState.restored, SwapState.stuck),
    },
)

SWAP_IN_FLIGHT = tuple(state for state in SwapState if not SWAP_MOVES.is_final(state))


class Swap(Value):
    id: str
    substrate: str
    consent: str
    run: str | None
    state: SwapState
    commit: str
    image: str
    boot_id: str
    """Given to the new container; a heartbeat counts only when it carries it."""
    old_box: str
    new_box: str
    planned_at: datetime
    stopped_at: datetime | None = None
    ended_at: datetime | None = None
    outage_ms: int | None = None
    """From the stop of the old container to the first probe that the new one passed."""
    problem: str | None = None


class Version(Value):
    """What ran live. Version 0 is what Moss adopted."""

    substrate: str
    number: int
    commit: str
    image: str
    box: str
    boot_id: str
    swap: str | None
    """None for version 0."""
    restores: int | None = None
    """The older version that a rollback brought back."""
    since: datetime
    until: datetime | None = None


class LastGood(Value):
    """The image and commit that last passed a full probe; recorded on its own, so that no other record can spoil it."""

    substrate: str
    image: str
    commit: str
    box: str
    recorded_at: datetime
