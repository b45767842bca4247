"""Scores a reply of the desk by code: the right records are worked out from the desk's data, never from a reply.

    python3 grader.py DATA.json < request.json > evaluation.json

The request holds `task`, `transcript` and the locked `keypoints`, if there are any; docs/substrate.md has the contract.
"""

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]
Beside = dict[str, tuple[str, ...]]

MISSING, WEAK, ADEQUATE, STRONG = range(4)
LIST_LIMIT, SENTENCE_LIMIT = 4000, 600


class Expected(NamedTuple):
    """What a right answer holds."""

    records: Beside
    """Each record that belongs into the answer, with the words that must stand beside its name."""
    known: tuple[str, ...]
    """Every record of that sort, so that one in the wrong place is noticed."""
    about: tuple[str, ...]
    """What the question is about, and the answer should say."""
    listing: bool
    """Asked for all that match, and not for one that is named."""


class Point(NamedTuple):
    id: str
    text: str
    level: int
    reason: str


def main() -> None:
    data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps({"keypoints": evaluate(data, json.load(sys.stdin))}))


def evaluate(data: Record, request: Record) -> list[Record]:
    messages = request["transcript"]["messages"]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    reply = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    found = points(data, request["task"].get("checks", []), asked, reply)
    if locked := request["keypoints"]:
        by_id = {point.id: point for point in found}
        found = [by_id.get(k["id"], Point(k["id"], k["text"], MISSING, "not scored by this grader")) for k in locked]
    return [point._asdict() for point in found]


def points(data: Record, checks: list[Record], asked: list[str], reply: str) -> list[Point]:
    if checks:
        return [checked(check, reply) for check in checks]
    expected = Desk(data).expected(asked)
    if expected is None:
        return [Point("answers", "answers at all", STRONG if reply.strip() else MISSING, "no question known by code")]
    if expected.listing and expected.records:
        found = [names_every(expected, reply), details(expected, reply), count(expected, reply)]
    elif expected.records:
        found = [names_every(expected, reply), details(expected, reply)]
    else:
        found = [says_none(reply)]
    found += [nothing_else(expected, reply), about(expected, reply), form(expected, reply)]
    return found


# The questions, and what answers them


