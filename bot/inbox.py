"""The inbox: what happens in a chat is written down before the platform hears that it arrived, and worked on in order.

Nothing is written down before it is redacted. What was really said stays in memory, for the agent: see `Heard`.
"""

import asyncio
import contextlib
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from bot.arrivals import Arrivals
from bot.chat import AnyEvent, Commanded, Flagged, Pressed, Reacted, Replied, Said
from bot.patience import Away
from core.model.errors import MossError
from core.model.transcript import Message, Place
from core.process_table import has_ended
from core.redact import Redactor
from core.store import inbox as letters
from core.store import leases
from core.store.columns import plain_in
from core.store.inbox import Letter
from core.store.store import Store
from flags.emoji import name_of

log = structlog.get_logger(__name__)

TALK, ACT, ASK = "talk ", "act ", "ask "
"""How lanes begin: what waits for the agent, what complains about it, and what asks Moss."""
AT_ONCE = {TALK: 8, ACT: 8, ASK: 8}
OF_ONE_PERSON = {TALK: 2, ACT: 8, ASK: 8}
"""Whoever asks the agent much leaves room for others; the rest of theirs waits."""
PAUSES_S = (0.2, 1.0, 5.0, 20.0, 60.0)
"""Before each further try of an event that failed; after the last one it is given up."""
TRIES_AWAY = 60
"""So many more, after the longest pause, while the platform is away where something has to be said: an hour."""
LONGEST_S = 1800.0
"""Longer than any turn of an agent, with the swap it may have to wait for."""
LOOK_S = 5.0
"""How long what another process left behind, or finished, may stay unseen."""
KEPT = timedelta(days=7)
"""How long it is remembered that an event came, without its words."""
LOOKS = 3
"""So often something that came a moment before, and is not worked on yet, is looked for again: see NotYet."""
HEARD = 2000
"""How many messages that redaction altered are remembered as they were said."""
WORDS = ("text", "words", "reason", "answer_to")

_events: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


class NotYet(Exception):
    """What this event is about may still be on its way; worth another look in a moment."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event, to be worked on. It may be worked on again after a crash, so its effects are keyed by it."""

    row: int
    event: AnyEvent
    altered: bool = False
    """Redaction took something out of its words."""
    tries: int = 0

    @property
    def key(self) -> str:
        place = self.event.place
        return f"{place.platform}:{place.workspace}:{self.event.id}"


class TookTooLong(MossError):
    """Said once and not tried again: it would take as long again."""

    def __init__(self) -> None:
        super().__init__(f"This took longer than {LONGEST_S / 60:.0f} minutes and was ended; please ask again.")


@dataclass(frozen=True, slots=True)
class AtWork:
    lanes: str
    person: str
    task: asyncio.Task[None]


Perform = Callable[[Delivery], Awaitable[None]]
GiveUp = Callable[[Delivery, Exception], Awaitable[None]]


@dataclass(slots=True)
class Heard:
    """Messages as they were said, as long as this process lives: the store holds them redacted, and the agent should
    hear what people say to it."""

    _texts: OrderedDict[tuple[Place, str], str] = field(default_factory=OrderedDict)

    def keep(self, place: Place, message: str, text: str) -> None:
        self._texts[place.conversation, message] = text
        while len(self._texts) > HEARD:
            self._texts.popitem(last=False)

    def get(self, place: Place, message: str) -> str | None:
        return self._texts.get((place.conversation, message))


