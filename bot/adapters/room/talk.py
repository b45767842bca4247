"""What people do in the room. Each act is one transaction: what the room shows and what Moss hears of it come together
or not at all, so a kill at any moment leaves no message that nobody answers and no flag that nobody counts."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from bot.adapters.room.chat import place_of, redacted, row_of
from bot.adapters.room.emoji import name_of
from bot.adapters.room.shown import MOSS, KeptCard
from bot.chat import Commanded, Flagged, Inbox, Pressed, Reacted, Said
from core.model.errors import BadInput, NotFound, Refused
from core.model.evidence import FailureKind
from core.model.value import Value, new_id
from core.store import room
from core.store.store import Store

TEXT_LIMIT = 4000
"""Characters of a message, and of a reason."""
EMOJI_LIMIT = 20
"""Different emoji of one person on one message."""

COMMAND = "/moss"
_OTHER_COMMAND = re.compile(r"/[a-z-]+(?:\s|$)")
_MENTION = re.compile(r"(?:^|\s)@(?:moss|agent)\b", re.IGNORECASE)


class Say(Value):
    channel: str = Field(max_length=200)
    thread: str | None = Field(default=None, max_length=20)
    text: str = Field(min_length=1, max_length=TEXT_LIMIT)
    key: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9_-]*$")


class Command(Value):
    channel: str = Field(max_length=200)
    thread: str | None = Field(default=None, max_length=20)
    words: str = Field(max_length=TEXT_LIMIT)
    key: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9_-]*$")


class Press(Value):
    verb: str = Field(max_length=64)
    subject: str = Field(max_length=200)
    reason: str = Field(default="", max_length=TEXT_LIMIT)


class Complaint(Value):
    failure: FailureKind = FailureKind.other
    reason: str = Field(default="", max_length=TEXT_LIMIT)


class Talk:
    def __init__(self, store: Store, inbox: Inbox, channels: Mapping[str, str]) -> None:
        self._store = store
        self._inbox = inbox
        self._channels = channels

    async def say(self, person: str, what: Say) -> tuple[str, bool]:
        """The id of the message, and whether it is new. What begins with `/moss` is a command, whoever sends it."""
        text = what.text.strip()
        if not text:
            raise BadInput("The message is empty; write something.")
        first, *words = text.split(maxsplit=1)
        if first == COMMAND:
            return await self.command(person, Command(**what.model_dump(exclude={"text"}), words=" ".join(words)))
        if _OTHER_COMMAND.match(what.text):
            raise BadInput(f"The only command here is {COMMAND}; begin with a space to say it as it is.")
        return await self._post(person, what.channel, what.thread, text, what.key)

    async def command(self, person: str, what: Command) -> tuple[str, bool]:
        """Only the person who gave it sees it, as they alone see what is answered."""
        words = what.words.strip()
        return await self._post(person, what.channel, what.thread, f"{COMMAND} {words}".strip(), what.key, words=words)

    async def _post(
        self, person: str, channel: str, thread: str | None, text: str, key: str, *, words: str | None = None
    ) -> tuple[str, bool]:
        self._check(channel)
        shown = await redacted(place_of(channel, None), text)
        async with self._store.writing() as db:
            now = self._store.now()  # alone by now, so times are in the order of what happens
            root = await room.beginning(db, channel, row_of(thread)) if thread else None
            id, new = await room.add(
                db,
                now,
                channel,
                person,
                shown,
                thread=root,
                only_for=None if words is None else person,
                key=f"room:{person}:{key}" if key else None,
            )
            if new:
                place = place_of(channel, root)
                event: Said | Commanded
                if words is None:
                    began = await room.get(db, root, None) if root else None
                    event = Said(
                        id=f"said:{id}",
                        place=place,
                        person=person,
                        at=now,
                        message=str(id),
                        text=text,
                        addressed=_addressed(began, text),
                    )
                else:
                    event = Commanded(id=f"said:{id}", place=place, person=person, at=now, words=words)
                await self._inbox.add(db, event)
        self._inbox.wake()
        return str(id), new

    async def react(self, person: str, message: str, emoji: str, added: bool) -> None:
        """Nothing happens when it is there, or gone, already."""
        name = name_of(emoji)
        async with self._store.writing() as db:
            now = self._store.now()
            post = await self._public(db, person, message)
            mine = [one for one in post.reactions if one.who == person]
            if added and len(mine) >= EMOJI_LIMIT:
                raise Refused(f"You have {EMOJI_LIMIT} emoji on this message already; take one back first.")
            change = room.react(db, now, post.id, person, name) if added else room.unreact(db, post.id, person, name)
            if await change:
                seq = (await room.get(db, post.id, person)).seq
                await self._inbox.add(
                    db,
                    Reacted(
                        id=f"reacted:{post.id}:{seq}",
                        place=place_of(post.channel, post.thread),
                        person=person,
                        at=now,
                        message=str(post.id),
                        emoji=name,
                        added=added,
                    ),
                )
        self._inbox.wake()

    async def complain(self, person: str, message: str, what: Complaint) -> None:
        """A flag with words."""
        async with self._store.writing() as db:
            now = self._store.now()
            post = await self._public(db, person, message)
            await self._inbox.add(
                db,
                Flagged(
                    id=new_id("flagged"),
                    place=place_of(post.channel, post.thread),
                    person=person,
                    at=now,
                    message=str(post.id),
                    failure=what.failure,
                    reason=what.reason.strip(),
                ),
            )
        self._inbox.wake()

    async def press(self, person: str, message: str, what: Press) -> None:
        """Only a button that the message carries at this moment can be pressed."""
        async with self._store.writing() as db:
            now = self._store.now()
            post = await room.get(db, row_of(message), person)
            actions = KeptCard.model_validate(post.card).actions if post.card is not None else ()
            action = next((one for one in actions if (one.verb, one.subject) == (what.verb, what.subject)), None)
            if action is None:
                raise NotFound("That button is not on the message, or not any more; look at it again.")
            if action.wants_reason and not what.reason.strip():
                raise BadInput(f"`{action.label}` needs a reason; say in a few words why.")
            await self._inbox.add(
                db,
                Pressed(
                    id=new_id("pressed"),
                    place=place_of(post.channel, post.thread),
                    person=person,
                    at=now,
                    message=str(post.id),
                    verb=action.verb,
                    subject=action.subject,
                    reason=what.reason.strip(),
                ),
            )
        self._inbox.wake()

    async def _public(self, db: Any, person: str, message: str) -> room.Post:
        post = await room.get(db, row_of(message), person)
        if post.only_for is not None:
            raise Refused("Only you see this message, so nobody else could see what you do with it.")
        return post

    def _check(self, channel: str) -> None:
        if channel not in self._channels:
            raise NotFound(f"The room has no channel {channel!r}; there is {', '.join(self._channels)}.")


def _addressed(began: room.Post | None, text: str) -> bool:
    """To the agent goes everything, except what people say to one another about a card."""
    return began is None or began.who != MOSS or bool(_MENTION.search(text))
