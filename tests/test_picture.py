"""The matrix as a picture: the same on every machine, in time, whatever the words in it are."""

import asyncio
import io
import struct
import time

import pytest
from rich.console import Console

from bot import picture
from bot.picture import MAX_ROWS, blocks, compare, in_words, png
from core.model.keypoints import Keypoint, Level, Matrix, Row, TaskKind
from tests.support.reports import HALF, LIVE, RECORDED, REPAIRED

HOSTILE = "$\\frac{1}{$ \\x{ <b> 日本語 🎉 \u202e reversed [bold]x[/bold] @everyone \x1b[31m"


def matrix(*levels: int, text: str = "Does it", kind: TaskKind = TaskKind.batch, tasks: int = 1) -> Matrix:
    return Matrix(
        rows=tuple(
            Row(
                task=f"t{n % tasks}",
                kind=kind,
                keypoint=Keypoint(id=f"k{n}", text=f"{text} {n}"),
                levels=(Level(level),),
            )
            for n, level in enumerate(levels)
        )
    )


def size(image: bytes) -> tuple[int, int]:
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", image[16:24])


def on_terminal(render: object, width: int = 80, encoding: str = "utf-8") -> str:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    Console(file=out, width=width, markup=False, color_system=None).print(render)
    return written.getvalue().decode(encoding)


def test_the_same_scores_give_the_same_bytes() -> None:
    shown = compare(RECORDED, LIVE, REPAIRED)
    assert png(shown) == png(shown)
    assert png(shown) != png(compare(RECORDED, LIVE, HALF))


def test_a_matrix_of_any_size_gives_a_picture_of_bounded_size_in_time() -> None:
    png(compare(RECORDED, LIVE, REPAIRED))  # the library is loaded
    big = matrix(*[n % 4 for n in range(400)], text="A very long keypoint that never seems to come to an end " * 4)
    began = time.thread_time()
    image = png(compare(big, big, big))
    assert time.thread_time() - began < 1, "of a processor, however busy the machine is"
    width, height = size(image)
    assert width == 1080
    assert height <= 1100
    assert len(image) < 500_000


def test_an_empty_matrix_is_drawn_too() -> None:
    assert size(png(compare(matrix(), matrix(), matrix())))[0] == 1080


def test_words_are_words_whatever_they_look_like_to_the_library() -> None:
    hostile = matrix(0, 3, text=HOSTILE)
    size(png(compare(hostile, hostile, hostile)))
    assert "\u202e" not in in_words(hostile, hostile, hostile)
    assert "[bold]x[/bold]" in on_terminal(blocks(hostile, hostile, hostile), 200)


async def test_drawing_leaves_the_event_loop_free() -> None:
    await picture.warm()
    big = [matrix(*[(n + shift) % 4 for n in range(30)]) for shift in range(3)]
    drawing = asyncio.create_task(picture.picture(*big))
    turns = 0
    while not drawing.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 5, "others had theirs meanwhile"
    drawn = await drawing
    assert drawn.alt.startswith("Levels of 30 keypoints")


def test_what_changed_is_kept_when_not_all_fits() -> None:
    before, after = matrix(*[2] * 100), matrix(*[2] * 90, 3, 0, *[2] * 8)
    shown = compare(before, before, after)
    assert len(shown.rows) == MAX_ROWS
    assert shown.omitted == 70
    assert [row.label for row in shown.rows if row.change] == ["Does it 90", "Does it 91"]
    assert [row.change for row in shown.rows if row.change] == [1, -1]


def test_better_means_better_than_the_recorded_reply_and_than_the_live_agent() -> None:
    shown = compare(matrix(1, 1, 3, 0), matrix(2, 1, 0, 1), matrix(2, 2, 2, 0))
    assert [row.change for row in shown.rows] == [0, 1, -1, -1]


def test_held_back_tasks_are_shown_without_their_words() -> None:
    secret = matrix(0, 3, text="Names the quince", kind=TaskKind.holdout)
    assert [(row.task, row.label) for row in compare(secret, secret, secret).rows] == [
        ("held back 1", "keypoint 1"),
        ("held back 1", "keypoint 2"),
    ]
    assert "quince" not in in_words(secret, secret, secret)
    assert "quince" not in on_terminal(blocks(secret, secret, secret))


def test_words_say_what_the_picture_shows_and_are_cut() -> None:
    said = in_words(RECORDED, LIVE, REPAIRED)
    assert "in total 8, 8 and 18 of 18" in said
    assert "flagged turn 2, Names every part that is below its minimum: 0 missing, 0 missing, 3 strong, better." in said
    many = matrix(*[0] * 200, text="word " * 20)
    assert len(in_words(many, many, many)) <= picture.ALT_CHARS + 20


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_blocks_read_without_colours_on_any_terminal(encoding: str) -> None:
    shown = on_terminal(blocks(RECORDED, LIVE, REPAIRED), 80, encoding)
    full, empty = ("█", "·") if encoding == "utf-8" else ("#", "-")
    (line,) = [line for line in shown.splitlines() if "Names every engineer" in line or "keypoint 1" in line]
    assert line.split() == ["keypoint", "1", empty * 3, "0", empty * 3, "0", full * 3, "3", "better"]
    assert "8 of 18" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_disagreement_between_trials_is_shown() -> None:
    assert "3 (2-3)" in on_terminal(blocks(RECORDED, LIVE, REPAIRED))
