"""`/moss ...`: what people type, read and answered privately. What a verb does stands in `bot/verbs.py`."""

import difflib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bot import looking, verbs
from bot.chat import Card, Commanded, Section
from bot.inbox import ACT, LOOKS, Delivery, NotYet
from bot.permits import refusal
from bot.places import substrate_of
from bot.reactions import thanks
from bot.verbs import Moss
from bot.whispers import answer
from core.consent import DecisionKind
from core.model.errors import BadInput, NotFound, Refused
from core.model.run import RESTARTABLE, Dial, RunState
from core.model.substrate import Substrate
from core.model.value import id_from
from core.store import batches, consents, runs, turns


@dataclass(frozen=True, slots=True)
class Ask:
    """One command, understood as far as its verb."""

    moss: Moss
    delivery: Delivery
    event: Commanded
    person: str
    words: tuple[str, ...]
    """After the verb, without the page."""
    page: int

    @property
    def substrate(self) -> Substrate:
        return substrate_of(self.moss.settings, self.event.place)

    @property
    def typed(self) -> str:
        """All that stands after the verb, as it was typed: somebody's words, and not ours to read a page in."""
        return "".join(self.event.words.split(maxsplit=1)[1:]).strip()

    def id(self, noun: str) -> str:
        """Of what this command makes: made once, however often it is worked on. Events of another Moss on this machine
        may be numbered alike, and processes are told apart by their run: so the time counts, too."""
        return id_from(noun, f"{self.delivery.key}\0{self.event.at.isoformat()}")

    async def settled(self, find: Callable[[], Awaitable[str]]) -> str:
        return await self.moss.inbox.settled(self.delivery, find)


@dataclass(frozen=True, slots=True)
class Verb:
    name: str
    usage: str
    does: str
    answer: Callable[[Ask], Awaitable[Card | str]]
    decides: bool = False
    """Who may is the consent's own rule."""


async def commanded(moss: Moss, delivery: Delivery) -> None:
    event = delivery.event
    assert isinstance(event, Commanded)
    name, words, page = parse(event.words)
    verb = find(name)
    person = moss.settings.person(event.person)
    if not verb.decides and (refused := await refusal(moss.settings, moss.chats, verb.name, event)):
        raise Refused(refused)
    said = await verb.answer(Ask(moss, delivery, event, person, words, page))
    await answer(moss, delivery, said)


_PAGE = re.compile(r"\s+page\s+(\d{1,4})\s*$", re.IGNORECASE)


def parse(text: str) -> tuple[str, tuple[str, ...], int]:
    """Verb, words and page: `run run-7k3f9q2m diff page 2`. Nothing at all asks for help."""
    found = _PAGE.search(text)
    words = (text[: found.start()] if found else text).split()
    page = int(found[1]) if found else 1
    return (words[0].lower().removeprefix("/") if words else "help", tuple(words[1:]), page)


def find(name: str) -> Verb:
    verb = VERBS.get("approve" if name == "apply" else name)
    if verb is None:
        near = difflib.get_close_matches(name, [*VERBS, "apply"], n=1)
        mend = f"did you mean `/moss {near[0]}`?" if near else "`/moss help` lists all there are."
        raise BadInput(f"There is no verb `{name[:40]}`; {mend}")
    return verb


async def _evolve(ask: Ask) -> str:
    moss = ask.moss
    if ask.delivery.tries < LOOKS and not await moss.inbox.is_quiet(ACT, ask.delivery):
        raise NotYet
    words = [word for word in ask.words if word not in set(Dial)]
    dials = [Dial(word) for word in ask.words if word in set(Dial)]
    if len(words) > 1 or len(dials) > 1 or not all(word.strip("`").startswith("batch-") for word in words):
        raise BadInput(_usage("evolve"))

    async def batch() -> str:
        return _id("batch", words) or await verbs.batch_to_evolve(moss, ask.substrate, ask.event.place)

    chosen = await ask.settled(batch)
    run = await verbs.evolve(moss, None, chosen, dials[0] if dials else None, ask.person, ask.id("run"))
    return f"{run.id} is {run.state} on {run.batch}, {run.dial}; its card shows how far it is."


