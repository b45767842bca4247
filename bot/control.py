"""The control socket: HTTP over a unix socket that only the owner can open. The server half and the client half.

Owning the socket is enough to look, to start and to stop. To approve takes a person's token as well, because a coder
on this machine may run as the same user.
"""

import asyncio
import contextlib
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.serving import Impatient, Serving, until
from bot.settings import SOCKET_PATH_LIMIT
from core.model import errors
from core.model.errors import BadInput, MossError, Refused, Unavailable

log = structlog.get_logger()

BODY_LIMIT_BYTES = 64_000_000
KEEPALIVE_S = 10.0

Answer = Callable[[dict[str, Any], str, str | None], Awaitable[Any]]
"""(payload, who asks such as `cli:anna`, token or None) -> something JSON can hold."""
Facts = Callable[[str | None, int | None], AsyncIterator[dict[str, Any] | None]]
"""(substrate, since) -> facts as they are appended; None now and then when nothing happens. Raises before the first."""


def check_length(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_LIMIT:
        raise BadInput(
            f"The control socket's path {path} is {size} bytes long and the system takes {SOCKET_PATH_LIMIT}; "
            "choose a shorter `data` in [moss]."
        )


class _WithPeer(Impatient):
    """The kernel says who is at the other end of the socket; the request does not get to claim it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self.client = (user_name(uid), uid)
        if uid not in (0, os.getuid()):
            transport.abort()


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Server:
    """Serves until told to stop. The caller holds the lock of the data directory, so a socket found here is stale."""

    def __init__(self, path: Path, answers: dict[str, Answer], facts: Facts) -> None:
        check_length(path)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        routes = [Route(f"/{name}", _route(name, answer), methods=["POST"]) for name, answer in answers.items()]
        ending = asyncio.Event()
        routes.append(Route("/facts", _stream(facts, ending), methods=["GET"]))
        self._serving = Serving(Starlette(routes=routes), self._listener, ending, _WithPeer)

    def listen(self) -> None:
        """From here on requests wait, and `serve` answers them."""
        self._path.unlink(missing_ok=True)
        # The mode counts from the moment of bind; uvicorn's own unix socket would be open to everybody.
        before = os.umask(0o177)
        try:
            self._listener.bind(str(self._path))
            self._listener.listen()
        except OSError as problem:
            raise BadInput(
                f"No socket can be made at {self._path}: {problem.strerror}; name a `data` in [moss] on a local disk."
            ) from None
        finally:
            os.umask(before)

    async def serve(self) -> None:
        try:
            await self._serving.serve()
        finally:
            self._path.unlink(missing_ok=True)

    def stop(self) -> None:
        self._serving.stop()


def _route(name: str, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        who = f"cli:{request.client.host if request.client else 'unknown'}"
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            payload = await _payload(request)
            return JSONResponse(await answer(payload, who, token if scheme == "Bearer" and token else None))
        except MossError as problem:
            log.info("refused", verb=name, who=who, reason=problem.sentence)
            return _refusal(problem)
        except Exception:
            log.exception("verb failed", verb=name, who=who)
            sentence = f"`{name}` failed inside Moss; its log has the reason."
            return JSONResponse({"error": sentence, "kind": "MossError"}, status_code=500)

    return respond


def _refusal(problem: MossError) -> Response:
    return JSONResponse({"error": problem.sentence, "kind": type(problem).__name__}, status_code=400)


async def _payload(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT_BYTES:
            raise BadInput(f"The request is larger than {BODY_LIMIT_BYTES // 1_000_000} MB; send it in parts.")
    try:
        payload = json.loads(body or b"{}")
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise BadInput("The request is not a JSON object; send one.")
    return payload


def _stream(facts: Facts, ending: asyncio.Event) -> Callable[[Request], Awaitable[Response]]:
    async def lines(found: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[str]:
        async for fact in until(ending, found):
            yield f"data: {json.dumps(fact)}\n\n" if fact else ": nothing new\n\n"

    async def respond(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        since = request.query_params.get("since")
        if since is not None and not since.isdigit():
            return _refusal(BadInput("`since` is not a number."))
        try:
            found = facts(request.query_params.get("substrate"), int(since) if since is not None else None)
        except MossError as problem:
            return _refusal(problem)
        return StreamingResponse(lines(found), media_type="text/event-stream")

    return respond


class Client:
    """The CLI's half."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(
        self, verb: str, payload: dict[str, Any] | None = None, *, token: str | None = None, timeout_s: float = 30
    ) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._open(timeout_s) as http:
            return _checked(await http.post(f"/{verb}", json=payload or {}, headers=headers))

    async def facts(self, substrate: str, since: int) -> AsyncGenerator[dict[str, Any], None]:
        async with (
            self._open(3 * KEEPALIVE_S) as http,
            http.stream("GET", "/facts", params={"substrate": substrate, "since": since}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                await response.aread()
                _checked(response)
            async for text in response.aiter_lines():
                if text.startswith("data: "):
                    yield json.loads(text.removeprefix("data: "))

    @contextlib.asynccontextmanager
    async def _open(self, timeout_s: float) -> AsyncIterator[httpx.AsyncClient]:
        check_length(self._path)
        data = self._path.parent
        try:
            if not stat.S_ISSOCK(self._path.stat().st_mode):
                raise FileNotFoundError
            transport = httpx.AsyncHTTPTransport(uds=str(self._path), verify=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://moss", timeout=timeout_s) as http:
                yield http
        except (FileNotFoundError, httpx.ConnectError):
            raise Unavailable(f"No Moss is running on {data}; start it with `moss run`.") from None
        except PermissionError:
            raise Refused(f"{self._path} belongs to another user; run this as the user that runs Moss.") from None
        except httpx.TimeoutException:
            raise Unavailable(
                f"The Moss that runs on {data} did not answer within {timeout_s:.0f} s; its log says what it is doing."
            ) from None
        except httpx.TransportError:
            raise Unavailable(f"The Moss that ran on {data} went away; start it again with `moss run`.") from None


def _checked(response: httpx.Response) -> Any:
    try:
        answer = response.json()
    except ValueError:
        raise Unavailable(
            f"What answers on the control socket is not Moss ({response.status_code}); end it, and start `moss run`."
        ) from None
    if response.is_success:
        return answer
    kind = getattr(errors, str(answer.get("kind")), MossError)
    known = isinstance(kind, type) and issubclass(kind, MossError)
    raise (kind if known else MossError)(str(answer.get("error", "It did not work, and Moss gave no reason.")))
