"""The gateway itself: one server inside Moss for all lanes, and the way to the configured upstream with the real key.

A program gets an address and a token that count for one question. It never sees a key, and reaches nothing but what
`apis` lists. What a call took is written down before the program hears the end of its answer.
"""

import asyncio
import contextlib
import hmac
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx
import structlog

from core.coders.coder import Account, Api, Doubtful, Lane
from core.gateway import apis, client, prices, reach
from core.gateway.apis import APIS, Asked, No, Route
from core.gateway.lane import CALLS, LANE_CONNECTIONS, GatewayLane, Purse, Refusals
from core.gateway.prices import Price
from core.gateway.settings import GatewaySettings
from core.gateway.usage import Reader, Usage, estimate
from core.gateway.wire import Gone, Head, Wire
from core.model.errors import BadInput, Unavailable
from core.model.spending import Line, LineKind

_log = structlog.get_logger(__name__)

CONNECTIONS = 256
"""At once, at the port that all share, of those that have shown no token yet; and to the upstreams."""
CALL_S = 3600.0
"""How long an upstream may take in all."""
PING_S = 10.0
ANSWER_BYTES = 64_000_000
ERROR_BYTES = 1_000_000
SOCKET = "s"
"""A short name: the path of a unix socket has room for some hundred bytes."""

Keys = Mapping[Api, str]
Record = Callable[[Sequence[Line]], Awaitable[None]]
"""Writes lines of the ledger, all or nothing."""


async def _nowhere(lines: Sequence[Line]) -> None:
    """Where nobody's account is asked on, nothing is written down."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that costs something, while it is under way."""

    lane: GatewayLane
    route: Route
    asked: Asked
    price: Price | None
    began: float


class _Client:
    """Whoever is told an answer. One who `stays` may leave early without an end to the telling."""

    def __init__(self, stays: bool) -> None:
        self._stays = stays
        self.gone: Gone | None = None

    async def told(self, telling: Coroutine[None, None, None]) -> None:
        if self.gone:
            telling.close()
            return
        try:
            await telling
        except Gone as problem:
            self.gone = problem
            if not self._stays:
                raise


