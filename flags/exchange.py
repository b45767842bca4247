"""Evidence as JSON lines, one flagged reply a line: what `moss import` reads and `moss export` writes.

`docs/batches.md` explains the format.
"""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import AwareDatetime, Field, ValidationError
from pydantic_core import ErrorDetails

from core.model.batch import Batch
from core.model.errors import BadInput
from core.model.evidence import Check, Chunk, FailureKind, Flag
from core.model.mistakes import in_words
from core.model.transcript import Message, Place, Transcript
from core.model.value import Value, new_id, sha256
from core.redact import Redactor
from core.store import Store, batches
from core.store.columns import plain_in
from flags.seal import SEAL_COUNT, seal_if_full

MAX_LINES = 500
MAX_LINE_CHARS = 1_000_000
MAX_CHARS = 20_000_000
SHOWN_MISTAKES = 50

IMPORTED = Place(platform="file", workspace="local", channel="import")


class Feedback(Value):
    """One person's complaint."""

    who: str = Field(min_length=1, max_length=200)
    emoji: str | None = Field(default=None, max_length=100)
    kind: FailureKind = FailureKind.other
    reason: str | None = Field(default=None, max_length=20_000)
    at: AwareDatetime | None = None


class Line(Value):
    messages: tuple[Message, ...] = Field(min_length=1)
    feedback: tuple[Feedback, ...] = ()
    flagged: int | None = Field(default=None, ge=0)
    place: Place = IMPORTED
    turn: str | None = Field(default=None, min_length=1, max_length=500)
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """A line that was found to be sound: the conversation up to the flagged reply, and what was said about it."""

    place: Place
    turn: str
    transcript: Transcript
    feedback: tuple[Feedback, ...]
    checks: tuple[Check, ...]

    def chunk(self, batch: str, now: datetime) -> Chunk:
        flags = tuple(
            Flag(
                id=new_id("flag"),
                person=said.who,
                kind=said.kind,
                emoji=said.emoji,
                reason=said.reason,
                at=said.at or now,
            )
            for said in self.feedback
        )
        return Chunk(
            id=new_id("chunk"),
            batch=batch,
            place=self.place,
            turn=self.turn,
            transcript=self.transcript,
            flags=flags,
            checks=self.checks,
        )


def parse(lines: Iterable[str]) -> list[Evidence]:
    """All lines, or BadInput that names every wrong one, with the reason and the mend."""
    found: list[Evidence] = []
    first_of: dict[tuple[Place, str], tuple[int, Transcript]] = {}
    mistakes: list[str] = []
    chars = 0
    for number, text in enumerate(lines, start=1):
        chars += len(text)
        if number > MAX_LINES or chars > MAX_CHARS:
            raise BadInput(f"The evidence has more than {MAX_LINES} lines or {MAX_CHARS} characters; split the file.")
        if not text.strip().removeprefix("\ufeff"):
            continue
        try:
            evidence = _evidence(text.removeprefix("\ufeff"))
            turn = (evidence.place.conversation, evidence.turn)
            line, same = first_of.setdefault(turn, (number, evidence.transcript))
            if same != evidence.transcript:
                raise BadInput(f"names the same turn as line {line} with another conversation; give it another `turn`")
            found.append(evidence)
        except BadInput as mistake:
            mistakes.append(f"  line {number}: {mistake.sentence}.")
    if mistakes:
        more = len(mistakes) - SHOWN_MISTAKES
        shown = mistakes[:SHOWN_MISTAKES] + ([f"  and {more} more."] if more > 0 else [])
        raise BadInput("The evidence has mistakes, so nothing of it was stored:\n" + "\n".join(shown))
    if not found:
        raise BadInput("The evidence holds no line; write one flagged reply a line, as docs/batches.md shows.")
    return found


async def add_evidence(
    store: Store, substrate: str, lines: Iterable[str], who: str, *, seal_count: int = SEAL_COUNT
) -> list[Batch]:
    """All lines or none, redacted, into the open batch of each line's conversation: the channel with its threads. A
    batch that got full is sealed at the end, so that a file makes one batch per conversation. While it is open,
    importing the file again changes nothing."""
    evidence = await asyncio.to_thread(lambda: [_redacted(found) for found in parse(lines)])
    async with store.changing(substrate) as change:
        touched: dict[str, Batch] = {}
        for found in evidence:
            batch = await batches.open_batch(change, found.place.conversation, who)
            await batches.add_chunk(change, found.chunk(batch.id, change.now), who)
            touched[batch.id] = batch
        return [await seal_if_full(change, batch, seal_count) for batch in touched.values()]


