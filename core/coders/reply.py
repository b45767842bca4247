"""From the text a coder said to the reply its role owes: the last JSON object of the text, checked by the role's model.

The text may hold anything: prose with braces and quotes, code fences, several objects, megabytes made to be slow. So
each `{` is parsed by the grammar, from right to left: an object within an object is then known already and is jumped
over, and every position is read at most twice, once as the inside of a string and once as the outside.
"""

import json
import re
from enum import Enum, auto
from typing import Any

from pydantic import ValidationError

from core.coders.events import spelt_out
from core.model.mistakes import in_words
from core.model.replies import REPLIES, Reply, Role
from core.redact import Redactor

LOOKED_AT = 2_000_000
"""Characters at the end of the text among which the reply must stand: more than any role's reply can need."""

_SPACE = r"[ \t\n\r]*+"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_START = re.compile(rf"\{{(?={_SPACE}(?:\}}|{_STRING}{_SPACE}:))", re.DOTALL)
_TOKEN = re.compile(
    rf"{_SPACE}(?:(?P<string>{_STRING})"
    r"|(?P<atom>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)"
    r"|(?P<mark>[{}\[\]:,]))",
    re.DOTALL,
)


_PLAIN = Redactor()


class NotAReply(Exception):
    """The text holds no valid reply; the message says why, as the rest of a sentence about it."""

    def __init__(self, why: str) -> None:
        super().__init__(spelt_out(why))  # it may quote the text


def read_reply(role: Role, text: str, redactor: Redactor = _PLAIN) -> Reply:
    """Redacted, since it is kept, and shown to people and to other coders."""
    try:
        return REPLIES[role].model_validate(redactor.values(last_object(text)))
    except ValidationError as invalid:
        raise NotAReply(f"its last JSON object does not match the schema: {_in_words(invalid)}") from None


def last_object(text: str) -> dict[str, Any]:
    """The JSON object that ends last; of those that end together, the outermost."""
    text = text[-LOOKED_AT:]
    span = _last_span(text)
    if span is None:
        raise NotAReply("it holds no JSON object")
    try:
        found: dict[str, Any] = json.loads(text[slice(*span)], strict=False, object_pairs_hook=_each_once)
    except RecursionError:
        raise NotAReply("its last JSON object is nested too deeply") from None
    except ValueError as invalid:
        raise NotAReply(f"its last JSON object cannot be read: {invalid}") from None
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == name for name, _ in pairs) > 1)
        raise ValueError(f"the key `{twice[:80]}` stands in it twice")
    return found


def _in_words(invalid: ValidationError) -> str:
    errors = invalid.errors(include_url=False)
    said = [f"`{'.'.join(map(str, error['loc'])) or 'the object'}`: {in_words(error)}" for error in errors[:8]]
    more = [f"and {len(errors) - 8} more"] if len(errors) > 8 else []
    return "; ".join([*said, *more])


def _last_span(text: str) -> tuple[int, int] | None:
    text = text[: text.rfind("}") + 1]
    ends: dict[int, int] = {}
    best: tuple[int, int] | None = None
    for start in reversed([found.start() for found in _START.finditer(text)]):
        end = _end_of(text, start, ends)
        if end is None:
            continue
        ends[start] = end
        if best is None or end > best[1]:
            best = (start, end)
        if end == len(text):
            break
    return best


class _Expect(Enum):
    first_key = auto()
    key = auto()
    colon = auto()
    value = auto()
    first_item = auto()
    next = auto()


def _end_of(text: str, start: int, ends: dict[int, int]) -> int | None:
    """Where the object that starts here ends, or None when it is not one. `ends` knows all objects further right."""
    expect, arrays, at = _Expect.first_key, 0, start + 1
    while token := _TOKEN.match(text, at):
        at = token.end()
        mark = token["mark"]
        match expect:
            case _Expect.first_key if mark == "}":
                return at
            case _Expect.first_key | _Expect.key if token["string"]:
                expect = _Expect.colon
            case _Expect.colon if mark == ":":
                expect = _Expect.value
            case _Expect.value | _Expect.first_item if mark is None:
                expect = _Expect.next
            case _Expect.value | _Expect.first_item if mark == "{" and at - 1 in ends:
                expect, at = _Expect.next, ends[at - 1]
            case _Expect.value | _Expect.first_item if mark == "[":
                expect, arrays = _Expect.first_item, arrays + 1
            case _Expect.first_item | _Expect.next if mark == "]" and arrays:
                expect, arrays = _Expect.next, arrays - 1
            case _Expect.next if mark == ",":
                expect = _Expect.value if arrays else _Expect.key
            case _Expect.next if mark == "}" and not arrays:
                return at
            case _:
                return None
    return None
