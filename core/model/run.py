"""A run: one evolution of one sealed batch. Its history of steps is the only memory of the pipeline."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from core.model.keypoints import Matrix, Prediction
from core.model.moves import moves
from core.model.replies import CodeVerdict, Diagnosis, Plan, PlanVerdict, Verdict
from core.model.value import Value


class RunState(StrEnum):
    queued = "queued"
    running = "running"
    awaiting_consent = "awaiting_consent"
    approved = "approved"
    """Lasts while a freeze or quiet hours last."""
    swapping = "swapping"
    applied = "applied"
    stopped = "stopped"
    exhausted = "exhausted"
    failed = "failed"
    over_budget = "over_budget"
    declined = "declined"
    expired = "expired"
    superseded = "superseded"
    rolled_back = "rolled_back"
    stuck = "stuck"


RUN_MOVES = moves(
    "run",
    {
        RunState.queued: (RunState.running, RunState.stopped),
        RunState.running: (
            RunState.awaiting_consent,
            RunState.exhausted,
            RunState.failed,
            RunState.over_budget,
            RunState.stopped,
        ),
        RunState.awaiting_consent: (
            RunState.approved,
            RunState.declined,
            RunState.expired,
            RunState.superseded,
            RunState.stopped,
        ),
        RunState.approved: (RunState.swapping, RunState.stopped),
        RunState.swapping: (RunState.applied, RunState.rolled_back, RunState.stuck),
    },
)

RUN_IN_FLIGHT = (RunState.queued, RunState.running, RunState.approved, RunState.swapping)
"""At most one run of a substrate is in one of these."""

RESTARTABLE = (RunState.stopped, RunState.failed, RunState.exhausted, RunState.over_budget)


class Dial(StrEnum):
    """The depth dial."""

    shallow = "shallow"
    standard = "standard"
    deep = "deep"


class Cap(Value):
    """None means no limit of that kind."""

    money_usd: float | None = Field(default=None, ge=0)
    """As the gateway counts it or the coder reports it, whichever is more."""
    tokens: int | None = Field(default=None, ge=0)
    """Everything a model reads, what it has in its cache included, and writes."""

    def without(self, spend: "Spend") -> "Cap":
        """What is left of it."""
        return Cap(
            money_usd=None if self.money_usd is None else max(self.money_usd - spend.money_usd, 0.0),
            tokens=None if self.tokens is None else max(self.tokens - spend.tokens, 0),
        )

    def within(self, other: "Cap") -> "Cap":
        """The narrower of the two, kind by kind."""
        return Cap(
            money_usd=_least(self.money_usd, other.money_usd),
            tokens=_least(self.tokens, other.tokens),
        )


N = TypeVar("N", int, float)


def _least(one: N | None, other: N | None) -> N | None:
    return other if one is None else one if other is None else min(one, other)


class Budget(Cap):
    """None means no limit of that kind."""

    seconds: float | None = Field(default=None, gt=0)
    """Of steps at work; waiting for people costs nothing."""


class Spend(Value):
    """Some of it is what a coder reports about itself, so what could defeat a budget is refused."""

    money_usd: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    tokens: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    unpriced_tokens: int = Field(default=0, ge=0)
    """Of the tokens, those of models without a price: what they cost is not in the money."""

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            money_usd=self.money_usd + other.money_usd,
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            unpriced_tokens=self.unpriced_tokens + other.unpriced_tokens,
        )


class Stage(StrEnum):
    prepare = "prepare"
    baseline = "baseline"
    control = "control"
    locate = "locate"
    plan = "plan"
    plan_review = "plan_review"
    implement = "implement"
    code_review = "code_review"
    build = "build"
    evaluate = "evaluate"
    verdict = "verdict"
    offer = "offer"


class Step(Value):
    """One action of a run. Everything it makes is named after the run and this place in it."""

    stage: Stage
    iteration: int = 0
    """0 for what comes before the first iteration and for the offer."""
    round: int = 0
    """Counts within an inner review loop, from 1."""
    attempt: int = 1

    @property
    def name(self) -> str:
        """`iter-2/plan-1`: where its artefacts lie."""
        where = f"iter-{self.iteration}/" if self.iteration else ""
        which = f"-{self.round}" if self.round else ""
        again = f"-try-{self.attempt}" if self.attempt > 1 else ""
        return f"{where}{self.stage.replace('_', '-')}{which}{again}"


class Undeployed(Value):
    """A commit of the owner's that is not live."""

    commit: str
    subject: str
    """Redacted; quoted, never trusted."""


