"""One person's complaint about one reply: raised into the open batch of its conversation, or withdrawn from it."""

import asyncio
from dataclasses import dataclass

from core.model.batch import Batch, BatchState
from core.model.errors import BadInput, IllegalMove
from core.model.evidence import Check, Chunk, Flag
from core.model.transcript import Place, Transcript
from core.model.value import new_id
from core.redact import Redactor
from core.store import Store, batches
from flags.seal import SEAL_COUNT, seal_if_full

MAX_CHARS = 400_000
"""Of a transcript. A longer conversation keeps its end, where the flagged reply is."""


@dataclass(frozen=True, slots=True)
class Raised:
    batch: Batch
    """Sealed, when this flag filled it."""
    chunk: Chunk


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
) -> Raised:
    """The transcript ends with the flagged reply. Nothing is stored before it is redacted, the reason included.

    Batch, chunk, flag and seal are one transaction: a flag that comes while its batch is sealed is in that batch
    or opens the next one.
    """
    if transcript.messages[-1].role != "assistant":
        raise BadInput("A flag is raised on a reply of the agent, and this conversation ends with something else.")
    clean, reason = await asyncio.to_thread(_redacted, Redactor(str(place)), _fitting(transcript), flag.reason)
    flag = flag.model_copy(update={"reason": reason})
    async with store.changing(substrate) as change:
        batch = await batches.open_batch(change, place, flag.person)
        chunk = Chunk(
            id=new_id("chunk"), batch=batch.id, place=place, turn=turn, transcript=clean, flags=(flag,), checks=checks
        )
        chunk = await batches.add_chunk(change, chunk, flag.person)
        return Raised(await seal_if_full(change, batch, seal_count), chunk)


async def withdraw(store: Store, substrate: str, place: Place, turn: str, person: str) -> bool:
    """False when this person has no flag on this turn. Raises IllegalMove when the flag is in a sealed batch."""
    async with store.changing(substrate) as change:
        batch = await batches.open_for(change.db, substrate, place)
        if batch and await batches.withdraw_flag(change, batch.id, turn, person, person):
            return True
        for past in await batches.listing(change.db, substrate):
            if past.place == place and past.state is not BatchState.open:
                for chunk in await batches.chunks(change.db, past.id):
                    if chunk.turn == turn and any(f.person == person and not f.withdrawn_at for f in chunk.flags):
                        raise IllegalMove(f"The flag is in batch {past.id}, which is {past.state}; it counts there.")
    return False


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
