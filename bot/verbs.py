"""What people can ask of a running Moss, whatever face they ask through. Each verb is one function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bot.chat import Chat, Health
from bot.inbox import Inbox
from bot.patience import in_time
from bot.places import alias, substrate_of
from bot.rates import Rates
from bot.settings import Settings
from core import consent
from core.coders.choose import Choice
from core.containers.host import Host
from core.dispatch import Dispatch
from core.model.batch import Batch, BatchState
from core.model.consent import Consent
from core.model.errors import BadInput, NotFound, Refused, Unavailable
from core.model.evidence import FailureKind, Flag
from core.model.run import Dial, Run
from core.model.substrate import Substrate
from core.model.swap import Version
from core.model.transcript import Place, Transcript
from core.model.value import new_id
from core.pipeline import evolve as pipeline
from core.redact import Redactor
from core.store import batches, consents, people, runs, substrates, swaps, turns
from core.store.store import Store
from core.swap import adopt as adoption
from core.swap import release as letting_go
from core.swap.rollback import overtaken, version_to_restore
from flags import exchange
from flags.raise_flag import Raised, Withdrawal, raise_flag, withdraw

CONVERSATION = 40
"""How many messages up to a flagged reply are its evidence."""
UNKNOWN = "Moss does not know that message as a reply of the agent; only those can be flagged."


@dataclass(frozen=True, slots=True)
class Moss:
    """The rooms of a running Moss, as far as verbs need them."""

    settings: Settings
    store: Store
    host: Host
    dispatch: Dispatch
    inbox: Inbox
    chats: dict[str, Chat] = field(default_factory=dict)
    """By platform. Filled before anything reaches the inbox."""
    page: Callable[[str], str] = lambda run: ""
    """Where a run can be read whole; empty when nowhere."""
    health: Callable[[], Sequence[Health]] = tuple
    """Of every connection to a platform."""
    contained: Choice | None = None
    """Where coders work."""
    rates: Rates = field(default_factory=Rates)


async def evolve(  # noqa: PLR0917 - who wants what, how far
    moss: Moss, substrate: str | None, batch: str | None, dial: Dial | None, who: str, id: str | None = None
) -> Run:
    """Whoever may ask twice, as a chat after a crash, gives the id of the run: the second time finds it."""
    if id is not None and (begun := await _begun(moss, id)):
        return begun
    chosen = batch or await batch_to_evolve(moss, moss.settings.substrate_named(substrate))
    evolve_ = moss.settings.evolve
    await _check(moss, chosen)
    run = await pipeline.evolve(moss.store, chosen, dial or evolve_.depth, evolve_.budget, who, id)
    await moss.dispatch.wake()
    return run


async def _begun(moss: Moss, run: str) -> Run | None:
    async with moss.store.reading() as db:
        begun = await runs.find(db, run)
    if begun is not None:
        await moss.dispatch.wake()
    return begun


async def _check(moss: Moss, batch: str) -> None:
    """A batch is not sealed for a run that would be refused at its first step."""
    async with moss.store.reading() as db:
        name = (await batches.get(db, batch)).substrate
    await moss.dispatch.evolution.check(moss.settings.substrate_named(name))


async def batch_to_evolve(moss: Moss, substrate: Substrate, here: Place | None = None) -> str:
    """The only one there is to choose: sealed and never run, or open with evidence in it. Those of the conversation in
    which somebody asks come first."""
    async with moss.store.reading() as db:
        waiting = []
        for batch in await batches.listing(db, substrate.name, states=(BatchState.sealed, BatchState.open)):
            sealed = batch.state is BatchState.sealed and await runs.latest_of(db, batch.id) is None
            if sealed or (batch.state is BatchState.open and await batches.count(db, batch.id)):
                waiting.append(batch)
    if here is not None:
        waiting = [batch for batch in waiting if batch.place.conversation == here.conversation] or waiting
    if not waiting:
        raise NotFound(f"No batch of {substrate.name} waits to be evolved; `moss batches` shows them all.")
    if len(waiting) > 1:
        raise BadInput(f"Several batches wait to be evolved; name one of {', '.join(batch.id for batch in waiting)}.")
    return waiting[0].id


async def stop(moss: Moss, run: str, who: str) -> Run:
    return await moss.dispatch.stop(run, who)


async def restart(moss: Moss, run: str, who: str, id: str | None = None) -> Run:
    """The id is as in `evolve`."""
    if id is not None and (begun := await _begun(moss, id)):
        return begun
    async with moss.store.reading() as db:
        batch = (await runs.get(db, run)).batch
    await _check(moss, batch)
    again = await pipeline.restart(moss.store, run, who, id)
    await moss.dispatch.wake()
    return again


async def person_of(moss: Moss, token: str | None) -> str:
    if not token:
        raise Refused("This needs your token; give it in --token-file or MOSS_TOKEN.")
    async with moss.store.reading() as db:
        person = await people.by_token(db, token)
    if person is None:
        raise Refused("Nobody here has that token; `moss people add NAME` makes one.")
    return moss.settings.person(person)  # a token under another name of theirs makes nobody a second person


async def decide(moss: Moss, subject: str, person: str, approve: bool, reason: str | None = None) -> consent.Decision:
    """`subject` is a run, or the consent of a rollback."""
    asked = await _consent_of(moss, subject)
    reason = Redactor(asked.id).text(reason) if reason else None
    decision = await consent.decide(
        moss.store, asked.id, person, approve, reason, image_exists=await moss.host.has_image(asked.image)
    )
    await moss.dispatch.wake()
    return decision


async def _consent_of(moss: Moss, subject: str) -> Consent:
    async with moss.store.reading() as db:
        if subject.startswith("consent-"):
            return await consents.get(db, subject)
        run = await runs.get(db, subject)
        found = await consents.of_run(db, subject)
    if found is None:
        raise Refused(
            f"Run {subject} is {run.state} and has offered nothing yet that could be decided; "
            f"`moss run show {subject}` shows how far it is."
        )
    return found


async def version_before(moss: Moss, substrate: str, asked_at: datetime) -> int:
    """The one that a rollback without a number means."""
    return (await version_to_restore(moss.store, moss.host, substrate, None, asked_at)).number


async def rollback(  # noqa: PLR0917 - who wants what, since when
    moss: Moss,
    substrate: str | None,
    number: int | None,
    person: str,
    id: str | None = None,
    unnamed_at: datetime | None = None,
) -> tuple[Consent, consent.Decision]:
    """Ask for an older version, with the asker's own vote. Whether that is enough is the same rule as for any swap. The
    id, here of the consent, is as in `evolve`. Who named no version meant one that was there at `unnamed_at`."""
    name = moss.settings.substrate_named(substrate).name
    if number is None and unnamed_at is None:
        unnamed_at = moss.store.now()
    async with moss.store.reading() as db:
        asked = await consents.find(db, id) if id is not None else None
    if asked is None:
        version = await version_to_restore(moss.store, moss.host, name, number, unnamed_at)
        async with moss.store.changing(name) as change:
            live = await swaps.live_version(change.db, name)
            if unnamed_at and (problem := overtaken(live, version.number, unnamed_at)):
                raise Refused(problem)
            asked = await consent.ask_for_rollback(change, version, moss.settings.consent, person, id)
    return asked, await decide(moss, asked.id, person, True)


async def flag(
    moss: Moss,
    place: Place,
    message: str | None,
    person: str,
    reason: str | None = None,
    *,
    kind: FailureKind = FailureKind.other,
    emoji: str | None = None,
    at: datetime | None = None,
) -> Raised:
    """Complain about a reply of the agent; without a message, about the last one in this place. Raises NotFound for a
    message that Moss has not seen and the chat does not show, and BadInput for one that is no reply of the agent."""
    name, where, turn, transcript = await _flagged(moss, place, message)
    complaint = Flag(
        id=new_id("flag"),
        person=person,
        kind=kind,
        emoji=emoji,
        reason=reason or None,
        at=at or moss.store.now(),
    )
    limits = moss.settings.flags
    return await raise_flag(
        moss.store,
        name,
        where,
        turn,
        transcript,
        complaint,
        seal_count=limits.seal_count,
        per_hour=limits.per_hour,
    )


async def unflag(moss: Moss, place: Place, message: str, person: str, emoji: str | None = None) -> Withdrawal:
    """Take a complaint back, or one of the reactions that stand for it."""
    async with moss.store.reading() as db:
        turn = await turns.of_message(db, place, message)
    name = turn.substrate if turn else substrate_of(moss.settings, place).name
    return await withdraw(moss.store, name, place, message, person, emoji)


async def _flagged(moss: Moss, place: Place, message: str | None) -> tuple[str, Place, str, Transcript]:
    """Substrate, place, turn, and the conversation up to it, as Moss saw it or else as the chat shows it."""
    async with moss.store.reading() as db:
        if message is None:
            turn = await turns.last_reply(db, place)
            if turn is None:
                raise NotFound("The agent has said nothing here yet that could be flagged; talk to it first.")
        else:
            turn = await turns.of_message(db, place, message)
        kept = await turns.conversation(db, turn.place, until=turn.n, limit=CONVERSATION) if turn else []
    if turn is not None:
        if not turn.by_agent:
            raise BadInput("That message is a person's; only replies of the agent can be flagged.")
        seen = Transcript(messages=tuple(one.said for one in kept))
        if seen.user_turns() or not (shown := await _shown(moss, turn.place, turn.message)):
            shown = seen
        return turn.substrate, turn.place, turn.message, shown
    assert message is not None
    if shown := await _shown(moss, place, message):
        return substrate_of(moss.settings, place).name, place, message, shown
    raise NotFound(UNKNOWN)


async def _shown(moss: Moss, place: Place, message: str) -> Transcript | None:
    """The conversation up to a reply of the agent as the chat shows it; None when it does not, or may not."""
    chat = moss.chats.get(place.platform)
    try:
        said = await in_time(chat, chat.history(place, CONVERSATION)) if chat else []
    except (Refused, Unavailable):
        return None
    for n, one in enumerate(said):
        if one.id == message and one.role == "assistant":
            people = [m.model_copy(update={"who": alias(place, m.who)}) if m.who else m for m in said[: n + 1]]
            return Transcript(messages=tuple(people))
    return None


async def adopt(moss: Moss, substrate: str | None, commit: str | None, who: str, token: str | None) -> Version:
    """The first adoption is the owner's. Once something was live, adopting another commit, or starting again what is
    down, makes something live without a consent: an approver answers for it with a token."""
    chosen = moss.settings.substrate_named(substrate)
    async with moss.store.reading() as db:
        known = await swaps.versions(db, chosen.name)
        changes = known and (commit is not None or await substrates.needs_adoption(db, chosen.name))
    if changes:
        who = await person_of(moss, token)
        if who not in moss.settings.consent.approvers:
            raise Refused("Only an approver may adopt again; name approvers in [consent] of moss.toml.")
    return await adoption.adopt(
        moss.store,
        moss.host,
        moss.dispatch.owner,
        chosen,
        who,
        clone=await moss.dispatch.evolution.clone(chosen),
        work=moss.settings.data / "adopt" / chosen.name,
        commit=commit,
    )


async def release(moss: Moss, substrate: str | None, who: str, token: str | None, *, stop: bool) -> letting_go.Released:
    """Letting go of what is live, or stopping it, is as much a person's decision as making it live."""
    chosen = moss.settings.substrate_named(substrate)
    lives = await letting_go.what_lives(moss.store, moss.host, moss.dispatch.owner, chosen.name)
    async with moss.store.reading() as db:
        version = await swaps.live_version(db, chosen.name)
    if version is not None or any(box.running for box in lives):
        who = await person_of(moss, token)
        if who not in moss.settings.consent.approvers:
            raise Refused("Only an approver may release a live agent; name approvers in [consent] of moss.toml.")
    return await letting_go.release(moss.store, moss.host, moss.dispatch.owner, chosen, who, stop=stop)


async def add_evidence(moss: Moss, substrate: str | None, lines: Sequence[str], who: str) -> list[Batch]:
    name = moss.settings.substrate_named(substrate).name
    return await exchange.add_evidence(moss.store, name, lines, who, seal_count=moss.settings.flags.seal_count)
