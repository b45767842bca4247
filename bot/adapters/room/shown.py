"""What the room shows of a post to one reader: pure functions from rows to the values of its HTTP interface."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from bot.adapters.room.emoji import character_of
from bot.chat import Action, Card, Line, Section, Tone
from bot.words import harmless
from core.model.evidence import FailureKind
from core.model.value import Value
from core.store.room import Post

MOSS = "moss"
AGENT = "agent:"
"""Stands before the name of a substrate where the room keeps who spoke."""
ANSWERING = "~answering"
"""A reaction of Moss on a person's message, shown as words. No person's emoji is written like this."""
ANSWERING_LASTS = timedelta(minutes=15)
"""A sign that is older was left behind by a process that died."""


class Speaker(Value):
    kind: Literal["person", "moss", "agent"]
    name: str = Field(description="Of the person, or of the substrate; `Moss` for Moss itself.")


class ShownPicture(Value):
    url: str
    alt: str


class ShownCard(Value):
    """A card as it crosses HTTP: its picture is fetched on its own."""

    title: str
    tone: Tone
    lines: tuple[Line, ...]
    body: tuple[Section, ...]
    picture: ShownPicture | None
    actions: tuple[Action, ...]
    link: str


class ShownReaction(Value):
    emoji: str
    character: str
    people: tuple[str, ...]
    flags: FailureKind | None = Field(description="What it complains about; null when it is no flag.")


class Shown(Value):
    """One message."""

    id: str
    seq: int
    channel: str
    thread: str | None
    by: Speaker
    at: datetime
    edited_at: datetime | None
    private: bool
    text: str
    card: ShownCard | None
    reactions: tuple[ShownReaction, ...]
    replies: int
    answering: bool


class KeptCard(Value):
    """A card as the room's table keeps it: the picture's bytes have a column of their own."""

    title: str
    tone: Tone
    lines: tuple[Line, ...]
    body: tuple[Section, ...]
    alt: str | None
    actions: tuple[Action, ...]
    link: str


def kept(card: Card) -> KeptCard:
    parts = {name: getattr(card, name) for name in KeptCard.model_fields if name != "alt"}
    return KeptCard(**parts, alt=card.picture.alt if card.picture else None)


def shown(post: Post, now: datetime, flags: Mapping[str, FailureKind]) -> Shown:
    """`flags` says which emoji complain, and about what."""
    signs = [one for one in post.reactions if one.emoji == ANSWERING]
    return Shown(
        id=str(post.id),
        seq=post.seq,
        channel=post.channel,
        thread=str(post.thread) if post.thread is not None else None,
        by=speaker(post.who),
        at=post.at,
        edited_at=post.edited_at,
        private=post.only_for is not None,
        text=harmless(post.text),
        card=_card(post) if post.card is not None else None,
        reactions=_reactions(post, flags),
        replies=post.replies,
        answering=any(now - sign.at < ANSWERING_LASTS for sign in signs),
    )


def speaker(who: str) -> Speaker:
    if who == MOSS:
        return Speaker(kind="moss", name="Moss")
    if who.startswith(AGENT):
        return Speaker(kind="agent", name=harmless(who.removeprefix(AGENT)))
    return Speaker(kind="person", name=harmless(who))


def is_reserved(name: str) -> bool:
    """Nobody may be called what would make them look like Moss or like an agent."""
    return name.strip().lower() == MOSS or name.startswith(AGENT)


def _reactions(post: Post, flags: Mapping[str, FailureKind]) -> tuple[ShownReaction, ...]:
    people: dict[str, list[str]] = {}
    for one in post.reactions:
        if one.emoji != ANSWERING:
            people.setdefault(one.emoji, []).append(harmless(one.who))
    return tuple(
        ShownReaction(emoji=emoji, character=character_of(emoji), people=tuple(who), flags=flags.get(emoji))
        for emoji, who in people.items()
    )


def _card(post: Post) -> ShownCard:
    card = KeptCard.model_validate(post.card)
    picture = None
    if post.has_picture:
        picture = ShownPicture(url=f"/pictures/{post.id}?seq={post.seq}", alt=harmless(card.alt or ""))
    return shown_card(card, picture)


def shown_card(card: KeptCard, picture: ShownPicture | None) -> ShownCard:
    return ShownCard(
        title=harmless(card.title),
        tone=card.tone,
        lines=tuple(Line(name=harmless(line.name), text=harmless(line.text)) for line in card.lines),
        body=tuple(
            Section(heading=harmless(part.heading), text=harmless(part.text), look=part.look) for part in card.body
        ),
        picture=picture,
        actions=tuple(each.model_copy(update={"label": harmless(each.label)}) for each in card.actions),
        link=card.link if card.link.startswith(("/", "http://", "https://")) else "",
    )
