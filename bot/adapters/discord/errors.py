"""What discord.py raises, as Moss's own errors: worth another try, or not."""

import contextlib
from collections.abc import Iterator

import aiohttp
import discord

from core.model.errors import Refused, Unavailable

UNKNOWN_CHANNEL = 10003
UNKNOWN_MESSAGE = 10008
THREAD_EXISTS = 160004
NO_DIRECT_MESSAGES = 50007
ARCHIVED = 50083
DEAD_TOKEN = 50027
"""Of an interaction: it came with 401, and no waiting mends it."""

_TIMES_OUT = frozenset({401, 408, 429})
"""What passes, or is mended while Moss runs: a token that was revoked, a limit."""


class Gone(Refused):
    """The message, channel or answer is not there any more."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """`what` says in a few words what Discord was asked for."""
    try:
        yield
    except discord.RateLimited as problem:
        raise Unavailable(f"Discord limits {what} for {problem.retry_after:.0f} s; it is tried again.") from None
    except discord.DiscordServerError as problem:
        raise Unavailable(f"Discord failed at {what} ({problem.status}); it is tried again.") from None
    except discord.NotFound as problem:
        raise Gone(f"Discord knows no such thing for {what} ({reason(problem)}); it may have been deleted.") from None
    except discord.HTTPException as problem:
        if problem.code == DEAD_TOKEN:
            raise Gone(f"Discord takes no more answers for {what} ({reason(problem)}).") from None
        if problem.status in _TIMES_OUT:
            raise Unavailable(f"Discord did not take {what} ({reason(problem)}); it is tried again.") from None
        raise Refused(f"Discord refused {what} ({reason(problem)}); docs/discord.md lists what Moss may do.") from None
    except (TimeoutError, aiohttp.ClientError, OSError) as problem:
        raise Unavailable(f"Discord cannot be reached for {what} ({type(problem).__name__}).") from None


def reason(problem: discord.HTTPException) -> str:
    """Of Discord's answer one short line: it may quote what was sent."""
    said = " ".join(problem.text.split())[:80]
    return f"{problem.code or problem.status}: {said}" if said else str(problem.code or problem.status)
