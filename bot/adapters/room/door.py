"""Who may come in: names that lead here, requests of our own pages, tokens and sessions, and how often."""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from bot.adapters.room.shown import is_reserved
from core.model.errors import BadInput, Busy, IllegalMove, MossError, NotFound, Refused, Unavailable
from core.store import people, room
from core.store.store import Store

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
"""Addresses that mean all of this machine's own."""
SAFE_METHODS = frozenset({"GET", "HEAD"})

BURST = 60
"""So many requests that change something may come at once from one person; then they come at the rate below."""
PER_S = 2.0
READ_BURST = 300
READS_PER_S = 10.0
"""The same for looking: a page with its pictures is some twenty requests."""
TRIES = 10
TRIES_PER_S = 0.2
"""The same for attempts to enter from one address."""
REMEMBERED = 10_000
"""Of how many people, or addresses, it is known how much they did."""
STREAMS = 8
"""Pages that one person may have open."""


class NotIn(Refused):
    """Nobody knows who asks."""


class WrongName(Refused):
    """The request came under a name that is not ours."""


class TooOften(Refused):
    def __init__(self, sentence: str, wait_s: float) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s


class TooLarge(BadInput):
    pass


_STATUS: Mapping[type[MossError], int] = {
    NotIn: 401,
    WrongName: 421,
    TooOften: 429,
    TooLarge: 413,
    IllegalMove: 409,
    Busy: 409,
    BadInput: 400,
    NotFound: 404,
    Refused: 403,
    Unavailable: 503,
}


def status_of(problem: MossError) -> int:
    return next((status for kind, status in _STATUS.items() if isinstance(problem, kind)), 500)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request proves its person with."""

    kind: str
    secret: str


def _is_of(origin: str, named: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == named.lower()
    except ValueError:
        return False


class Pace:
    """How often somebody may do something: a burst, and then a steady rate."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str) -> None:
        now = asyncio.get_running_loop().time()
        left, at = self._left.get(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        if left < 1:
            wait_s = (1 - left) / self._per_s
            raise TooOften(f"That was too often in a short time; try again in {wait_s:.0f} s.", wait_s)
        self._left.pop(who, None)
        if len(self._left) >= REMEMBERED:
            del self._left[next(iter(self._left))]
        self._left[who] = (left - 1, now)  # behind all others: the first is who came longest ago


class Door:
    def __init__(self, store: Store, host: str, port: int, names: tuple[str, ...]) -> None:
        self._store = store
        self._names = LOOPBACK | {name.lower() for name in (host, *names)}
        self._any_address = host in EVERYWHERE
        self._cookie = f"moss_room_{port}"  # a browser sends cookies of one port to all ports of the machine
        self._writes = Pace(BURST, PER_S)
        self._reads = Pace(READ_BURST, READS_PER_S)
        self._tries = Pace(TRIES, TRIES_PER_S)
        self._streams: dict[str, int] = {}

    def check(self, request: Request) -> None:
        """A page elsewhere can lead its own name to this address, and can send requests here from a browser that is in.
        The first shows in Host, the second in Origin, and a page can change neither."""
        named = request.headers.get("host", "")
        if not self._is_ours(named):
            raise WrongName("The room is not known under this name; add it to `names` in [room].")
        if request.method in SAFE_METHODS:
            return
        origin = request.headers.get("origin")
        by_cookie = self._cookie in request.cookies and "authorization" not in request.headers
        if origin is None and by_cookie:
            raise Refused("A browser must say which page sends this; send it from the room's own page.")
        if origin is not None and not _is_of(origin, named):
            raise Refused("This was sent by a page of another site; use the room's own page.")

    def _is_ours(self, named: str) -> bool:
        try:
            host = urlsplit(f"//{named}").hostname or ""
        except ValueError:
            return False
        if host in self._names:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return self._any_address  # an address cannot be led elsewhere, only a name can

    # Who it is

    def proof(self, request: Request) -> Proof:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return Proof("token", token.strip())
        if secret := request.cookies.get(self._cookie):
            return Proof("session", secret)
        raise NotIn("This needs your token; send it as `Authorization: Bearer TOKEN`, or enter at /enter.")

    async def person(self, db: Any, proof: Proof) -> str:
        """Looked up anew each time: who was removed is out at once."""
        if proof.kind == "token":
            person = await people.by_token(db, proof.secret)
            if person is None:
                raise NotIn("Nobody here has that token; `moss people add NAME` makes one.")
        else:
            person = await room.inside(db, self._store.now(), proof.secret)
            if person is None:
                raise NotIn("You are not in any more; enter again at /enter.")
        if is_reserved(person):
            raise NotIn(f"{person} is a name that would be taken for Moss itself; ask for a token under another.")
        return person

    async def who(self, request: Request) -> str:
        proof = self.proof(request)
        async with self._store.reading() as db:
            person = await self.person(db, proof)
        (self._reads if request.method in SAFE_METHODS else self._writes).take(person)
        return person

    # Sessions of browsers

    async def enter(self, request: Request, token: str) -> tuple[str, str]:
        """The person behind a token, and the secret of a new session."""
        self._tries.take(request.client.host if request.client else "")
        async with self._store.writing() as db:
            person = await self.person(db, Proof("token", token))
            return person, await room.enter(db, self._store.now(), person)

    def keep(self, request: Request, response: Response, secret: str) -> None:
        """The browser keeps the session; no script reads it, and no other site's page sends it."""
        response.set_cookie(
            self._cookie,
            secret,
            max_age=room.SESSION_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("origin", "").startswith("https:"),
        )

    async def leave(self, request: Request, response: Response) -> None:
        if secret := request.cookies.get(self._cookie):
            async with self._store.writing() as db:
                await room.leave(db, secret)
        response.delete_cookie(self._cookie, httponly=True, samesite="strict")

    # Streams

    def check_streams(self, person: str) -> None:
        if self._streams.get(person, 0) >= STREAMS:
            raise TooOften(f"You have {STREAMS} pages of the room open already; close one.", 5)

    def open_stream(self, person: str) -> None:
        self._streams[person] = self._streams.get(person, 0) + 1

    def close_stream(self, person: str) -> None:
        self._streams[person] -= 1
        if not self._streams[person]:
            del self._streams[person]