class Inbox:
    def __init__(self, store: Store, holder: Callable[[], str]) -> None:
        """`holder` names the lease of this process at this moment: what is held without a lease is nobody's."""
        self.heard = Heard()
        self._store = store
        self._holder = holder
        self._something = asyncio.Event()
        self._ending = False
        self.unkept: dict[int, tuple[Message, float, int | None]] = {}
        """What the agent answered, in how many seconds and as which version, by the row: until the store has it."""
        self._name = secrets.token_hex(8)
        self._at_work: dict[int, AtWork] = {}
        self._resting: set[int] = set()
        self._arrivals = Arrivals(self._write)

    # What adapters do

    async def take(self, event: AnyEvent) -> bool:
        return await self._arrivals.take(event)

    async def _write(self, arrived: Callable[[], Sequence[AnyEvent]]) -> list[bool]:
        async with self._store.writing() as db:
            fresh = await self.add_all(db, arrived())
        self.wake()
        return fresh

    async def add(self, db: Any, event: AnyEvent) -> bool:
        return (await self.add_all(db, [event]))[0]

    async def add_all(self, db: Any, events: Sequence[AnyEvent]) -> list[bool]:
        events = [plain(event) for event in events]
        clean = [redacted(event) for event in events]  # here and now: a transaction waits for no thread
        arrived = [
            letters.Arrived(
                platform=event.place.platform,
                workspace=event.place.workspace,
                event=event.id,
                lane=lane(event),
                body=kept.model_dump(mode="json"),
                altered=kept != event,
                emoji=event.emoji if isinstance(event, Reacted) else None,
                happened_at=event.at if isinstance(event, Reacted) else None,
            )
            for event, kept in zip(events, clean, strict=True)
        ]
        fresh = await letters.add_all(db, self._store.now(), self._holder(), arrived)
        for event, kept, new in zip(events, clean, fresh, strict=True):
            if new and isinstance(event, Said | Replied) and kept != event:
                self.heard.keep(event.place, event.message, event.text)
        return fresh

    def wake(self) -> None:
        self._something.set()

    # Working

    async def work(self, perform: Perform, give_up: GiveUp, platforms: Collection[str]) -> None:
        """Until `finish`. Lanes side by side, each in order; an event that fails is tried again."""
        looked = float("-inf")
        while not self._ending:
            self._something.clear()
            try:
                if time.monotonic() - looked >= LOOK_S:
                    await self._take_over(platforms)
                    looked = time.monotonic()
                for delivery, lanes in await self._next(platforms):
                    if self._ending:  # while this looked, and what `finish` has cancelled looked undone
                        return
                    task = asyncio.create_task(self._perform(delivery, perform, give_up))
                    self._at_work[delivery.row] = AtWork(lanes, delivery.event.person, task)
            except MossError as problem:
                log.warning("the inbox waits", reason=problem.sentence)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._something.wait()

    async def finish(self, within_s: float) -> None:
        """Take up nothing more and let what is under way end; what does not is worked on again after the next start."""
        self._ending = True
        self.wake()
        await self._arrivals.end(within_s)
        tasks = {work.task for row, work in self._at_work.items() if row not in self._resting}
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        left = [work.task for work in self._at_work.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def settled(self, delivery: Delivery, find: Callable[[], Awaitable[str]]) -> str:
        """What an event is about, such as `the last reply here`: found once, and the same when it is asked again."""
        async with self._store.reading() as db:
            known = await letters.meaning(db, delivery.row)
        if known is not None:
            return known
        meaning = await find()
        async with self._store.writing() as db:
            return await letters.settle(db, delivery.row, meaning)

    async def is_begun(self, delivery: Delivery) -> bool:
        """Whether anybody came as far as `begins`."""
        async with self._store.reading() as db:
            return await letters.meaning(db, delivery.row) is not None

    async def begins(self, delivery: Delivery) -> bool:
        """Written down before what must not happen twice. False when another Moss had begun it, which died or lost its
        lease since; what this one saw fail, it may begin again."""

        async def by_this_one() -> str:
            return self._name

        return await self.settled(delivery, by_this_one) == self._name

    async def is_quiet(self, lanes: str, delivery: Delivery) -> bool:
        """Whether all of this kind that came before, in the same conversation, is done."""
        async with self._store.reading() as db:
            return not await letters.waiting(db, f"{lanes}{delivery.event.place.conversation}/", delivery.row)

    async def overtaken(self, delivery: Delivery) -> bool:
        """A later change of the same reaction arrived before this one."""
        event = delivery.event
        assert isinstance(event, Reacted)
        async with self._store.reading() as db:
            later = await letters.overtaken_by(db, delivery.row, lane(event), event.at)
        return name_of(event.emoji) in {name_of(emoji) for emoji in later}

    async def stands_on(self, delivery: Delivery, messages: Collection[str]) -> bool:
        """Whether the same person's same emoji, which was taken off here, is on another of these messages."""
        event = delivery.event
        assert isinstance(event, Reacted)
        others = {lane(event.model_copy(update={"message": one})) for one in messages if one != event.message}
        if not others:
            return False
        async with self._store.reading() as db:
            known = await letters.changes(db, others)
        same = (all_ for (_, emoji), all_ in known.items() if name_of(emoji) == name_of(event.emoji))
        return any(all_[-1].added for all_ in same)

    async def prune(self) -> None:
        async with self._store.writing() as db:
            lost = await letters.prune(db, self._store.now() - KEPT)
        if lost:
            log.warning("events too old to be worked on were dropped", count=lost)

    async def _take_over(self, platforms: Collection[str]) -> None:
        async with self._store.reading() as db:
            holders, waiting = (await leases.holders(db)).values(), await letters.holders(db)
        living = {holder for holder in holders if not has_ended(holder.rpartition(".")[0])}
        if waiting <= {*living, self._holder()}:
            return
        async with self._store.writing() as db:
            await letters.take_over(db, self._holder(), living, platforms)

    async def _next(self, platforms: Collection[str]) -> list[tuple[Delivery, str]]:
        at_work = [work for row, work in self._at_work.items() if row not in self._resting]
        begun = list(self._at_work)  # before anything is read: what ends while this reads still looks undone to it
        found: list[tuple[Letter, str]] = []
        async with self._store.reading() as db:
            for lanes, at_once in AT_ONCE.items():
                people = Counter(work.person for work in at_work if work.lanes == lanes)
                looked_at = list(begun)
                while (free := at_once - people.total()) > 0:
                    full = [person for person, count in people.items() if count >= OF_ONE_PERSON[lanes]]
                    fresh = await letters.next_letters(
                        db, self._holder(), platforms, lanes, besides=looked_at, besides_people=full, limit=free
                    )
                    if not fresh:
                        break
                    for letter in fresh:
                        looked_at.append(letter.id)
                        if people[person := str(letter.body.get("person", ""))] < OF_ONE_PERSON[lanes]:
                            people[person] += 1
                            found.append((letter, lanes))
        return [(delivery, lanes) for letter, lanes in found if (delivery := await self._read(letter))]

    async def _read(self, letter: Letter) -> Delivery | None:
        try:
            event = _events.validate_python(letter.body)
        except ValidationError:
            log.error("an event cannot be read; another version of Moss wrote it", row=letter.id)
            async with self._store.writing() as db:
                await letters.done(db, self._store.now(), letter.id, {})
            return None
        return Delivery(letter.id, event, letter.altered, letter.tries)

    async def _perform(self, delivery: Delivery, perform: Perform, give_up: GiveUp) -> None:
        try:
            tries = delivery.tries
            while not await self._tried(delivery, tries, perform, give_up):
                async with self._store.writing() as db:
                    await letters.failed(db, delivery.row)
                self._resting.add(delivery.row)
                self.wake()
                await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                self._resting.discard(delivery.row)
                tries += 1
            async with self._store.writing() as db:
                body = delivery.event.model_dump(mode="json")
                kept = {name: "" if name in WORDS else value for name, value in body.items()}
                await letters.done(db, self._store.now(), delivery.row, kept)
            self.unkept.pop(delivery.row, None)
        except MossError as problem:  # the store is away: the next look finds this event as it was
            log.warning("an event waits", delivery=delivery.key, reason=problem.sentence)
            await asyncio.sleep(LOOK_S)
        except Exception:
            log.exception("an event waits", delivery=delivery.key)
            await asyncio.sleep(LOOK_S)
        finally:
            self._resting.discard(delivery.row)
            self._at_work.pop(delivery.row, None)
            self.wake()

    async def _tried(self, delivery: Delivery, tries: int, perform: Perform, give_up: GiveUp) -> bool:
        """Whether it is over with this event, one way or the other."""
        current = Delivery(delivery.row, delivery.event, delivery.altered, tries)
        limit = asyncio.timeout(LONGEST_S)
        try:
            async with limit:
                await perform(current)
        except Exception as failure:
            problem = TookTooLong() if limit.expired() else failure
            most = len(PAUSES_S) + (TRIES_AWAY if isinstance(failure, Away) else 0)
            last = limit.expired() or tries >= most
            if not isinstance(problem, NotYet):
                reason = problem.sentence if isinstance(problem, MossError) else None
                trace = problem if reason is None else None
                log.warning("an event failed", delivery=delivery.key, tries=tries + 1, reason=reason, exc_info=trace)
            if not last:
                return False
            log.error("an event was given up", delivery=delivery.key, kind=delivery.event.kind)
            try:
                await give_up(current, problem)
            except Exception as silence:
                log.warning("nobody could be told", delivery=delivery.key, reason=str(silence))
        return True


def lane(event: AnyEvent) -> str:
    """Events of one lane are worked on one after the other: a conversation with the agent, what one person thinks of
    one message, what one person asks of Moss in one channel."""
    where = event.place.conversation
    match event:
        case Said():
            return f"{TALK}{where}/{event.place.thread or (event.message if event.addressed else '')}"
        case Replied():
            return f"{TALK}{where}/{event.place.thread}"
        case Reacted() | Flagged():
            return f"{ACT}{where}/{event.message}/{event.person}"
        case Commanded() | Pressed():
            return f"{ASK}{where}/{event.person}"


def plain(event: AnyEvent) -> AnyEvent:
    """As a database can keep it, so that a row is found again by what the event says."""
    body = event.model_dump(mode="json")
    clean = plain_in(body)
    return event if clean == body else _events.validate_python(clean)


def redacted(event: AnyEvent) -> AnyEvent:
    redactor = Redactor(str(event.place.conversation))
    words = {name: redactor.text(getattr(event, name)) for name in ("text", "words", "reason") if hasattr(event, name)}
    changed = {name: text for name, text in words.items() if text != getattr(event, name)}
    return event.model_copy(update=changed) if changed else event