class Gateway:
    """Lanes. Raises BadInput for what cannot be a key."""

    def __init__(self, settings: GatewaySettings, keys: Keys, record: Record = _nowhere) -> None:
        self._settings = settings
        self._keys = {api: _key(settings.of(api).key_from, key) for api, key in keys.items()}
        self._record = record
        self._lanes: set[GatewayLane] = set()
        self._purses: dict[str, Purse] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._nameless: set[asyncio.Task[None]] = set()
        self._unwritten: list[Line] = []
        self._writing: set[asyncio.Task[None]] = set()
        self._strangers = Refusals()
        self._folder = Path()
        self._port = 0

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made when it is needed: it reads certificates. Raises BadInput."""
        return client.made(CONNECTIONS)

    async def close(self) -> None:
        """For whoever only asked for a sign of life."""
        if "_client" in self.__dict__:
            await self._client.aclose()

    @property
    def apis(self) -> tuple[Api, ...]:
        return tuple(api for api in APIS if self._keys.get(api))

    # Opening and closing

    @asynccontextmanager
    async def serving(self, folder: Path | None = None) -> AsyncIterator["Gateway"]:
        """Listens until the block is left, if any API is configured. `folder` is emptied first; without one a fresh one
        is made."""
        if not self.apis:
            yield self
            return
        self._folder = await asyncio.to_thread(_private, folder)
        try:
            server = await asyncio.start_server(partial(self._connected, None), "127.0.0.1", 0)
            self._port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                server.close()
                await _ended([*self._connections])
                await asyncio.gather(*self._writing, return_exceptions=True)
                if self._unwritten:
                    await self._write()
                await self.close()
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def open(self, account: Account | None, api: Api | None) -> AbstractAsyncContextManager[Lane]:
        if api is not None and api not in self.apis:
            raise Unavailable(self.missing(api))
        return self._open(account, (api,) if api else self.apis)

    def missing(self, api: Api) -> str:
        key_from = self._settings.of(api).key_from
        return (
            f"The model API {api} is not configured: Moss's environment has no {key_from}; set it before Moss starts, "
            f"or name another variable as `key_from` in [gateway.{api}]."
        )

    @asynccontextmanager
    async def _open(self, account: Account | None, allowed: tuple[Api, ...]) -> AsyncIterator[Lane]:
        purse = self._purses.setdefault(account.substrate, Purse()) if account else Purse()
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        folder.chmod(0o755)  # what stands above it is closed to others; a container may have this one mounted
        lane = GatewayLane(account, allowed, purse, self._port, folder / SOCKET)
        server = await asyncio.start_unix_server(partial(self._connected, lane), lane.socket)
        lane.socket.chmod(0o666)
        self._lanes.add(lane)
        try:
            yield lane
        finally:
            self._lanes.discard(lane)
            server.close()
            await _ended([*lane.tasks])
            lane.leave()
            if account and not purse.lanes:
                self._purses.pop(account.substrate, None)
            shutil.rmtree(folder, ignore_errors=True)
            if lane.refusals.count:
                _log.info("gateway lane closed", refused=lane.refusals.count, **lane.refusals.of)

    async def ping(self, api: Api) -> str:
        """Whether the upstream is there and takes the key; Doubtful when it says so but does not work now. Costs
        nothing. Raises Unavailable with the mend."""
        if not self._keys.get(api):
            raise Unavailable(self.missing(api))
        upstream = self._settings.of(api)
        path = "/v1beta/models" if api == "gemini" else "/v1/models"
        version = [(b"anthropic-version", b"2023-06-01")] if api == "anthropic" else []
        headers = apis.request_headers(api, version, self._keys[api])
        try:
            answer = await self._client.get(upstream.url + path, headers=headers, timeout=PING_S)
        except httpx.HTTPError as problem:
            raise Unavailable(
                f"{upstream.url} cannot be reached: {client.why(problem)}; check `url` in [gateway.{api}]."
            ) from None
        status, setting = answer.status_code, f"`url` in [gateway.{api}]"
        if status in (401, 403):
            raise Unavailable(f"{upstream.url} does not take the key in {upstream.key_from}; set the right one.")
        if status == 429 or status >= 500:
            how = "is busy" if status == 429 else "fails"
            return Doubtful(f"{upstream.url} is there, but {how} at the moment ({status}); try again later")
        if 300 <= status < 400:
            raise Unavailable(f"{upstream.url} leads elsewhere ({status}), and is not followed; correct {setting}.")
        if status == 404:
            below = path.removesuffix("/models")
            return Doubtful(
                f"There is nothing at {upstream.url}{path}; {setting} goes up to but without `{below}`, unless the "
                "service keeps no list of models"
            )
        if status != 200:
            raise Unavailable(f"{upstream.url} answers with {status}; check {setting}, and {upstream.key_from}.")
        if not apis.is_object(answer.content):
            raise Unavailable(f"{upstream.url} answers, but not as a model's API does; correct {setting}.")
        return f"{upstream.url} answers, with the key in {upstream.key_from}"

    # A connection, and its requests

    async def _connected(
        self, own: GatewayLane | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        wire = Wire(reader, writer)
        if own.is_full if own else len(self._nameless) >= CONNECTIONS:
            wire.abort()
            return
        self._connections.add(task)
        (own.tasks if own else self._nameless).add(task)
        try:
            await self._converse(wire, own)
            wire.close()
        except Gone:
            wire.abort()
        except asyncio.CancelledError:  # the lane or the gateway ends; nobody waits for what this task says
            wire.abort()
        except Exception:
            _log.exception("gateway failed")
            wire.abort()
        finally:
            for tasks in (self._connections, self._nameless, *(lane.tasks for lane in self._lanes)):
                tasks.discard(task)

    async def _converse(self, wire: Wire, own: GatewayLane | None) -> None:
        while True:
            refusals = own.refusals if own else self._strangers
            try:
                head = await wire.head()
            except No as problem:
                refusals.add(problem.status, "", "", problem.why)
                await wire.answer(problem.status, apis.refusal(None, problem.status, problem.why))
                return
            if head is None:
                return
            lane = self._lane_of(head, own)
            try:
                if lane is None:
                    raise No(401, "this token is not valid here, or not any more")
                await self._answer(wire, lane, head)
            except No as problem:
                (lane.refusals if lane else refusals).add(problem.status, head.method, head.path, problem.why)
                body = apis.refusal(apis.api_of(head.path), problem.status, problem.why)
                await wire.answer(problem.status, body)

    def _lane_of(self, head: Head, own: GatewayLane | None) -> GatewayLane | None:
        """Every lane is compared with, so that how long it takes says nothing."""
        found = None
        given = [token.encode() for token in apis.tokens(head.headers, head.query)]
        for lane in self._lanes if own is None else self._lanes & {own}:
            for token in given:
                if hmac.compare_digest(lane.token.encode(), token):
                    found = lane
        return found

    async def _answer(self, wire: Wire, lane: GatewayLane, head: Head) -> None:
        """Raises No for what is not let through."""
        route = apis.route(head.method, head.path)
        if route.api not in lane.apis:
            raise No(403, f"this question's way does not lead to {route.api}")
        query, length = apis.query(route, head.query), head.length
        if any(name == b"content-encoding" for name, _ in head.headers):
            raise No(415, "the request is compressed; send it as it is")
        if route.method == "POST" and not length:
            raise No(411, "say the length of the request in `content-length`")
        if lane.calls >= CALLS:
            raise No(429, f"more than {CALLS} calls at once; wait for one of them")
        task = asyncio.current_task()
        assert task is not None
        if task not in lane.tasks:
            if lane.is_full:
                raise No(429, f"more than {LANE_CONNECTIONS} connections at once; close one of them")
            lane.tasks.add(task)
            self._nameless.discard(task)
        lane.calls += 1
        try:
            body = await wire.body()
            request = self._request(lane, route, head, query)
            if route.method == "GET":
                await self._pass_on(wire, route, request(b""), None)
                return
            began = time.monotonic()
            told, taken_out = await asyncio.to_thread(_read, route.api, body)
            lane.note_taken_out(taken_out)
            if route.kind is None:
                await self._pass_on(wire, route, request(apis.written(told)), None)
                return
            asked = apis.asked(route, told)
            reach.check_model(route.api, asked.model)
            price = prices.price_of(asked.model, self._settings.prices)
            foreseen = Usage(input=estimate(length), estimated=True)
            lane.check(asked.model, foreseen, price)
            with lane.under_way(foreseen, price):
                call = _Call(lane, route, asked, price, began)
                await self._pass_on(wire, route, request(asked.body), call)
        finally:
            lane.calls -= 1

    def _request(self, lane: GatewayLane, route: Route, head: Head, query: str) -> Callable[[bytes], httpx.Request]:
        url = self._settings.of(route.api).url + route.path + (f"?{query}" if query else "")
        headers = apis.request_headers(route.api, reach.headers(head.headers), self._keys[route.api])

        def request(body: bytes) -> httpx.Request:
            try:
                return self._client.build_request(route.method, url, headers=headers, content=body or None)
            except BadInput as problem:
                raise No(502, problem.sentence) from None

        return request

    # To the upstream, and back

    async def _pass_on(self, wire: Wire, route: Route, request: httpx.Request, call: _Call | None) -> None:
        try:
            async with asyncio.timeout(CALL_S):
                response = await self._client.send(request, stream=True)
        except client.UNSENT:
            raise No(502, f"the upstream of {route.api} cannot be reached") from None
        except (httpx.HTTPError, TimeoutError, asyncio.CancelledError) as problem:
            if call:  # it heard the question, and may have begun to answer
                await self._settle(call, Reader(call.route.kind or "chat", False, len(call.asked.body)))
            if isinstance(problem, asyncio.CancelledError):
                raise
            late = isinstance(problem, httpx.TimeoutException | TimeoutError)
            what = "did not answer in time" if late else "broke off before it answered"
            raise No(504 if late else 502, f"the upstream of {route.api} {what}") from None
        try:
            if response.status_code >= 300:
                await self._pass_error_on(wire, route, response)
            elif response.headers.get("content-encoding", "identity") != "identity":
                raise No(502, f"the upstream of {route.api} compresses its answers, though it is asked not to")
            elif call is None:
                await self._pass_answer_on(wire, response)
            else:
                await self._pass_metered_on(wire, response, call)
        finally:
            await response.aclose()

    async def _pass_error_on(self, wire: Wire, route: Route, response: httpx.Response) -> None:
        """An error in the API's own words goes on as it is, without the key, should the upstream repeat it."""
        status = response.status_code
        if status < 400:
            raise No(502, f"the upstream of {route.api} leads elsewhere, and is not followed; correct its `url`")
        body = b""
        with contextlib.suppress(httpx.HTTPError):
            async for part in response.aiter_raw():
                body += part
                if len(body) > ERROR_BYTES:
                    break
        headers = apis.answer_headers(response.headers.raw)
        if not apis.is_refusal(body) or len(body) > ERROR_BYTES:
            body = apis.refusal(route.api, status, f"the upstream of {route.api} answered with {status}")
            headers = [each for each in headers if each[0] != b"content-type"]
            headers.append((b"content-type", b"application/json"))
        body = body.replace(self._keys[route.api].encode(), b"[key]")
        await wire.answer(status, body, headers)

    async def _pass_answer_on(self, wire: Wire, response: httpx.Response) -> None:
        size = 0
        await wire.begin(response.status_code, apis.answer_headers(response.headers.raw))
        try:
            async for part in response.aiter_raw():
                size += len(part)
                if size > ANSWER_BYTES:
                    raise Gone("the answer is too long")
                await wire.send(part)
        except httpx.HTTPError:
            raise Gone("the upstream broke off") from None
        await wire.end()

    async def _pass_metered_on(self, wire: Wire, response: httpx.Response, call: _Call) -> None:
        """As it comes, and counted. A client that leaves an answer which comes as a whole does not end it: nobody could
        tell what it cost."""
        stream = response.headers.get("content-type", "").partition(";")[0].strip() == "text/event-stream"
        hide = call.asked.hide_usage
        reader = Reader(call.route.kind or "chat", stream, len(call.asked.body), hide_usage=hide)
        listener = _Client(stays=not stream)
        size = 0
        try:
            await listener.told(wire.begin(response.status_code, apis.answer_headers(response.headers.raw)))
            async with asyncio.timeout(max(CALL_S - (time.monotonic() - call.began), 1)):
                async for part in response.aiter_raw():
                    size += len(part)
                    await listener.told(wire.send(reader.feed(part)))
                    if size > ANSWER_BYTES:
                        raise Gone("the answer is too long")
                    if stream and call.lane.overrun(reader.usage(), call.price):
                        raise Gone("what was left of the budget is spent")
                rest = reader.rest()
        except (httpx.HTTPError, TimeoutError):
            raise Gone("the upstream broke off") from None
        finally:
            await self._settle(call, reader)
        if listener.gone:
            raise listener.gone
        await wire.send(rest)
        await wire.end()

    async def _settle(self, call: _Call, reader: Reader) -> None:
        """What the call took counts from here on, and is written down."""
        usage, asked = reader.usage(), call.asked
        answered = prices.price_of(reader.model, self._settings.prices) if reader.model else None
        price = answered or call.price
        money = price.of(usage) if price else None
        call.lane.add(usage, money)
        account = call.lane.account
        if account is None:
            return
        self._unwritten.append(
            Line(
                kind=LineKind.call,
                substrate=account.substrate,
                run=account.run,
                n=account.n,
                stage=account.stage,
                what=account.what,
                question=account.question,
                provider=call.route.api,
                model=(reader.model or asked.model)[:200],
                input_tokens=usage.input,
                output_tokens=usage.output,
                cached_tokens=usage.cached,
                tokens=usage.total,
                money_usd=money,
                unpriced_tokens=0 if price else usage.total,
                estimated=usage.estimated,
                seconds=time.monotonic() - call.began,
            )
        )
        writing = asyncio.create_task(self._write())
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _write(self) -> None:
        """What cannot be written now is written with the next call, or at the end."""
        lines, self._unwritten = self._unwritten, []
        try:
            if lines:
                await self._record(lines)
        except Exception as problem:
            self._unwritten = [*lines, *self._unwritten]
            _log.error("spending not written down yet", lines=len(self._unwritten), why=str(problem))


def _read(api: Api, body: bytes) -> tuple[dict[str, Any], set[str]]:
    """What a request asks for, and what was taken out of it. In a thread: it may be long."""
    told = apis.read(body)
    return told, reach.closed(api, told)


def _key(name: str, said: str) -> str:
    """Raises BadInput, without the key."""
    key = said.strip()
    if not all("!" <= each <= "~" for each in key):
        raise BadInput(f"{name} holds letters that no key has, such as blanks or line ends within; set it anew.")
    return key


def _private(folder: Path | None) -> Path:
    """A directory of nobody else's. One of a known name is emptied of what a Moss that was killed left in it."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="moss-", dir="/tmp"))
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        return _private(None)  # somebody else was here first
    for left in folder.iterdir():
        shutil.rmtree(left, ignore_errors=True)
    return folder


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=5)
