"""Reading a reply out of whatever a coder printed: the last JSON object, checked by its role's model."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.coders.reply import LOOKED_AT, NotAReply, _last_span, last_object, read_reply
from core.model.keypoints import Level
from core.model.replies import Evaluation, Judgement, Role, Verdict

BYTES = 8_000_000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('First {"a": 1}, and then {"b": 2}. Done.', {"b": 2}),
        ('```json\n{"a": {"b": [1, {"c": 2}]}}\n```', {"a": {"b": [1, {"c": 2}]}}),
        ('{"a": "a } in \\" a { string"}', {"a": 'a } in " a { string'}),
        ('use {name} or {"unclosed, then {"a": 1}', {"a": 1}),
        ('He said "{" and left. {"a": 1}', {"a": 1}),
        ('{"a": 1} {not: json} }', {"a": 1}),
        ('{"log": "{\\"a\\": 1}"}', {"log": '{"a": 1}'}),
        ('{"remarks": "write {} instead"}', {"remarks": "write {} instead"}),
        ('{"a": "a line\nand another"}', {"a": "a line\nand another"}),
        ('{"a": [1, {"b": 2}, }', {"b": 2}),
        ('\ufeff{"a": -1.5e3, "b": [true, false, null, []]}', {"a": -1500.0, "b": [True, False, None, []]}),
    ],
)
def test_the_last_object_is_found_whatever_stands_around_it(text: str, found: object) -> None:
    assert last_object(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object"),
        ("It CONVERGED. I APPROVE {of it}.", "no JSON object"),
        ('[1, "two"]', "no JSON object"),
        ('{"a": 01}', "no JSON object"),
        ('{"verdict": "CONVERGED"', "no JSON object"),
        ('{"verdict": "CONVERGED", "verdict": "NEED_MORE_WORK"}', "`verdict` stands in it twice"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 100_000 + "}", "cannot be read"),
    ],
)
def test_what_holds_no_readable_object_is_no_reply(text: str, why: str) -> None:
    with pytest.raises(NotAReply, match=why):
        last_object(text)


def brute_force(text: str) -> tuple[int, int] | None:
    spans = []
    for start, letter in enumerate(text):
        if letter == "{":
            try:
                spans.append((start, json.JSONDecoder(strict=False).raw_decode(text, start)[1]))
            except ValueError:
                continue
    return max(spans, key=lambda span: (span[1], -span[0]), default=None)


@given(st.lists(st.sampled_from(['{"a":', '"b"', "{", "}", "[", "]", '"', ":", ",", "\\", "1", " ", "x"]), max_size=40))
def test_it_finds_what_trying_every_brace_would_find(parts: list[str]) -> None:
    text = "".join(parts)
    assert _last_span(text) == brute_force(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.text(max_size=60), st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.booleans())
def test_any_object_is_found_behind_any_prose(prose: str, value: dict[str, object], ascii_only: bool) -> None:
    said = json.dumps(value, ensure_ascii=ascii_only)
    assert last_object(f"{prose}\n{said}\nThat is all.") == value


@pytest.mark.parametrize("unit", ['{"":"', '{"b":1},'])
def test_eight_megabytes_made_to_be_slow_are_read_in_seconds(unit: str) -> None:
    text = (unit * (BYTES // len(unit))) + "}"
    began = time.process_time()  # others who are at work on this machine do not count
    with pytest.raises(NotAReply):
        read_reply(Role.verdict, text)
    assert time.process_time() - began < 15


def test_a_reply_is_found_at_the_end_of_megabytes_and_not_before_that() -> None:
    reply = '{"verdict": "NEED_MORE_WORK", "reason": "x"}'
    assert read_reply(Role.verdict, "{" * BYTES + reply) == Judgement(verdict=Verdict.need_more_work, reason="x")
    with pytest.raises(NotAReply):
        read_reply(Role.verdict, reply + " " * LOOKED_AT)


def test_a_verdict_is_read_from_the_object_and_never_from_prose() -> None:
    text = 'It CONVERGED, or rather NOT CONVERGED: {"verdict": "NEED_MORE_WORK", "reason": "not CONVERGED"} CONVERGED!'
    assert read_reply(Role.verdict, text) == Judgement(verdict=Verdict.need_more_work, reason="not CONVERGED")


@pytest.mark.parametrize("verdict", ["converged", "NOT CONVERGED", "CONVERGED.", "", None, True, ["CONVERGED"]])
def test_a_verdict_that_is_none_of_the_four_is_refused(verdict: object) -> None:
    with pytest.raises(NotAReply, match="`verdict`: "):
        read_reply(Role.verdict, json.dumps({"verdict": verdict, "reason": ""}))


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([{"id": "a", "text": "t", "level": 4}], "keypoints.0.level"),
        ([{"id": "a", "text": "t", "level": "strong"}], "keypoints.0.level"),
        ([{"id": "A b", "text": "t", "level": 1}], "keypoints.0.id"),
        ([{"id": "a", "text": "t", "level": 1}] * 2, "the same id"),
        ([], "keypoints"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(points: list[object], why: str) -> None:
    with pytest.raises(NotAReply, match=why):
        read_reply(Role.evaluate, json.dumps({"keypoints": points}))


def test_unknown_fields_are_ignored() -> None:
    point = {"id": "a", "text": "t", "level": 3, "confidence": 0.9}
    reply = read_reply(Role.evaluate, json.dumps({"keypoints": [point], "notes": "none"}))
    assert isinstance(reply, Evaluation)
    assert reply.keypoints[0].level is Level.strong


@pytest.mark.parametrize("summary", ["a\\u0000b", "a\\ud800b"])
def test_text_that_no_database_would_take_is_refused(summary: str) -> None:
    with pytest.raises(NotAReply, match="`summary`: "):
        read_reply(Role.implement, f'{{"summary": "{summary}"}}')


def test_a_segment_that_ends_before_it_begins_is_refused() -> None:
    segment = {"first": 3, "last": 1, "level": 0, "kind": "other", "reason": ""}
    with pytest.raises(NotAReply, match="comes after the last"):
        read_reply(Role.scan, json.dumps({"segments": [segment]}))
