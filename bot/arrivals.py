"""What arrives while the store is busy is written down together, in one transaction, once it is its turn.

At 200 events a second each would otherwise wait for all others, and for all that is worked on meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from bot.chat import AnyEvent
from core.model.errors import MossError

TOGETHER = 200
"""How many events are written down in one transaction."""

Write = Callable[[Callable[[], Sequence[AnyEvent]]], Awaitable[list[bool]]]
"""Asks for the events when it is its turn, writes all of them down or none, and says of each whether it was new."""
Waiting = tuple[AnyEvent, "asyncio.Future[bool]"]


class Arrivals:
    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: deque[Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def take(self, event: AnyEvent) -> bool:
        """Returns once nothing can lose it any more."""
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, taken))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_down())
        return await taken

    async def end(self, within_s: float) -> None:
        """What arrived is written down, also when nobody waits for that any more."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=within_s)

    async def _write_down(self) -> None:
        while self._waiting:
            some: list[Waiting] = []
            if not await self._written(some, self._waiting):
                for one in some:  # one that cannot be kept takes no other with it
                    await self._written([], deque([one]))

    async def _written(self, some: list[Waiting], waiting: deque[Waiting]) -> bool:
        """Whether each of those that it took has its answer."""

        def arrived() -> list[AnyEvent]:
            some.extend(waiting.popleft() for _ in range(min(len(waiting), TOGETHER)))
            return [event for event, _ in some]

        try:
            fresh = await self._write(arrived)
        except Exception as problem:
            if not some:  # it was nobody's turn
                arrived()
            if len(some) > 1 and not isinstance(problem, MossError):
                return False
            for _, taken in some:
                if not taken.done():  # whoever waited may be gone
                    taken.set_exception(problem)
            return True
        for (_, taken), new in zip(some, fresh, strict=True):
            if not taken.done():
                taken.set_result(new)
        return True
