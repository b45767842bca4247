"""The stream of events: whatever changes in the room, to everybody who may see it, without anybody asking twice."""

import asyncio
from collections.abc import AsyncIterator, Callable

from bot.adapters.room.door import Door, NotIn, Proof
from core.model.errors import MossError
from core.store import room
from core.store.room import Post
from core.store.store import NO_SUBSTRATE, Store

LOOK_S = 5.0
"""How long a change that another process made, or the removal of a person, may stay unseen."""
ALIVE_S = 15.0
"""After so long in silence something is sent, so that both ends notice a dead connection."""
AT_ONCE = 100
RETRY_MS = 1000


class Stream:
    def __init__(self, store: Store, door: Door, ending: asyncio.Event) -> None:
        self._store = store
        self._door = door
        self._ending = ending

    async def events(
        self, person: str, proof: Proof, since: int | None, data: Callable[[Post], str]
    ) -> AsyncIterator[str]:
        """Each message that changed after the number `since`, as it is now; from here on when that is None."""
        self._door.open_stream(person)
        try:
            yield f"retry: {RETRY_MS}\n\n"
            async for event in self._follow(proof, since, data):
                yield event
        finally:
            self._door.close_stream(person)

    async def _follow(self, proof: Proof, since: int | None, data: Callable[[Post], str]) -> AsyncIterator[str]:
        changes, silent_s, unchecked_s = -1, 0.0, LOOK_S
        while not self._ending.is_set():
            # Counted before it is looked: what changes meanwhile ends the next wait at once.
            changes, waited_s = await self._change(changes)
            try:
                async with self._store.reading() as db:
                    head, unchecked_s = await room.head(db), unchecked_s + waited_s
                    if head == since and unchecked_s < LOOK_S:
                        fresh = []
                    else:
                        person, unchecked_s = await self._door.person(db, proof), 0.0
                        fresh = await room.since(db, head if since is None else since, person, AT_ONCE)
            except NotIn:
                yield "event: out\ndata: {}\n\n"
                return
            except MossError:
                return  # the database is away; whoever follows comes back and misses nothing
            if since is None or since > head:  # from now on; or the reader comes from another room
                yield f"id: {head}\nevent: {'here' if since is None else 'anew'}\ndata: {{}}\n\n"
                since = head
            for post in fresh:
                since = post.seq
                yield f"id: {since}\nevent: message\ndata: {data(post)}\n\n"
            if len(fresh) == AT_ONCE:
                changes = -1
            silent_s = 0.0 if fresh else silent_s + waited_s
            if silent_s >= ALIVE_S:
                silent_s = 0.0
                yield ": nothing new\n\n"

    async def _change(self, since: int) -> tuple[int, float]:
        """The number of the latest change, and for how long it was waited for: until a change, a while, or the end."""
        began = asyncio.get_running_loop().time()
        seen = await self._store.wait_for_change(since, LOOK_S, self._ending, of=NO_SUBSTRATE)
        return seen, asyncio.get_running_loop().time() - began
