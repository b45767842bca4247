"""Who may use which verb in a chat. Who may approve is no question of these: `core/consent.py` alone says so."""

from collections.abc import Collection, Mapping
from typing import assert_never

import structlog

from bot.chat import Chat, Event
from bot.patience import in_time
from bot.sections import Who
from bot.settings import Settings
from core.model.errors import MossError

log = structlog.get_logger(__name__)

_LOOKS = ("status", "batches", "batch", "history", "run")


async def refusal(settings: Settings, chats: Mapping[str, Chat], verb: str, event: Event) -> str | None:
    """None when whoever did this may use the verb, else the sentence that says who may. Groups and roles are looked up
    where it happened, and only for whoever is not named. Whoever cannot be looked up is in none."""
    refused = allowed(settings, verb, settings.person(event.person))
    platform = event.place.platform
    groups = {name for name in settings.permits.maintainers if name.startswith(f"{platform}:")}
    if refused is None or not groups or _who(settings, verb) is not Who.maintainers or platform not in chats:
        return refused
    chat = chats[platform]
    try:
        return None if await in_time(chat, chat.groups_of(event.person, groups)) else refused
    except MossError as problem:
        log.warning("nobody knows who is in a group", platform=platform, reason=problem.sentence)
        return f"{refused.rstrip('.')}; who is in a group of {platform} cannot be seen at the moment."


def allowed(settings: Settings, verb: str, person: str) -> str | None:
    """The same for a person by name, without groups. Pure. A verb without a permit fails closed."""
    maintainers, approvers = settings.permits.maintainers, settings.consent.approvers
    match _who(settings, verb):
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
        return f"Nobody may use `{verb}`, since nobody is named; name approvers in [consent] of moss.toml."
    return f"You may not use `{verb}`; ask {_names(may)}."


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
        "catch-up": permits.catch_up,
        "rollback": permits.rollback,
        "digest": permits.digest,
        "flag": permits.flag,
        "talk": permits.talk,
    }.get(verb, Who.approvers)


def _names(people: Collection[str]) -> str:
    listed = sorted(people)
    return ", ".join(listed[:5]) + (f" or one of {len(listed) - 5} more" if len(listed) > 5 else "")
