"""What a Dockerfile says of the agent in its last stage: port, command, volume, health. Pure."""

import json
import re
from dataclasses import dataclass

_LOOKED_AT = 200_000
"""Characters. A longer one is looked at up to here."""
_URL = re.compile(r"https?://[^\s/'\"|;)]+(?P<path>/[^\s?#'\"|;)]*)?")


@dataclass(frozen=True, slots=True)
class Dockerfile:
    port: int | None = None
    command: tuple[str, ...] | None = None
    """Entrypoint and command together, as one would type them; a shell's form is given to a shell."""
    volume: str | None = None
    health: str | None = None
    """The path that its health check asks for."""


def read(text: str) -> Dockerfile:
    port, volume, health = None, None, None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    for word, rest in _instructions(text[:_LOOKED_AT]):
        match word:
            case "FROM":  # a new stage; only what the last one says counts
                port, volume, health, entrypoint, command = None, None, None, (), ()
            case "EXPOSE":
                port = port or _port(rest.split()[0] if rest.split() else "")
            case "ENTRYPOINT":
                entrypoint, command = _words(rest), ()
            case "CMD":
                command = _words(rest)
            case "VOLUME":
                paths = _list(rest) or rest.split()
                volume = volume or next((path for path in paths if path.startswith("/")), None)
            case "HEALTHCHECK":
                if url := _URL.search(rest):
                    health = url["path"] or "/"
    return Dockerfile(port, (*entrypoint, *command) or None, volume, health)


def _instructions(text: str) -> list[tuple[str, str]]:
    """Comments are left out and continued lines joined; here-documents are not known, and read as nonsense."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    split = (line.strip().split(None, 1) for line in joined.splitlines() if line.strip())
    return [(parts[0].upper(), parts[1] if len(parts) > 1 else "") for parts in split]


def _words(rest: str) -> tuple[str, ...]:
    listed = _list(rest)
    return tuple(listed) if listed is not None else ("sh", "-c", rest) if rest else ()


def _list(rest: str) -> list[str] | None:
    try:
        found = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(word, str) for word in found) else None


def _port(text: str) -> int | None:
    number, _, kind = text.partition("/")
    plain = number.isascii() and number.isdigit() and len(number) <= 5 and kind in ("", "tcp")
    return int(number) if plain and 0 < int(number) < 65536 else None
