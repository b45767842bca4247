"""Reports of one run in every state, made by hand: what cards, previews and pages are tried with."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bot.report import Evidence, Exchange, Listed, Report, Standing
from core.model.batch import Batch, BatchState
from core.model.candidate import Candidate
from core.model.consent import Consent, ConsentState, Policy, Vote
from core.model.evidence import Chunk, FailureKind, Flag
from core.model.keypoints import Keypoint, Level, Matrix, Row, TaskKind
from core.model.replies import Change, CodeVerdict, Depth, Diagnosis, Plan, PlanVerdict, Suspect, Verdict
from core.model.run import (
    Budget,
    Built,
    CodeReviewed,
    Dial,
    Done,
    Failed,
    Implemented,
    Judged,
    Located,
    Offered,
    Planned,
    PlanReviewed,
    Prepared,
    Result,
    Run,
    RunState,
    Scored,
    Spend,
    Stage,
    Step,
    Trouble,
)
from core.model.substrate import Health, Substrate
from core.model.swap import Swap, SwapState, Version
from core.model.transcript import Message, Place, Transcript
from core.pipeline.prediction import hold

AT = datetime.fromisoformat("2026-01-05T09:00:00+00:00")
PLACE = Place(platform="room", workspace="room", channel="desk")
POLICY = Policy(approvers=frozenset({"anna", "ben"}))

TURNS = (
    (
        "Which of our open tickets are past their SLA?",
        "1 open ticket of Harbor Foods is past its SLA:\n- T-1041 (walk-in freezer at -8 C, P1): late by 5 h",
        "2 open tickets of Harbor Foods are past their SLA:\n- T-1041 (walk-in freezer at -8 C, P1): late by 5 h\n"
        "- T-1052 (ice on the evaporator, P2): late by 1 h 10 min",
        "There are two, it only told me about the first one.",
    ),
    (
        "Which parts at the north warehouse are below their minimum?",
        "1 part at the north warehouse is below its minimum:\n- compressor relay CR-12: 0 in stock, minimum 4",
        "2 parts at the north warehouse are below their minimum:\n- compressor relay CR-12: 0 in stock, minimum 4\n"
        "- door gasket DG-40: 1 in stock, minimum 2",
        "The gasket is missing from this list.",
    ),
)

KEYPOINTS = (
    ("chunk-1", TaskKind.batch, "names-all", "Names every ticket that is past its SLA"),
    ("chunk-1", TaskKind.batch, "counts", "Says how many there are"),
    ("chunk-2", TaskKind.batch, "names-all", "Names every part that is below its minimum"),
    ("chunk-2", TaskKind.batch, "stock", "Says how many are in stock"),
    ("golden-ticket", TaskKind.golden, "status", "Gives the status of the ticket"),
    ("holdout-engineers", TaskKind.holdout, "names-all", "Names every engineer who is free"),
)


def matrix(*levels: int | Sequence[int]) -> Matrix:
    """One level per keypoint, or one per trial."""
    return Matrix(
        rows=tuple(
            Row(
                task=task,
                kind=kind,
                keypoint=Keypoint(id=id, text=text),
                levels=tuple(Level(each) for each in ([level] if isinstance(level, int) else level)),
            )
            for (task, kind, id, text), level in zip(KEYPOINTS, levels, strict=True)
        )
    )


RECORDED = matrix(1, 1, 0, 3, 3, 0)
LIVE = matrix((1, 1, 2), (1, 1, 1), (0, 0, 0), (3, 3, 3), (3, 3, 3), (0, 0, 0))
REPAIRED = matrix((3, 3, 3), (3, 3, 3), (3, 2, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
HALF = matrix((3, 3, 3), (1, 1, 1), (1, 1, 2), (3, 3, 3), (3, 3, 3), (1, 1, 1))

DIAGNOSIS = Diagnosis(
    summary="The dispatcher returns the first record of every search result: `first_of` in desk/dispatch.py is called "
    "before the list reaches the reply, so whatever comes second is never mentioned.",
    failure_class=FailureKind.incomplete,
    depth=Depth.structural,
    suspects=(Suspect(path="desk/dispatch.py", why="`first_of` drops all but the first record."),),
    siblings=("any question whose answer is a list",),
)
PLAN = Plan(
    summary="Hand the whole list to the reply, and let the wording count.",
    changes=(
        Change(path="desk/dispatch.py", change="Return all records of a search."),
        Change(path="desk/wording.py", change="Write one line per record, after a line with their number."),
    ),
    expect_better=("chunk-1/names-all", "chunk-2/names-all"),
    may_hurt=("golden-ticket/status",),
)
CHANGE = Implemented(
    tree="c" * 40,
    diff_hash="sha256:" + "e" * 64,
    files=("desk/dispatch.py", "desk/wording.py"),
    insertions=18,
    deletions=6,
    summary="Only the first record of a search was answered; now all of them are.",
)


def chunks(count: int = len(TURNS)) -> tuple[Chunk, ...]:
    return tuple(chunk(n, *TURNS[n % len(TURNS)]) for n in range(count))


def chunk(n: int, asked: str, before: str, _now: str, reason: str) -> Chunk:
    flags = (
        Flag(id=f"flag-{n}a", person="carl", kind=FailureKind.incomplete, reason=reason, at=AT),
        Flag(id=f"flag-{n}b", person="dora", kind=FailureKind.incomplete, emoji="hourglass", at=AT),
    )
    said = (Message(role="user", content=asked), Message(role="assistant", content=before))
    transcript = Transcript(messages=said)
    return Chunk(
        id=f"chunk-{n + 1}", batch="batch-7k3f9q2m", place=PLACE, turn=f"{40 + n}", transcript=transcript, flags=flags
    )


def told(*results: tuple[Stage, int, int, Result]) -> tuple[Done, ...]:
    """(stage, iteration, round, what came of it), half a minute each."""
    return tuple(
        Done(
            n=n,
            step=Step(stage=stage, iteration=iteration, round=round_),
            result=result,
            spend=Spend(money_usd=0.05, tokens=2_400, seconds=30),
            started_at=AT + timedelta(seconds=30 * n),
            ended_at=AT + timedelta(seconds=30 * n + 30),
        )
        for n, (stage, iteration, round_, result) in enumerate(results)
    )


PREPARED = Prepared(base_commit="a" * 40, live_image="sha256:" + "1" * 64, tasks="sha256:0", substrate="sha256:0")
MEASURED = (
    (Stage.prepare, 0, 0, PREPARED),
    (Stage.baseline, 0, 0, Scored(matrix=RECORDED)),
    (Stage.control, 0, 0, Scored(matrix=LIVE)),
)


def iteration(n: int, scored: Matrix, verdict: Verdict, reason: str = "") -> tuple[tuple[Stage, int, int, Result], ...]:
    """With a plan that is sent back once."""
    return (
        (Stage.locate, n, 0, Located(diagnosis=DIAGNOSIS)),
        (Stage.plan, n, 1, Planned(plan=PLAN)),
        (Stage.plan_review, n, 1, PlanReviewed(verdict=PlanVerdict.reject_completeness, remarks="And the wording?")),
        (Stage.plan, n, 2, Planned(plan=PLAN)),
        (Stage.plan_review, n, 2, PlanReviewed(verdict=PlanVerdict.approve)),
        (Stage.implement, n, 1, CHANGE),
        (Stage.code_review, n, 1, CodeReviewed(verdict=CodeVerdict.approve, commit="b" * 40)),
        (Stage.build, n, 0, Built(image="sha256:" + "d" * 64)),
        (Stage.evaluate, n, 0, Scored(matrix=scored, prediction=hold(PLAN, n, LIVE, scored))),
        (Stage.verdict, n, 0, Judged(verdict=verdict, reason=reason)),
    )


OFFER = ((Stage.offer, 1, 0, Offered(candidate="candidate-1", consent="consent-4h8x2p6r")),)
CONVERGED = (*MEASURED, *iteration(1, REPAIRED, Verdict.converged, "All flagged failures are gone."), *OFFER)
PARTIAL = (*MEASURED, *iteration(1, HALF, Verdict.limit_model, "The model cannot count that far."), *OFFER)
FRUITLESS = (
    *MEASURED,
    *iteration(1, LIVE, Verdict.need_more_work, "Nothing rose."),
    *iteration(2, LIVE, Verdict.need_more_work, "Nothing rose again."),
    *iteration(3, LIVE, Verdict.need_more_work, "Still nothing."),
)
UNBUILDABLE = (
    *MEASURED,
    *iteration(1, LIVE, Verdict.need_more_work)[:7],
    (Stage.build, 1, 0, Failed(trouble=Trouble.rejected, sentence="The tests of the base commit fail in the image.")),
    (Stage.locate, 2, 0, Failed(trouble=Trouble.misconduct, sentence="The coder changed the repository's hooks.")),
)

_HISTORIES: dict[RunState, Any] = {
    RunState.queued: (),
    RunState.running: CONVERGED[:11],
    RunState.stopped: CONVERGED[:6],
    RunState.exhausted: FRUITLESS,
    RunState.failed: UNBUILDABLE,
    RunState.over_budget: FRUITLESS[:13],
}
_SENTENCES = {
    RunState.stopped: "Stopped by anna.",
    RunState.exhausted: "Nothing can be offered; all 3 iterations were used.",
    RunState.failed: "iter-2/locate: The coder changed the repository's hooks.",
    RunState.over_budget: "The run was stopped: it has spent 1.02 of 1.00 USD.",
    RunState.declined: "ben declined: It counts parts that are on order.",
    RunState.expired: "Nobody decided in time.",
    RunState.superseded: "Superseded: version 2 went live meanwhile.",
    RunState.awaiting_consent: "Iteration 1 is offered. Its branch is moss/run-5d7w3c9k.",
    RunState.applied: "desk now runs version 1 (dddddddddddd) (bbbbbbbbbbbb); it was away for 1.4 s.",
    RunState.rolled_back: "desk was swapped and failed: the canary got no answer. Version 0 is back.",
    RunState.stuck: "desk IS DOWN and needs a human now: the canary got no answer. Then the last good version did not "
    "come back: the port is taken. Mend it, then run `moss adopt`.",
}
_SWAPS = {
    RunState.swapping: SwapState.probing,
    RunState.applied: SwapState.live,
    RunState.rolled_back: SwapState.restored,
    RunState.stuck: SwapState.stuck,
}


def candidate(matrix: Matrix = REPAIRED, *, partial: bool = False) -> Candidate:
    return Candidate(
        id="candidate-1",
        run="run-5d7w3c9k",
        iteration=1,
        base_commit="a" * 40,
        commit="b" * 40,
        tree=CHANGE.tree,
        image="sha256:" + "d" * 64,
        diff_hash=CHANGE.diff_hash,
        files=CHANGE.files,
        insertions=CHANGE.insertions,
        deletions=CHANGE.deletions,
        baseline=RECORDED,
        control=LIVE,
        matrix=matrix,
        partial=partial,
        summary=f"{DIAGNOSIS.summary} {CHANGE.summary}",
        diff_artefact="iter-1/implement-1/diff.patch",
    )


def consent(state: ConsentState = ConsentState.asked, **more: Any) -> Consent:
    values: dict[str, Any] = {
        "id": "consent-4h8x2p6r",
        "substrate": "desk",
        "run": "run-5d7w3c9k",
        "candidate": "candidate-1",
        "version": None,
        "commit": "b" * 40,
        "image": "sha256:" + "d" * 64,
        "diff_hash": CHANGE.diff_hash,
        "matrix_hash": REPAIRED.digest(),
        "policy": POLICY,
        "starter": "carl",
        "flaggers": frozenset({"carl", "dora"}),
        "state": state,
        "asked_at": AT + timedelta(minutes=7),
        "expires_at": AT + timedelta(days=7),
    }
    return Consent.model_validate(values | more)


def rollback_consent(state: ConsentState = ConsentState.asked, **more: Any) -> Consent:
    values = {"id": "consent-9m2t5v7z", "run": None, "candidate": None, "version": 0, "flaggers": frozenset()}
    return consent(state, **(values | {"diff_hash": "", "matrix_hash": "", "starter": "anna"} | more))


def swap(state: SwapState = SwapState.live, **more: Any) -> Swap:
    values: dict[str, Any] = {
        "id": "swap-4h8x2p6r",
        "substrate": "desk",
        "consent": "consent-4h8x2p6r",
        "run": "run-5d7w3c9k",
        "state": state,
        "commit": "b" * 40,
        "image": "sha256:" + "d" * 64,
        "boot_id": "boot-1",
        "old_box": "desk-v0",
        "new_box": "desk-v1",
        "planned_at": AT + timedelta(minutes=9),
        "outage_ms": 1_400 if state is SwapState.live else None,
        "problem": "the canary got no answer." if state in (SwapState.restored, SwapState.stuck) else None,
    }
    return Swap.model_validate(values | more)


def version(number: int, **more: Any) -> Version:
    values: dict[str, Any] = {
        "substrate": "desk",
        "number": number,
        "commit": "ab"[number % 2] * 40,
        "image": "sha256:" + "1d"[number % 2] * 64,
        "box": f"desk-v{number}",
        "boot_id": f"boot-{number}",
        "swap": "swap-4h8x2p6r" if number else None,
        "since": AT + timedelta(minutes=10 * number),
        "until": None if number else AT + timedelta(minutes=10),
    }
    return Version.model_validate(values | more)


def report(state: RunState, **more: Any) -> Report:
    """One run in this state; anything of it can be replaced."""
    offered = state not in _HISTORIES
    votes = (
        Vote(person="ben", approve=state is not RunState.declined, at=AT, reason="It counts parts that are on order."),
    )
    decided = {
        RunState.awaiting_consent: ConsentState.asked,
        RunState.declined: ConsentState.declined,
        RunState.expired: ConsentState.expired,
        RunState.superseded: ConsentState.void,
    }.get(state, ConsentState.granted)
    voted = state not in (RunState.awaiting_consent, RunState.expired, RunState.superseded)
    evidence = more.pop("chunks", chunks())
    ended = state not in (RunState.queued, RunState.running, RunState.awaiting_consent, RunState.approved)
    values: dict[str, Any] = {
        "run": Run(
            id="run-5d7w3c9k",
            substrate="desk",
            batch="batch-7k3f9q2m",
            state=state,
            dial=Dial.standard,
            budget=Budget(),
            starter="carl",
            queued_at=AT,
            ended_at=AT + timedelta(minutes=10) if ended else None,
            sentence=_SENTENCES.get(state, ""),
        ),
        "batch": batch(BatchState.resolved if state is RunState.applied else BatchState.sealed),
        "chunks": evidence,
        "steps": told(*_HISTORIES.get(state, CONVERGED)),
        "substrate": Substrate(name="desk", repository="/srv/desk", health=Health(http="/healthz")),
        "folder": Path("moss-data/runs/run-5d7w3c9k"),
        "candidate": candidate() if offered else None,
        "consent": consent(decided, votes=votes if voted else ()) if offered else None,
        "swap": swap(_SWAPS[state]) if state in _SWAPS else None,
        "version": version(1) if state is RunState.applied else None,
        "before": version(0) if state is RunState.applied else None,
        "exchanges": exchanges(evidence, tried=offered),
    }
    values |= more
    spent = [done.spend.model_copy(update={"seconds": 0.0}) for done in values["steps"]]
    month = Spend(money_usd=4.35, tokens=208_800)
    return Report(**({"cost": sum(spent, start=Spend()), "month": month} | values))


def partial_report() -> Report:
    return report(
        RunState.awaiting_consent,
        candidate=candidate(HALF, partial=True),
        steps=told(*PARTIAL),
    )


def exchanges(of: Sequence[Chunk], *, tried: bool) -> tuple[Exchange, ...]:
    return tuple(
        Exchange(
            chunk=each,
            asked=each.transcript.messages[-2].content,
            before=each.flagged.content,
            after=TURNS[n % len(TURNS)][2] if tried else None,
        )
        for n, each in enumerate(of)
    )


def batch(state: BatchState = BatchState.open) -> Batch:
    sealed = state is not BatchState.open
    return Batch(
        id="batch-7k3f9q2m",
        substrate="desk",
        place=PLACE,
        state=state,
        opened_at=AT,
        sealed_at=AT if sealed else None,
        sealed_by="carl" if sealed else None,
    )


def evidence(state: BatchState = BatchState.open, run: Run | None = None) -> Evidence:
    return Evidence(batch(state), chunks(), run)


def listed(state: BatchState = BatchState.open, run: Run | None = None) -> Listed:
    return Listed(batch(state), len(chunks()), run)


def standing(**more: Any) -> Standing:
    values: dict[str, Any] = {
        "substrate": "desk",
        "live": version(1),
        "needs_adoption": False,
        "swap": None,
        "runs": (report(RunState.awaiting_consent).run,),
        "open_batches": 1,
        "sealed_batches": 2,
        "asked": (consent(),),
    }
    return Standing(**(values | more))
