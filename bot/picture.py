"""The matrix of a run: a PNG for chats and pages, blocks for a terminal, and words for whoever sees neither."""

import asyncio
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bot.chat import Picture
from bot.words import count, line
from core.model.keypoints import Level, Matrix, Row, TaskKind

MAX_ROWS = 30
"""A picture taller than this is read by nobody; what changed is kept first."""
ALT_CHARS = 1_500
_LABEL_CHARS = 64
_COLUMNS = ("recorded", "live today", "candidate")


@dataclass(frozen=True, slots=True)
class Compared:
    """One keypoint in the recorded conversation, by the live agent today, and by the candidate."""

    task: str
    """For people: `flagged turn 2`."""
    label: str
    levels: tuple[Row | None, Row | None, Row | None]

    @property
    def change(self) -> int:
        """Above the better of both references 1, below it -1."""
        recorded, live, candidate = (row.level if row else Level.missing for row in self.levels)
        return (candidate > max(recorded, live)) - (candidate < max(recorded, live))


@dataclass(frozen=True, slots=True)
class Comparison:
    rows: tuple[Compared, ...]
    omitted: int
    """Rows of an over-long matrix that are not shown."""
    totals: tuple[int, int, int]
    possible: int


def compare(baseline: Matrix, control: Matrix, candidate: Matrix, most: int = MAX_ROWS) -> Comparison:
    """Held-back tasks are shown without their words: what stands in a chat may be read by the agent itself."""
    before, live = ({row.key: row for row in matrix.rows} for matrix in (baseline, control))
    names = _task_names(candidate)
    points = _point_names(candidate)
    rows = [
        Compared(names[row.task], points[row.key], (before.get(row.key), live.get(row.key), row))
        for row in candidate.rows
    ]
    changed = [n for n, row in enumerate(rows) if row.change]
    still = [n for n, row in enumerate(rows) if not row.change]
    shown = sorted([*changed, *still][:most])
    return Comparison(
        rows=tuple(rows[n] for n in shown),
        omitted=len(rows) - len(shown),
        totals=(baseline.total, control.total, candidate.total),
        possible=len(candidate.rows) * Level.strong,
    )


_TASKS = {
    TaskKind.batch: "flagged turn",
    TaskKind.regression: "earlier fix",
    TaskKind.golden: "golden",
    TaskKind.safety: "SAFETY",
    TaskKind.holdout: "held back",
}


def _task_names(matrix: Matrix) -> dict[str, str]:
    """`flagged turn 1`, `golden 2`: ids of chunks mean nothing to people."""
    names: dict[str, str] = {}
    seen: dict[TaskKind, int] = {}
    for row in matrix.rows:
        if row.task not in names:
            seen[row.kind] = seen.get(row.kind, 0) + 1
            names[row.task] = f"{_TASKS[row.kind]} {seen[row.kind]}"
    return names


def _point_names(matrix: Matrix) -> dict[tuple[str, str], str]:
    names: dict[tuple[str, str], str] = {}
    for task in {row.task for row in matrix.rows}:
        for n, row in enumerate((row for row in matrix.rows if row.task == task), start=1):
            hidden = row.kind is TaskKind.holdout
            names[row.key] = f"keypoint {n}" if hidden else line(row.keypoint.text, _LABEL_CHARS)
    return names


def _level(row: Row | None) -> str:
    return f"{row.level:d} {row.level.name}" if row else "not scored"


def _range(row: Row | None) -> str:
    """Where trials disagree: the worst and the best of them."""
    return f" ({row.worst:d}-{max(row.levels):d})" if row and row.flaky else ""


def _verdict(row: Compared) -> str:
    return {1: "better", 0: "", -1: "WORSE"}[row.change]


