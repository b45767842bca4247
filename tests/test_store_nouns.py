"""What every module of the store promises, on each database."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from core import consent as consent_room
from core.model.batch import BatchState
from core.model.consent import ConsentState, Vote
from core.model.errors import Busy, IllegalMove, NotFound, Refused
from core.model.events import INSTALLATION, Noun
from core.model.evidence import Check, FailureKind
from core.model.run import RESTARTABLE, Budget, Dial, RunState, Spend
from core.model.substrate import Scope
from core.model.swap import LastGood, SwapState
from core.model.transcript import Place
from core.store import Store, batches, consents, facts, leases, notices, outbox, people, runs, substrates, swaps
from tests.support import stored
from tests.support.databases import DATABASES, START, HeldClock, opened
from tests.support.stored import AT, DESK, PLACE, chunk, flag, with_substrate


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        await with_substrate(store)
        yield store


# --- substrates ---------------------------------------------------------------------------------------------------


async def test_a_substrate_is_read_back_as_it_was_saved_and_only_a_difference_leaves_a_fact(store: Store) -> None:
    changed = stored.substrate().model_copy(update={"scope": Scope(protected=("graders/**",))})
    for body in (stored.substrate(), changed, changed):
        async with store.changing(DESK) as change:
            await substrates.save(change, body, "anna")
    async with store.reading() as db:
        assert await substrates.get(db, DESK) == changed
        assert await substrates.names(db) == [DESK]
        assert [fact.what for fact in await facts.chain(db, DESK)] == ["added", "changed"]
        with pytest.raises(NotFound):
            await substrates.get(db, "nobody")


async def test_a_substrate_that_an_older_moss_described_otherwise_is_described_anew(store: Store) -> None:
    async with store.changing(DESK) as change:
        await change.db.execute(text('UPDATE substrates SET body = \'{"called": "desk"}\''))
        await substrates.save(change, stored.substrate(), "moss")
        assert await substrates.get(change.db, DESK) == stored.substrate()


async def test_a_substrate_needs_adoption_until_a_version_lives_and_again_when_a_swap_got_stuck(store: Store) -> None:
    async with store.changing(DESK) as change:
        assert await substrates.needs_adoption(change.db, DESK)
        await swaps.add_version(change, stored.version(0))
        assert not await substrates.needs_adoption(change.db, DESK)
        await substrates.set_needs_adoption(change, True, "moss", "swap-1 is stuck")
        assert await substrates.needs_adoption(change.db, DESK)
        await substrates.set_needs_adoption(change, False, "anna", "looked at it")
        assert not await substrates.needs_adoption(change.db, DESK)


# --- batches ------------------------------------------------------------------------------------------------------


async def test_a_conversation_has_one_open_batch_and_gets_a_new_one_after_sealing(store: Store) -> None:
    async with store.changing(DESK) as change:
        first = await batches.open_batch(change, PLACE, "anna")
        assert await batches.open_batch(change, PLACE, "ben") == first
        elsewhere = await batches.open_batch(change, PLACE.model_copy(update={"thread": "18.2"}), "ben")
        assert elsewhere.id != first.id
        sealed = await batches.move(change, first.id, BatchState.sealed, "count", chunks=8)
        assert (sealed.state, sealed.sealed_by, sealed.sealed_at) == (BatchState.sealed, "count", START)
        assert (await batches.open_batch(change, PLACE, "anna")).id not in (first.id, elsewhere.id)
    async with store.reading() as db:
        assert await batches.get(db, first.id) == sealed
        assert {batch.id for batch in await batches.listing(db, DESK)} >= {first.id, elsewhere.id}
        assert await batches.listing(db, "other") == []
        assert await batches.open_for(db, "other", PLACE) is None


async def test_only_batches_opened_before_a_moment_count_as_old(store: Store, clock: HeldClock) -> None:
    async with store.changing(DESK) as change:
        old = await batches.open_batch(change, PLACE, "anna")
    clock.advance(60)
    async with store.changing(DESK) as change:
        await batches.open_batch(change, Place(platform="discord", workspace="w", channel="c"), "anna")
    async with store.reading() as db:
        assert await batches.open_since(db, START) == []
        assert await batches.open_since(db, START + timedelta(seconds=1)) == [old]


async def test_a_turn_flagged_by_several_people_is_one_chunk_that_weighs_as_many(store: Store) -> None:
    async with store.changing(DESK) as change:
        batch = (await batches.open_batch(change, PLACE, "anna")).id
        for person in ("anna", "ben", "anna"):
            kept = await batches.add_chunk(change, chunk(batch, "turn-1", flag(person)), person)
        await batches.add_chunk(change, chunk(batch, "turn-2", flag("ben")), "ben")
        assert kept.weight == 2
        found = await batches.chunks(change.db, batch)
    assert [(c.turn, c.weight) for c in found] == [("turn-1", 2), ("turn-2", 1)]
    assert found[0] == kept
    assert found[0].transcript == stored.transcript("Refund?", "No.")


async def test_a_reason_that_follows_the_emoji_joins_the_same_flag(store: Store) -> None:
    async with store.changing(DESK) as change:
        batch = (await batches.open_batch(change, PLACE, "anna")).id
        await batches.add_chunk(change, chunk(batch, "turn-1", flag("anna", emoji="thumbsdown")), "anna")
        words = flag("anna", reason="It\x00 never asks \ud800for the order.", kind=FailureKind.incomplete)
        check = Check(id="asks", text="Asks for the order", contains="order")
        (raised,) = (await batches.add_chunk(change, chunk(batch, "turn-1", words, checks=(check,)), "anna")).flags
        (kept,) = await batches.chunks(change.db, batch)
    assert (raised.emoji, raised.kind) == ("thumbsdown", FailureKind.incomplete)
    assert raised.reason is not None
    assert raised.reason.startswith("It\ufffd never asks")
    assert kept.checks == (check,)


async def test_a_person_who_is_named_twice_at_once_has_one_flag(store: Store) -> None:
    async with store.changing(DESK) as change:
        batch = (await batches.open_batch(change, PLACE, "anna")).id
        twice = (flag("anna", emoji="thumbsdown"), flag("anna", reason="Wrong."))
        kept = await batches.add_chunk(change, chunk(batch, "turn-1", *twice), "anna")
        assert [(f.person, f.emoji, f.reason) for f in kept.flags] == [("anna", "thumbsdown", "Wrong.")]


async def test_a_transcript_is_kept_to_the_letter(store: Store) -> None:
    odd = stored.transcript("NUL \x00, a clef \U0001d11e, a quote ' and {braces}", "caf\u00e9 \\u0000\n")
    async with store.changing(DESK) as change:
        batch = (await batches.open_batch(change, PLACE, "anna")).id
        await batches.add_chunk(change, chunk(batch, "turn-1", flag("anna"), transcript=odd), "anna")
    async with store.reading() as db:
        assert [kept.transcript for kept in await batches.chunks(db, batch)] == [odd]


async def test_a_withdrawn_flag_counts_no_more_until_it_is_raised_again(store: Store) -> None:
    async with store.changing(DESK) as change:
        batch = (await batches.open_batch(change, PLACE, "anna")).id
        await batches.add_chunk(change, chunk(batch, "turn-1", flag("anna"), flag("ben")), "anna")
        await batches.add_chunk(change, chunk(batch, "turn-2"), "scan")
        assert await batches.withdraw_flag(change, batch, "turn-1", "ben", "ben")
        assert not await batches.withdraw_flag(change, batch, "turn-1", "ben", "ben")
        assert not await batches.withdraw_flag(change, batch, "turn-1", "dora", "dora")
        assert not await batches.withdraw_flag(change, batch, "turn-9", "anna", "anna")
        assert [c.weight for c in await batches.chunks(change.db, batch)] == [1, 0]
        assert await batches.withdraw_flag(change, batch, "turn-1", "anna", "anna")
        assert [c.turn for c in await batches.chunks(change.db, batch)] == ["turn-2"]
        await batches.add_chunk(change, chunk(batch, "turn-1", flag("anna")), "anna")
        assert [(c.turn, c.weight) for c in await batches.chunks(change.db, batch)] == [("turn-1", 1), ("turn-2", 0)]


async def test_a_sealed_batch_takes_and_loses_no_evidence(store: Store) -> None:
    async with store.changing(DESK) as change:
        batch = await stored.sealed_batch(change)
        before = await batches.chunks(change.db, batch)
        with pytest.raises(IllegalMove, match="sealed"):
            await batches.add_chunk(change, chunk(batch, "turn-2", flag("ben")), "ben")
        with pytest.raises(IllegalMove, match="sealed"):
            await batches.withdraw_flag(change, batch, "turn-1", "carl", "carl")
        assert await batches.chunks(change.db, batch) == before


async def test_nothing_of_one_substrate_changes_under_the_lock_of_another(store: Store) -> None:
    await with_substrate(store, "lab")
    async with store.changing(DESK) as change:
        batch = await stored.sealed_batch(change)
        open_ = (await batches.open_batch(change, PLACE, "anna")).id
        consent = await stored.offered(change)
    async with store.changing("lab") as change:
        with pytest.raises(NotFound):
            await batches.move(change, batch, BatchState.discarded, "anna")
        with pytest.raises(NotFound):
            await batches.add_chunk(change, chunk(open_, "turn-1"), "anna")
        with pytest.raises(NotFound):
            await runs.queue(change, batch, Dial.deep, Budget(), "anna")
        with pytest.raises(NotFound):
            await runs.move(change, str(consent.run), RunState.stopped, "anna")
        with pytest.raises(NotFound):
            await consents.move(change, consent.id, ConsentState.granted, "anna")
        with pytest.raises(Refused):
            await swaps.plan(change, stored.swap_of(consent))


# --- runs ---------------------------------------------------------------------------------------------------------


async def test_a_run_starts_from_a_sealed_batch_only_and_is_handed_over_in_the_same_transaction(store: Store) -> None:
    async with store.changing(DESK) as change:
        open_ = (await batches.open_batch(change, PLACE, "anna")).id
        with pytest.raises(IllegalMove, match="only a sealed batch"):
            await stored.queued_run(change, batch=open_)
        await batches.move(change, open_, BatchState.sealed, "anna")
        budget = Budget(money_usd=2.5, tokens=1_000_000, seconds=3600)
        run = await runs.queue(change, open_, Dial.deep, budget, "anna")
    async with store.reading() as db:
        assert await runs.get(db, run.id) == run
        assert (run.state, run.budget, run.queued_at) == (RunState.queued, budget, START)
        assert [(row.substrate, row.kind, row.subject) for row in await outbox.waiting(db)] == [(DESK, "run", run.id)]


async def test_a_second_run_is_refused_while_one_is_in_flight_and_welcome_while_one_waits_for_people(
    store: Store,
) -> None:
    async with store.changing(DESK) as change:
        run = await stored.run_in(change, RunState.running)
        batch = await stored.sealed_batch(change)
        with pytest.raises(Busy, match=run.id):
            await stored.queued_run(change, batch=batch)
        await runs.move(change, run.id, RunState.awaiting_consent, "moss")
        second = await stored.queued_run(change, batch=batch)
        with pytest.raises(Busy, match=second.id):
            await runs.move(change, run.id, RunState.approved, "anna")
        assert await runs.in_flight(change.db, DESK) == second


async def test_a_refused_queueing_leaves_nothing_behind(store: Store) -> None:
    async with store.changing(DESK) as change:
        await stored.queued_run(change)
        batch = await stored.sealed_batch(change)
    with pytest.raises(Busy):
        async with store.changing(DESK) as change:
            await stored.queued_run(change, batch=batch)
    async with store.reading() as db:
        assert await runs.latest_of(db, batch) is None
        assert len(await outbox.waiting(db)) == 1
        assert await facts.verify(db, DESK) is None


async def test_a_final_state_stamps_the_end_and_keeps_the_sentence(store: Store, clock: HeldClock) -> None:
    async with store.changing(DESK) as change:
        run = await stored.run_in(change, RunState.running)
        assert (run.ended_at, run.sentence) == (None, "")
    clock.advance(60)
    async with store.changing(DESK) as change:
        ended = await runs.move(change, run.id, RunState.exhausted, "moss", "Nothing beat the live agent.")
    assert (ended.state, ended.ended_at) == (RunState.exhausted, START + timedelta(seconds=60))
    assert ended.sentence == "Nothing beat the live agent."


async def test_a_history_grows_by_exactly_the_next_step_of_a_running_run(store: Store) -> None:
    async with store.changing(DESK) as change:
        run = await stored.queued_run(change)
        with pytest.raises(IllegalMove, match="queued"):
            await runs.append(change, run.id, stored.done(0))
        await runs.move(change, run.id, RunState.running, "moss")
        await runs.append(change, run.id, stored.done(0))
        for n in (0, 2):
            with pytest.raises(IllegalMove, match="not the next"):
                await runs.append(change, run.id, stored.done(n))
        await runs.append(change, run.id, stored.done(1))
        assert await runs.history(change.db, run.id) == [stored.done(0), stored.done(1)]
        await runs.move(change, run.id, RunState.stopped, "anna")
        with pytest.raises(IllegalMove, match="stopped"):
            await runs.append(change, run.id, stored.done(2))


async def test_the_time_of_steps_is_summed_over_the_substrate_since_a_moment(store: Store) -> None:
    await with_substrate(store, "lab")
    for name in (DESK, "lab"):
        async with store.changing(name) as change:
            run = await stored.run_in(change, RunState.running)
            for n, ended_at in enumerate((AT, AT + timedelta(hours=1), AT + timedelta(hours=2))):
                await runs.append(change, run.id, stored.done(n, Spend(seconds=1.5), ended_at))
    async with store.reading() as db:
        assert await runs.worked_s(db, DESK, AT + timedelta(hours=1)) == 3
        assert await runs.worked_s(db, DESK, AT + timedelta(hours=3)) == 0


async def test_a_restart_archives_what_ended_without_a_candidate_and_nothing_else(
    store: Store, clock: HeldClock
) -> None:
    async with store.changing(DESK) as change:
        run = await stored.run_in(change, RunState.running)
        with pytest.raises(IllegalMove, match="running"):
            await runs.archive(change, run.id, "anna")
        await runs.move(change, run.id, RESTARTABLE[0], "anna")
        assert (await runs.archive(change, run.id, "anna")).archived
        with pytest.raises(IllegalMove, match="archived"):
            await runs.archive(change, run.id, "anna")
        again = await runs.queue(change, run.batch, Dial.shallow, Budget(), "anna")
        assert await runs.latest_of(change.db, run.batch) == again
    async with store.reading() as db:
        clock.advance(1)
        assert [found.id for found in await runs.listing(db, DESK, limit=1)] in ([again.id], [run.id])
        assert {found.id for found in await runs.listing(db)} == {run.id, again.id}


async def test_a_candidate_is_read_back_exactly(store: Store) -> None:
    async with store.changing(DESK) as change:
        run = await stored.run_in(change, RunState.running)
        made = [stored.candidate(run.id, iteration=n) for n in (1, 2)]
        for one in reversed(made):
            await runs.add_candidate(change, one)
        assert await runs.candidate(change.db, made[0].id) == made[0]
        assert await runs.candidates(change.db, run.id) == made
        with pytest.raises(NotFound):
            await runs.candidate(change.db, "candidate-x")


# --- consents -----------------------------------------------------------------------------------------------------


async def test_a_consent_is_read_back_with_its_votes_and_a_person_has_one(store: Store) -> None:
    async with store.changing(DESK) as change:
        consent = await stored.offered(change)
        for person, approve in (("anna", True), ("ben", True), ("anna", False)):
            vote = Vote(person=person, approve=approve, at=AT, reason="Looks right.")
            kept = await consents.add_vote(change, consent.id, vote)
        assert {(vote.person, vote.approve) for vote in kept.votes} == {("anna", False), ("ben", True)}
        assert kept.model_copy(update={"votes": ()}) == consent
        assert await consents.of_run(change.db, str(consent.run)) == kept
        assert await consents.asked(change.db) == await consents.asked(change.db, DESK) == [kept]
        await consents.move(change, consent.id, ConsentState.declined, "anna", "not yet")
        assert await consents.asked(change.db, DESK) == []
        with pytest.raises(IllegalMove, match="declined"):
            await consents.add_vote(change, consent.id, vote)


# --- swaps --------------------------------------------------------------------------------------------------------


async def test_a_substrate_has_one_swap_in_flight_and_a_consent_allows_one_swap(store: Store) -> None:
    async with store.changing(DESK) as change:
        consent = await stored.offered(change)
        swap = stored.swap_of(consent)
        await swaps.plan(change, swap)
        assert await swaps.get(change.db, swap.id) == await swaps.in_flight(change.db, DESK) == swap
        assert await swaps.of_consent(change.db, consent.id) == swap
        other = await consent_room.ask_for_rollback(
            change, stored.version(1).model_copy(update={"until": AT}), stored.POLICY, "anna"
        )
        with pytest.raises(Busy, match=swap.id):
            await swaps.plan(change, stored.swap_of(other))
        await swaps.move(change, swap.id, SwapState.stopping, "moss", stopped_at=AT)
        await swaps.move(change, swap.id, SwapState.starting, "moss")
        await swaps.move(change, swap.id, SwapState.probing, "moss")
        ended = await swaps.move(change, swap.id, SwapState.live, "moss", outage_ms=1234, problem=None)
        assert (ended.stopped_at, ended.ended_at, ended.outage_ms, ended.problem) == (AT, START, 1234, None)
        with pytest.raises(IllegalMove, match="ask again"):
            await swaps.plan(change, stored.swap_of(consent))
        assert await swaps.in_flight(change.db, DESK) is None


async def test_a_new_version_ends_the_one_before(store: Store) -> None:
    later = AT + timedelta(hours=1)
    async with store.changing(DESK) as change:
        assert await swaps.live_version(change.db, DESK) is None
        await swaps.add_version(change, stored.version(0))
        await swaps.add_version(change, stored.version(1, since=later))
        assert await swaps.live_version(change.db, DESK) == stored.version(1, since=later)
        assert [(v.number, v.until) for v in await swaps.versions(change.db, DESK)] == [(0, later), (1, None)]


async def test_the_last_good_record_is_replaced_as_a_whole(store: Store) -> None:
    async with store.changing(DESK) as change:
        assert await swaps.last_good(change.db, DESK) is None
        for n in (0, 1):
            good = LastGood(substrate=DESK, image=f"sha256:{n}", commit=f"{n}", box=f"desk-v{n}", recorded_at=AT)
            await swaps.set_last_good(change, good)
            assert await swaps.last_good(change.db, DESK) == good


# --- outbox, notices, people, leases, facts -----------------------------------------------------------------------


async def test_work_is_due_once_and_until_it_is_done(store: Store) -> None:
    async with store.changing(DESK) as change:
        assert [await outbox.add(change, "swap", subject) for subject in ("c-1", "c-2", "c-1")] == [True, True, False]
        first, second = await outbox.waiting(change.db)
        assert (first.subject, second.subject) == ("c-1", "c-2")
        assert await outbox.waiting(change.db, limit=1) == [first]
        await outbox.done(change, first.id)
        assert await outbox.waiting(change.db) == [second]
        assert not await outbox.add(change, "swap", "c-1")


async def test_a_notice_is_given_once_per_kind_and_subject(store: Store) -> None:
    async with store.changing(DESK) as change:
        assert await notices.add(change, "applied", "run-1", "It is live.", commit="b" * 40)
        assert not await notices.add(change, "applied", "run-1", "It is live again.")
        assert await notices.add(change, "restored", "run-1", "It was taken back.")
        found = await notices.listing(change.db, DESK)
    assert [(notice.kind, notice.text) for notice in found] == [
        ("applied", "It is live."),
        ("restored", "It was taken back."),
    ]
    assert (found[0].detail, found[0].at) == ({"commit": "b" * 40}, START)


async def test_a_personal_token_names_its_person_until_it_is_removed_and_is_stored_nowhere(store: Store) -> None:
    token = await people.add(store, "anna")
    other = await people.add(store, "ben")
    with pytest.raises(Refused, match="anna"):
        await people.add(store, "anna")
    async with store.reading() as db:
        assert await people.by_token(db, token) == "anna"
        assert await people.by_token(db, token[:-1]) is None
        assert [person.name for person in await people.listing(db)] == ["anna", "ben"]
        raw = (await db.exec_driver_sql("SELECT * FROM people")).all()
        assert token not in str(raw)
    await people.remove(store, "anna")
    with pytest.raises(NotFound):
        await people.remove(store, "anna")
    async with store.reading() as db:
        assert await people.by_token(db, token) is None
        assert await people.by_token(db, other) == "ben"


async def test_whose_token_was_made_or_removed_by_whom_stands_in_a_chain_of_its_own(store: Store) -> None:
    token = await people.add(store, "anna", "operator")
    with pytest.raises(Refused):
        await people.add(store, "anna", "operator")
    await people.remove(store, "anna", "ben")
    with pytest.raises(NotFound):
        await people.remove(store, "anna", "ben")
    async with store.reading() as db:
        found = await facts.chain(db, INSTALLATION)
        assert [(fact.who, fact.noun, fact.id, fact.what) for fact in found] == [
            ("operator", Noun.person, "anna", "token_made"),
            ("ben", Noun.person, "anna", "token_removed"),
        ]
        assert token not in str(found)
        assert await facts.verify(db, INSTALLATION) is None
    async with store.changing(INSTALLATION) as change:
        await change.db.execute(text("DELETE FROM facts WHERE what = 'token_made'"))
    async with store.reading() as db:
        broken = await facts.verify(db, INSTALLATION)
        assert broken
        assert "does not follow" in broken.sentence


async def test_processes_hold_different_slots_and_a_slot_given_back_is_taken_again(store: Store) -> None:
    assert [await leases.claim(store, holder, 15) for holder in ("a", "b")] == ["executor-0", "executor-1"]
    await leases.release(store, "executor-0", "b")
    assert await leases.claim(store, "c", 15) == "executor-2"
    await leases.release(store, "executor-0", "a")
    assert await leases.claim(store, "d", 15) == "executor-0"
    async with store.reading() as db:
        assert await leases.holders(db) == {"executor-0": "d", "executor-1": "b", "executor-2": "c"}


async def test_a_silent_holder_is_dead_and_exactly_one_other_takes_over_what_it_left(
    store: Store, clock: HeldClock
) -> None:
    slot = await leases.claim(store, "a", 15)
    other = await leases.claim(store, "b", 15)
    clock.advance(10)
    await leases.renew(store, other, "b", 15)
    clock.advance(10)
    async with store.reading() as db:
        assert await leases.dead(db, store.now()) == [slot]
    assert await leases.take_over(store, slot, "b", 15)
    assert not await leases.take_over(store, slot, "c", 15)
    with pytest.raises(Busy, match=slot):
        await leases.renew(store, slot, "a", 15)
    clock.advance(15)
    async with store.reading() as db:
        assert slot in await leases.dead(db, store.now())
    await leases.release(store, slot, "b")
    async with store.reading() as db:
        assert slot not in await leases.dead(db, store.now())


async def test_a_new_process_claims_the_slot_of_a_dead_one_first(store: Store, clock: HeldClock) -> None:
    slot = await leases.claim(store, "a", 15)
    clock.advance(16)
    assert await leases.claim(store, "b", 15) == slot


async def test_facts_tell_the_life_of_one_thing_and_what_came_since(store: Store) -> None:
    async with store.changing(DESK) as change:
        run = await stored.run_in(change, RunState.running)
        await runs.move(change, run.id, RunState.failed, "moss", "The judge said nothing.")
    async with store.reading() as db:
        life = await facts.about(db, Noun.run, run.id)
        assert [(fact.what, fact.before, fact.after) for fact in life] == [
            ("queued", None, "queued"),
            ("moved", "queued", "running"),
            ("moved", "running", "failed"),
        ]
        assert life[-1].detail == {"sentence": "The judge said nothing."}
        chain = await facts.chain(db, DESK)
        assert await facts.since(db, DESK, chain[-3].seq) == chain[-2:]
        assert await facts.since(db, DESK, 1, limit=1) == chain[1:2]
