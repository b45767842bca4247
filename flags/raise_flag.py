"""One person's complaint about one reply: raised into the open batch of its conversation, or withdrawn from it.

A conversation is a channel or a direct message with all its threads. A person has one flag per reply, in one batch.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from core.model.batch import Batch, BatchState
from core.model.errors import BadInput, Refused
from core.model.events import Noun
from core.model.evidence import Check, Chunk, Flag
from core.model.transcript import Place, Transcript
from core.model.value import new_id
from core.redact import Redactor
from core.store import Change, Store, batches, facts
from flags.seal import SEAL_COUNT, seal_if_full

MAX_CHARS = 400_000
"""Of a transcript. A longer conversation keeps its end, where the flagged reply is."""
HOUR = timedelta(hours=1)
NOTED = "noted"
"""The fact that somebody said something about a flag whose batch was sealed before."""
FLAGGED = "flagged"
"""The fact that somebody raised a flag, or said more about it."""
NOTES = 8
"""About one flag. Whoever goes on putting a reaction on and off writes no more facts with it."""
AGAIN = 20
"""So often one person's flag on one reply may be raised, or changed, while its batch is open; for the same reason."""


@dataclass(frozen=True, slots=True)
class Raised:
    batch: Batch
    """Sealed, when this flag filled it."""
    chunk: Chunk
    late: bool = False
    """The person's flag was there already, in a batch that is sealed: what came now is noted and changes nothing."""


class Withdrawal(StrEnum):
    withdrawn = "withdrawn"
    noted = "noted"
    """The batch is sealed and keeps the flag; the chain of facts says that its person took it back."""
    nothing = "nothing"
    """There is no such flag, or another reaction of the same person still stands for it."""


async def raise_flag(  # noqa: PLR0917 - who complains, about what, where: none of it is optional
    store: Store,
    substrate: str,
    place: Place,
    turn: str,
    transcript: Transcript,
    flag: Flag,
    *,
    checks: tuple[Check, ...] = (),
    seal_count: int = SEAL_COUNT,
    per_hour: int | None = None,
) -> Raised:
    """The transcript ends with the flagged reply. Nothing is stored before it is redacted, the reason included.

    Batch, chunk, flag and seal are one transaction: a flag that comes while its batch is sealed is in that batch
    or opens the next one. Raising it again, as after a crash, changes nothing, even when it has filled its batch.
    """
    if transcript.messages[-1].role != "assistant":
        raise BadInput("A flag is raised on a reply of the agent, and this conversation ends with something else.")
    redactor = Redactor(str(place.conversation))
    clean, reason = await asyncio.to_thread(_redacted, redactor, _fitting(transcript), flag.reason)
    flag = flag.model_copy(update={"reason": reason})
    async with store.changing(substrate) as change:
        standing = await _standing(change, place, turn, flag.person)
        if standing and standing[0].state is not BatchState.open:
            await _note(change, *standing, flag.person, "flagged", reason=reason, emoji=flag.emoji)
            return Raised(*standing, late=True)
        if standing is None and per_hour is not None:
            await _check_rate(change, flag.person, per_hour)
        await _check_patience(change, place, turn, flag.person)
        batch = await batches.open_batch(change, place.conversation, flag.person)
        chunk = Chunk(
            id=new_id("chunk"), batch=batch.id, place=place, turn=turn, transcript=clean, flags=(flag,), checks=checks
        )
        chunk = await batches.add_chunk(change, chunk, flag.person)
        return Raised(await seal_if_full(change, batch, seal_count), chunk)


async def withdraw(  # noqa: PLR0917 - as above
    store: Store, substrate: str, place: Place, turn: str, person: str, emoji: str | None = None
) -> Withdrawal:
    """Taking off one of several reactions leaves the flag standing for the others."""
    async with store.changing(substrate) as change:
        standing = await _standing(change, place, turn, person)
        if standing is None:
            return Withdrawal.nothing
        batch, chunk = standing
        if batch.state is not BatchState.open:
            await _note(change, batch, chunk, person, "withdrawn", emoji=emoji)
            flag = _of(chunk, person)
            left = _reactions(flag, await _notes(change.db, batch.id, chunk.id, person))
            return Withdrawal.nothing if left else Withdrawal.noted
        gone = await batches.withdraw_flag(change, batch.id, turn, person, person, emoji=emoji)
        return Withdrawal.withdrawn if gone else Withdrawal.nothing


