"""What a coder must reply in each role. The JSON Schemas that `moss coder schema` prints come from here."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.model.evidence import FailureKind
from core.model.keypoints import Level

Line = Annotated[str, Field(max_length=1000)]

LEVELS = "3 strong, 2 adequate, 1 weak, 0 missing"


class Role(StrEnum):
    locate = "locate"
    plan = "plan"
    plan_review = "plan_review"
    implement = "implement"
    code_review = "code_review"
    evaluate = "evaluate"
    verdict = "verdict"
    scan = "scan"


class Reply(BaseModel):
    """Unknown fields are ignored, since models like to add some; missing and wrong ones are not forgiven."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    role: ClassVar[Role]

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("holds a NUL character")
        return value


class Suspect(Reply):
    """A place in the source that takes part in the failure."""

    path: str = Field(min_length=1, max_length=500, description="A file, relative to the working directory.")
    why: str = Field(min_length=1, max_length=4000, description="Which part of it, and how it leads to the failure.")


class Depth(StrEnum):
    surface = "surface"
    """Words could fix it: a prompt, a message, a constant."""
    structural = "structural"
    """Only code can: routing, order, dispatch, state."""


class Diagnosis(Reply):
    """Why the source code produces the flagged replies."""

    role = Role.locate
    summary: str = Field(
        min_length=1, max_length=8000, description="The cause, from the request to the bad reply, in a few sentences."
    )
    failure_class: FailureKind = Field(description="What kind of failure it is.")
    depth: Depth = Field(
        description="surface: words could fix it (a prompt, a message, a constant). "
        "structural: only code can (routing, order, dispatch, state)."
    )
    suspects: tuple[Suspect, ...] = Field(
        min_length=1, max_length=50, description="Where the cause lies, the most likely place first."
    )
    siblings: tuple[Line, ...] = Field(
        max_length=50,
        description="Other tasks that must fail from the same cause, if this diagnosis is right: ids of tasks, or a "
        "sentence each for conversations nobody has recorded. May be empty.",
    )


class Change(Reply):
    """What is to be done to one file."""

    path: str = Field(min_length=1, max_length=500, description="A file, relative to the working directory.")
    change: str = Field(min_length=1, max_length=4000, description="What changes in it.")


class Plan(Reply):
    """The smallest change to the source that removes the cause."""

    role = Role.plan
    summary: str = Field(min_length=1, max_length=8000, description="The change and why it removes the cause.")
    changes: tuple[Change, ...] = Field(min_length=1, max_length=100, description="File by file.")
    expect_better: tuple[Line, ...] = Field(
        max_length=200, description="Keypoints, as `task/keypoint`, that this plan predicts to rise."
    )
    may_hurt: tuple[Line, ...] = Field(
        max_length=200, description="Keypoints, as `task/keypoint`, that may fall. May be empty."
    )


class PlanVerdict(StrEnum):
    approve = "APPROVE"
    reject_architectural = "REJECT_ARCHITECTURAL"
    reject_completeness = "REJECT_COMPLETENESS"


class PlanReview(Reply):
    """Whether the plan stands."""

    role = Role.plan_review
    verdict: PlanVerdict = Field(
        description="REJECT_ARCHITECTURAL: wrong in kind. REJECT_COMPLETENESS: right in kind, but something is missing."
    )
    remarks: str = Field(
        max_length=8000,
        description="To the planner: what is wrong, with files and functions. May be empty with APPROVE.",
    )


class Implementation(Reply):
    """What was changed in the working directory."""

    role = Role.implement
    summary: str = Field(
        min_length=1,
        max_length=8000,
        description="What was wrong and what changed, in one or two sentences for people.",
    )


class CodeVerdict(StrEnum):
    approve = "APPROVE"
    reject = "REJECT_IMPL"


class CodeReview(Reply):
    """Whether the change stands."""

    role = Role.code_review
    verdict: CodeVerdict = Field(
        description="REJECT_IMPL sends the change back; it is then made anew from a clean tree."
    )
    remarks: str = Field(
        max_length=8000,
        description="To the implementer: what is wrong, with files and lines. May be empty with APPROVE.",
    )


class ScoredKeypoint(Reply):
    """One thing that a good reply to this conversation must do, and how far this reply does it."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="Short and unique, such as `names-the-total`.")
    text: str = Field(min_length=1, max_length=1000, description="What a good reply must do, checkable on its own.")
    level: Level = Field(description=LEVELS + ".")
    reason: str = Field(default="", max_length=4000, description="Why this level, in a sentence.")


class Evaluation(Reply):
    """Without keypoints in the brief it defines 4 to 7 of them; with keypoints it scores exactly those."""

    role = Role.evaluate
    keypoints: tuple[ScoredKeypoint, ...] = Field(
        min_length=1,
        max_length=20,
        description="Exactly the keypoints of brief.json, with their ids and texts; if it lists none, 4 to 7 new ones.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> "Evaluation":
        if len({point.id for point in self.keypoints}) < len(self.keypoints):
            raise ValueError("two keypoints have the same id")
        return self


class Verdict(StrEnum):
    converged = "CONVERGED"
    need_more_work = "NEED_MORE_WORK"
    limit_model = "FUNDAMENTAL_LIMIT_MODEL"
    limit_architecture = "FUNDAMENTAL_LIMIT_ARCHITECTURE"


class Judgement(Reply):
    """Whether to go on after this iteration."""

    role = Role.verdict
    verdict: Verdict = Field(
        description="CONVERGED: the flagged failures are gone and nothing else fell. NEED_MORE_WORK: another "
        "iteration is likely to improve it. FUNDAMENTAL_LIMIT_MODEL: the model behind the agent cannot do this, "
        "whatever the code does. FUNDAMENTAL_LIMIT_ARCHITECTURE: it needs a redesign beyond one change."
    )
    reason: str = Field(max_length=8000, description="Why; with NEED_MORE_WORK also what to do differently.")


class WeakSegment(Reply):
    """A part of the session that went badly."""

    first: int = Field(ge=0, description="The first message of the segment, counted from 0.")
    last: int = Field(ge=0, description="The last message of the segment: the agent's bad reply.")
    level: Level = Field(description="How well the agent did: " + LEVELS + ". Only 1 and 0 are worth reporting.")
    kind: FailureKind = Field(description="What kind of failure it is.")
    reason: str = Field(max_length=4000, description="What went wrong, in a sentence.")

    @model_validator(mode="after")
    def _in_order(self) -> "WeakSegment":
        if self.first > self.last:
            raise ValueError("the first message comes after the last")
        return self


class Scan(Reply):
    """The parts of a session that went badly although nobody flagged them."""

    role = Role.scan
    segments: tuple[WeakSegment, ...] = Field(max_length=200, description="Empty when nothing went badly.")


REPLIES: dict[Role, type[Reply]] = {
    reply.role: reply
    for reply in (
        Diagnosis,
        Plan,
        PlanReview,
        Implementation,
        CodeReview,
        Evaluation,
        Judgement,
        Scan,
    )
}


def schema(role: Role) -> Mapping[str, Any]:
    """The JSON Schema of a role's reply, with descriptions that a model can work by."""
    return REPLIES[role].model_json_schema()
