"""The room: a chat of Moss's own, with an HTTP interface and a web page. It listens, serves and ends here."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.status import HTTP_404_NOT_FOUND
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.adapters.room.api import Api, refusal
from bot.adapters.room.chat import RoomChat, channels
from bot.adapters.room.door import LOOPBACK, Door
from bot.adapters.room.inside import Inside
from bot.adapters.room.pages import Pages
from bot.adapters.room.stream import Stream
from bot.adapters.room.talk import Talk
from bot.chat import Health, Inbox
from bot.places import ROOM
from bot.serving import Serving
from bot.settings import Settings
from core.model.errors import BadInput, NotFound
from core.store.store import Store
from flags.emoji import meanings

log = structlog.get_logger(__name__)

HEADERS = {
    # Scripts and styles are files of ours; a message that brings its own finds that the browser runs none.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Room:
    def __init__(
        self, store: Store, settings: Settings, inbox: Inbox, everywhere: Callable[[], Sequence[Health]] = tuple
    ) -> None:
        """`everywhere` says how all of Moss's connections are: `/healthz` tells it."""
        self._store = store
        self._settings = settings
        self._inbox = inbox
        self._everywhere = everywhere
        self._channels = channels(settings)
        self._file = settings.data / "room.json"
        self.chat = RoomChat(store, self._channels)
        """How Moss speaks in it."""
        self._listener: socket.socket | None = None
        self._serving: Serving | None = None

    @property
    def url(self) -> str:
        """Empty until it listens."""
        return self.chat.url

    @property
    def health(self) -> tuple[Health, ...]:
        return (Health(platform=self.chat.platform, workspace=ROOM, connected=bool(self.url)),)

    def page(self, run: str) -> str:
        """Where a run can be read whole."""
        return f"{self.url}/runs/{run}" if self.url else ""

    def listen(self) -> None:
        """From here on requests wait, and `serve` answers them."""
        host, wanted = self._settings.room.host, self._settings.room.port
        self._listener = _bound(host, wanted)
        port = self._listener.getsockname()[1]
        near = host if host not in ("0.0.0.0", "::", "") else "127.0.0.1"
        self.chat.url = f"http://{f'[{near}]' if ':' in near else near}:{port}"
        if host not in LOOPBACK:
            log.warning("the room is open to the network, without encryption", host=host, port=port)
        door = Door(self._store, host, port, self._settings.room.names)
        ending = asyncio.Event()
        self._serving = Serving(self._app(door, ending), self._listener, ending)
        _write(self._file, {"url": self.url})

    def _app(self, door: Door, ending: asyncio.Event) -> ASGIApp:
        inside = Inside(self._store, self._settings, door, self._channels, meanings(self._settings.flags.emoji))
        pages = Pages(inside)
        talk = Talk(self._store, self._inbox, self._channels)
        api = Api(inside, talk, Stream(self._store, door, ending), pages.message)

        async def no_such_page(request: Request, problem: Exception) -> Response:
            """No route, or not with this method."""
            assert isinstance(problem, HTTPException)
            missing = problem.status_code == HTTP_404_NOT_FOUND
            sentence = "There is nothing at this address." if missing else f"{request.method} is not possible here."
            refuse = refusal if request.url.path.startswith("/api/") else pages.refusal
            response = refuse(request, NotFound(sentence))
            response.status_code = problem.status_code
            return response

        async def healthz(request: Request) -> Response:
            return JSONResponse({"chats": [_in_public(each, self._store.now()) for each in self._everywhere()]})

        routes = [Route("/healthz", healthz, methods=["GET"]), *api.routes(), *pages.routes()]
        app = Starlette(routes=routes, exception_handlers={HTTPException: no_such_page})
        return _with_headers(app)

    async def serve(self) -> None:
        assert self._serving is not None, "it listens first"
        try:
            await self._serving.serve()
        finally:
            self._file.unlink(missing_ok=True)

    async def close(self) -> None:
        """Nothing is kept open once it is left."""

    def stop(self) -> None:
        """Streams end, requests under way are answered, and nothing new is taken."""
        if self._serving is not None:
            self._serving.stop()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family[0], socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait a minute
            listener.bind(family[4])
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except OSError as problem:
        raise BadInput(
            f"The room cannot listen on {host}:{port} ({problem.strerror or problem}); choose another `port` in [room],"
            " or 0 for any that is free."
        ) from None
    listener.setblocking(False)
    return listener


def _write(file: Path, content: dict[str, str]) -> None:
    """Whole or not at all, for whoever waits for it."""
    fresh = file.with_name(f"{file.name}-{os.getpid()}")
    fresh.write_text(json.dumps(content) + "\n", encoding="utf-8")
    fresh.replace(file)


def _with_headers(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, with_headers)

    return answer


def _in_public(health: Health, now: datetime) -> dict[str, Any]:
    """Whoever asks need not be anybody: no workspace is named."""
    age_s = (now - health.last_event_at).total_seconds() if health.last_event_at else None
    return {
        "platform": health.platform,
        "connected": health.connected,
        "reconnects": health.reconnects,
        "last_event_age_s": None if age_s is None else round(age_s, 1),
    }
