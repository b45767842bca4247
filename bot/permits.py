"""Who may use which verb in a chat. Pure. Who may approve is no question of these: `core/consent.py` alone says so."""

from collections.abc import Collection
from typing import assert_never

from bot.sections import Who
from bot.settings import Settings

_LOOKS = ("status", "batches", "batch", "history", "run")


def allowed(settings: Settings, verb: str, person: str) -> str | None:
    """None when this person may, else the sentence that says who may. A verb without a permit fails closed."""
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
