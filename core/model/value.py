"""The base of every value that crosses a border or a database column, and how ids are made."""

import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer

T = TypeVar("T")

_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # no 0/o, 1/l/i, u: ids are read aloud and typed


def _in_order(items: Iterable[Any]) -> list[Any]:
    return sorted(items)


Unordered = Annotated[frozenset[T], PlainSerializer(_in_order, when_used="json")]
"""A set whose text is always the same: Python's own order differs from process to process, and with it every digest."""


class Value(BaseModel):
    """Immutable, and strict about unknown fields: a typing mistake in a payload must not pass in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Compact JSON with sorted keys, so that equal values have equal text and equal hashes."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        return sha256(self.to_json().encode())


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short(digest: str) -> str:
    """A digest as people read it, and as the tags of images have it."""
    return digest.removeprefix("sha256:")[:12]


def new_id(noun: str) -> str:
    """`new_id("run")` -> `run-7k3f9q2m`."""
    return f"{noun}-" + "".join(secrets.choice(_ALPHABET) for _ in range(8))


def id_from(noun: str, key: str) -> str:
    """An id like any other, and always the same for this key: what is done again finds what it did the first time."""
    digest = hashlib.sha256(f"{noun}\0{key}".encode(errors="replace")).digest()
    return f"{noun}-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:8])
