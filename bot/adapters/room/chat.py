"""The room as one of Moss's chats: what Moss and the agent say is written into the room's own tables."""

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import quote

from bot.adapters.room.shown import AGENT, ANSWERING, MOSS, Speaker, kept, speaker
from bot.chat import Card
from bot.places import ROOM
from bot.settings import Settings
from core.model.errors import MossError, NotFound, Refused
from core.model.transcript import Message, Place
from core.redact import Redactor
from core.store import room
from core.store.store import Store

WORKSPACE = "room"
"""There is one."""


def channels(settings: Settings) -> Mapping[str, str]:
    """Channel to substrate: one named like each substrate, and those of [room]."""
    return {each.name: each.name for each in settings.substrate} | settings.room.channels


def place_of(channel: str, thread: int | None) -> Place:
    return Place(platform=ROOM, workspace=WORKSPACE, channel=channel, thread="" if thread is None else str(thread))


async def redacted(place: Place, text: str) -> str:
    """What the room keeps of words: it is a table of Moss's own, and nothing is written down there unredacted."""
    return await asyncio.to_thread(Redactor(str(place.conversation)).text, text)


def row_of(id: str) -> int:
    """The number of the row behind a message's id."""
    if not (id.isascii() and id.isdigit() and len(id) < 10):
        raise NotFound("The room has no such message.")
    return int(id)


class RoomChat:
    platform = ROOM

    def __init__(self, store: Store, channels: Mapping[str, str]) -> None:
        self._store = store
        self._channels = channels
        self.url = ""
        """Known once the room listens."""

    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        return await self._add(place, AGENT + as_agent if as_agent else MOSS, what, key)

    async def whisper(self, place: Place, person: str, what: Card | str, answer_to: str, key: str) -> None:
        await self._add(place, MOSS, what, key, only_for=person)

    async def _add(self, place: Place, who: str, what: Card | str, key: str, only_for: str | None = None) -> str:
        if place.channel not in self._channels:
            raise Refused(f"The room has no channel {place.channel}; add it to `channels` in [room].")
        card = what if isinstance(what, Card) else None
        text = card.text if card else await redacted(place, str(what))
        async with self._store.writing() as db:
            with _refusing():
                thread = await room.beginning(db, place.channel, row_of(place.thread)) if place.thread else None
            id, _ = await room.add(
                db,
                self._store.now(),
                place.channel,
                who,
                text,
                thread=thread,
                only_for=only_for,
                card=kept(card).model_dump(mode="json") if card else None,
                picture=card.picture.png if card and card.picture else None,
                key=key,
            )
        return str(id)

    def parts(self, text: str) -> list[str]:
        return [text]

    async def edit(self, place: Place, message: str, card: Card) -> None:
        picture = card.picture.png if card.picture else None
        kept_card = kept(card).model_dump(mode="json")
        async with self._store.writing() as db:
            with _refusing():
                await room.edit(db, self._store.now(), row_of(message), card.text, card=kept_card, picture=picture)

    async def working(self, place: Place, message: str, on: bool) -> None:
        with contextlib.suppress(MossError):
            async with self._store.writing() as db:
                post = await room.get(db, row_of(message), None)
                if on:
                    await room.react(db, self._store.now(), post.id, MOSS, ANSWERING)
                else:
                    await room.unreact(db, post.id, MOSS, ANSWERING)

    async def history(self, place: Place, limit: int) -> list[Message]:
        """What people and the agent said; what Moss says is no part of their conversation."""
        async with self._store.reading() as db:
            thread = row_of(place.thread) if place.thread else None
            posts = await room.conversation(db, place.channel, thread, None, limit=limit)
        said = []
        for post in posts:
            match speaker(post.who):
                case Speaker(kind="person", name=name):
                    said.append(Message(role="user", content=post.text, id=str(post.id), who=name, at=post.at))
                case Speaker(kind="agent"):
                    said.append(Message(role="assistant", content=post.text, id=str(post.id), at=post.at))
        return said

    async def link(self, place: Place, message: str) -> str:
        where = f"{quote(place.channel, safe='')}/{place.thread}".rstrip("/")
        return f"{self.url}/c/{where}#m-{message}" if self.url else ""

    async def groups_of(self, person: str, among: Collection[str]) -> frozenset[str]:
        """The room has none."""
        return frozenset()


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What is gone is refused: another try brings it back as little."""
    try:
        yield
    except NotFound as problem:
        raise Refused(problem.sentence) from None
