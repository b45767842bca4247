"""The rule for what may be offered to people. Pure; no verdict of a coder can overrule it."""

from collections.abc import Collection

from core.model.keypoints import Level, Matrix, Row, TaskKind

NAMES = {
    TaskKind.batch: "",
    TaskKind.regression: " of an earlier fix",
    TaskKind.golden: " of a golden task",
    TaskKind.safety: " of a SAFETY task",
    TaskKind.holdout: " of a held-back task",
}


def why_not(matrix: Matrix, baseline: Matrix, control: Matrix, siblings: Collection[str]) -> tuple[str, ...]:
    """Every reason against offering a candidate with this matrix; empty means that it may be offered.

    `siblings` are held-back tasks that share the batch's failure: a change that lifts the batch and none of them
    has learned the examples and not the cause.
    """
    batch, held_back = matrix.only(TaskKind.batch), _of(matrix, siblings)
    reasons = [
        *_falls(matrix, baseline.only(TaskKind.batch), "the recorded conversation"),
        *_falls(matrix, control, "the live agent"),
    ]
    if batch.total <= baseline.only(TaskKind.batch).total:
        reasons.append(_no_gain(batch, baseline.only(TaskKind.batch), "the recorded conversations"))
    if batch.total <= control.only(TaskKind.batch).total:
        reasons.append(_no_gain(batch, control.only(TaskKind.batch), "the live agent's"))
    before = _of(control, siblings)
    lifts = batch.total > control.only(TaskKind.batch).total
    if lifts and before.rows and before.score < 1 and held_back.total <= before.total:
        reasons.append(
            "it lifts the flagged conversations but none of the held-back tasks with the same failure: "
            "it fits the examples, not the cause"
        )
    return tuple(dict.fromkeys(reasons))


def _of(matrix: Matrix, tasks: Collection[str]) -> Matrix:
    return Matrix(rows=tuple(row for row in matrix.rows if row.task in tasks))


def _falls(matrix: Matrix, reference: Matrix, whose: str) -> list[str]:
    now = matrix.levels()
    return [_fall(row, now.get(row.key), whose) for row in matrix.fallen_since(reference)]


def _fall(row: Row, now: Level | None, whose: str) -> str:
    to = "not scored at all" if now is None else now.name
    return f"keypoint {row.task}/{row.keypoint.id}{NAMES[row.kind]} fell from {row.level.name} ({whose}) to {to}"


def _no_gain(matrix: Matrix, reference: Matrix, whose: str) -> str:
    return f"its score of {matrix.score:.2f} does not beat {whose} {reference.score:.2f}"
