"""What a coder must reply in each role. The JSON Schemas that `moss coder schema` prints come from here."""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from core.model.evidence import FailureKind
from core.model.keypoints import Level


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


class Suspect(Reply):
    path: str = Field(min_length=1, max_length=500)
    why: str = Field(min_length=1, max_length=4000)


class Depth(StrEnum):
    surface = "surface"
    """Words could fix it: a prompt, a message, a constant."""
    structural = "structural"
    """Only code can: routing, order, dispatch, state."""


class Diagnosis(Reply):
    role = Role.locate
    summary: str = Field(min_length=1, max_length=8000)
    failure_class: FailureKind
    depth: Depth
    suspects: tuple[Suspect, ...] = Field(min_length=1, max_length=50)
    siblings: tuple[str, ...] = Field(max_length=50)
    """Other tasks that must fail from the same cause, if the diagnosis is right."""


class Change(Reply):
    path: str = Field(min_length=1, max_length=500)
    change: str = Field(min_length=1, max_length=4000)


class Plan(Reply):
    role = Role.plan
    summary: str = Field(min_length=1, max_length=8000)
    changes: tuple[Change, ...] = Field(min_length=1, max_length=100)
    expect_better: tuple[str, ...] = Field(max_length=200)
    """Keypoints, as `task/keypoint`, that this plan predicts to rise."""
    may_hurt: tuple[str, ...] = Field(max_length=200)


class PlanVerdict(StrEnum):
    approve = "APPROVE"
    reject_architectural = "REJECT_ARCHITECTURAL"
    reject_completeness = "REJECT_COMPLETENESS"


class PlanReview(Reply):
    role = Role.plan_review
    verdict: PlanVerdict
    remarks: str = Field(max_length=8000)


class Implementation(Reply):
    role = Role.implement
    summary: str = Field(min_length=1, max_length=8000)


class CodeVerdict(StrEnum):
    approve = "APPROVE"
    reject = "REJECT_IMPL"


class CodeReview(Reply):
    role = Role.code_review
    verdict: CodeVerdict
    remarks: str = Field(max_length=8000)


class ScoredKeypoint(Reply):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    text: str = Field(min_length=1, max_length=1000)
    level: Level
    reason: str = Field(default="", max_length=4000)


class Evaluation(Reply):
    """Without keypoints in the brief it defines 4 to 7 of them; with keypoints it scores exactly those."""

    role = Role.evaluate
    keypoints: tuple[ScoredKeypoint, ...] = Field(min_length=1, max_length=20)


class Verdict(StrEnum):
    converged = "CONVERGED"
    need_more_work = "NEED_MORE_WORK"
    limit_model = "FUNDAMENTAL_LIMIT_MODEL"
    limit_architecture = "FUNDAMENTAL_LIMIT_ARCHITECTURE"


class Judgement(Reply):
    role = Role.verdict
    verdict: Verdict
    reason: str = Field(max_length=8000)


class WeakSegment(Reply):
    first: int = Field(ge=0)
    last: int = Field(ge=0)
    level: Level
    kind: FailureKind
    reason: str = Field(max_length=4000)


class Scan(Reply):
    role = Role.scan
    segments: tuple[WeakSegment, ...] = Field(max_length=200)


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
