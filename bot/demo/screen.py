"""What the demo shows on a terminal: one line for each thing that happens, with its time; words as they were said."""

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bot.picture import blocks
from bot.render import diff
from bot.words import harmless
from core.model.keypoints import Matrix, TaskKind

WIDTH = 104
INDENT = 6


@dataclass(frozen=True, slots=True)
class Length:
    """How much is shown of what may be long."""

    diff: int
    matrix: int
    card: int


WHOLE = Length(diff=60, matrix=24, card=100)
BRIEF = Length(diff=24, matrix=6, card=5)
"""For a picture that stands on a page among other things."""

GOOD, BAD = "✓", "✗"


class Screen:
    """A console that takes down what it shows, so that a picture can be made of it."""

    def __init__(self, *, stderr: bool, picture: Path | None = None) -> None:
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        self._console = Console(
            stderr=stderr,
            markup=False,
            highlight=False,
            emoji=False,
            record=picture is not None,
            width=WIDTH if picture or not terminal else None,
        )
        self._picture = picture
        self._length = BRIEF if picture else WHOLE
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def head(self, text: str) -> None:
        self._print(Text(f"\n{text}", "bold"))

    def note(self, text: str) -> None:
        self._print(Padding(Text(harmless(text), "dim"), (0, 0, 0, 2)))

    @contextmanager
    def act(self, name: str, text: str) -> Iterator[None]:
        """Something that takes its time: with a spinner while it lasts, with a line when it is over."""
        began = time.monotonic()
        with self._console.status(Text(text), spinner="dots"):
            try:
                yield
            except BaseException:
                self.done(name, text, time.monotonic() - began, good=False)
                raise
        self.done(name, text, time.monotonic() - began)

    @contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner alone; what it says can be changed."""
        with self._console.status(Text(text), spinner="dots") as status:
            yield lambda now: status.update(Text(now))

    def done(self, name: str, text: str, seconds: float, *, good: bool = True, aside: str = "") -> None:
        shown = Table.grid(padding=(0, 2, 0, 0))
        for width, style in (
            (1, "green" if good else "bold red"),
            (8, ""),
            (20, "bold"),
            (None, "" if good else "red"),
        ):
            shown.add_column(width=width, style=style, overflow="fold")
        what = Text(harmless(text)).append(f"  {aside}" if aside else "", "dim italic")
        shown.add_row(GOOD if good else BAD, f"{seconds:6.1f} s", name, what)
        self._print(Padding(shown, (0, 0, 0, 2)))

    def failed(self, text: str) -> None:
        self._print(Padding(Text(f"{BAD} {harmless(text)}", "red"), (0, 0, 0, 2)))

    def said(self, who: str, text: str, style: str = "") -> None:
        """Words of somebody, as they are."""
        self._print(Padding(_beside([(who, text)], "bold cyan", style), (0, 0, 0, INDENT)))

    def matrix(self, baseline: Matrix, control: Matrix, candidate: Matrix) -> None:
        """Of the flagged conversations: what people complained of."""
        recorded, live, new = (matrix.only(TaskKind.batch) for matrix in (baseline, control, candidate))
        self._print(Padding(blocks(recorded, live, new, self._length.matrix), (1, 0, 1, INDENT)))

    def diff(self, text: str) -> None:
        heads = ("diff --git", "index ")
        lines, most = [line for line in text.splitlines() if not line.startswith(heads)], self._length.diff
        more = [f"… {len(lines) - most} more lines"] if len(lines) > most else []
        shown = diff("\n".join([*lines[:most], *more]))
        self._print(Padding(shown, (0, 0, 0, INDENT)), cut=True)

    def card(self, title: str, lines: list[tuple[str, str]], text: str = "") -> None:
        whole = len(lines) + len(text.splitlines()) <= self._length.card
        inside: list[RenderableType] = [_beside(lines[: self._length.card], "dim")] if lines else []
        inside += [Text(harmless(text) if whole else "…")] if text else []
        self._print(Padding(Panel(Group(*inside), title=harmless(title), title_align="left"), (0, 0, 0, INDENT)))

    def _print(self, what: RenderableType, *, cut: bool = False) -> None:
        """Long lines are folded, or cut."""
        self._console.print(what, no_wrap=cut, overflow="ellipsis" if cut else "fold")

    @property
    def asks(self) -> bool:
        """Whether somebody sits there who could answer."""
        return self._console.is_terminal and sys.stdin.isatty()

    async def enter(self, question: str) -> bool:
        """Returns when Enter is pressed; False when nobody is there to press it: the input has ended."""
        self._print(Text(f"\n  {question} ", "bold yellow"))
        loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
        pressed: asyncio.Future[bool] = loop.create_future()

        def read() -> None:
            try:
                typed = os.read(terminal, 1024)
            except OSError:  # a terminal that is gone
                typed = b""
            if not pressed.done() and (not typed or b"\n" in typed):
                pressed.set_result(bool(typed))

        loop.add_reader(terminal, read)
        try:
            return await pressed
        finally:
            loop.remove_reader(terminal)

    def keep_picture(self) -> None:
        """The whole of it as an SVG that needs nothing from anywhere."""
        if self._picture is not None:
            drawn = self._console.export_svg(title="moss demo", unique_id="demo")
            self._picture.write_text(re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL), encoding="utf-8")


def _beside(rows: list[tuple[str, str]], names: str, words: str = "") -> Table:
    """Names in a column, and beside each what belongs to it."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style=names, no_wrap=True, min_width=8)
    made.add_column(style=words, overflow="fold")
    for name, text in rows:
        made.add_row(name, Text(harmless(text)))
    return made