async def export(store: Store, batch_id: str) -> str:
    """A batch in the same format, as it is stored: redacted."""
    async with store.reading() as db:
        await batches.get(db, batch_id)
        return "".join(written(chunk) + "\n" for chunk in await batches.chunks(db, batch_id))


def written(chunk: Chunk) -> str:
    feedback = tuple(
        Feedback(who=flag.person, emoji=flag.emoji, kind=flag.kind, reason=flag.reason, at=flag.at)
        for flag in chunk.flags
        if flag.withdrawn_at is None
    )
    line = Line(
        messages=chunk.transcript.messages,
        feedback=feedback,
        place=chunk.place,
        turn=chunk.turn,
        checks=chunk.checks,
    )
    return line.model_dump_json(exclude_defaults=True)


def _evidence(text: str) -> Evidence:
    """Raises BadInput, as the rest of a sentence about this line."""
    if len(text) > MAX_LINE_CHARS:
        raise BadInput(f"is longer than {MAX_LINE_CHARS} characters; leave out what does not matter")
    try:
        line = Line.model_validate_json(text)
    except ValidationError as problem:
        errors = problem.errors(include_url=False)
        wrong = [error for error in errors if error["type"] != "too_short"] or errors  # short of what was wrong in it
        raise BadInput("; ".join(_in_words(error) for error in wrong[:3])) from None
    for check in line.checks:
        if check.matches is not None:
            try:
                re.compile(check.matches)
            except (re.error, OverflowError, RecursionError) as problem:
                raise BadInput(f"`matches` of check `{check.id}` is not a regular expression ({problem})") from None
    if "\\u0000" in text:  # what was said is kept to the letter; by names and ids rows are found again
        names = plain_in(line.model_dump(mode="json", exclude={"messages"}))
        line = Line.model_validate({**names, "messages": line.messages})
    last = _flagged(line)
    transcript = Transcript(messages=line.messages[: last + 1])
    if not transcript.user_turns():
        raise BadInput("has no message of the role `user` before the flagged reply; include what it answered")
    turn = line.turn or transcript.messages[-1].id or "turn-" + sha256(transcript.to_json().encode())[-16:]
    return Evidence(line.place, turn, transcript, line.feedback, line.checks)


def _flagged(line: Line) -> int:
    roles = [message.role for message in line.messages]
    if line.flagged is None:
        if "assistant" not in roles:
            raise BadInput("has no message of the role `assistant`; include the reply that was flagged")
        return len(roles) - 1 - roles[::-1].index("assistant")
    if line.flagged >= len(roles):
        raise BadInput(f"`flagged` is {line.flagged}, and the last message is {len(roles) - 1}; count from 0")
    if roles[line.flagged] != "assistant":
        raise BadInput(f"`flagged` names a message of the role `{roles[line.flagged]}`; name a reply of the assistant")
    return line.flagged


def _in_words(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "json_invalid":
            return f"is not JSON ({error['ctx']['error']}); write one whole JSON object on one line"
        case "model_type" | "model_attributes_type" if not where:
            return "is not a JSON object; write one object a line"
        case "missing":
            return f"`{where}` is missing; docs/batches.md shows what a line holds"
        case "extra_forbidden":
            return f"`{where}` is not a field of the format; remove it, or correct its name"
        case "too_short":
            return f"`{where}` is empty; give at least the flagged reply"
        case "timezone_aware":
            return f"`{where}` has no time zone; write it as 2026-01-05T09:00:00Z"
        case _:
            return f"`{where}`: {in_words(error)}"


def _redacted(found: Evidence) -> Evidence:
    redactor = Redactor(str(found.place.conversation))
    feedback = tuple(
        said.model_copy(update={"reason": redactor.text(said.reason) if said.reason else None})
        for said in found.feedback
    )
    return Evidence(found.place, found.turn, redactor.transcript(found.transcript), feedback, found.checks)
