"""The room's HTTP interface, as docs/room.md describes it: JSON in, JSON out, and one stream of events."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.adapters.room.chat import row_of
from bot.adapters.room.door import TooOften, status_of
from bot.adapters.room.emoji import CHARACTERS, character_of
from bot.adapters.room.inside import Endpoint, Inside, guarded, read
from bot.adapters.room.shown import Shown
from bot.adapters.room.stream import Stream
from bot.adapters.room.talk import Command, Complaint, Press, Say, Talk
from core.model.errors import BadInput, MossError, NotFound
from core.model.mistakes import in_words
from core.model.value import Value
from core.store import room
from core.store.room import Post

PAGE = 50
LARGEST_PAGE = 100

V = TypeVar("V", bound=Value)


class Api:
    def __init__(self, inside: Inside, talk: Talk, stream: Stream, html: Callable[[Shown, str], str]) -> None:
        self._inside = inside
        self._talk = talk
        self._stream = stream
        self._html = html
        """A message as our own page shows it to a person."""

    def routes(self) -> list[Route]:
        def route(path: str, method: str, endpoint: Endpoint) -> Route:
            return Route(path, guarded(self._inside.door, endpoint, refusal), methods=[method])

        return [
            route("/api/me", "GET", self.me),
            route("/api/channels", "GET", self.channels),
            route("/api/emoji", "GET", self.emoji),
            route("/api/messages", "GET", self.messages),
            route("/api/messages", "POST", self.say),
            route("/api/messages/{id}", "GET", self.message),
            route("/api/messages/{id}/reactions/{emoji}", "PUT", self.react),
            route("/api/messages/{id}/reactions/{emoji}", "DELETE", self.unreact),
            route("/api/messages/{id}/flag", "POST", self.complain),
            route("/api/messages/{id}/press", "POST", self.press),
            route("/api/commands", "POST", self.command),
            route("/api/events", "GET", self.events),
            route("/pictures/{id}", "GET", self.picture),
        ]

    # Looking

    async def me(self, request: Request, person: str) -> Response:
        return JSONResponse({"name": person})

    async def channels(self, request: Request, person: str) -> Response:
        return JSONResponse([{"name": name, "substrate": to} for name, to in self._inside.channels.items()])

    async def emoji(self, request: Request, person: str) -> Response:
        known = [*self._inside.flags, *(name for name in CHARACTERS if name not in self._inside.flags)]
        return JSONResponse(
            [{"emoji": name, "character": character_of(name), "flags": self._inside.flags.get(name)} for name in known]
        )

    async def messages(self, request: Request, person: str) -> Response:
        asked = request.query_params
        channel = asked.get("channel", "")
        if channel not in self._inside.channels:
            raise NotFound(f"The room has no channel `{channel}`; /api/channels lists them.")
        thread, before = asked.get("thread"), _number(asked.get("before"), "before")
        limit = min(_number(asked.get("limit"), "limit") or PAGE, LARGEST_PAGE)
        async with self._inside.store.reading() as db:
            root = await room.beginning(db, channel, row_of(thread)) if thread else None
            found = await room.conversation(db, channel, root, person, limit=limit, before=before)
            head = await room.head(db)
        return JSONResponse({"messages": [self._json(post) for post in found], "seq": head})

    async def message(self, request: Request, person: str) -> Response:
        async with self._inside.store.reading() as db:
            post = await room.get(db, row_of(request.path_params["id"]), person)
        return JSONResponse(self._json(post))

    async def picture(self, request: Request, person: str) -> Response:
        async with self._inside.store.reading() as db:
            png = await room.picture(db, row_of(request.path_params["id"]), person)
        return Response(png, media_type="image/png")

    async def events(self, request: Request, person: str) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        last = request.headers.get("last-event-id") or request.query_params.get("since")
        with_html = "html" in request.query_params

        def data(post: Post) -> str:
            one = self._inside.show(post)
            more = {"html": self._html(one, person)} if with_html else {}
            return json.dumps(one.model_dump(mode="json") | more)

        self._inside.door.check_streams(person)
        lines = self._stream.events(person, self._inside.door.proof(request), _number(last, "since"), data)
        unbuffered = {"X-Accel-Buffering": "no"}  # a proxy in front passes each event on at once
        return StreamingResponse(lines, media_type="text/event-stream", headers=unbuffered)

    # Doing

    async def say(self, request: Request, person: str) -> Response:
        return _made(await self._talk.say(person, await body(request, Say)))

    async def command(self, request: Request, person: str) -> Response:
        return _made(await self._talk.command(person, await body(request, Command)))

    async def react(self, request: Request, person: str) -> Response:
        await self._talk.react(person, request.path_params["id"], request.path_params["emoji"], True)
        return Response(status_code=204)

    async def unreact(self, request: Request, person: str) -> Response:
        await self._talk.react(person, request.path_params["id"], request.path_params["emoji"], False)
        return Response(status_code=204)

    async def complain(self, request: Request, person: str) -> Response:
        await self._talk.complain(person, request.path_params["id"], await body(request, Complaint))
        return Response(status_code=202)

    async def press(self, request: Request, person: str) -> Response:
        await self._talk.press(person, request.path_params["id"], await body(request, Press))
        return Response(status_code=202)

    def _json(self, post: Post) -> dict[str, Any]:
        return self._inside.show(post).model_dump(mode="json")


def refusal(request: Request, problem: MossError) -> Response:
    headers = {"Retry-After": f"{problem.wait_s:.0f}"} if isinstance(problem, TooOften) else None
    return JSONResponse({"error": problem.sentence}, status_code=status_of(problem), headers=headers)


async def body(request: Request, kind: type[V]) -> V:
    """Everything that comes in is checked here."""
    try:
        return kind.model_validate_json(await read(request))
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"`{where}` {in_words(first)}." if where else f"The request {in_words(first)}.") from None


def _number(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadInput(f"`{name}` should be a whole number.")
    return int(text)


def _made(posted: tuple[str, bool]) -> Response:
    id, new = posted
    return JSONResponse({"id": id}, status_code=201 if new else 200)
