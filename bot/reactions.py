"""Complaints: a reaction with an emoji raises a flag and its removal takes it back; a form adds words."""

import structlog

from bot import verbs
from bot.chat import Flagged, Reacted
from bot.inbox import LOOKS, TALK, Delivery, NotYet
from bot.permits import refusal
from bot.replies import REPLY, first_of, parts_of
from bot.verbs import UNKNOWN, Moss
from bot.whispers import mention
from bot.words import count
from core.model.batch import BatchState
from core.model.errors import BadInput, NotFound, Refused
from core.model.evidence import FailureKind
from core.store import batches, posts, turns
from flags.emoji import kind_of, name_of
from flags.raise_flag import Raised, Withdrawal

log = structlog.get_logger(__name__)

LOOKS_WHILE_TALKING = 4
"""So often, and else LOOKS times, a reply that Moss does not know is looked for again: it may have been posted a moment
ago, by a Moss that died before it wrote that down."""
MISSES_PER_HOUR = 5
"""So many reactions in one conversation may be on messages that neither Moss nor the chat knows as the agent's; then
no further message is looked up in the chat for a reaction."""


async def reacted(moss: Moss, delivery: Delivery) -> None:
    event = delivery.event
    assert isinstance(event, Reacted)
    kind = kind_of(event.emoji, moss.settings.flags.emoji)
    if kind is None or await moss.inbox.overtaken(delivery):
        return
    first, parts = await _messages(moss, event)
    event = event.model_copy(update={"message": first})
    emoji, person = name_of(event.emoji), moss.settings.person(event.person)
    if event.added:
        try:
            await _complain(moss, delivery, event, kind, emoji=emoji)
        except (BadInput, NotFound) as problem:  # people react to each other, too, and mean nobody's agent
            log.debug("a reaction is no flag", delivery=delivery.key, reason=problem.sentence)
            if moss.rates.hourly(f"rebuked {person}", 1):
                await mention(moss, delivery, problem.sentence)
        return
    if await moss.inbox.stands_on(delivery, parts):
        return
    if await verbs.unflag(moss, event.place, event.message, person, emoji) is Withdrawal.noted:
        await mention(moss, delivery, "It is noted that you took your flag back; its batch is sealed and keeps it.")


async def flagged(moss: Moss, delivery: Delivery) -> None:
    event = delivery.event
    assert isinstance(event, Flagged)
    first, _ = await _messages(moss, event)
    event = event.model_copy(update={"message": first})
    await _complain(moss, delivery, event, event.failure, reason=event.reason)


async def _messages(moss: Moss, event: Reacted | Flagged) -> tuple[str, list[str]]:
    """The message by which the turn is known that somebody means, and all that show it."""
    async with moss.store.reading() as db:
        first = await first_of(db, event.place, event.message)
        return first, await parts_of(db, event.place, first)


async def _complain(
    moss: Moss,
    delivery: Delivery,
    event: Reacted | Flagged,
    kind: FailureKind,
    *,
    emoji: str | None = None,
    reason: str | None = None,
) -> None:
    person, misses = moss.settings.person(event.person), f"not the agent's {event.place.conversation}"
    if refused := await refusal(moss.settings, moss.chats, "flag", event):
        raise Refused(refused)
    async with moss.store.reading() as db:
        known = await turns.of_message(db, event.place, event.message)
        ours = await posts.of_message(db, event.place, event.message)
    if known is None:
        if ours and not ours.key.startswith(REPLY):
            raise BadInput("That message is from Moss itself; only replies of the agent can be flagged.")
        patience = LOOKS if await moss.inbox.is_quiet(TALK, delivery) else LOOKS_WHILE_TALKING
        if delivery.tries < patience:
            raise NotYet
        if isinstance(event, Reacted) and moss.rates.spent(misses, MISSES_PER_HOUR):
            raise NotFound(UNKNOWN)
    elif known.seconds is None and delivery.tries < LOOKS and not await moss.inbox.is_quiet(TALK, delivery):
        raise NotYet  # the agent may have changed its words before they were flagged
    try:
        raised = await verbs.flag(moss, event.place, event.message, person, reason, kind=kind, emoji=emoji, at=event.at)
    except (BadInput, NotFound):
        if known is None:
            moss.rates.hourly(misses, MISSES_PER_HOUR)
        raise
    await mention(moss, delivery, await thanks(moss, raised))


async def thanks(moss: Moss, raised: Raised) -> str:
    batch = raised.batch
    if raised.late:
        return f"Your flag is in {batch.id} already, which is {batch.state}; what you say now is noted beside it."
    async with moss.store.reading() as db:
        held = await batches.count(db, batch.id)
    replies = count(held, "flagged reply", "flagged replies")
    if batch.state is BatchState.open:
        return f"Thank you, that is flagged: {batch.id} holds {replies}. `/moss evolve` starts a repair."
    return f"Thank you, that is flagged: {batch.id} is full with {replies}. `/moss evolve {batch.id}` starts a repair."
