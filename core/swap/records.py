"""What a swap writes down: each function is one transaction, and a crash falls between two of them, never into one."""

from core.consent import lapse, withdraw_grants, withdraw_questions
from core.model.batch import BatchState
from core.model.consent import Consent, ConsentState
from core.model.errors import Busy, Refused
from core.model.events import Noun
from core.model.run import Prepared, RunState
from core.model.swap import SWAP_IN_FLIGHT, LastGood, Swap, SwapState, Version
from core.model.value import new_id, short
from core.store import batches, claims, consents, facts, notices, runs, substrates, swaps
from core.store.store import Change, Store
from core.swap.plan import back_boot_id, back_box, new_box, swap_id
from core.swap.window import held_back

MOSS = "moss"


async def plan(store: Store, consent_id: str) -> Swap | None:
    """The swap that this consent allows, planned now or found; None when the consent allows nothing any more.

    The run leaves `approved` in the same transaction, so that it can no longer be stopped. A grant that is older than
    what is live is refused: people gave it looking at another version.
    """
    async with store.reading() as db:
        substrate = (await consents.get(db, consent_id)).substrate
    async with store.changing(substrate) as change:
        if found := await swaps.of_consent(change.db, consent_id):
            return found
        consent = await consents.get(change.db, consent_id)
        if consent.state is not ConsentState.granted:
            return None
        if consent.run and (await runs.get(change.db, consent.run)).state is not RunState.approved:
            await consents.move(change, consent.id, ConsentState.void, MOSS, "the run no longer waits for its swap")
            return None
        live = await swaps.live_version(change.db, substrate)
        if live is None:
            await lapse(change, consent, f"nothing of {substrate} is live")
            return None
        if await _is_older_than_live(change, consent):
            await lapse(change, consent, f"version {live.number} went live after it was approved")
            return None
        if why := held_back(await substrates.get(change.db, substrate), consent, change.now):
            raise Busy(why)
        if other := await swaps.in_flight(change.db, substrate):
            raise Busy(f"{substrate} is in the middle of {other.id}; {consent_id} waits for its end.")
        await claims.check_free(change)
        swap = Swap(
            id=swap_id(consent_id),
            substrate=substrate,
            consent=consent_id,
            run=consent.run,
            state=SwapState.planned,
            commit=consent.commit,
            image=consent.image,
            boot_id=new_id("boot"),
            old_box=live.box,
            new_box=new_box(substrate, consent_id),
            planned_at=change.now,
        )
        await swaps.plan(change, swap)
        if consent.run:
            await runs.move(change, consent.run, RunState.swapping, MOSS)
        return swap


async def _is_older_than_live(change: Change, granted: Consent) -> bool:
    """Whether people allowed this before something else went live. By the order of the facts: no clock is compared."""
    moves = await facts.about(change.db, Noun.consent, granted.id)
    allowed = max((fact.seq for fact in moves if fact.after == ConsentState.granted), default=0)
    return allowed < await facts.last(change.db, change.substrate, "version_added")


async def refuse(store: Store, consent_id: str, why: str) -> Swap | None:
    """It cannot be performed, although it was tried again and again: written down as far as it came. None when it had
    not begun. One that is over stays as it is, and what it left is tidied by reconciliation."""
    async with store.reading() as db:
        consent, swap = await consents.get(db, consent_id), await swaps.of_consent(db, consent_id)
    if swap is None:
        async with store.changing(consent.substrate) as change:
            current = await consents.get(change.db, consent_id)
            if current.state is ConsentState.granted and not await swaps.of_consent(change.db, consent_id):
                await lapse(change, current, why)
    elif swap.state is SwapState.planned:
        await void(store, swap, why)
    elif swap.state in SWAP_IN_FLIGHT:
        await give_in(store, swap, why)
    async with store.reading() as db:
        return await swaps.of_consent(db, consent_id)


async def made_from(store: Store, swap: Swap) -> str | None:
    """The image that was live when the run of this swap began; None for a rollback."""
    if swap.run is None:
        return None
    async with store.reading() as db:
        history = await runs.history(db, swap.run)
    return next((done.result.live_image for done in history if isinstance(done.result, Prepared)), None)


async def begin(store: Store, swap: Swap) -> None:
    """An adoption that began meanwhile has the right of way: after this line it is the other way round."""
    async with store.changing(swap.substrate) as change:
        if await substrates.needs_adoption(change.db, swap.substrate):
            raise Refused(f"{swap.substrate} is being adopted; ask again when that has ended.")
        await swaps.move(change, swap.id, SwapState.stopping, MOSS, stopped_at=change.now)


async def move(store: Store, swap: Swap, after: SwapState) -> None:
    async with store.changing(swap.substrate) as change:
        await swaps.move(change, swap.id, after, MOSS)