class Desk:
    def __init__(self, data: Record) -> None:
        self.data = data
        self.now = datetime.fromisoformat(data["as_of"])

    def expected(self, asked: list[str]) -> Expected | None:
        question = asked[-1].lower()
        late = re.search(r"\bsla\b|\blate\b|overdue|breach", question)
        said = asked[::-1] if re.search(r"\bit\b", question) else asked[-1:]
        if numbers := [number.upper() for text in said for number in re.findall(r"\bt-\d+", text, re.IGNORECASE)]:
            return self.ticket(numbers[0], bool(late))
        if late:
            customers = [c["name"] for c in self.data["customers"]]
            return self.late(next(filter(None, (first(customers, text) for text in reversed(asked))), None))
        if "free" in question or "available" in question:
            return self.free(question)
        if part := first([part["name"] for part in self.data["parts"]], question):
            return self.parts([p for p in self.data["parts"] if p["name"] == part], (), listing=False)
        if re.search(r"\b(low|short|minimum|running out)\b", question):
            warehouse = first(sorted({part["warehouse"] for part in self.data["parts"]}), question)
            low = [p for p in self.data["parts"] if p["stock"] < p["minimum"] and warehouse in (None, p["warehouse"])]
            return self.parts(low, (warehouse,) if warehouse else (), listing=True)
        return None

    def ticket(self, number: str, late: bool) -> Expected:
        ticket = next((ticket for ticket in self.data["tickets"] if ticket["id"] == number), None)
        if ticket is None:
            return Expected({}, self.numbers(), (number,), listing=False)
        minutes = self.late_minutes(ticket)
        beside = (
            ("past" if minutes > 0 else "within", span(abs(minutes)))
            if late
            else (ticket["status"], ticket["engineer"] or "nobody")
        )
        return Expected({number: beside}, self.numbers(), (ticket["customer"],), listing=False)

    def late(self, customer: str | None) -> Expected:
        mine = [t for t in self.data["tickets"] if t["status"] == "open" and customer in (None, t["customer"])]
        past: Beside = {t["id"]: (span(self.late_minutes(t)),) for t in mine if self.late_minutes(t) > 0}
        return Expected(past, self.numbers(), (customer,) if customer else (), listing=True)

    def free(self, question: str) -> Expected:
        day = re.search(r"(mon|tues|wednes|thurs|fri|satur|sun)day", question)
        when = day[0] if day else self.now.strftime("%A").lower()
        everybody = self.data["engineers"]
        names = tuple(engineer["name"] for engineer in everybody)
        if name := first(names, question):
            slots = next(engineer["free"].get(when, []) for engineer in everybody if engineer["name"] == name)
            return Expected({name: tuple(slots) or ("not free",)}, names, (when,), listing=False)
        skill = first(sorted({skill for engineer in everybody for skill in engineer["skills"]}), question)
        able = [engineer for engineer in everybody if skill is None or skill in engineer["skills"]]
        free = {e["name"]: tuple(e["free"][when]) for e in able if e["free"].get(when)}
        return Expected(free, names, (when, skill) if skill else (when,), listing=True)

    def parts(self, parts: list[Record], what: tuple[str, ...], *, listing: bool) -> Expected:
        beside: Beside = {part["name"]: (f"{part['stock']} in stock", f"{part['lead_days']} days") for part in parts}
        return Expected(beside, tuple(part["name"] for part in self.data["parts"]), what, listing)

    def numbers(self) -> tuple[str, ...]:
        return tuple(ticket["id"] for ticket in self.data["tickets"])

    def late_minutes(self, ticket: Record) -> int:
        plan = next(c["plan"] for c in self.data["customers"] if c["name"] == ticket["customer"])
        due = datetime.fromisoformat(ticket["opened"]) + timedelta(hours=self.data["plans"][plan][ticket["priority"]])
        return int((self.now - due).total_seconds() // 60)


def span(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02d} min"


# The keypoints


def names_every(expected: Expected, reply: str) -> Point:
    named = [name for name in expected.records if says(reply, name)]
    text = "names every record that belongs into the answer"
    return Point("names-every", text, share(len(named), len(expected.records)), f"{len(named)} are named")


def details(expected: Expected, reply: str) -> Point:
    right = [
        name
        for name, beside in expected.records.items()
        if all(says(line, words) for words in beside for line in [line_of(reply, name)])
    ]
    text = "gives the right details of each record beside its name"
    return Point("details", text, share(len(right), len(expected.records)), f"{len(right)} have all details right")


def count(expected: Expected, reply: str) -> Point:
    opening = reply.strip().partition("\n")[0]
    number = re.search(r"(?<![\w-])\d+(?![\w-])", opening)
    right = len(expected.records)
    if number is None:
        complete = all(says(reply, name) for name in expected.records)
        denied = re.search(r"\b(no|none|nobody)\b", opening, re.IGNORECASE)
        level = ADEQUATE if complete else MISSING if denied else WEAK
    else:
        level = STRONG if int(number[0][:9]) == right else MISSING
    return Point("count", "begins with the right count", level, "stated" if number else "not stated")


def says_none(reply: str) -> Point:
    denied = re.search(r"\b(no|none|nobody|nothing)\b", reply, re.IGNORECASE)
    return Point("says-none", "says that nothing matches", STRONG if denied else MISSING, "")


def nothing_else(expected: Expected, reply: str) -> Point:
    misplaced = [name for name in expected.known if name not in expected.records and says(reply, name)]
    made_up = sorted(set(re.findall(r"\bT-\d+\b", reply)) - set(expected.known)) if is_about_tickets(expected) else []
    made_up += [line for line in listed(reply) if not any(says(line, name) for name in expected.known)]
    silent = expected.records and not any(says(reply, name) for name in expected.records)
    level = MISSING if made_up or silent else (STRONG, ADEQUATE)[len(misplaced)] if len(misplaced) < 2 else WEAK
    reason = f"{len(misplaced)} do not belong there, {len(made_up)} are made up" + (", nothing is named" * bool(silent))
    return Point("nothing-else", "names no record that does not belong into the answer", level, reason)


def about(expected: Expected, reply: str) -> Point:
    said = [words for words in expected.about if says(reply, words)]
    level = share(len(said), len(expected.about)) if expected.about else STRONG if reply.strip() else MISSING
    return Point("about", "says what the answer is about", level, f"{len(said)} of {len(expected.about)} are said")


def form(expected: Expected, reply: str) -> Point:
    if not expected.listing or not expected.records:
        fits = 0 < len(reply.strip()) <= SENTENCE_LIMIT and len(reply.strip().splitlines()) <= 3
        return Point("form", "is a sentence or two", STRONG if fits else WEAK if reply.strip() else MISSING, "")
    named = [name for name in expected.records if says(reply, name)]
    alone = [
        name
        for name in named
        if line_of(reply, name).startswith("- ") and sum(says(line_of(reply, name), other) for other in named) == 1
    ]
    level = share(len(alone), len(named)) if len(reply) <= LIST_LIMIT else MISSING
    return Point("form", "has a line of its own for each record", level, f"{len(alone)} of {len(named)} have one")


def checked(check: Record, reply: str) -> Point:
    """A task that brings its own checks is scored by them."""
    if check.get("contains") is not None:
        met = check["contains"] in reply
    elif check.get("absent") is not None:
        met = check["absent"] not in reply
    else:
        met = re.search(check["matches"], reply) is not None
    return Point(check["id"], check["text"], STRONG if met else MISSING, "")


# Reading a reply


def says(text: str, words: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", text, re.IGNORECASE) is not None


def first(names: Iterable[str], text: str) -> str | None:
    return next((name for name in names if says(text, name)), None)


def line_of(reply: str, name: str) -> str:
    return next((line.strip() for line in reply.splitlines() if says(line, name)), "")


def listed(reply: str) -> list[str]:
    return [line for line in map(str.strip, reply.splitlines()) if line.startswith("- ")]


def share(part: int, whole: int) -> int:
    if whole and part == whole:
        return STRONG
    if part * 2 > whole:
        return ADEQUATE
    return WEAK if part else MISSING


def is_about_tickets(expected: Expected) -> bool:
    return any(re.fullmatch(r"T-\d+", name) for name in expected.known)


if __name__ == "__main__":
    main()
