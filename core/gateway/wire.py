"""HTTP/1.1 as far as the gateway needs it, towards a program that may be hostile: everything has a limit.

A request has a head of limited size that comes in limited time, and a body whose length it says beforehand: without
chunked requests there is one way only to read where a request ends.
"""

import asyncio
import contextlib
from dataclasses import dataclass

import h11

from core.gateway.apis import Headers, No

HEAD_BYTES = 65_536
HEAD_S = 10.0
"""From the first byte of a head to its last."""
IDLE_S = 75.0
"""How long a connection may stay without a request."""
BODY_BYTES = 32_000_000
BODY_S = 60.0
SEND_S = 60.0
"""How long a client may leave what it is sent unread."""
CLOSE_S = 2.0
_AT_ONCE_BYTES = 65_536
_DISCARDED_BYTES = 1_000_000


class Gone(Exception):
    """The other end is away, too slow, or says what is no HTTP."""


@dataclass(frozen=True, slots=True)
class Head:
    method: str
    path: str
    """As it was sent."""
    query: str
    headers: Headers

    @property
    def length(self) -> int:
        """Of the body. Raises No."""
        named = {name: value for name, value in self.headers if name in (b"transfer-encoding", b"content-length")}
        if b"transfer-encoding" in named:
            raise No(411, "say the length of the request in `content-length`; a chunked one is not taken")
        if b"content-length" not in named:
            return 0
        length = int(named[b"content-length"])  # h11 has looked at it
        if length > BODY_BYTES:
            raise No(413, f"the request is longer than {BODY_BYTES:,} bytes")
        return length


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._last = False
        """After a request whose end is in doubt nothing that follows is read."""

    async def head(self) -> Head | None:
        """Of the next request; None after the last one. Raises Gone, and No for what is no HTTP."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            return None
        try:
            if not self._http.trailing_data[0]:
                async with asyncio.timeout(IDLE_S):
                    self._http.receive_data(await self._reader.read(_AT_ONCE_BYTES))
            async with asyncio.timeout(HEAD_S):
                event = await self._event()
        except (TimeoutError, ConnectionError):
            raise Gone("no whole head came in time") from None
        if not isinstance(event, h11.Request):
            return None
        method, target = event.method.decode("ascii"), event.target.decode("ascii")
        path, _, query = target.partition("?")
        self._last = any(name == b"transfer-encoding" for name, _ in event.headers)
        return Head(method, path, query, [(bytes(name), bytes(value)) for name, value in event.headers])

    async def body(self) -> bytes:
        """Raises Gone."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_S):
                while isinstance(event := await self._event(), h11.Data):
                    parts.append(bytes(event.data))
        except TimeoutError:
            raise Gone("the body did not come in time") from None
        except No as problem:
            raise Gone(problem.why) from None
        if not isinstance(event, h11.EndOfMessage):
            raise Gone("it went away before its request was complete")
        return b"".join(parts)

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as problem:
                raise No(problem.error_status_hint, f"this is no HTTP request: {problem}") from None
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                self._http.receive_data(await self._reader.read(_AT_ONCE_BYTES))
            except ConnectionError as problem:
                raise Gone(str(problem)) from None
            await asyncio.sleep(0)  # what is there at once is read without a pause, and others want their turn

    async def begin(self, status: int, headers: Headers) -> None:
        """Of an answer that comes in parts. Raises Gone."""
        await self._write(h11.Response(status_code=status, headers=headers))

    async def send(self, part: bytes) -> None:
        """Raises Gone."""
        if part:
            await self._write(h11.Data(data=part))

    async def end(self) -> None:
        await self._write(h11.EndOfMessage())

    async def answer(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """A whole one. Where a request was not read to its end, nothing else is read of it."""
        unread = self._is_unread()
        said = headers if headers is not None else [(b"content-type", b"application/json")]
        said = [*said, (b"content-length", str(len(body)).encode())]
        if unread or self._last or self._http.their_state is h11.ERROR:
            said.append((b"connection", b"close"))
        await self._write(h11.Response(status_code=status, headers=said))
        await self.send(body)
        await self.end()
        if unread:
            await self._discard()

    def _is_unread(self) -> bool:
        if self._http.their_state is not h11.SEND_BODY:
            return False
        with contextlib.suppress(h11.RemoteProtocolError):
            return not isinstance(self._http.next_event(), h11.EndOfMessage)
        return True

    async def _discard(self) -> None:
        """An answer is lost when its connection is closed while something unread stands in it."""
        left = _DISCARDED_BYTES
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_S):
                while left > 0 and (part := await self._reader.read(_AT_ONCE_BYTES)):
                    left -= len(part)

    async def _write(self, event: h11.Event) -> None:
        try:
            data = self._http.send(event)
            if data:
                self._writer.write(data)
            async with asyncio.timeout(SEND_S):
                await self._writer.drain()
        except h11.LocalProtocolError as problem:
            raise Gone(str(problem)) from None
        except (ConnectionError, TimeoutError):
            raise Gone("it does not take its answer") from None

    def close(self) -> None:
        """In order, if the client takes what it was sent; else in a moment all the same."""
        if not self._writer.is_closing():
            self._writer.close()
            asyncio.get_running_loop().call_later(CLOSE_S, self._writer.transport.abort)

    def abort(self) -> None:
        """At once, so that nobody takes what came for the whole."""
        self._writer.transport.abort()
