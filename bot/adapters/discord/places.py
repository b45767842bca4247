"""How Discord's channels, threads and direct messages become places, and places channels. Pure."""

from enum import StrEnum, auto

from bot.places import is_direct
from core.model.errors import BadInput
from core.model.transcript import Place

PLATFORM = "discord"
DIRECT = "@me"
"""The workspace of direct messages, as Discord's own addresses name it."""


class Kind(StrEnum):
    """What can stand in a channel."""

    threads = auto()
    """Messages, and threads that begin at them."""
    posts = auto()
    """Nothing but threads, as in a forum: each has the id of its first message, which stands in it."""
    flat = auto()
    """Nothing but messages, as in the chat of a voice channel."""


def place_of(guild: int | None, channel: int, parent: int | None) -> Place:
    """`parent` is the channel around a thread. A thread has the id of the message that began it.

    A direct message is one conversation without threads: its thread is the channel itself, so that what was said
    before is found again. So is the chat of a voice channel, which is its own parent."""
    if guild is None:
        return Place(platform=PLATFORM, workspace=DIRECT, channel=str(channel), thread=str(channel))
    if parent is None:
        return Place(platform=PLATFORM, workspace=str(guild), channel=str(channel))
    return Place(platform=PLATFORM, workspace=str(guild), channel=str(parent), thread=str(channel))


def channel_of(place: Place, message: str = "", kind: Kind = Kind.threads) -> int:
    """Where a place's messages are; the message that began a thread stands outside of it, and that of a forum's post
    in it."""
    if kind is Kind.flat:
        return number(place.channel)
    if kind is Kind.posts:
        return number(place.thread or message or place.channel)
    inside = place.thread and not is_direct(place) and message != place.thread
    return number(place.thread if inside else place.channel)


def person_of(user: int) -> str:
    """People have one id on all of Discord."""
    return f"{PLATFORM}:{user}"


def user_of(person: str) -> int:
    return number(person.removeprefix(f"{PLATFORM}:"))


def number(id: str) -> int:
    if not (id.isascii() and id.isdigit() and len(id) <= 20):
        raise BadInput(f"`{id[:40]}` is no id of Discord's; it has digits only.")
    return int(id)
