"""What Moss forgets with time. A flag has its own copy of what was said, so that no evidence depends on any of this."""

from datetime import timedelta

import structlog

from bot.replies import REPLY
from bot.verbs import Moss
from core.store import asking, posts, room, turns

log = structlog.get_logger(__name__)

KEPT = timedelta(days=365)
"""How long a conversation is kept: the turns that Moss saw, the messages of its room, and which of its own messages
answered what. Cards of runs and questions are known for good."""
TURNS_KEPT = timedelta(days=1)
"""Notes of turns under way that a Moss which died never took back; they count for minutes."""
AT_ONCE = 10_000
"""Of each kind: nobody has to wait for a longer transaction. The rest is forgotten the next time."""


async def forget(moss: Moss) -> None:
    await moss.inbox.prune()
    kept = max(KEPT, timedelta(seconds=moss.settings.flags.seal_age_s))
    before = moss.store.now() - kept
    async with moss.store.writing() as db:
        await asking.forget(db, moss.store.now() - TURNS_KEPT)
        gone = [
            await turns.prune(db, before, AT_ONCE),
            await posts.prune(db, before, (REPLY, "news:", "receipt:", "batch:", "digest:"), AT_ONCE),
            await room.prune(db, before, AT_ONCE),
        ]
    if any(gone):
        log.info("old conversations are forgotten", turns=gone[0], posts=gone[1], room=gone[2])
