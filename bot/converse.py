"""Talking to the agent through Moss: a message is forwarded to the live agent, its reply posted, and both are kept.

That the agent is being asked is written down before, and what it answered before it is posted, under a name of its own.
So whenever Moss dies or loses its lease, the agent is asked once, and one reply is shown: its answer, or that this is
lost.
"""

import asyncio
import time
from typing import Any

import structlog

from bot import reasons
from bot.chat import Replied, Said
from bot.inbox import ACT, LOOKS, Delivery, NotYet
from bot.patience import in_time
from bot.permits import refusal
from bot.places import alias, is_flat, substrate_of
from bot.replies import REPLY, key_of
from bot.verbs import CONVERSATION, Moss
from core import agent
from core.model.errors import AgentFailed, BadInput, Refused
from core.model.substrate import Substrate
from core.model.swap import Version
from core.model.transcript import Message, Place
from core.model.value import sha256
from core.redact import Redactor
from core.store import asking, posts, substrates, swaps, turns
from core.store.turns import Turn

log = structlog.get_logger(__name__)

SWAP_WAIT_S = 300.0
"""How long a message waits for a swap to end before its person is told to come back."""
LOOK_S = 5.0
"""How long a swap of another process may have ended unseen."""
SORRY = "{} could not answer this. Please try again; a reaction such as 👎 on this message tells its maintainers."

LOST = "Moss was interrupted while {} answered this, and the answer was lost. Please ask again."


async def said(moss: Moss, delivery: Delivery) -> None:
    """A person wrote something: for the agent, for somebody else to whom the agent listens, or for nobody here."""
    event = delivery.event
    assert isinstance(event, Said)
    if await reasons.taken(moss, delivery):
        return
    async with moss.store.reading() as db:
        addressed = event.addressed or await _in_a_conversation(db, event.place)
        observed = not addressed and await turns.is_observed(db, event.place)
    if addressed and (event.addressed or event.text.strip()):  # a picture in its thread is for others who read there
        await _front(moss, delivery, event)
    elif observed:
        substrate = substrate_of(moss.settings, event.place)
        await _keep_question(moss, substrate, event.place, event)


async def replied(moss: Moss, delivery: Delivery) -> None:
    """The agent answered under its own name."""
    event = delivery.event
    assert isinstance(event, Replied)
    substrate = substrate_of(moss.settings, event.place)
    async with moss.store.reading() as db:
        live = await swaps.live_version(db, substrate.name)
    number = live.number if live else None
    message = Message(role="assistant", content=event.text, id=event.message, at=event.at, agent_version=_name(number))
    if event.edited and delivery.tries < LOOKS and not await moss.inbox.is_quiet(ACT, delivery):
        raise NotYet  # who flagged it before meant the words of before
    async with moss.store.writing() as db:
        if event.edited and await turns.reworded(db, event.place, message):
            return
        await turns.keep(db, moss.store.now(), substrate.name, event.place, said=message, version=number)


async def _in_a_conversation(db: Any, place: Place) -> bool:
    """In a thread in which the agent answers through Moss, unless it is the thread of a card."""
    if not place.thread or is_flat(place) or not await turns.is_fronted(db, place):
        return False
    return await posts.of_message(db, place, place.thread) is None


async def _front(moss: Moss, delivery: Delivery, event: Said) -> None:
    place = event.place if event.place.thread else event.place.model_copy(update={"thread": event.message})
    name = REPLY + delivery.key
    async with moss.store.reading() as db:
        if await posts.of_key(db, name):
            return
        reply = await turns.of_message(db, place, name)
    chat = moss.chats[place.platform]
    if reply is None:
        person = moss.settings.person(event.person)
        if refused := await refusal(moss.settings, moss.chats, "talk", event):
            raise Refused(refused)
        if not event.text.strip():
            raise BadInput("Your message is empty; write what you want to ask, or `/moss help`.")
        text = moss.inbox.heard.get(place, event.message)
        if delivery.altered and text is None and not await moss.inbox.is_begun(delivery):
            raise Refused(
                "Moss was restarted before your message reached the agent, and it held something that is never stored, "
                "such as a password, a mail address or a number; please send it again."
            )
        if delivery.tries == 0:
            moss.rates.count(person, moss.settings.permits.talk_per_minute)
        substrate = substrate_of(moss.settings, place)
        await in_time(chat, chat.working(event.place, event.message, True))
        try:
            reply = await _answered(moss, delivery, substrate, place, event, text or event.text, name)
        finally:
            await in_time(chat, chat.working(event.place, event.message, False))
        if reply is None:
            return
    lost = LOST.format(reply.substrate)
    if reply.said.error:
        shown, speaker = lost if reply.said.error == lost else SORRY.format(reply.substrate), ""
    else:
        shown, speaker = moss.inbox.heard.get(place, name) or reply.said.content, reply.substrate
    parts = chat.parts(shown)
    posted = [
        await in_time(chat, chat.post(place, part, key_of(name, n), as_agent=speaker)) for n, part in enumerate(parts)
    ]
    if shown != reply.said.content:
        moss.inbox.heard.keep(place, posted[0], shown)
    async with moss.store.writing() as db:
        await turns.posted(db, place, name, posted[0])
        for n, (part, message) in enumerate(zip(parts, posted, strict=True)):
            digest = sha256(part.encode())
            await posts.add(db, moss.store.now(), key_of(name, n), place, message=message, shown=digest)


