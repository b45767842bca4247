"""What people can ask of a running Moss, whatever face they ask through. Each verb is one function."""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.settings import Settings
from core import consent
from core.containers.host import Host
from core.dispatch import Dispatch
from core.model.batch import Batch, BatchState
from core.model.consent import Consent
from core.model.errors import BadInput, NotFound, Refused
from core.model.run import Dial, Run
from core.model.substrate import Substrate
from core.model.swap import Version
from core.pipeline import evolve as pipeline
from core.store import batches, consents, people, runs, substrates, swaps
from core.store.store import Store
from core.swap import adopt as adoption
from core.swap.rollback import version_to_restore
from flags import exchange


@dataclass(frozen=True, slots=True)
class Moss:
    """The rooms of a running Moss, as far as verbs need them."""

    settings: Settings
    store: Store
    host: Host
    dispatch: Dispatch


async def evolve(moss: Moss, substrate: str | None, batch: str | None, dial: Dial | None, who: str) -> Run:
    chosen = batch or await _batch_to_evolve(moss, moss.settings.substrate_named(substrate))
    evolve_ = moss.settings.evolve
    run = await pipeline.evolve(moss.store, chosen, dial or evolve_.depth, evolve_.budget, who)
    await moss.dispatch.wake()
    return run


async def _batch_to_evolve(moss: Moss, substrate: Substrate) -> str:
    """The only one there is to choose: sealed and never run, or open with evidence in it."""
    async with moss.store.reading() as db:
        waiting = []
        for batch in await batches.listing(db, substrate.name):
            sealed = batch.state is BatchState.sealed and await runs.latest_of(db, batch.id) is None
            if sealed or (batch.state is BatchState.open and await batches.chunks(db, batch.id)):
                waiting.append(batch.id)
    if not waiting:
        raise NotFound(f"No batch of {substrate.name} waits to be evolved; `moss batches` shows them all.")
    if len(waiting) > 1:
        raise BadInput(f"Several batches wait to be evolved; name one of {', '.join(waiting)}.")
    return waiting[0]


async def stop(moss: Moss, run: str, who: str) -> Run:
    return await moss.dispatch.stop(run, who)


async def restart(moss: Moss, run: str, who: str) -> Run:
    again = await pipeline.restart(moss.store, run, who)
    await moss.dispatch.wake()
    return again


async def person_of(moss: Moss, token: str | None) -> str:
    if not token:
        raise Refused("This needs your token; give it in --token-file or MOSS_TOKEN.")
    async with moss.store.reading() as db:
        person = await people.by_token(db, token)
    if person is None:
        raise Refused("Nobody here has that token; `moss people add NAME` makes one.")
    return person


async def decide(moss: Moss, subject: str, person: str, approve: bool, reason: str | None = None) -> consent.Decision:
    """`subject` is a run, or the consent of a rollback."""
    asked = await _consent_of(moss, subject)
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
        raise Refused(f"Run {subject} is {run.state} and has offered nothing yet that could be decided.")
    return found


async def rollback(
    moss: Moss, substrate: str | None, number: int | None, person: str
) -> tuple[Consent, consent.Decision]:
    """Ask for an older version, with the asker's own vote. Whether that is enough is the same rule as for any swap."""
    name = moss.settings.substrate_named(substrate).name
    version = await version_to_restore(moss.store, moss.host, name, number)
    async with moss.store.changing(name) as change:
        asked = await consent.ask_for_rollback(change, version, moss.settings.consent, person)
    return asked, await decide(moss, asked.id, person, True)


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


async def add_evidence(moss: Moss, substrate: str | None, lines: Sequence[str], who: str) -> list[Batch]:
    name = moss.settings.substrate_named(substrate).name
    return await exchange.add_evidence(moss.store, name, lines, who, seal_count=moss.settings.flags.seal_count)
