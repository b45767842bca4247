"""Waiting in a test for something that tells no event."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object | Awaitable[object]], within_s: float = 60.0) -> None:
    """Looked at often at first, and then at every tenth of the time it takes."""
    pause = 0.005
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, 0.1)
