"""What the pages about runs, batches and versions show: pure functions from values to what templates lay out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bot.words import harmless
from core.model.keypoints import Level, Matrix, Row
from core.model.run import RunState

_TONES = {
    RunState.awaiting_consent: "asking",
    RunState.approved: "good",
    RunState.applied: "good",
    RunState.exhausted: "bad",
    RunState.failed: "bad",
    RunState.over_budget: "bad",
    RunState.rolled_back: "bad",
    RunState.stuck: "bad",
}


def tone(state: RunState) -> str:
    return _TONES.get(state, "")


def diff_lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with what it is: the head of a file, a hunk, added, removed, or neither."""
    in_head = False
    for line in harmless(text).splitlines():
        if line.startswith("diff "):
            in_head = True
        elif line.startswith("@@"):
            in_head = False
        if in_head:
            yield "file", line
        else:
            yield {"@": "hunk", "+": "add", "-": "del"}.get(line[:1], "same"), line


@dataclass(frozen=True, slots=True)
class MatrixRow:
    task: str
    kind: str
    keypoint: str
    cells: tuple[Row | None, ...]
    change: str
    """`better`, `worse` or nothing, against the best of what was there before."""


def matrix_rows(*matrices: Matrix) -> list[MatrixRow]:
    """The last of the matrices row by row, with the same keypoint in those before it."""
    *earlier, latest = matrices
    known = [{row.key: row for row in matrix.rows} for matrix in earlier]
    made = []
    for row in latest.rows:
        before = [rows.get(row.key) for rows in known]
        made.append(
            MatrixRow(
                task=harmless(row.task),
                kind=row.kind,
                keypoint=harmless(row.keypoint.text),
                cells=(*before, row),
                change=_change([each for each in before if each], row),
            )
        )
    return made


def _change(before: Sequence[Row], row: Row) -> str:
    if not before:
        return ""
    best = max((each.level for each in before), default=Level.missing)
    return "better" if row.level > best else "worse" if row.level < best else ""
