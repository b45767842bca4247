"""Programs that mean the gateway no good: slow ones, huge ones, crooked ones. None gets through, and none keeps others
from getting through."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from core.coders.coder import Lane
from core.gateway import apis, gateway, lane, wire
from core.gateway.gateway import Gateway
from tests.support.until import until
from tests.support.upstream import MESSAGE, MESSAGE_EVENTS, Upstream, upstream
from tests.test_gateway import ACCOUNT, KEYS, MESSAGES, Book, ask

BODY = json.dumps(MESSAGES[1]).encode()


@pytest.fixture
async def api() -> AsyncIterator[Upstream]:
    async with upstream() as there:
        there.says(MESSAGE)
        yield there


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def open_lane(api: Upstream, book: Book) -> AsyncIterator[Lane]:
    async with Gateway(api.settings, KEYS, book).serving() as serving, serving.open(ACCOUNT, None) as opened:
        yield opened


def head(opened: Lane, *lines: str, path: str = MESSAGES[0], method: str = "POST") -> bytes:
    said = (f"{method} {path} HTTP/1.1", "host: x", f"x-api-key: {opened.token}", *lines)
    return "\r\n".join((*said, "", "")).encode("latin-1")


async def talk(opened: Lane, said: bytes, *, ends: bool = False) -> bytes:
    """All that is answered until the gateway closes the connection, or says nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    try:
        writer.write(said)
        if ends:
            writer.write_eof()
        got = b""
        try:
            async with asyncio.timeout(10):
                while part := await asyncio.wait_for(reader.read(65536), 0.5 if got else 10):
                    got += part
        except (TimeoutError, ConnectionError):
            pass
        return got
    finally:
        writer.transport.abort()


async def still_works(opened: Lane) -> None:
    assert (await ask(opened, MESSAGES)).status_code == 200


async def test_a_client_that_closes_its_half_gets_its_whole_answer(open_lane: Lane, book: Book) -> None:
    got = await talk(open_lane, head(open_lane, f"content-length: {len(BODY)}") + BODY, ends=True)
    assert got.startswith(b"HTTP/1.1 200")
    assert json.dumps(MESSAGE).encode() in got
    assert len(book.lines) == 1


