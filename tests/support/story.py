"""The mission's story on a platform: a real `moss run` with the desk, real people's steps, and what they see.

`tell` tells it. A platform plays its part by the steps of `Platform`; what Moss is comes from `desk`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bot import built_in
from bot.demo import script
from core.model.evidence import FailureKind
from tests.support.house import a_free_port
from tests.support.outsider import end_everything
from tests.support.world import World, repository_of

MARY, ANNA, BEN = "mary", "anna", "ben"
"""Mary talks to the desk. Anna and Ben may approve; Anna starts the repair, so that Ben has to."""

TURN_S, RUN_S, SWAP_S = 120.0, 600.0, 300.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of Moss or of the agent in the channel, as it looks now."""

    id: str
    text: str
    """All of it: of a card its title, its lines and its body."""
    thread: str = ""
    """The message that began the thread it stands in."""
    buttons: tuple[str, ...] = ()
    """Their labels."""


class Platform(Protocol):
    """What people do, by their names above, and what they see. What returns words returns Moss's private answer."""

    async def say(self, person: str, text: str, thread: str = "") -> str:
        """In the channel with a mention of Moss, or in a thread without one; the message's id."""

    async def react(self, person: str, message: Shown, emoji: str) -> str: ...

    async def complain(self, person: str, message: Shown, kind: FailureKind, reason: str) -> str:
        """From the menu of the message, with the form filled in."""

    async def command(self, person: str, words: str) -> str:
        """`/moss WORDS`."""

    async def press(self, person: str, message: Shown, label: str) -> str: ...

    def shown(self) -> list[Shown]:
        """Every message of Moss and the agent in the channel and its threads, oldest first."""


def desk(root: Path, host: str, sections: str) -> World:
    """The example's agent and its recorded coder, as their owner's moss.toml has them; `sections` are added to it: the
    platform, [people] and [announce]."""
    owners = repository_of(built_in.examples() / built_in.OWNERS, root / built_in.OWNERS)
    repository_of(built_in.examples() / built_in.DESK, root / built_in.DESK)
    volume = f"{root.name.lower()}-desk"
    changes = {
        'data = "moss-data"': f'data = "data"\nhost = "{host}"',
        "publish = 8080": f"publish = {a_free_port()}",
        'volume = "desk-state"': f'volume = "{volume}"',
        "every_s = 1": "every_s = 0.35",
    }
    config = (owners / "moss.toml").read_text()
    for written, changed in changes.items():
        assert written in config, written
        config = config.replace(written, changed)
    config += f'\n[evolve]\ndepth = "shallow"\n\n[room]\nport = 0\n\n{sections}'
    return World(owners, config, host, volume, built_in.DESK)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    """`moss run`, with the desk live as version 0; nothing of either is left afterwards."""
    try:
        await asyncio.to_thread(world.start)
        await asyncio.to_thread(world.moss, "adopt")
        yield
        assert await asyncio.to_thread(world.end) == 0
    except Exception:
        print(world.tail())
        raise
    finally:
        await asyncio.to_thread(end_everything, world)


async def tell(on: Platform) -> None:
    """Flag with a reason, batch, evolve, one card that changes in place, who may approve, swap, receipt, digest,
    rollback."""
    conversations = script.conversations()
    flagged = [await converse(on, MARY, one) for one in conversations]
    assert "1 flagged reply" in await on.react(MARY, flagged[0], conversations[0].emoji)
    for n, (reply, one) in enumerate(zip(flagged, conversations, strict=True), start=1):
        answer = await on.complain(MARY, reply, one.kind, one.reason or "It left something out.")
        assert f"{n} flagged repl" in answer, answer
    before = flagged[0].text
    assert "batch-" in await on.command(MARY, "batches")

    assert "You may not" in await on.command(MARY, "evolve")
    assert "run-" in await on.command(ANNA, "evolve")
    card = await seen(on, "a repair is under way", within_s=TURN_S)
    assert card.thread == ""
    for words in ("run", "batches"):
        assert "batch-" in await on.command(MARY, words), "people are answered while it works"
    offered = await seen(on, "a repair waits for approval", button="Approve", within_s=RUN_S)
    assert offered.id == card.id, "the card is edited, and no second one is posted"
    assert len([one for one in on.shown() if "Approve" in one.buttons]) == 1
    assert any("The cause was found" in one.text for one in on.shown() if one.thread == card.id)

    assert "not one of the approvers" in await on.press(MARY, offered, "Approve")
    assert "You started this, so another approver must approve it" in await on.press(ANNA, offered, "Approve")
    assert "You approved this" in await on.press(BEN, offered, "Approve")
    live = await seen(on, "the repair is live as version 1", within_s=SWAP_S)
    assert live.id == card.id
    assert "Approve" not in live.buttons
    for reply in flagged:
        receipt = await seen(on, "The reply you flagged now answers like this", thread=reply.thread, within_s=TURN_S)
        assert "Before: " in receipt.text
        assert "After: " in receipt.text

    after = (await converse(on, MARY, conversations[0])).text
    assert after != before
    assert len(after) > len(before)

    digest = await on.command(ANNA, "digest")
    assert "Flags: 2" in digest or "2 by 1 person" in digest, digest
    assert "version 1" in digest, digest

    await on.command(ANNA, "rollback")
    asked = await seen(on, "version 0", button="Approve", within_s=TURN_S)
    assert "another approver must approve it" in await on.press(ANNA, asked, "Approve")
    assert "You approved this" in await on.press(BEN, asked, "Approve")
    await seen(on, "version 0 is live again", within_s=SWAP_S)
    assert (await converse(on, MARY, conversations[0])).text == before


async def converse(on: Platform, person: str, conversation: script.Conversation) -> Shown:
    """Each turn of it, in a thread of its own; the agent's last reply."""
    thread, reply = "", None
    for text in conversation.said:
        known = {one.id for one in on.shown()}
        asked = await on.say(person, text, thread)
        thread = thread or asked

        def answers(one: Shown, thread: str = thread, known: set[str] = known) -> bool:
            return one.thread == thread and one.id not in known

        reply = await seen_where(on, answers, f"an answer to {text!r}", TURN_S)
    assert reply is not None
    return reply


async def seen(
    on: Platform, words: str, *, button: str = "", thread: str | None = None, within_s: float = TURN_S
) -> Shown:
    """The newest message with these words, this button, in this thread, once there is one."""

    def wanted(one: Shown) -> bool:
        return words in one.text and (not button or button in one.buttons) and (thread is None or one.thread == thread)

    return await seen_where(on, wanted, repr(words), within_s)


async def seen_where(on: Platform, wanted: Callable[[Shown], bool], what: str, within_s: float) -> Shown:
    try:
        async with asyncio.timeout(within_s):
            while True:
                for one in reversed(on.shown()):
                    if wanted(one):
                        return one
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        told = "\n".join(f"  {one.id} in {one.thread or 'the channel'}: {one.text[:160]!r}" for one in on.shown())
        raise AssertionError(f"{what} was not seen within {within_s:g} s; there is\n{told}") from None