async def _answered(  # noqa: PLR0917 - who is asked what, where
    moss: Moss, delivery: Delivery, substrate: Substrate, place: Place, event: Said, text: str, name: str
) -> Turn | None:
    """The agent's turn, kept under `name`; None when another Moss took this one for dead, and has replied meanwhile."""
    await _live(moss, substrate.name)
    await _keep_question(moss, substrate, place, event)
    history = await _history(moss, place, event.message)
    live = await _begin_turn(moss, substrate, name)
    try:
        return await _turn(moss, delivery, substrate, place, live, history, text, name)
    finally:
        await _end_turn(moss, substrate, name)


async def _turn(  # noqa: PLR0917 - who is asked what, after what, where
    moss: Moss,
    delivery: Delivery,
    substrate: Substrate,
    place: Place,
    live: Version,
    history: list[Message],
    text: str,
    name: str,
) -> Turn | None:
    unkept = moss.inbox.unkept
    if not await moss.inbox.begins(delivery):
        spoken, seconds, number = Message(role="assistant", content="", error=LOST.format(substrate.name)), 0.0, None
    elif delivery.row in unkept:
        spoken, seconds, number = unkept[delivery.row]
    else:
        began = time.monotonic()
        spoken, number = await _ask(moss, substrate, live, history, text, session(place), name)
        seconds = time.monotonic() - began
        unkept[delivery.row] = spoken, seconds, number
    now = moss.store.now()
    stamped = spoken.model_copy(update={"id": name, "at": now, "agent_version": _name(number)})
    clean = await asyncio.to_thread(Redactor(str(place.conversation)).message, stamped)
    if clean.error:
        log.warning("the agent gave no answer", substrate=substrate.name, version=number, reason=clean.error)
    if clean.content != spoken.content:
        moss.inbox.heard.keep(place, name, spoken.content)
    async with moss.store.writing() as db:
        if await posts.of_key(db, name):
            return None
        await turns.keep(db, now, substrate.name, place, said=clean, version=number, seconds=seconds)
        kept = await turns.of_message(db, place, name)
    assert kept is not None
    return kept


async def _ask(  # noqa: PLR0917 - who is asked what, after what, where
    moss: Moss, substrate: Substrate, live: Version, history: list[Message], text: str, session: str, name: str
) -> tuple[Message, int]:
    """What the agent answers, and which version did. A turn that a swap cut off, since it took longer than swaps wait,
    is put once more, to the version that went live."""
    spoken = await _put(moss, substrate, live, history, text, session)
    if spoken.error is None or not await _is_replaced(moss, substrate, live):
        return spoken, live.number
    await _end_turn(moss, substrate, name)
    live = await _begin_turn(moss, substrate, name)
    return await _put(moss, substrate, live, history, text, session), live.number


async def _put(  # noqa: PLR0917 - who is asked what, after what, where
    moss: Moss, substrate: Substrate, live: Version, history: list[Message], text: str, session: str
) -> Message:
    try:
        return await agent.say(None, moss.host, live.box, substrate.replay, history, message=text, session=session)
    except AgentFailed as failed:
        return Message(role="assistant", content="", error=failed.sentence)


async def _begin_turn(moss: Moss, substrate: Substrate, name: str) -> Version:
    while True:
        live = await _live(moss, substrate.name)
        async with moss.store.changing(substrate.name) as change:
            still = await swaps.live_version(change.db, substrate.name) == live
            if still and await asking.begin(change, name, substrate.replay.turn_timeout_s):
                return live


async def _end_turn(moss: Moss, substrate: Substrate, name: str) -> None:
    async with moss.store.writing() as db:
        await asking.end(db, substrate.name, name)


async def _is_replaced(moss: Moss, substrate: Substrate, asked: Version) -> bool:
    async with moss.store.reading() as db:
        return (
            await swaps.in_flight(db, substrate.name) is not None
            or await swaps.live_version(db, substrate.name) != asked
        )


async def _live(moss: Moss, substrate: str) -> Version:
    """What is live now, or once the swap that is under way has ended."""
    until = time.monotonic() + SWAP_WAIT_S
    seen = -1
    while True:
        seen = await moss.store.wait_for_change(seen, LOOK_S, of=substrate)
        async with moss.store.reading() as db:
            swap = await swaps.in_flight(db, substrate)
            live = await swaps.live_version(db, substrate)
            down = await substrates.needs_adoption(db, substrate)
        if swap is None:
            break
        if time.monotonic() > until:
            raise Refused(f"{substrate} is being replaced by another version right now; send it again in a minute.")
    if live is None or down:
        raise Refused(f"{substrate} is not running, so it cannot answer; its maintainers can start it: `moss adopt`.")
    return live


async def _keep_question(moss: Moss, substrate: Substrate, place: Place, event: Said) -> None:
    """Its words are redacted since they arrived."""
    who = alias(place, moss.settings.person(event.person))
    message = Message(role="user", content=event.text, id=event.message, who=who, at=event.at)
    async with moss.store.writing() as db:
        await turns.keep(db, moss.store.now(), substrate.name, place, said=message)


async def _history(moss: Moss, place: Place, question: str) -> list[Message]:
    """What was said here before, as it was said where that is remembered; without what never was an answer."""
    async with moss.store.reading() as db:
        asked = await turns.of_message(db, place, question)
        assert asked is not None
        kept = await turns.conversation(db, place, until=asked.n - 1, limit=CONVERSATION)
    heard = moss.inbox.heard
    return [
        one.said.model_copy(update={"content": heard.get(place, one.message) or one.said.content})
        for one in kept
        if one.said.error is None
    ]


def session(place: Place) -> str:
    """The agent's name for this conversation: it tells nobody where it happens."""
    return "chat-" + sha256(str(place).encode()).removeprefix("sha256:")[:24]


def _name(version: int | None) -> str | None:
    return None if version is None else str(version)
