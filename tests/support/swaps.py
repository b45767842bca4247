"""What a swap begins with: an agent that is live, and a candidate or an older version that people allowed."""

from datetime import UTC, datetime

from core import consent as consent_room
from core.consent import DecisionKind
from core.model.consent import Policy
from core.model.run import Done, Prepared, RunState, Stage, Step
from core.model.substrate import Substrate
from core.model.swap import LastGood, Version
from core.store import Store, runs, substrates, swaps
from tests.support.stored import candidate, run_in

OWNER = "moss-test"
APPROVER = "anna"
POLICY = Policy(approvers=frozenset({APPROVER}))


async def make_live(store: Store, substrate: Substrate, version: Version) -> None:
    async with store.changing(substrate.name) as change:
        await substrates.save(change, substrate, "moss")
        await swaps.add_version(change, version)
        good = LastGood(
            substrate=substrate.name,
            image=version.image,
            commit=version.commit,
            box=version.box,
            recorded_at=version.since,
        )
        await swaps.set_last_good(change, good)


async def asked_candidate(store: Store, name: str, image: str, commit: str, live_image: str) -> str:
    """The question about a candidate whose run began when `live_image` was live."""
    at = datetime.now(UTC)
    async with store.changing(name) as change:
        run = await run_in(change, RunState.running)
        result = Prepared(base_commit="a" * 40, live_image=live_image, tasks="sha256:0", substrate="sha256:0")
        prepared = Done(n=0, step=Step(stage=Stage.prepare), result=result, started_at=at, ended_at=at)
        await runs.append(change, run.id, prepared)
        found = candidate(run.id, image=image, commit=commit)
        await runs.add_candidate(change, found)
        consent = await consent_room.ask_for_candidate(change, found, run, POLICY, ("carl", "dora"))
        await runs.move(change, run.id, RunState.awaiting_consent, "moss")
    return consent.id


async def granted_candidate(store: Store, name: str, image: str, commit: str, live_image: str) -> str:
    return await _granted(store, await asked_candidate(store, name, image, commit, live_image))


async def granted_rollback(store: Store, version: Version) -> str:
    """`version` may be live when this is asked for; what matters is what is live when it is performed."""
    version = version.model_copy(update={"until": version.until or version.since})
    async with store.changing(version.substrate) as change:
        consent = await consent_room.ask_for_rollback(change, version, POLICY, "carl")
    return await _granted(store, consent.id)


async def _granted(store: Store, consent: str) -> str:
    decision = await consent_room.decide(store, consent, APPROVER, True, image_exists=True)
    assert decision.kind is DecisionKind.granted, decision.sentence
    return consent
