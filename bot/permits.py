"""Who may use which verb in a chat, and look at what. Who may approve is no question of these: `core/consent.py` alone
says so."""

from collections.abc import Collection, Mapping
from typing import assert_never

import structlog

from bot.chat import Chat, Event
from bot.patience import in_time
from bot.places import ROOM
from bot.sections import Who
from bot.settings import Settings
from core.consent import known_as
from core.model.errors import MossError
from core.model.transcript import Place

log = structlog.get_logger(__name__)

_LOOKS = ("status", "batches", "batch", "history", "run")
ELSEWHERE = "look at what belongs to another conversation"


async def refusal(settings: Settings, chats: Mapping[str, Chat], verb: str, event: Event) -> str | None:
    """None when whoever did this may use the verb, else the sentence that says who may. Groups and roles are looked up
    where it happened, and only for whoever is not named. Whoever cannot be looked up is in none."""
    return await _refusal(settings, chats, _who(settings, verb), f"use `{verb}`", event)


async def refusal_elsewhere(settings: Settings, chats: Mapping[str, Chat], event: Event) -> str | None:
    """The same for what belongs to another conversation: its evidence and its runs are for maintainers and approvers,
    whoever may look at those of the own one."""
    return await _refusal(settings, chats, Who.maintainers, ELSEWHERE, event)


async def sight(settings: Settings, chats: Mapping[str, Chat], event: Event) -> Place | None:
    """To what the evidence and the runs are to be narrowed that are listed for whoever did this; None: to nothing."""
    return own(event.place) if await refusal_elsewhere(settings, chats, event) else None


def own(place: Place) -> Place:
    """What whoever is in a place has read as well: the conversation, or all of the room, since its people are in every
    channel of it. Pure."""
    return place.model_copy(update={"channel": "", "thread": ""}) if place.platform == ROOM else place.conversation


async def _refusal(settings: Settings, chats: Mapping[str, Chat], who: Who, what: str, event: Event) -> str | None:
    refused = _allowed(settings, who, what, settings.person(event.person))
    platform = event.place.platform
    groups = {name for name in settings.permits.maintainers if name.startswith(f"{platform}:")}
    if refused is None or not groups or who is not Who.maintainers or platform not in chats:
        return refused
    chat = chats[platform]
    try:
        return None if await in_time(chat, chat.groups_of(event.person, groups)) else refused
    except MossError as problem:
        log.warning("nobody knows who is in a group", platform=platform, reason=problem.sentence)
        return f"{refused.rstrip('.')}; who is in a group of {platform} cannot be seen at the moment."


def allowed(settings: Settings, verb: str, person: str) -> str | None:
    """The same for a person by name, without groups. Pure. A verb without a permit fails closed."""
    return _allowed(settings, _who(settings, verb), f"use `{verb}`", person)


def allowed_elsewhere(settings: Settings, person: str) -> str | None:
    """As `refusal_elsewhere`, for a person by name, without groups. Pure."""
    return _allowed(settings, Who.maintainers, ELSEWHERE, person)


def _allowed(settings: Settings, who: Who, what: str, person: str) -> str | None:
    maintainers, approvers = settings.permits.maintainers, settings.consent.approvers
    match who:
        case Who.anyone:
            return None
        case Who.maintainers:
            may = maintainers | approvers
        case Who.approvers:
            may = approvers
        case unknown:
            assert_never(unknown)
    if person in may:
        return None
    if not may:
        return f"Nobody may {what}, since nobody is named; name approvers in [consent] of moss.toml."
    return f"You may not {what}; ask {_names(may)}{known_as(person)}."


def _who(settings: Settings, verb: str) -> Who:
    permits = settings.permits
    if verb == "help":
        return Who.anyone
    if verb in _LOOKS:
        return permits.status
    return {
        "evolve": permits.evolve,
        "stop": permits.stop,
        "restart": permits.restart,
        "rollback": permits.rollback,
        "digest": permits.digest,
        "flag": permits.flag,
        "talk": permits.talk,
    }.get(verb, Who.approvers)


def _names(people: Collection[str]) -> str:
    listed = sorted(people)
    return ", ".join(listed[:5]) + (f" or one of {len(listed) - 5} more" if len(listed) > 5 else "")
