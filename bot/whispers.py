"""Private answers: what Moss says to the one who asked, and to nobody else."""

import re

import structlog

from bot.chat import Card, Event, Flagged, Reacted
from bot.inbox import Delivery
from bot.patience import in_time
from bot.replies import first_of
from bot.verbs import Moss
from core.model.errors import MossError, Refused
from core.model.transcript import Place
from core.store import turns

log = structlog.get_logger(__name__)

_TYPED = re.compile(
    r"`moss (?:run show|"
    r"(batches|batch|evolve|stop|restart|approve|decline|rollback|history|digest|flag|status))\b"
)


async def answer(moss: Moss, delivery: Delivery, what: Card | str) -> None:
    """Said once, whatever crashes. When the chat refuses it, there is nobody to tell: it is logged."""
    event = delivery.event
    what = in_chat(what) if isinstance(what, str) else what
    chat = moss.chats[event.place.platform]
    place = await _where(moss, event)
    whisper = chat.whisper(place, event.person, what, getattr(event, "answer_to", ""), f"answer:{delivery.key}")
    try:
        await in_time(chat, whisper)
    except Refused as refusal:
        log.warning("a private answer was refused", delivery=delivery.key, reason=refusal.sentence)


async def _where(moss: Moss, event: Event) -> Place:
    """In the thread of the reply that somebody complained about, also where the platform does not name it: they look
    there."""
    if not isinstance(event, Reacted | Flagged) or event.place.thread:
        return event.place
    async with moss.store.reading() as db:
        known = await turns.of_message(db, event.place, await first_of(db, event.place, event.message))
    return known.place if known else event.place


def in_chat(sentence: str) -> str:
    """A sentence that names a verb of the command line names that of the chat, where there is one."""
    return _TYPED.sub(lambda found: f"`/moss {found[1] or 'run'}", sentence)


async def mention(moss: Moss, delivery: Delivery, what: str) -> None:
    """As `answer`, where silence would do as well: nothing is tried again for its sake."""
    try:
        await answer(moss, delivery, what)
    except MossError as problem:
        log.info("a private word was not said", delivery=delivery.key, reason=problem.sentence)
