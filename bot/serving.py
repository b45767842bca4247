"""The one way a web server runs inside Moss: on a socket that listens already, until told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import TypeVar

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

GRACE_S = 3
"""How long requests may take to their end once the server was told to stop."""
HEAD_S = 10.0
"""How long the head of a request may take to arrive."""

T = TypeVar("T")


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # bot/wiring.py owns the signals


class Impatient(H11Protocol):
    """uvicorn waits as long as it takes for the rest of a head that began to arrive."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._limit:
            self._limit.cancel()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE and self._limit:
            self._limit.cancel()
            self._limit = None
        elif self.conn.their_state is h11.IDLE and not self._limit:
            self._limit = self.loop.call_later(HEAD_S, self.transport.abort)


async def until(ending: asyncio.Event, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """What comes, until the end, whichever is first."""
    end = asyncio.create_task(ending.wait())
    try:
        while True:
            one = asyncio.create_task(_next(items))
            try:
                await asyncio.wait({one, end}, return_when=asyncio.FIRST_COMPLETED)
                if end.done():
                    return
                for item in one.result():
                    yield item
                if not one.result():
                    return
            finally:
                one.cancel()
                await asyncio.gather(one, return_exceptions=True)
    finally:
        end.cancel()


async def _next(items: AsyncIterator[T]) -> list[T]:
    """The next one; none after the last."""
    async for item in items:
        return [item]
    return []


class Serving:
    """`ending` is set when the server is told to stop. What answers without an end watches it, and then ends."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        ending: asyncio.Event,
        protocol: type[Impatient] = Impatient,
    ) -> None:
        self._listener = listener
        self._ending = ending
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # who asks is the other end of the connection, whatever a header claims
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = _Quiet(config)

    async def serve(self) -> None:
        """From here on requests are answered; the listener is closed at the end, however it comes."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._listener.close()

    def stop(self) -> None:
        self._ending.set()
        self._server.should_exit = True