async def _status(ask: Ask) -> Card:
    return await looking.status(ask.moss)


async def _batches(ask: Ask) -> Card:
    return await looking.all_batches(ask.moss, ask.event, ask.substrate.name, ask.page)


async def _batch(ask: Ask) -> Card:
    id = _id("batch", ask.words)
    if id is None:
        async with ask.moss.store.reading() as db:
            open_ = await batches.open_for(db, ask.substrate.name, ask.event.place.conversation)
        if open_ is None:
            raise NotFound("No batch is open here; `/moss batches` lists those there are.")
        id = open_.id
    return await looking.batch(ask.moss, ask.event, id)


async def _history(ask: Ask) -> Card:
    return await looking.history(ask.moss, ask.substrate.name, ask.page)


async def _run(ask: Ask) -> Card:
    words = list(ask.words)
    id = _id("run", words[:1]) if words and words[0].startswith("run-") else None
    rest = words[1:] if id else words
    if len(rest) > 1:
        raise BadInput(_usage("run"))
    moss, event = ask.moss, ask.event
    if id is None:
        id = await looking.latest_run(moss, event, ask.substrate.name)
    if rest:
        return await looking.artefact(moss, event, id, rest[0].lower(), ask.page)
    return await looking.whole_run(moss, event, id)


async def _stop(ask: Ask) -> str:
    moss = ask.moss

    async def run() -> str:
        if id := _id("run", ask.words):
            return id
        async with moss.store.reading() as db:
            found = await runs.in_flight(db, ask.substrate.name)
        if found is None:
            raise NotFound(f"No run of {ask.substrate.name} is under way; `/moss status` shows how things stand.")
        return found.id

    id = await ask.settled(run)
    async with moss.store.reading() as db:
        before = await runs.get(db, id)
    if before.state is not RunState.stopped:
        await verbs.stop(moss, id, ask.person)
    return f"{id} is stopped; what it made is kept. `/moss restart {id}` starts anew."


async def _restart(ask: Ask) -> str:
    async def run() -> str:
        if id := _id("run", ask.words):
            return id
        async with ask.moss.store.reading() as db:
            listed = await runs.listing(db, ask.substrate.name)
        ended = [one.id for one in listed if one.state in RESTARTABLE and not one.archived]
        if not ended:
            raise NotFound(f"No run of {ask.substrate.name} can be restarted; `/moss evolve` starts a new one.")
        return ended[0]

    id = await ask.settled(run)
    again = await verbs.restart(ask.moss, id, ask.person, ask.id("run"))
    return f"{again.id} is {again.state} in place of {id}."


async def _approve(ask: Ask) -> str:
    if len(ask.words) > 1:
        raise BadInput(_usage("approve"))
    subject = await _question(ask, ask.words)
    return (await verbs.decide(ask.moss, subject, ask.person, True)).sentence


async def _decline(ask: Ask) -> str:
    named = _QUESTION.match(ask.typed)
    reason = ask.typed[named.end() :] if named else ask.typed
    if not reason:
        raise BadInput(f"Declining takes a reason: `/moss {VERBS['decline'].usage}`.")
    subject = await _question(ask, (named[1],) if named else ())
    return (await verbs.decide(ask.moss, subject, ask.person, False, reason)).sentence


_QUESTION = re.compile(r"`?((?:run|consent)-[2-9a-hjkmnp-tv-z]{8})`?(?:\s+|$)")


async def _question(ask: Ask, words: tuple[str, ...]) -> str:
    """The consent that is meant: that of a run, one by its own id, or the only one that waits."""

    async def subject() -> str:
        if words:
            return words[0].strip("`")
        async with ask.moss.store.reading() as db:
            waiting = await consents.asked(db, ask.substrate.name)
        # Whoever named nothing meant what they could see: not what was asked after they wrote.
        waiting = [one for one in waiting if one.asked_at <= ask.event.at]
        if not waiting:
            raise NotFound(
                f"Nothing of {ask.substrate.name} waits for approval; `/moss status` shows how things stand."
            )
        if len(waiting) > 1:
            raise BadInput(f"Several questions wait; name one of {', '.join(one.run or one.id for one in waiting)}.")
        return waiting[0].id

    return await ask.settled(subject)