async def held(db: Any, substrate: str, place: Place, turn: str) -> list[Flag]:
    """All flags on a turn, each with the reactions that stand for it as far as Moss was told: a sealed batch keeps what
    it was sealed with, and what people took off since is noted beside it."""
    found = []
    for batch, chunk in await batches.of_turn(db, substrate, place, turn):
        for flag in chunk.flags:
            notes = await _notes(db, batch.id, chunk.id, flag.person) if batch.state is not BatchState.open else []
            found.append(flag.model_copy(update={"emoji": " ".join(_reactions(flag, notes)) or None}))
    return found


async def _standing(change: Change, place: Place, turn: str, person: str) -> tuple[Batch, Chunk] | None:
    """Where this person's flag on this turn stands. What was discarded counts for nothing."""
    for batch, chunk in await batches.of_turn(change.db, change.substrate, place, turn):
        raised = any(flag.person == person and flag.withdrawn_at is None for flag in chunk.flags)
        if raised and batch.state is not BatchState.discarded:
            return batch, chunk
    return None


async def _note(
    change: Change,
    batch: Batch,
    chunk: Chunk,
    person: str,
    said: str,
    *,
    reason: str | None = None,
    emoji: str | None = None,
) -> None:
    """Once, however often it is said; nothing when it says no more than the flag itself; and a few times at most."""
    detail = {"chunk": chunk.id, "turn": chunk.turn, "person": person, "said": said, "reason": reason, "emoji": emoji}
    theirs, flag = await _notes(change.db, batch.id, chunk.id, person), _of(chunk, person)
    latest = theirs[-1] if theirs else detail | {"said": "flagged", "reason": flag.reason}
    known = _reactions(flag, theirs)
    if emoji is None or (not known and said == "withdrawn"):
        new = said != latest["said"]
    else:
        new = (emoji in known) != (said == "flagged")
    if not new and reason in (None, latest["reason"]):
        return
    if len(theirs) >= NOTES:
        said_since = f"{NOTES} things you said of it since are noted"
        raise Refused(f"{batch.id} is {batch.state} and keeps your flag; {said_since}, and no more will be.")
    await change.record(person, Noun.batch, batch.id, NOTED, **detail)


async def _notes(db: Any, batch: str, chunk: str, person: str) -> list[dict[str, Any]]:
    """What this person said of their flag since the batch was sealed."""
    past = [fact.detail for fact in await facts.about(db, Noun.batch, batch) if fact.what == NOTED]
    return [detail for detail in past if (detail["chunk"], detail["person"]) == (chunk, person)]


def _of(chunk: Chunk, person: str) -> Flag:
    return next(flag for flag in chunk.flags if flag.person == person)


def _reactions(flag: Flag, notes: list[dict[str, Any]]) -> list[str]:
    """Those that stand for it after what was said of it. Notes of former versions of Moss name none."""
    left = (flag.emoji or "").split()
    for note in notes:
        emoji = note.get("emoji")
        if note["said"] == "withdrawn":
            left = [one for one in left if one != emoji] if emoji else []
        elif emoji and emoji not in left:
            left.append(emoji)
    return left


async def _check_rate(change: Change, person: str, per_hour: int) -> None:
    if await batches.flags_since(change.db, person, change.now - HOUR) >= per_hour:
        raise Refused(f"You have raised {per_hour} flags within an hour, which is the limit; try again later.")


async def _check_patience(change: Change, place: Place, turn: str, person: str) -> None:
    for batch, chunk in await batches.of_turn(change.db, change.substrate, place, turn):
        if batch.state is BatchState.open and any(flag.person == person for flag in chunk.flags):
            past = [fact.detail for fact in await facts.about(change.db, Noun.batch, batch.id) if fact.what == FLAGGED]
            if sum((one["chunk"], one["person"]) == (chunk.id, person) for one in past) >= AGAIN:
                raise Refused(
                    f"You have flagged this reply {AGAIN} times; no more is counted until its batch is sealed."
                )


def _fitting(transcript: Transcript) -> Transcript:
    """The last messages that fit, and always the flagged one; from a person's turn on where there is one."""
    left, first = MAX_CHARS, len(transcript.messages) - 1
    for n in range(len(transcript.messages) - 1, -1, -1):
        left -= len(transcript.messages[n].to_json())
        if left < 0:
            break
        first = n
    if first == 0:
        return transcript
    kept = transcript.messages[first:]
    begins = next((n for n, message in enumerate(kept) if message.role == "user"), 0)
    return Transcript(messages=kept[begins:])


def _redacted(redactor: Redactor, transcript: Transcript, reason: str | None) -> tuple[Transcript, str | None]:
    return redactor.transcript(transcript), redactor.text(reason) if reason else None
