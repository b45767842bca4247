"""What an adapter is about to say is noted before, and where it stands afterwards, so that a key is said once.

A note without a message's id was left by a try of which nobody knows how far it came: the platform has to be asked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from core.model.value import sha256
from core.store import marks
from core.store.store import Store

KEPT = timedelta(days=30)
"""Longer than anything is tried again."""
PREFIX = "sent:"


@dataclass(frozen=True, slots=True)
class Note:
    since: datetime | None
    """When it was tried first, and nobody knows what came of it; None when nobody has tried it."""
    message: str = ""
    """Where it stands, when it was said."""


class Sent:
    def __init__(self, store: Store, platform: str) -> None:
        self._store = store
        self._platform = platform

    async def begin(self, key: str) -> Note:
        async with self._store.writing() as db:
            found, now = await marks.get(db, self._name(key)), self._store.now()
            if found is None:
                await marks.put(db, now, self._name(key), {"message": "", "since": now.isoformat()})
                return Note(since=None)
        return Note(since=datetime.fromisoformat(found["since"]), message=found["message"])

    async def said(self, key: str, message: str) -> None:
        async with self._store.writing() as db:
            now = self._store.now()
            await marks.put(db, now, self._name(key), {"message": message, "since": now.isoformat()})

    async def unsaid(self, key: str) -> None:
        """The platform refused it, so that it surely stands nowhere."""
        async with self._store.writing() as db:
            await marks.forget(db, self._name(key))

    async def prune(self) -> None:
        async with self._store.writing() as db:
            await marks.forget(db, PREFIX + self._platform, self._store.now() - KEPT)

    def _name(self, key: str) -> str:
        return f"{PREFIX}{self._platform}:{sha256(key.encode())}"