class Declined(Value):
    """What a person had against the candidate of an earlier run on the same evidence."""

    run: str
    reason: str
    """Redacted; quoted, never trusted."""


class Prepared(Value):
    kind: Literal["prepared"] = "prepared"
    base_commit: str
    live_image: str
    tasks: str
    """The digest of the artefact `tasks.json`: what is replayed and scored, fixed for the whole run."""
    substrate: str
    """The digest of the substrate's settings, fixed likewise."""
    siblings: tuple[str, ...] = ()
    """Held-back tasks that share the batch's failure."""
    undeployed: tuple[Undeployed, ...] = ()
    """What the base has beyond the live commit, newest first, cut after some: whoever approves deploys it as well."""
    undeployed_count: int = 0
    """All of them."""
    declined: tuple[Declined, ...] = ()
    """Why people did not want what earlier runs offered, oldest first."""


class Scored(Value):
    """Of the baseline, of the control, or of a candidate."""

    kind: Literal["scored"] = "scored"
    matrix: Matrix
    prediction: Prediction | None = None
    """Of a candidate: what came of what its plan expected."""


class Located(Value):
    kind: Literal["located"] = "located"
    diagnosis: Diagnosis


class Planned(Value):
    kind: Literal["planned"] = "planned"
    plan: Plan


class PlanReviewed(Value):
    kind: Literal["plan_reviewed"] = "plan_reviewed"
    verdict: PlanVerdict
    remarks: str = ""


class Implemented(Value):
    """A change inside its scope, kept as a tree; it becomes a commit when its review accepts it."""

    kind: Literal["implemented"] = "implemented"
    tree: str
    diff_hash: str
    files: tuple[str, ...]
    insertions: int
    deletions: int
    summary: str


class CodeReviewed(Value):
    kind: Literal["code_reviewed"] = "code_reviewed"
    verdict: CodeVerdict
    remarks: str = ""
    commit: str | None = None
    """The one commit, when the verdict is APPROVE."""


class Built(Value):
    kind: Literal["built"] = "built"
    image: str


class Judged(Value):
    kind: Literal["judged"] = "judged"
    verdict: Verdict
    reason: str = ""


class Offered(Value):
    kind: Literal["offered"] = "offered"
    candidate: str
    consent: str


class Trouble(StrEnum):
    """Why a step did not do what it was for."""

    rejected = "rejected"
    """The work itself is not acceptable: out of scope, empty, does not build, breaks tests. Next round or iteration."""
    broken = "broken"
    """The tool failed: no JSON, exit code, engine away. The same step once more, then the run fails."""
    misconduct = "misconduct"
    """The coder did what its role forbids. The run fails."""
    spent = "spent"
    """A budget would not have lasted. The run is over it, and offers what it has."""


class Failed(Value):
    kind: Literal["failed"] = "failed"
    trouble: Trouble
    sentence: str


Result = Annotated[
    Prepared
    | Scored
    | Located
    | Planned
    | PlanReviewed
    | Implemented
    | CodeReviewed
    | Built
    | Judged
    | Offered
    | Failed,
    Field(discriminator="kind"),
]


class Done(Value):
    """A step that was taken, with what came of it."""

    n: int
    step: Step
    result: Result
    spend: Spend = Spend()
    prompt: str | None = None
    """The digest of what the coder was asked with, run and agent aside; None where no coder was asked."""
    started_at: datetime
    ended_at: datetime


class Outcome(Value):
    """How the pipeline ends."""

    state: RunState
    sentence: str


class Run(Value):
    id: str
    substrate: str
    batch: str
    state: RunState
    dial: Dial
    budget: Budget
    starter: str
    queued_at: datetime
    ended_at: datetime | None = None
    sentence: str = ""
    """How it ended, or what it waits for."""
    archived: bool = False
    """A restart leaves this run behind."""