def in_words(baseline: Matrix, control: Matrix, candidate: Matrix) -> str:
    """What the picture shows, for people who do not see it."""
    shown = compare(baseline, control, candidate)
    recorded, live, now = shown.totals
    said = [
        f"Levels of {count(len(candidate.rows), 'keypoint')} as recorded, by the live agent today and by the "
        f"candidate; in total {recorded}, {live} and {now} of {shown.possible}."
    ]
    for row in shown.rows:
        verdict = f", {_verdict(row)}" if row.change else ""
        sentence = f"{row.task}, {row.label}: {', '.join(map(_level, row.levels))}{verdict}."
        if sum(map(len, said)) + len(said) + len(sentence) > ALT_CHARS:
            said.append("And more.")
            break
        said.append(sentence)
    return " ".join(said)


async def picture(baseline: Matrix, control: Matrix, candidate: Matrix) -> Picture:
    """Drawn in a thread: it takes some tenths of a second, the first one more."""
    return await asyncio.to_thread(_picture, baseline, control, candidate)


@lru_cache(maxsize=16)  # a card is edited again and again around the same picture
def _picture(baseline: Matrix, control: Matrix, candidate: Matrix) -> Picture:
    alt = in_words(baseline, control, candidate)
    return Picture(png=png(compare(baseline, control, candidate)), alt=alt)


async def warm() -> None:
    """The drawing library takes a second to load, and longer where it has never looked for fonts; better now than
    when somebody waits for a card."""
    await asyncio.to_thread(png, Comparison((), 0, (0, 0, 0), 0))


# Pixels. The background is our own, so that the same picture reads on a light and on a dark page.
_WIDTH, _MARGIN, _ROW, _HEAD, _TASK, _CELL, _SIGN = 1080, 18, 30, 64, 112, 128, 70
_PAPER, _INK, _FAINT, _LINE = "#f7f7f5", "#1d1f21", "#5c6166", "#d8d8d4"
_COLOURS = {  # of the viridis scale: told apart by lightness alone, whatever colours an eye knows
    Level.missing: ("#440154", "#ffffff"),
    Level.weak: ("#31688e", "#ffffff"),
    Level.adequate: ("#4fc46a", "#000000"),
    Level.strong: ("#fde725", "#000000"),
}
_drawing = threading.Lock()
"""The library keeps state of its own."""


def png(shown: Comparison) -> bytes:
    """The same values give the same bytes. Blocks: not for the event loop."""
    import matplotlib  # noqa: PLC0415 - loading it takes half a second, and most verbs draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.patches import Rectangle  # noqa: PLC0415
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    height = 2 * _MARGIN + _HEAD + _ROW * (len(shown.rows) + 1)
    with _drawing, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character that the font lacks becomes a box
        matplotlib.rcdefaults()  # whatever a matplotlibrc of this machine says
        figure = Figure(figsize=(_WIDTH / 100, height / 100), dpi=100, facecolor=_PAPER)
        FigureCanvasAgg(figure)
        for box in _boxes(shown):
            x, y, width, tall = box.at
            corner, size = (x / _WIDTH, 1 - (y + tall) / height), (width / _WIDTH, tall / height)
            figure.add_artist(Rectangle(corner, *size, facecolor=box.fill, edgecolor=_PAPER, linewidth=1.5))
        for word in _words(shown, height):
            figure.text(
                word.x / _WIDTH,
                1 - word.y / height,
                word.text,
                color=word.ink,
                fontsize=word.points,
                fontweight=word.weight,
                ha=word.anchor,
                va="center",
                clip_box=Bbox.from_bounds(0, 0, word.until, height),
                parse_math=False,  # a `$` in somebody's words is a `$`
            )
        written = io.BytesIO()
        figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


@dataclass(frozen=True, slots=True)
class _Box:
    at: tuple[float, float, float, float]
    fill: str


@dataclass(frozen=True, slots=True)
class _Word:
    x: float
    y: float
    text: str
    ink: str = _INK
    points: float = 9
    anchor: str = "left"
    weight: str = "normal"
    until: float = _WIDTH
    """Where it is cut off."""


def _column(n: int) -> float:
    return _WIDTH - _MARGIN - _SIGN - (len(_COLUMNS) - n) * _CELL