async def test_a_head_that_never_ends_is_left(open_lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", open_lane.port)
    left = asyncio.create_task(reader.read())
    for byte in b"POST /anthropic/v1/messages HTTP/1.1\r\nx: " + b"y" * 100:
        if left.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    assert left.done()
    writer.transport.abort()
    await still_works(open_lane)


async def test_a_head_that_is_too_long_is_refused(open_lane: Lane, api: Upstream) -> None:
    got = await talk(open_lane, head(open_lane, "x: " + "y" * 200_000, "content-length: 2") + b"{}")
    assert got[:12] in (b"HTTP/1.1 431", b"")
    assert api.asked == []
    await still_works(open_lane)


async def test_a_body_that_is_too_long_is_refused_before_it_comes(open_lane: Lane, api: Upstream) -> None:
    for length in (32_000_001, 10**18):
        got = await talk(open_lane, head(open_lane, f"content-length: {length}") + b"x" * 100_000)
        assert got.startswith(b"HTTP/1.1 413")
        assert b'"request_too_large"' in got
    assert api.asked == []
    await still_works(open_lane)


async def test_a_body_that_never_comes_is_left(open_lane: Lane, api: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BODY_S", 0.3)
    assert await talk(open_lane, head(open_lane, "content-length: 1000") + b"{") == b""
    assert await talk(open_lane, head(open_lane, "content-length: 1000") + b"{", ends=True) == b""
    assert api.asked == []
    await still_works(open_lane)


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (("transfer-encoding: chunked",), b"5\r\nhello\r\n0\r\n\r\n"),
        (("content-length: 5", "transfer-encoding: chunked"), b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        (("transfer-encoding: xchunked", "content-length: 4"), b"{}{}"),
        (("content-length: 4", "content-length: 5"), b"{}{}{}"),
        (("content-length: +4",), b"{}{}"),
        (("content-length: -1",), b"{}"),
        (("content-length: 4, 5",), b"{}{}"),
        (("content-length : 4",), b"{}{}"),
        (("content-encoding: gzip", "content-length: 4"), b"{}{}"),
        ((), b""),
        (("content-length: 4", "x\x00y: z"), b"{}{}"),
        (("content-length: 4",), b"nope"),
        (("content-length: 2",), b"{}"),
        (("content-length: 12",), b'{"model": 1}'),
    ],
    ids=lambda value: None if isinstance(value, bytes) else " ".join(value)[:40] or "no length",
)
async def test_a_request_whose_end_is_in_doubt_or_that_makes_no_sense_goes_nowhere(
    open_lane: Lane, api: Upstream, lines: tuple[str, ...], body: bytes
) -> None:
    got = await talk(open_lane, head(open_lane, *lines) + body)
    assert got[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5")
    assert got.count(b"HTTP/1.1") == 1
    assert api.asked == []
    await still_works(open_lane)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/anthropic", "/anthropic/", "/anthropic/v1/messages/", "//anthropic/v1/messages",
        "/anthropic/v1/../v1/messages", "/anthropic/v1/%6dessages", "/anthropic/v1/messages/batches",
        "/anthropic/v1/files", "/openai/v1/files", "/openai/v1/models/x", "/openai/v1/responses/resp_1",
        "/gemini/v1beta/models/a/../../x:generateContent", "/gemini/v1beta/models/x:embedContent",
        "/gemini/v1beta/models/..%2f..:generateContent", "/gemini/v1beta/files", "/v1/messages",
        "http://elsewhere.example/anthropic/v1/messages", "*",
    ],
)  # fmt: skip
async def test_only_listed_paths_lead_anywhere(open_lane: Lane, api: Upstream, path: str) -> None:
    got = await talk(open_lane, head(open_lane, f"content-length: {len(BODY)}", "connection: close", path=path) + BODY)
    assert got.startswith(b"HTTP/1.1 404")
    assert api.asked == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_only_listed_methods_are_taken(open_lane: Lane, api: Upstream, method: str) -> None:
    for path in (MESSAGES[0], "/gemini/v1beta/models/x:generateContent"):
        got = await talk(open_lane, head(open_lane, "connection: close", path=path, method=method))
        assert got.startswith(b"HTTP/1.1 405")
    assert api.asked == []


async def test_a_request_behind_another_one_needs_a_token_of_its_own(open_lane: Lane, api: Upstream) -> None:
    first = head(open_lane, f"content-length: {len(BODY)}") + BODY
    second = (
        f"POST {MESSAGES[0]} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\nconnection: close\r\n\r\n".encode()
    )
    got = await talk(open_lane, first + first + second + BODY)
    assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"401"]
    assert len(api.asked) == 2


async def test_without_a_token_nothing_is_read_and_nothing_told(open_lane: Lane, api: Upstream) -> None:
    for token in ("", open_lane.token[:-1], open_lane.token + "\xe4"):
        said = f"POST /nowhere HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\ncontent-length: 30000000\r\n\r\n"
        got = await talk(open_lane, said.encode("latin-1"))
        assert got.startswith(b"HTTP/1.1 401")
        assert b"close" in got.lower()
    assert api.asked == []


async def test_a_request_that_would_take_too_much_to_read_is_refused(open_lane: Lane, api: Upstream) -> None:
    for body, status in ((b"[" + b"0," * 1_000_001 + b"0]", 413), (b'{"model":' + b"[" * 100_000, 400)):
        got = await talk(open_lane, head(open_lane, f"content-length: {len(body)}") + body)
        assert got.startswith(b"HTTP/1.1 %d" % status)
    assert api.asked == []
    assert apis.VALUES == 1_000_000


