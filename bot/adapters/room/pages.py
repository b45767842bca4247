"""The room's web pages: drawn here from templates that escape whatever they are given, readable without a script."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from bot.adapters.room.chat import row_of
from bot.adapters.room.door import NotIn, status_of
from bot.adapters.room.emoji import CHARACTERS, character_of
from bot.adapters.room.inside import Endpoint, Inside, Respond, guarded, read
from bot.adapters.room.records import Records
from bot.adapters.room.shown import Shown, ShownReaction, Speaker
from bot.words import count, harmless, moment
from core.model.errors import MossError, NotFound
from core.model.evidence import FailureKind
from core.store import room

FOLDER = Path(__file__).parent / "web"
STATIC = {
    "room.css": "text/css",
    "room.js": "text/javascript",
    "enter.js": "text/javascript",
    "moss.svg": "image/svg+xml",
}
PAGE = 50
REPLIES_SHOWN = 3
"""Under a message in its channel; the rest is on the thread's own page."""

_HEADINGS = {403: "Not allowed", 404: "Not here", 429: "Slower, please", 503: "Not now"}


class Pages:
    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            static=static,
            spans=spans,
            hue=hue,
            label=label,
            where=where,
            moment=moment,
            count=count,
            harmless=harmless,
            words_of=words_of,
            shown_replies=REPLIES_SHOWN,
        )
        self._message = self._templates.get_template("parts.html").module.message  # type: ignore[attr-defined]

    def routes(self) -> list[Route]:
        def page(path: str, endpoint: Endpoint) -> Route:
            return Route(path, guarded(self._inside.door, endpoint, self.refusal), methods=["GET"])

        return [
            Route("/static/{name}", static_file, methods=["GET"]),
            Route("/enter", self._open(self.enter), methods=["GET", "POST"]),
            Route("/leave", self._open(self.leave), methods=["POST"]),
            page("/", self.home),
            page("/c/{channel}", self.channel),
            page("/c/{channel}/{thread}", self.channel),
            *(page(path, endpoint) for path, endpoint in Records(self._inside, self.draw).pages().items()),
        ]

    def message(self, one: Shown, person: str) -> str:
        """As the stream brings it to a page that is open."""
        return str(self._message(one, person))

    def draw(self, name: str, request: Request, person: str, *, status: int = 200, **values: Any) -> Response:
        frame = {"me": person, "channels": list(self._inside.channels), "here": request.url.path}
        return HTMLResponse(self._templates.get_template(name).render(frame | values), status_code=status)

    def refusal(self, request: Request, problem: MossError) -> Response:
        if isinstance(problem, NotIn):
            return RedirectResponse(f"/enter?next={quote(request.url.path)}", status_code=303)
        status = status_of(problem)
        page = self._templates.get_template("problem.html")
        heading = _HEADINGS.get(status, "That did not work")
        return HTMLResponse(page.render(status=status, heading=heading, sentence=problem.sentence), status_code=status)

    # Coming and going

    def _open(self, endpoint: Respond) -> Respond:
        """For whoever is not in yet."""

        async def respond(request: Request) -> Response:
            try:
                self._inside.door.check(request)
                return await endpoint(request)
            except MossError as problem:
                return self.refusal(request, problem)

        return respond

    async def enter(self, request: Request) -> Response:
        page = self._templates.get_template("enter.html")
        if request.method == "GET":
            return HTMLResponse(page.render(next=_local(request.query_params.get("next")), problem=""))
        form = parse_qs((await read(request)).decode("utf-8", "replace"))
        goal = _local(form.get("next", [""])[0])
        try:
            _, secret = await self._inside.door.enter(request, form.get("token", [""])[0].strip())
        except MossError as problem:
            return HTMLResponse(page.render(next=goal, problem=problem.sentence), status_code=status_of(problem))
        response = RedirectResponse(goal, status_code=303)
        self._inside.door.keep(request, response, secret)
        return response

    async def leave(self, request: Request) -> Response:
        response = RedirectResponse("/enter", status_code=303)
        await self._inside.door.leave(request, response)
        return response

    # Conversations

    async def home(self, request: Request, person: str) -> Response:
        return RedirectResponse(f"/c/{quote(next(iter(self._inside.channels)), safe='')}", status_code=303)

    async def channel(self, request: Request, person: str) -> Response:
        channel, thread = request.path_params["channel"], request.path_params.get("thread")
        if channel not in self._inside.channels:
            raise NotFound(f"The room has no channel `{channel}`.")
        text = request.query_params.get("before")
        before = row_of(text) if text else None
        async with self._inside.store.reading() as db:
            root = await room.beginning(db, channel, row_of(thread)) if thread else None
            seq = await room.head(db)
            found = await room.conversation(db, channel, root, person, limit=PAGE + 1, before=before)
            posts = found[-PAGE:]
            replies = (
                await room.last_replies(db, channel, [post.id for post in posts], person, each=REPLIES_SHOWN)
                if root is None
                else {}
            )
        if root is not None and thread != str(root):
            return RedirectResponse(f"/c/{quote(channel, safe='')}/{root}", status_code=303)
        show = self._inside.show
        return self.draw(
            "room.html",
            request,
            person,
            here=channel,
            channel=channel,
            thread=thread,
            substrate=self._inside.channels[channel],
            seq=seq,
            roots=[(show(post), [show(reply) for reply in replies.get(post.id, ())]) for post in posts],
            older=posts[0].id if len(found) > PAGE else None,
            newer=before is not None,
            picker=self._picker(),
            kinds=list(FailureKind),
        )

    def _picker(self) -> list[ShownReaction]:
        """One emoji for each kind of complaint, and then those that say nothing of the kind."""
        flags = self._inside.flags
        first: dict[FailureKind, str] = {}
        for name, kind in flags.items():
            first.setdefault(kind, name)
        names = [
            *(name for name in flags if first[flags[name]] == name),
            *(name for name in CHARACTERS if name not in flags),
        ]
        return [
            ShownReaction(emoji=name, character=character_of(name), people=(), flags=flags.get(name)) for name in names
        ]


