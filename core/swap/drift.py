"""What somebody changed of the live box by hand: what it was like when it was first seen, against what it is. Pure.

Nothing is put back: it may have been an emergency, and only the owner knows.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from core.containers.host import Portrait
from core.model.value import sha256

SECRET_CHARS = 16


class Looks(BaseModel):
    """Of a box, as it is kept. Of the values of its environment only digests: they may be secret."""

    plain: Mapping[str, str]
    env: Mapping[str, str]
    beyond: Sequence[str]


def looks_of(seen: Portrait) -> Looks:
    plain = {
        "command": " ".join(seen.command or ()) or "that of its image",
        "user": seen.user or "that of its image",
        "restart policy": seen.restart or "none",
        "limit of processes": str(seen.pids or "none"),
    }
    plain |= {f"volume at {volume.target}": volume.name for volume in seen.volumes}
    plain |= {f"port {inside}": f"published as {outside}" for inside, outside in seen.ports.items() if outside}
    env = {name: sha256(f"{seen.name} {name} {value}".encode())[-SECRET_CHARS:] for name, value in seen.env.items()}
    return Looks(plain=plain, env=env, beyond=sorted(seen.beyond))


def differences(was: Looks, now: Looks) -> list[str]:
    """Each in a few words, of which the box is the subject."""
    found = []
    for name in sorted({*was.plain, *now.plain}):
        before, after = was.plain.get(name), now.plain.get(name)
        if before is None:
            found.append(f"has the {name} (`{after}`)")
        elif after is None:
            found.append(f"lacks the {name} (`{before}`)")
        elif before != after:
            found.append(f"has the {name} `{after}` instead of `{before}`")
    for name in sorted({*was.env, *now.env}):
        if name not in was.env:
            found.append(f"has the variable {name}")
        elif name not in now.env:
            found.append(f"lacks the variable {name}")
        elif was.env[name] != now.env[name]:
            found.append(f"has another value in the variable {name}")
    found += [words for words in now.beyond if words not in was.beyond]
    return found + [f"no longer {words}" for words in was.beyond if words not in now.beyond]
