"""A reply of the agent that takes several messages is one turn, known by the first of them."""

from typing import Any

from core.model.transcript import Place
from core.store import posts

REPLY = "reply:"
"""How the keys of replies begin."""
_PART = ":part:"


def key_of(name: str, n: int) -> str:
    """The key of the n-th message of a reply, from 0 on."""
    return f"{name}{_PART}{n + 1}" if n else name


async def first_of(db: Any, place: Place, message: str) -> str:
    """The message by which the turn is known that this one shows a part of."""
    post = await posts.of_message(db, place, message)
    if post is None or not post.key.startswith(REPLY) or _PART not in post.key:
        return message
    first = await posts.of_key(db, post.key.rpartition(_PART)[0])
    return first.message if first else message


async def parts_of(db: Any, place: Place, first: str) -> list[str]:
    """All messages of the turn that is known by this one, in order."""
    post, parts = await posts.of_message(db, place, first), [first]
    while post and post.key.startswith(REPLY) and (part := await posts.of_key(db, key_of(post.key, len(parts)))):
        parts.append(part.message)
    return parts
