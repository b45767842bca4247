"""Places as settings and people name them, and which agent is talked to where."""

from collections.abc import Mapping

from bot.settings import Settings
from core.model.errors import BadInput
from core.model.substrate import Substrate
from core.model.transcript import Place
from core.model.value import id_from

ROOM = "room"


def substrate_of(settings: Settings, place: Place) -> Substrate:
    """The channel's own, or the only one there is."""
    name = _channels(settings, place.platform).get(place.channel)
    if name is not None:
        return settings.substrate_named(name)
    for substrate in settings.substrate:
        if substrate.name == place.channel or len(settings.substrate) == 1:
            return substrate
    names = ", ".join(substrate.name for substrate in settings.substrate)
    raise BadInput(f"It is not known which agent is talked to here; use a channel of one of {names}.")


def _channels(settings: Settings, platform: str) -> Mapping[str, str]:
    match platform:
        case "room":
            return settings.room.channels
        case "slack":
            return {channel: name for one in settings.slack for channel, name in one.channels.items()}
        case "discord":
            return settings.discord.channels if settings.discord else {}
        case _:
            return {}


def is_direct(place: Place) -> bool:
    """Whether it is a conversation of one person with Moss, where nobody else reads what stands there."""
    match place.platform:
        case "slack":
            return place.channel.startswith("D")
        case "discord":
            return place.workspace == "@me"
        case _:
            return False


def is_flat(place: Place) -> bool:
    """Whether it is a channel without threads, all of it one conversation, in which people talk to each other as well:
    such as the chat of a voice channel."""
    return place.platform == "discord" and place.thread == place.channel and not is_direct(place)


def alias(place: Place, person: str) -> str:
    """Another name for a person, the same in the whole conversation: transcripts are read elsewhere."""
    return id_from("person", f"{place.conversation}\0{person}")


def place_named(text: str) -> Place:
    """`platform/workspace/channel`, as [announce] and [digest] write it."""
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise BadInput(f"`{text}` names no place; write `platform/workspace/channel`, such as `room/room/desk`.")
    platform, workspace, channel = parts
    return Place(platform=platform, workspace=workspace, channel=channel)


def news_place(settings: Settings, substrate: str) -> Place:
    """Where news goes that belongs to no conversation Moss is in."""
    if settings.announce.place:
        return place_named(settings.announce.place)
    return Place(platform=ROOM, workspace=ROOM, channel=substrate)
