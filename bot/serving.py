"""The one way a web server runs inside Moss: on a socket that listens already, until told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

GRACE_S = 3
"""How long requests may take to their end once the server was told to stop."""


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # bot/wiring.py owns the signals


class Serving:
    """`ending` is set when the server is told to stop. What answers without an end watches it, and then ends."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        ending: asyncio.Event,
        protocol: type[asyncio.Protocol] = H11Protocol,
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
