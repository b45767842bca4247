"""What the room's pages and its HTTP interface share: what stands behind them, and who gets an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bot.adapters.room.door import Door, TooLarge
from bot.adapters.room.shown import Shown, shown
from bot.settings import Settings
from core.model.errors import BadInput, MossError
from core.model.evidence import FailureKind
from core.store.room import Post
from core.store.store import Store

log = structlog.get_logger(__name__)

BODY_LIMIT_BYTES = 64_000
BODY_S = 10.0
"""How long a request may take to arrive."""

Respond = Callable[[Request], Awaitable[Response]]
Endpoint = Callable[[Request, str], Awaitable[Response]]
"""Answers a request of a person who is in."""


@dataclass(frozen=True, slots=True)
class Inside:
    store: Store
    settings: Settings
    door: Door
    channels: Mapping[str, str]
    """Channel to substrate."""
    flags: Mapping[str, FailureKind]
    """The emoji that complain, and about what."""

    def show(self, post: Post) -> Shown:
        return shown(post, self.store.now(), self.flags)


def guarded(door: Door, endpoint: Endpoint, refuse: Callable[[Request, MossError], Response]) -> Respond:
    """Only for people who are in; whatever goes wrong becomes one sentence."""

    async def respond(request: Request) -> Response:
        try:
            door.check(request)
            return await endpoint(request, await door.who(request))
        except MossError as problem:
            return refuse(request, problem)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            log.exception("request failed", path=request.url.path)
            return refuse(request, MossError("This failed inside Moss; its log has the reason."))

    return respond


async def read(request: Request) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                content += piece
                if len(content) > BODY_LIMIT_BYTES:
                    raise TooLarge(f"The request is larger than {BODY_LIMIT_BYTES:,} bytes; write less.")
    except TimeoutError:
        raise BadInput(f"The request did not arrive within {BODY_S:.0f} s; send it again.") from None
    return bytes(content)
