"""How long Moss waits for a chat: a platform that does not answer is one that is away."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

from bot.chat import Chat
from core.model.errors import Unavailable

CALL_S = 30.0
"""What a platform may take for one call."""

T = TypeVar("T")


class Away(Unavailable):
    """A platform that will be back: what is to be said there waits."""


async def in_time(chat: Chat, call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(CALL_S):
            return await call
    except TimeoutError:
        raise Away(f"{chat.platform} did not answer within {CALL_S:.0f} s; it is tried again.") from None
    except Unavailable as problem:
        raise Away(problem.sentence) from problem


async def rest(ending: asyncio.Event, seconds: float) -> None:
    """A pause before the next try, cut short when Moss ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ending.wait()
