"""Things in a store, brought there through the store's own doors."""

from datetime import UTC, datetime

from core import consent as consent_room
from core.model.batch import BatchState
from core.model.candidate import Candidate
from core.model.consent import Consent, Policy
from core.model.evidence import Chunk, Flag
from core.model.keypoints import Keypoint, Level, Matrix, Row, TaskKind
from core.model.run import Budget, Dial, Done, Failed, Run, RunState, Spend, Stage, Step, Trouble
from core.model.substrate import Health, Substrate
from core.model.swap import Swap, SwapState, Version
from core.model.transcript import Message, Place, Transcript
from core.model.value import new_id
from core.store import Change, Store, batches, runs, substrates

DESK = "desk"
PLACE = Place(platform="slack", workspace="acme", channel="help", thread="17.1")
OTHER_PLACE = PLACE.model_copy(update={"thread": "18.2"})
AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
NOTHING = Spend()
POLICY = Policy(approvers=frozenset({"anna", "ben"}))


def substrate(name: str = DESK) -> Substrate:
    return Substrate(name=name, repository=f"/srv/{name}", health=Health(http="/healthz"))


async def with_substrate(store: Store, name: str = DESK) -> str:
    async with store.changing(name) as change:
        await substrates.save(change, substrate(name), "anna")
    return name


def transcript(*said: str) -> Transcript:
    roles = ("user", "assistant")
    return Transcript(
        messages=tuple(Message.model_validate({"role": roles[n % 2], "content": text}) for n, text in enumerate(said))
    )


def flag(person: str, **more: object) -> Flag:
    return Flag.model_validate({"id": new_id("flag"), "person": person, "at": AT, **more})


def chunk(batch: str, turn: str, *flags: Flag, **more: object) -> Chunk:
    values = {"id": new_id("chunk"), "batch": batch, "place": PLACE, "turn": turn, "flags": flags}
    return Chunk.model_validate({"transcript": transcript("Refund?", "No."), **values, **more})


async def sealed_batch(change: Change, place: Place = PLACE) -> str:
    batch = await batches.open_batch(change, place, "carl")
    await batches.add_chunk(change, chunk(batch.id, "turn-1", flag("carl")), "carl")
    await batches.move(change, batch.id, BatchState.sealed, "carl")
    return batch.id


async def queued_run(change: Change, starter: str = "carl", batch: str | None = None) -> Run:
    return await runs.queue(change, batch or await sealed_batch(change), Dial.standard, Budget(), starter)


async def run_in(change: Change, *states: RunState, starter: str = "carl", place: Place = PLACE) -> Run:
    """A new run, moved through these states."""
    run = await queued_run(change, starter, await sealed_batch(change, place))
    for state in states:
        run = await runs.move(change, run.id, state, "moss")
    return run


def done(n: int, spend: Spend = NOTHING, ended_at: datetime = AT) -> Done:
    result = Failed(trouble=Trouble.broken, sentence="The coder said nothing.")
    return Done(
        n=n, step=Step(stage=Stage.plan, iteration=1, round=n + 1), result=result, spend=spend,
        started_at=AT, ended_at=ended_at,
    )  # fmt: skip


def matrix(level: Level = Level.strong) -> Matrix:
    point = Keypoint(id="asks-for-the-order", text="Asks for the order number.")
    return Matrix(rows=(Row(task="chunk-1", kind=TaskKind.batch, keypoint=point, levels=(level, level)),))


def candidate(run: str, **more: object) -> Candidate:
    values: dict[str, object] = {
        "id": new_id("candidate"),
        "run": run,
        "iteration": 2,
        "base_commit": "a" * 40,
        "commit": "b" * 40,
        "tree": "c" * 40,
        "image": "sha256:" + "d" * 64,
        "diff_hash": "sha256:" + "e" * 64,
        "files": ("desk/router.py", "desk/tools.py"),
        "insertions": 12,
        "deletions": 3,
        "baseline": matrix(Level.missing),
        "control": matrix(Level.weak),
        "matrix": matrix(),
        "partial": False,
        "summary": "Refunds went to the wrong tool.",
        "diff_artefact": "runs/run-1/iter-2/diff.patch",
    }
    return Candidate.model_validate(values | more)


async def offered(
    change: Change,
    policy: Policy = POLICY,
    starter: str = "carl",
    flaggers: tuple[str, ...] = ("carl", "dora"),
    *,
    place: Place = PLACE,
) -> Consent:
    """A run that waits for consent, with its candidate."""
    run = await run_in(change, RunState.running, starter=starter, place=place)
    found = candidate(run.id)
    await runs.add_candidate(change, found)
    consent = await consent_room.ask_for_candidate(change, found, run, policy, flaggers)
    await runs.move(change, run.id, RunState.awaiting_consent, "moss")
    return consent


def swap_of(consent: Consent, name: str = DESK) -> Swap:
    return Swap(
        id=new_id("swap"),
        substrate=name,
        consent=consent.id,
        run=consent.run,
        state=SwapState.planned,
        commit=consent.commit,
        image=consent.image,
        boot_id="boot-1",
        old_box="desk-v0",
        new_box="desk-v1",
        planned_at=AT,
    )


def version(number: int, name: str = DESK, since: datetime = AT) -> Version:
    return Version(
        substrate=name,
        number=number,
        commit=f"{number}" * 40,
        image="sha256:" + f"{number}" * 64,
        box=f"desk-v{number}",
        boot_id=f"boot-{number}",
        swap=None,
        since=since,
    )