def _row(n: int) -> float:
    return _MARGIN + _HEAD + n * _ROW


def _boxes(shown: Comparison) -> Iterator[_Box]:
    for n, row in enumerate(shown.rows):
        if n and row.task != shown.rows[n - 1].task:
            yield _Box((_MARGIN, _row(n) - 1, _WIDTH - 2 * _MARGIN, 1), _LINE)
        for column, level in enumerate(row.levels):
            fill = _COLOURS[level.level][0] if level else _LINE
            yield _Box((_column(column), _row(n) + 1, _CELL, _ROW - 2), fill)


def _words(shown: Comparison, height: float) -> Iterator[_Word]:
    recorded, live, now = shown.totals
    title = f"Score {recorded} recorded, {live} live today, {now} candidate, of {shown.possible}"
    yield _Word(_MARGIN, _MARGIN + 12, title, points=12, weight="bold")
    for n, name in enumerate(_COLUMNS):
        yield _Word(_column(n) + _CELL / 2, _row(0) - 12, name, _FAINT, anchor="center")
    for n, row in enumerate(shown.rows):
        middle = _row(n) + _ROW / 2
        if n == 0 or row.task != shown.rows[n - 1].task:
            yield _Word(_MARGIN, middle, row.task, _FAINT)
        yield _Word(_MARGIN + _TASK, middle, row.label, until=_column(0) - 8)
        for column, level in enumerate(row.levels):
            ink = _COLOURS[level.level][1] if level else _FAINT
            yield _Word(_column(column) + _CELL / 2, middle, _level(level) + _range(level), ink, anchor="center")
        weight = "bold" if row.change else "normal"
        yield _Word(_WIDTH - _MARGIN, middle, _verdict(row), anchor="right", weight=weight)
    flaky = any(level and level.flaky for row in shown.rows for level in row.levels)
    notes = ["3 strong, 2 adequate, 1 weak, 0 missing"]
    notes += ["where trials disagree the lower median counts, and (worst-best) stands beside it"] if flaky else []
    notes += [f"{count(shown.omitted, 'more keypoint')} not shown"] if shown.omitted else []
    yield _Word(_MARGIN, height - _MARGIN - 4, " · ".join(notes), _FAINT, points=8)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The matrix on a terminal: the number of blocks is the level, so that it reads without colours too."""

    baseline: Matrix
    control: Matrix
    candidate: Matrix
    most: int = MAX_ROWS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        full, empty = ("#", "-") if options.ascii_only else ("█", "·")
        shown = compare(self.baseline, self.control, self.candidate, self.most)
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        table.add_column("", overflow="fold", max_width=_LABEL_CHARS)
        for name in (*_COLUMNS, ""):
            table.add_column(name, no_wrap=True)
        for n, row in enumerate(shown.rows):
            if n == 0 or row.task != shown.rows[n - 1].task:
                table.add_row(Text(row.task, "dim"))
            cells = [_block(level, full, empty) for level in row.levels]
            style = {1: "bold green", 0: "", -1: "bold red"}[row.change]
            table.add_row(Padding(Text(row.label), (0, 0, 0, 2)), *cells, Text(_verdict(row), style))
        totals = [Text(f"{total} of {shown.possible}", "bold") for total in shown.totals]
        more = f" ({count(shown.omitted, 'more keypoint')} not shown)" if shown.omitted else ""
        table.add_row(Text(f"total{more}", "dim"), *totals)
        yield table


_STYLES = {Level.missing: "red", Level.weak: "yellow", Level.adequate: "cyan", Level.strong: "green"}


def _block(row: Row | None, full: str, empty: str) -> Text:
    if row is None:
        return Text("not scored", "dim")
    drawn = Text(full * row.level + empty * (Level.strong - row.level), _STYLES[row.level])
    return drawn.append(f" {row.level:d}{_range(row)}", "default")


def blocks(baseline: Matrix, control: Matrix, candidate: Matrix, most: int = MAX_ROWS) -> Blocks:
    return Blocks(baseline, control, candidate, most)