async def _rollback(ask: Ask) -> str:
    moss, name = ask.moss, ask.substrate.name
    words = [word.lower().removeprefix("v") for word in ask.words if word.lower() != "version"]
    if len(words) > 1 or not all(word.isascii() and word.isdigit() for word in words):
        raise BadInput(_usage("rollback"))

    async def version() -> str:
        return words[0] if words else str(await verbs.version_before(moss, name, ask.event.at))

    number = int(await ask.settled(version))
    unnamed_at = None if words else ask.event.at
    asked, decision = await verbs.rollback(moss, name, number, ask.person, ask.id("consent"), unnamed_at)
    if decision.kind is DecisionKind.refused:
        return f"Whether version {asked.version} comes back is asked ({asked.id}). {decision.sentence}"
    return decision.sentence


async def _flag(ask: Ask) -> str:
    moss, place = ask.moss, ask.event.place

    async def reply() -> str:
        async with moss.store.reading() as db:
            last = await turns.last_reply(db, place)
        if last is None:
            raise NotFound("The agent has said nothing here yet that could be flagged; talk to it first.")
        return last.message

    message = await ask.settled(reply)
    raised = await verbs.flag(moss, place, message, ask.person, ask.typed, at=ask.event.at)
    return await thanks(moss, raised)


async def _digest(ask: Ask) -> Card:
    days = [word for word in ask.words if word.isascii() and word.isdigit() and len(word) < 5]
    if list(ask.words) != days[:1]:
        raise BadInput(_usage("digest"))
    return await looking.digest(ask.moss, ask.substrate.name, int(days[0]) if days else 7)


async def _help(ask: Ask) -> Card | str:
    if ask.words:
        verb = find(ask.words[0].lower())
        return f"`/moss {verb.usage}` {verb.does}"
    lines = [f"/moss {verb.usage}\n    {verb.does}" for verb in VERBS.values()]
    flags = (
        "React to a bad reply of the agent with 👎, 🚩 or ❌, and its maintainers can have it repaired. Say why in its "
        "thread: `reason: ...`"
    )
    return Card(title="What you can ask of Moss", body=(Section(text=flags), Section(text="\n".join(lines))))


VERBS = {
    verb.name: verb
    for verb in (
        Verb("flag", "flag [REASON]", "complains about the agent's last reply here.", _flag),
        Verb("status", "status", "shows what is live, what runs and what waits for people.", _status),
        Verb("batches", "batches [page N]", "lists the batches of flagged replies.", _batches),
        Verb("batch", "batch [BATCH]", "shows one of them; without a name, the one that is open here.", _batch),
        Verb(
            "evolve",
            f"evolve [BATCH] [{' | '.join(Dial)}]",
            "starts a repair of what was flagged; it seals the batch.",
            _evolve,
        ),
        Verb(
            "run",
            f"run [RUN] [{' | '.join(looking.Artefact)}] [page N]",
            "shows a run, or what it made; without a name, the latest.",
            _run,
        ),
        Verb("stop", "stop [RUN]", "ends a run at once; what it made is kept.", _stop),
        Verb("restart", "restart [RUN]", "sets an ended run aside and starts anew.", _restart),
        Verb("approve", "approve [RUN]", "lets a repair go live; `apply` is the same.", _approve, decides=True),
        Verb("decline", "decline [RUN] REASON", "refuses it, and says why.", _decline, decides=True),
        Verb("rollback", "rollback [VERSION]", "asks for an older version; approvers decide.", _rollback),
        Verb("history", "history [page N]", "lists what was live when.", _history),
        Verb("digest", "digest [DAYS]", "sums up what happened, within a week unless you say otherwise.", _digest),
        Verb("help", "help [VERB]", "shows this.", _help),
    )
}


def _usage(name: str) -> str:
    return f"`/moss {name}` is written so: `/moss {VERBS[name].usage}`."


def _id(noun: str, words: tuple[str, ...] | list[str]) -> str | None:
    """The id that was typed, if any."""
    if len(words) > 1:
        raise BadInput(f"One {noun} is enough; `/moss help` shows how.")
    return words[0].strip("`") if words else None