# What templates ask


def label(emoji: str, flags: FailureKind | None) -> str:
    """What an emoji is called by whoever does not see it."""
    return f"flag: {words_of(flags)}" if flags else emoji.replace("_", " ")


def words_of(kind: FailureKind) -> str:
    return "bad answer" if kind is FailureKind.other else kind.value.replace("_", " ")


def spans(text: str) -> Iterator[tuple[bool, str]]:
    """Pieces of one of Moss's sentences, and whether each stands between backticks."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # one of them has no partner
        yield False, text
        return
    for n, piece in enumerate(pieces):
        if piece:
            yield n % 2 == 1, piece


def hue(by: Speaker) -> int:
    """Tells people apart at a glance; Moss and agents have the house's colour."""
    return 1 + sum(by.name.encode()) % 4 if by.kind == "person" else 0


def where(one: Shown) -> str:
    """The page on which a message stands."""
    return f"/c/{quote(one.channel, safe='')}" + (f"/{one.thread}" if one.thread else "")


def _local(path: str | None) -> str:
    """Only a path of our own: a link must not lead from here to another site."""
    path = path or "/"
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    inside = not parts.scheme and not parts.netloc and path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if inside and path.isprintable() and "\\" not in path else "/"


# Files that are the same for everybody


@cache
def _files() -> Mapping[str, bytes]:
    return {name: (FOLDER / name).read_bytes() for name in STATIC}


@cache
def static(name: str) -> str:
    """Its address, which changes with its content, so that a browser may keep it."""
    return f"/static/{name}?v={hashlib.sha256(_files()[name]).hexdigest()[:12]}"


async def static_file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return Response(status_code=404)
    keep = "public, max-age=31536000, immutable" if "v" in request.query_params else "no-cache"
    return Response(_files()[name], media_type=STATIC[name], headers={"Cache-Control": keep})