async def void(store: Store, swap: Swap, why: str) -> None:
    """The live box was not touched."""
    async with store.changing(swap.substrate) as change:
        await swaps.move(change, swap.id, SwapState.restored, MOSS, problem=why)
        if (await consents.get(change.db, swap.consent)).state is ConsentState.granted:
            await consents.move(change, swap.consent, ConsentState.void, MOSS, why)
        text = f"{swap.substrate} was not swapped, and its live version goes on: {why}"
        await _end_run(change, swap, RunState.rolled_back, text)
        await notices.add(change, "swap-void", swap.id, text, run=swap.run, consent=swap.consent, problem=why)


async def give_up(store: Store, swap: Swap, why: str, last_words: str) -> None:
    async with store.changing(swap.substrate) as change:
        await swaps.move(change, swap.id, SwapState.restoring, MOSS, problem=why)
        await change.record(MOSS, Noun.swap, swap.id, "failed", problem=why, last_words=last_words)


async def commit(store: Store, swap: Swap, outage_ms: int | None) -> None:
    """The candidate is live. Nothing says so before this transaction, and everything says so after it."""
    async with store.changing(swap.substrate) as change:
        restores = (await consents.get(change.db, swap.consent)).version
        await swaps.move(change, swap.id, SwapState.live, MOSS, outage_ms=outage_ms)
        version = await _add_version(change, swap, swap.new_box, restores)
        what = f"version {restores} again, as version {version.number}" if restores is not None else _name(version)
        away = (
            f"it was away for {outage_ms / 1000:.1f} s"
            if outage_ms is not None
            else "nobody knows how long it was away"
        )
        text = f"{swap.substrate} now runs {what} ({swap.commit[:12]}); {away}."
        batch = await _end_run(change, swap, RunState.applied, text)
        if batch:
            await batches.move(change, batch, BatchState.resolved, MOSS, run=swap.run, version=version.number)
        await withdraw_questions(change, f"version {version.number} went live meanwhile")
        await withdraw_grants(change, f"version {version.number} went live after it was approved")
        await notices.add(
            change,
            "apply-complete",
            swap.id,
            text,
            run=swap.run,
            consent=swap.consent,
            version=version.number,
            restores=restores,
            commit=swap.commit,
            image=swap.image,
            outage_ms=outage_ms,
        )


async def accept(store: Store, swap: Swap, live: Version, outage_ms: int | None, *, fresh: LastGood | None) -> None:
    """What was live before is live again: in the same box, or in a fresh one of the last good image."""
    async with store.changing(swap.substrate) as change:
        await swaps.move(change, swap.id, SwapState.restored, MOSS)
        if fresh:
            again = {"boot_id": back_boot_id(swap), "image": fresh.image, "commit": fresh.commit}
            live = await _add_version(change, swap.model_copy(update=again), back_box(swap), live.number)
        text = f"{swap.substrate} was swapped and failed: {_closed(swap.problem)} {_name(live).capitalize()} is back."
        await _end_run(change, swap, RunState.rolled_back, text)
        await notices.add(
            change,
            "swap-restored",
            swap.id,
            text,
            run=swap.run,
            consent=swap.consent,
            version=live.number,
            problem=swap.problem,
            outage_ms=outage_ms,
        )


async def give_in(store: Store, swap: Swap, why: str) -> None:
    async with store.changing(swap.substrate) as change:
        problem = why
        if swap.problem:
            problem = f"{_closed(swap.problem)} Then the last good version did not come back: {why}"
        await swaps.move(change, swap.id, SwapState.stuck, MOSS, problem=problem)
        text = f"{swap.substrate} IS DOWN and needs a human now: {_closed(problem)} Mend it, then run `moss adopt`."
        await _end_run(change, swap, RunState.stuck, text)
        await substrates.set_needs_adoption(change, True, MOSS, problem)
        await withdraw_questions(change, f"{swap.substrate} is down")
        await notices.add(
            change, "swap-stuck", swap.id, text, run=swap.run, consent=swap.consent, problem=problem, loud=True
        )


async def _end_run(change: Change, swap: Swap, after: RunState, sentence: str) -> str | None:
    """The run's batch, while it is still sealed."""
    if swap.run is None:
        return None
    run = await runs.move(change, swap.run, after, MOSS, sentence)
    batch = await batches.get(change.db, run.batch)
    return batch.id if batch.state is BatchState.sealed else None


async def _add_version(change: Change, swap: Swap, box: str, restores: int | None) -> Version:
    version = Version(
        substrate=swap.substrate,
        number=(await swaps.versions(change.db, swap.substrate))[-1].number + 1,
        commit=swap.commit,
        image=swap.image,
        box=box,
        boot_id=swap.boot_id,
        swap=swap.id,
        restores=restores,
        since=change.now,
    )
    await swaps.add_version(change, version)
    await swaps.set_last_good(change, good_of(version))
    return version


def good_of(version: Version) -> LastGood:
    """A version that has just passed a full probe."""
    return LastGood(
        substrate=version.substrate,
        image=version.image,
        commit=version.commit,
        box=version.box,
        recorded_at=version.since,
    )


def _closed(problem: str | None) -> str:
    """Whatever follows begins a sentence of its own: what an agent said may end anyhow."""
    text = problem or "nobody knows why."
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _name(version: Version) -> str:
    return f"version {version.number} ({short(version.image)})"
