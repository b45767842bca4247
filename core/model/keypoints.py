"""Keypoints: what a good answer must do, scored on four levels; the matrix of a candidate, a control or a baseline."""

from collections import defaultdict
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from functools import cached_property

from pydantic import Field

from core.model.evidence import Check, FailureKind
from core.model.transcript import Transcript
from core.model.value import Unordered, Value


class Level(IntEnum):
    missing = 0
    weak = 1
    adequate = 2
    strong = 3


class TaskKind(StrEnum):
    batch = "batch"
    regression = "regression"
    """From an earlier accepted fix."""
    golden = "golden"
    """Given by the substrate's owner: must not fall."""
    safety = "safety"
    """As golden; a fall is named as such."""
    holdout = "holdout"
    """Given by the owner and never shown to a coder: siblings of a failure must gain with it."""


class Task(Value):
    """One conversation to replay and score."""

    id: str
    kind: TaskKind
    transcript: Transcript
    """Ends with the recorded reply, or with a user turn where none was recorded."""
    kinds: Unordered[FailureKind] = frozenset()
    feedback: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    weight: int = 1


class Keypoint(Value):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    text: str


class Row(Value):
    """One keypoint of one task over all trials."""

    task: str
    kind: TaskKind
    keypoint: Keypoint
    levels: tuple[Level, ...] = Field(min_length=1)

    @property
    def key(self) -> tuple[str, str]:
        return (self.task, self.keypoint.id)

    @cached_property
    def level(self) -> Level:
        """The lower median: with an even number of trials the worse of the two in the middle. Asked for thousands of
        times in a run, since every decision looks at all levels so far."""
        return sorted(self.levels)[(len(self.levels) - 1) // 2]

    @property
    def worst(self) -> Level:
        return min(self.levels)

    @property
    def flaky(self) -> bool:
        return len(set(self.levels)) > 1


class Matrix(Value):
    rows: tuple[Row, ...]

    def only(self, *kinds: TaskKind) -> "Matrix":
        return Matrix(rows=tuple(row for row in self.rows if row.kind in kinds))

    @property
    def total(self) -> int:
        return sum(row.level for row in self.rows)

    @property
    def score(self) -> float:
        """The share of all possible levels, 0 to 1."""
        return self.total / (len(self.rows) * Level.strong) if self.rows else 0.0

    def levels(self) -> Mapping[tuple[str, str], Level]:
        return {row.key: row.level for row in self.rows}

    def keypoints(self) -> Mapping[str, tuple[Keypoint, ...]]:
        """The locked set: task -> its keypoints."""
        found: dict[str, list[Keypoint]] = defaultdict(list)
        for row in self.rows:
            found[row.task].append(row.keypoint)
        return {task: tuple(points) for task, points in found.items()}

    def fallen_since(self, other: "Matrix") -> tuple[Row, ...]:
        """Rows that are below the other matrix, or that the other has and this one lacks."""
        mine = self.levels()
        return tuple(row for row in other.rows if mine.get(row.key, Level.missing) < row.level)


class Prediction(Value):
    """What a plan expected, held against the scores of its candidate and of the live agent, as `task/keypoint`. A
    keypoint rises or falls from the live agent's level. Held-back tasks are never among them."""

    iteration: int = Field(description="The iteration of the plan.")
    met: tuple[str, ...] = Field(default=(), description="Expected to rise, and rose.")
    missed: tuple[str, ...] = Field(default=(), description="Expected to rise, and did not.")
    hurt: tuple[str, ...] = Field(default=(), description="Named as what may fall, and fell.")
    rose: tuple[str, ...] = Field(default=(), description="Rose, and nobody expected it.")
    fell: tuple[str, ...] = Field(default=(), description="Fell, and nobody expected it.")
    unknown: tuple[str, ...] = Field(default=(), description="What the plan named that is no keypoint of this run.")
