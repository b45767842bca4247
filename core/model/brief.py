"""The evidence directory of a stage: which files a coder finds there, and the shape of each. The page
`docs/coder-protocol.md` explains them; the pipeline writes them from these values, so that neither can drift."""

from collections.abc import Mapping

from pydantic import Field

from core.model.evidence import FailureKind
from core.model.keypoints import Level, Matrix, Prediction, Task, TaskKind
from core.model.replies import Role
from core.model.transcript import Transcript
from core.model.value import Value

BRIEF = "brief.json"
TASK = "task.json"
TASKS = "tasks/{task}.json"
TRANSCRIPT = "transcript.json"
DIAGNOSIS = "diagnosis.json"
PLAN = "plan.json"
DIFF = "diff.patch"
REJECTED = "rejected.patch"
MATRIX = "matrix.json"
TRIALS = "trials/{task}-{trial}.json"
LOG = "log.txt"

EVIDENCE: Mapping[Role, tuple[str, ...]] = {
    Role.locate: (BRIEF, TASKS, LOG),
    Role.plan: (BRIEF, TASKS, DIAGNOSIS, LOG),
    Role.plan_review: (BRIEF, TASKS, DIAGNOSIS, PLAN),
    Role.implement: (BRIEF, TASKS, DIAGNOSIS, PLAN, REJECTED, LOG),
    Role.code_review: (BRIEF, TASKS, DIAGNOSIS, PLAN, DIFF),
    Role.evaluate: (BRIEF, TASK, TRANSCRIPT),
    Role.verdict: (BRIEF, DIAGNOSIS, PLAN, DIFF, MATRIX, TRIALS),
    Role.scan: (BRIEF, TRANSCRIPT),
}
"""What each role may find. `log.txt` and `rejected.patch` are there only when something failed before."""


class Standing(Value):
    """A keypoint and how it has fared. The judge of a reply (`evaluate`) is told no levels that could sway it."""

    task: str = Field(description="The id of the task this keypoint belongs to.")
    id: str = Field(description="Unique within its task.")
    text: str = Field(description="What a good reply to this task must do.")
    baseline: Level | None = Field(default=None, description="In the recorded conversation.")
    control: Level | None = Field(default=None, description="In replays by the agent that is live now.")
    iterations: tuple[Level | None, ...] = Field(
        default=(), description="By the candidate of each iteration so far, oldest first; null where none was scored."
    )


class Setback(Value):
    """Why an earlier round or iteration of this run, or an earlier run, was not good enough."""

    where: str = Field(description="The step, such as `iter-1/plan-review-1`, or the earlier run.")
    why: str = Field(
        description="What was wrong: a reviewer's remarks, a broken rule, a build that failed, a person's words."
    )


class BriefFile(Value):
    """`brief.json`: what this stage is about. It is there in every role. The judge of a reply (`evaluate`) cannot tell
    by it whose reply that is: the recorded one, the live agent's or a candidate's."""

    run: str = Field(description="The id of the run, as in `MOSS_RUN`.")
    role: Role = Field(description="As in `MOSS_ROLE`.")
    iteration: int = Field(default=0, description="Counts from 1; 0 before the first iteration, and in `evaluate`.")
    round: int = Field(default=0, description="Counts from 1 within a review loop; 0 outside of one.")
    substrate: str = Field(description="The name of the agent under repair.")
    base_commit: str = Field(default="", description="The commit that is live, from which the run started.")
    failure_kinds: tuple[FailureKind, ...] = Field(default=(), description="As the people who flagged see it.")
    keypoints: tuple[Standing, ...] = Field(
        default=(), description="In `evaluate`: those to be scored, without levels. Elsewhere: all that may be shown."
    )
    editable: tuple[str, ...] = Field(default=(), description="Globs of the paths that a change may touch.")
    protected: tuple[str, ...] = Field(default=(), description="Globs that it may not touch; they win over editable.")
    max_files: int | None = Field(default=None, description="The most files that a change may touch.")
    max_lines: int | None = Field(default=None, description="The most lines that it may add and remove.")
    setbacks: tuple[Setback, ...] = Field(default=(), description="Oldest first; none in `evaluate`.")
    predictions: tuple[Prediction, ...] = Field(
        default=(),
        description="What came of the plans' own predictions, one for each iteration that was scored, oldest first; "
        "none in `evaluate`.",
    )
    files: tuple[str, ...] = Field(default=(), description="Every other file of this directory, relative to it.")


class TaskFile(Value):
    """`tasks/<task>.json` and `task.json`: a recorded conversation that ends with the reply in question."""

    id: str = Field(description="The id of the task.")
    kind: TaskKind = Field(description="Where it comes from; `holdout` never occurs.")
    weight: int = Field(description="How many people flagged it.")
    kinds: tuple[FailureKind, ...] = Field(default=(), description="What went wrong, as the flaggers see it.")
    feedback: tuple[str, ...] = Field(default=(), description="In the flaggers' own words.")
    transcript: Transcript = Field(description="The messages of the conversation.")

    @classmethod
    def of(cls, task: Task) -> "TaskFile":
        """Without the checks: a coder that knows the pattern would write to the pattern."""
        if task.kind is TaskKind.holdout:
            raise ValueError(f"task {task.id} is held back and is never shown to a coder")
        return cls(
            id=task.id,
            kind=task.kind,
            weight=task.weight,
            kinds=tuple(sorted(task.kinds)),
            feedback=task.feedback,
            transcript=task.transcript,
        )


class TrialFile(Value):
    """`trials/<task>-<trial>.json`: the same conversation held with the candidate."""

    task: str = Field(description="The id of the task.")
    trial: int = Field(ge=1, description="Counts from 1.")
    transcript: Transcript = Field(description="The recorded user turns with the candidate's own replies.")
    error: str | None = Field(default=None, description="Why the conversation broke off, if it did.")


class MatrixFile(Value):
    """`matrix.json`: all levels, keypoint by keypoint."""

    baseline: Matrix = Field(description="The recorded conversations.")
    control: Matrix = Field(description="Replays by the agent that is live now.")
    candidate: Matrix = Field(description="Replays by this iteration's candidate.")

    @classmethod
    def of(cls, baseline: Matrix, control: Matrix, candidate: Matrix) -> "MatrixFile":
        shown = tuple(kind for kind in TaskKind if kind is not TaskKind.holdout)
        return cls(baseline=baseline.only(*shown), control=control.only(*shown), candidate=candidate.only(*shown))