async def test_so_many_calls_at_once_and_no_more(open_lane: Lane, api: Upstream) -> None:
    go = asyncio.Event()
    api.streams(*MESSAGE_EVENTS, pause=lambda _: asyncio.wait_for(go.wait(), 10))  # type: ignore[arg-type]
    calls = [asyncio.create_task(ask(open_lane, MESSAGES, stream=True)) for _ in range(lane.CALLS)]
    await until(lambda: len(api.asked) == lane.CALLS)
    refused = await ask(open_lane, MESSAGES)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    go.set()
    assert {call.status_code for call in await asyncio.gather(*calls)} == {200}


async def test_so_many_connections_at_once_and_no_more(open_lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "CONNECTIONS", 5)
    idle = [await asyncio.open_connection("127.0.0.1", open_lane.port) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert await talk(open_lane, head(open_lane, "content-length: 2") + b"{}") == b""
    for _, writer in idle:
        writer.transport.abort()
    await asyncio.sleep(0.1)
    await still_works(open_lane)


async def test_idle_connections_of_one_question_shut_nobody_else_out(api: Upstream, book: Book) -> None:
    async with Gateway(api.settings, KEYS, book).serving() as serving, serving.open(ACCOUNT, None) as crowd:
        idle = [await asyncio.open_unix_connection(str(crowd.socket)) for _ in range(300)]
        await asyncio.sleep(0.2)
        held = [reader for reader, _ in idle if not reader.at_eof() and reader.exception() is None]
        assert held == [reader for reader, _ in idle[: lane.LANE_CONNECTIONS]], "the newest are closed"
        async with serving.open(ACCOUNT, None) as other:
            await still_works(other)
            assert other.socket != crowd.socket
        for _, writer in idle:
            writer.transport.abort()
        await asyncio.sleep(0.1)
        await still_works(crowd)


async def test_connections_at_the_port_count_for_the_question_whose_token_they_show(
    open_lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "CONNECTIONS", 5)
    kept = []
    for number in range(lane.LANE_CONNECTIONS + 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", open_lane.port)
        kept.append(writer)
        writer.write(head(open_lane, f"content-length: {len(BODY)}") + BODY)
        said = await reader.readuntil(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200" if number < lane.LANE_CONNECTIONS else b"HTTP/1.1 429")
    kept[0].transport.abort()
    await asyncio.sleep(0.1)
    await still_works(open_lane)
    for writer in kept:
        writer.transport.abort()


async def test_a_client_that_reads_nothing_is_left_and_pays(
    open_lane: Lane, api: Upstream, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SEND_S", 0.3)
    api.streams(*MESSAGE_EVENTS[:2], *[b": " + b"x" * 100_000 + b"\n\n"] * 300, *MESSAGE_EVENTS[2:])
    _, writer = await asyncio.open_connection("127.0.0.1", open_lane.port, limit=1024)
    writer.write(head(open_lane, f"content-length: {len(BODY)}") + BODY)
    await until(lambda: book.lines)
    assert (book.lines[0].input_tokens, book.lines[0].estimated) == (600, True)
    writer.transport.abort()
    api.says(MESSAGE)
    await still_works(open_lane)


async def test_an_answer_without_end_is_cut(
    open_lane: Lane, api: Upstream, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "ANSWER_BYTES", 1_000_000)
    api.streams(*[b"data: " + b"x" * 100_000 + b"\n\n"] * 100)
    got = await talk(open_lane, head(open_lane, f"content-length: {len(BODY)}") + BODY)
    assert len(got) < 2_000_000
    assert not got.endswith(b"0\r\n\r\n")
    assert len(book.lines) == 1


async def test_what_is_refused_is_told_without_the_token_and_a_flood_of_it_in_few_words(open_lane: Lane) -> None:
    with capture_logs() as logs:
        path = f"/anthropic/v1/{open_lane.token}?key={open_lane.token}"
        for _ in range(100):
            await talk(open_lane, head(open_lane, "connection: close", path=path))
    told = [each for each in logs if each["event"] == "gateway refused"]
    assert len(told) == lane.TOLD
    assert told[0]["asked"] == "POST /anthropic/v1/[token]"
    assert (told[0]["run"], told[0]["status"]) == ("run-1", 404)
    assert open_lane.token not in str(logs)
