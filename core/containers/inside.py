"""What the inside of a box is told, the same on every host: its environment, and the gaps in its commands."""

import re

from core.containers.host import BoxSpec
from core.model.errors import BadInput

FLOOD_BYTES = 16_000_000
"""A command in a box may say this much more than is kept, so that a long log does not fail it; then it is killed."""
TOLD = ("PORT", "MOSS_STATE_DIR")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")


def environment(spec: BoxSpec, *, port: int | None, state: str, fixture: str | None = None) -> dict[str, str]:
    told = {"MOSS_STATE_DIR": state}
    told |= {"PORT": str(port)} if port else {}
    told |= {"MOSS_FIXTURE_DIR": fixture} if fixture else {}
    return {**spec.env, **told}


def filled(command: tuple[str, ...], *, port: int | None, state: str) -> tuple[str, ...]:
    """`{port}` and `{state}` stand for what only the host knows."""
    return tuple(word.replace("{port}", str(port or "")).replace("{state}", state) for word in command)


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"`{name}` cannot name a box; use letters, digits, `-`, `_` and `.`, at most 128 of them.")


def shown(said: bytes, limit_bytes: int) -> str:
    return said[:limit_bytes].decode(errors="replace")
