"""What an answer took, where its service does not say it as it should: an unreadable number is never nothing."""

import json
import math
from typing import Any

import pytest

from core.gateway import usage
from core.gateway.usage import Kind, Reader, Usage

ASKED = 4000
CHAT = {"choices": [{"message": {"content": "x" * 4000}}]}


def read(told: Any, kind: Kind = "chat", *, whole: bool = True) -> Usage:
    reader = Reader(kind, stream=False, asked_bytes=ASKED)
    reader.feed(json.dumps(told).encode())
    if whole:
        reader.rest()
    return reader.usage()


@pytest.mark.parametrize(
    "said",
    [
        {},
        None,
        [],
        "1000",
        {"prompt_tokens": "1000", "completion_tokens": "200"},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": -5},
        {"prompt_tokens": math.nan, "completion_tokens": math.inf},
        {"prompt_tokens": 0.5, "completion_tokens": True},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
    ids=str,
)
def test_usage_without_a_number_is_estimated(said: Any) -> None:
    took = read({**CHAT, "usage": said})
    assert took.estimated
    assert took.input == 1000
    assert 1000 <= took.output <= 1100


def test_half_of_a_usage_is_taken_and_the_other_half_estimated() -> None:
    took = read({**CHAT, "usage": {"prompt_tokens": 70, "completion_tokens": "many"}})
    assert took.estimated
    assert (took.input, took.output >= 1000) == (70, True)
    took = read({**CHAT, "usage": {"prompt_tokens": {}, "completion_tokens": 5000}})
    assert (took.input, took.output, took.estimated) == (1000, 5000, True)


def test_a_total_alone_is_believed() -> None:
    assert read({**CHAT, "usage": {"total_tokens": 50_000}}).total == 50_000
    assert read({"usage": {"total_tokens": 50_000}}, "responses").total == 50_000
    assert read({"candidates": [], "usageMetadata": {"totalTokenCount": 50_000}}, "generate").total == 50_000


def test_a_whole_number_may_be_written_as_a_broken_one() -> None:
    said = {"prompt_tokens": 1000.0, "completion_tokens": 2e2, "prompt_tokens_details": {"cached_tokens": 400.0}}
    assert read({**CHAT, "usage": said}) == Usage(input=600, output=200, cache_read=400)


@pytest.mark.parametrize("kind", ["messages", "responses", "generate"])
def test_zeros_are_no_usage_in_any_api(kind: Kind) -> None:
    zeros = {"input_tokens": 0, "output_tokens": 0, "promptTokenCount": 0}
    took = read({"type": "message", "usage": zeros, "usageMetadata": zeros, "candidates": [{}], "x": "y" * 4000}, kind)
    assert (took.input, took.output >= 1000, took.estimated) == (1000, True, True)


def test_an_answer_that_breaks_off_or_is_too_long_to_be_read_counts_by_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read(CHAT, whole=False).output >= 1000
    monkeypatch.setattr(usage, "HELD_BYTES", 10_000)
    for stream in (False, True):
        reader = Reader("chat", stream, ASKED)
        for _ in range(40):
            assert reader.feed(b"x" * 1000) == b"x" * 1000
        assert reader.usage().output == 10_000
        reader.rest()
        assert reader.usage() == Usage(1000, 10_000, estimated=True)


def test_what_is_said_after_a_usage_is_not_covered_by_it() -> None:
    reader = Reader("chat", stream=True, asked_bytes=ASKED)

    def feed(**told: Any) -> Usage:
        reader.feed(f"data: {json.dumps(told)}\n\n".encode())
        return reader.usage()

    def says(size: int) -> list[Any]:
        return [{"delta": {"content": "y" * size}}]

    assert feed(choices=[], usage={"prompt_tokens": 0, "completion_tokens": 0}).estimated
    assert feed(choices=says(40_000)).output == 10_000
    assert feed(choices=says(4), usage={"prompt_tokens": 9, "completion_tokens": 9_000}) == Usage(9, 9_000)
    assert feed(choices=says(4000)) == Usage(9, 11_001, estimated=True)
    assert feed(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 9_900}) == Usage(9, 9_900)
