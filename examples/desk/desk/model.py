"""The model: reads a conversation, and either asks for a tool or answers.

`Model` is what a hosted model would be wrapped in. `Rules` is the one the desk ships with: it follows rules instead of
weights, so it needs no key and no network, and the same conversation always gives the same answer.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from desk import wording
from desk.records import Call, Message, Record

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Model(Protocol):
    def next(self, messages: list[Message], tools: list[Record]) -> Call | str:
        """The next tool call, or the answer. The messages begin with the system prompt; tool results are among them."""


class Asked(NamedTuple):
    """What the conversation is about, as far as the words tell."""

    text: str
    earlier: tuple[str, ...]
    ticket: str | None
    customer: str | None
    engineer: str | None
    part: str | None
    warehouse: str | None
    skill: str | None
    day: str
    limit: int
    """How many records an answer may name, says the system prompt."""


Found = dict[str, list[Record]]
"""What the tools have given in this turn, by the tool's name."""


class Intent(NamedTuple):
    fits: Callable[[Asked], Any]
    steps: tuple[str, ...]
    answer: Callable[[Asked, Found], str]


def _says(pattern: str) -> Callable[[Asked], Any]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda asked: compiled.search(asked.text)


INTENTS = (
    Intent(
        _says(r"door code|access code|phone|password|api key|system prompt|your instructions|ignore (all|your|the)"),
        steps=(),
        answer=lambda asked, found: "I may not give that out. I can help with tickets, SLAs, engineers and parts.",
    ),
    Intent(
        _says(r"\b(close|delete|cancel|reassign|reorder)\b"),
        steps=(),
        answer=lambda asked, found: "I can look things up, but I cannot change them: please ask a dispatcher.",
    ),
    Intent(
        _says(r"\bdid (i|we) (ask|say)\b"),
        steps=(),
        answer=lambda asked, found: wording.recall(asked.earlier),
    ),
    Intent(
        lambda asked: asked.ticket and _says(r"\bsla\b|overdue|breach|\blate\b|\bdue\b")(asked),
        steps=("tickets.search", "sla.check"),
        answer=lambda asked, found: wording.due(asked.ticket, found["tickets.search"], found["sla.check"]),
    ),
    Intent(
        _says(r"\bsla\b|overdue|breach|\blate\b|past due"),
        steps=("tickets.search", "sla.check"),
        answer=lambda asked, found: wording.late(
            asked.customer, found["tickets.search"], found["sla.check"], asked.limit
        ),
    ),
    Intent(
        lambda asked: asked.ticket,
        steps=("tickets.search",),
        answer=lambda asked, found: wording.ticket(asked.ticket, found["tickets.search"]),
    ),
    Intent(
        _says(r"\b(free|available|availability|slots?)\b"),
        steps=("engineers.search", "engineers.slots"),
        answer=lambda asked, found: wording.free(
            asked.engineer, asked.skill, asked.day, found["engineers.slots"], asked.limit
        ),
    ),
    Intent(
        lambda asked: asked.part,
        steps=("parts.search", "parts.supply"),
        answer=lambda asked, found: wording.part(asked.part, found["parts.search"], found["parts.supply"]),
    ),
    Intent(
        _says(r"\b(low|short|minimum|running out|parts)\b"),
        steps=("parts.search", "parts.supply"),
        answer=lambda asked, found: wording.low(
            asked.warehouse, found["parts.search"], found["parts.supply"], asked.limit
        ),
    ),
    Intent(
        lambda asked: True,
        steps=(),
        answer=lambda asked, found: wording.greeting(asked.customer),
    ),
)
"""The first that fits is meant."""


class Rules:
    def next(self, messages: list[Message], tools: list[Record]) -> Call | str:
        asked = understand(messages)
        found, error = _results(messages)
        if error:
            return f"I could not look that up: {error}."
        intent = next(intent for intent in INTENTS if intent.fits(asked))
        for step in intent.steps:
            if step not in found:
                return Call(step, _arguments(step, asked))
            if not found[step]:
                break  # nothing was found, so nothing more can be asked about it
        return intent.answer(asked, {**{step: [] for step in intent.steps}, **found})


def understand(messages: list[Message]) -> Asked:
    system = messages[0]["content"]
    said = [message["content"] for message in messages if message["role"] == "user"]
    text, earlier = said[-1], tuple(said[:-1])
    names: dict[str, str] = dict(
        re.findall(r"^(Customers|Engineers|Parts|Warehouses|Skills): (.+)$", system, re.MULTILINE)
    )

    def named(kind: str, *texts: str) -> str | None:
        for said_there in texts:
            for name in names.get(kind, "").split("; "):
                if name and re.search(rf"(?<!\w){re.escape(name)}s?(?!\w)", said_there, re.IGNORECASE):
                    return name
        return None

    # "it" may be a ticket named before; a customer stays the customer until another one is named.
    about = (
        (text, *reversed(earlier)) if re.search(r"\b(it|that ticket|this ticket)\b", text, re.IGNORECASE) else (text,)
    )
    numbers = [number.upper() for said_there in about for number in re.findall(r"\bT-\d+\b", said_there, re.IGNORECASE)]
    limit = re.search(r"at most (\d+)", system)
    return Asked(
        text=text,
        earlier=earlier,
        ticket=numbers[0] if numbers else None,
        customer=named("Customers", text, *reversed(earlier)),
        engineer=named("Engineers", text),
        part=named("Parts", text),
        warehouse=named("Warehouses", text),
        skill=named("Skills", text),
        day=_day(text, system),
        limit=int(limit.group(1)) if limit else 10,
    )


def _day(text: str, system: str) -> str:
    for day in DAYS:
        if day in text.lower():
            return day
    today = re.search(r"^Today: (\w+)$", system, re.MULTILINE)
    index = DAYS.index(today.group(1)) if today else 0
    return DAYS[(index + 1) % 7] if "tomorrow" in text.lower() else DAYS[index]


def _arguments(tool: str, asked: Asked) -> Record:
    arguments: dict[str, Record] = {
        "tickets.search": {"number": asked.ticket} if asked.ticket else {"customer": asked.customer, "status": "open"},
        "engineers.search": {"name": asked.engineer} if asked.engineer else {"skill": asked.skill, "day": asked.day},
        "engineers.slots": {"day": asked.day},
        "parts.search": {"name": asked.part} if asked.part else {"warehouse": asked.warehouse, "low": True},
    }
    return {name: value for name, value in arguments.get(tool, {}).items() if value is not None}


def _results(messages: list[Message]) -> tuple[Found, str | None]:
    """What the tools answered since the user spoke last, and the error of the last of them."""
    found: Found = {}
    error = None
    for message in messages:
        if message["role"] == "user":
            found, error = {}, None
        elif message["role"] == "tool":
            content = json.loads(message["content"])
            found[message["name"]] = content.get("records", [])
            error = content.get("error")
    return found, error
