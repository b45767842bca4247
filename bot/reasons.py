"""Reasons given in a thread: what a flagger says there about a reply they flagged a moment ago.

Where the agent listens in the thread, words without a mark are for the agent: a reason begins with `reason:` or with an
emoji that flags, such as 👎, and the agent does not get it. Where the flagged reply began the thread and the agent has
not spoken in it, any words count that mention nobody; they stay part of the conversation all the same.
"""

import re
from collections.abc import Mapping
from datetime import timedelta

from bot import verbs
from bot.chat import Said
from bot.inbox import ACT, LOOKS, Delivery, NotYet
from bot.permits import refusal
from bot.verbs import Moss
from bot.whispers import mention
from core.model.errors import BadInput
from core.model.evidence import Chunk, FailureKind, Flag
from core.model.transcript import Place
from core.store import batches, turns
from flags.emoji import kind_of

WITHIN = timedelta(minutes=10)
"""After the flag."""
REASON_CHARS = 3000
KEPT = "Thank you, that is kept as the reason for your flag."
NOTED = "Thank you; the batch of your flag is sealed, and what you say is noted beside it."

_MARK = re.compile(
    r"\s*(?:reason\s*:\s*|(?P<emoji>:[\w+'-]+:(?::skin-tone-\d:)?|[^\x00-\x7f\s]{1,8})\s+)(?P<words>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_MENTION = re.compile(r"(?<!\w)@\w")


async def taken(moss: Moss, delivery: Delivery) -> bool:
    """Whether it was a reason and nothing else, so that the agent is not to hear it."""
    event = delivery.event
    assert isinstance(event, Said)
    if not event.place.thread:
        return False
    marked = mark(event.text, moss.settings.flags.emoji)
    kind, words = marked or (FailureKind.other, event.text.strip())
    if marked is None and (event.addressed or not words or _MENTION.search(words) or not await _quiet(moss, event)):
        return False
    # Asked first: a flag that is done between the two looks must be found by the second.
    settled = delivery.tries >= LOOKS or await moss.inbox.is_quiet(ACT, delivery)
    found = await _flagged(moss, event)
    if found is None:
        if not settled:
            raise NotYet
        return False
    if await refusal(moss.settings, moss.chats, "flag", event):
        return False
    (chunk, flag), late = found, False
    if not f"\n{flag.reason}".endswith(f"\n{words}"):  # as it does when Moss died before it said so
        words = "\n".join(filter(None, (flag.reason, words)))
        if len(words) > REASON_CHARS and marked is None:
            return False
        if len(words) > REASON_CHARS:
            raise BadInput(f"The reason for a flag may have {REASON_CHARS} characters; say it in fewer words.")
        late = (await verbs.flag(moss, chunk.place, chunk.turn, flag.person, words, kind=kind, at=event.at)).late
    await mention(moss, delivery, NOTED if late else KEPT)
    return marked is not None


def mark(text: str, configured: Mapping[str, FailureKind]) -> tuple[FailureKind, str] | None:
    """What it complains of and in which words, when it says so itself. Pure."""
    found = _MARK.fullmatch(text)
    if found is None:
        return None
    kind = kind_of(found["emoji"], configured) if found["emoji"] else FailureKind.other
    return None if kind is None else (kind, found["words"].strip())


async def _quiet(moss: Moss, event: Said) -> bool:
    """Whether the thread began with a reply of the agent and the agent has said nothing in it."""
    async with moss.store.reading() as db:
        root = await turns.of_message(db, event.place, event.place.thread)
        last = await turns.last_reply(db, event.place)
    return root is not None and root.by_agent and last in (None, root)


async def _flagged(moss: Moss, event: Said) -> tuple[Chunk, Flag] | None:
    """The newest flag of this person on a reply in this thread, or on the one that began it."""
    person, place = moss.settings.person(event.person), event.place
    async with moss.store.reading() as db:
        for id, flag in reversed(await batches.flags_by(db, person, event.at - WITHIN)):
            chunk = await batches.chunk(db, id)
            if _is_here(chunk, place):
                return chunk, flag
    return None


def _is_here(chunk: Chunk, place: Place) -> bool:
    return chunk.place == place or (chunk.place.conversation == place.conversation and chunk.turn == place.thread)
