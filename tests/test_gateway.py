"""The model gateway: what passes, what it costs to the token, whose token opens what; and no key passes back."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from core.coders.coder import Account, Api, Lane
from core.gateway.gateway import Gateway
from core.gateway.prices import BUILT_IN, Price, price_of
from core.gateway.settings import GatewaySettings
from core.gateway.usage import Usage
from core.model.errors import Unavailable
from core.model.run import Cap
from core.model.spending import Line
from tests.support.until import until
from tests.support.upstream import (
    CHAT,
    CHAT_EVENTS,
    GENERATED,
    GENERATED_EVENTS,
    KEY,
    MESSAGE,
    MESSAGE_EVENTS,
    RESPONSE,
    RESPONSE_EVENTS,
    Upstream,
    upstream,
)

KEYS: dict[Api, str] = {"anthropic": KEY, "openai": KEY, "gemini": KEY}
ACCOUNT = Account("desk", "run-1", 4, "iter-1/plan-1", stage="plan", question="question-1")

MESSAGES = ("/anthropic/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": []})
RESPONSES = ("/openai/v1/responses", {"model": "gpt-5.1", "input": "hi"})
CHATS = ("/openai/v1/chat/completions", {"model": "gpt-5.1", "messages": []})
GENERATE = ("/gemini/v1beta/models/gemini-2.5-pro:generateContent", {"contents": []})
STREAM = ("/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", {"contents": []})

SONNET = (600 * 3 + 300 * 0.3 + 60 * 3.75 + 40 * 6 + 200 * 15) / 1e6
GPT = (600 * 1.25 + 400 * 0.125 + 200 * 10) / 1e6
PRO = (600 * 1.25 + 400 * 0.125 + 200 * 10) / 1e6

WAYS = {
    "messages": (MESSAGES, MESSAGE, MESSAGE_EVENTS, SONNET),
    "responses": (RESPONSES, RESPONSE, RESPONSE_EVENTS, GPT),
    "chat": (CHATS, CHAT, CHAT_EVENTS, GPT),
    "generate": (GENERATE, GENERATED, GENERATED_EVENTS, PRO),
}


class Book:
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.failing = False

    async def __call__(self, lines: Sequence[Line]) -> None:
        if self.failing:
            raise Unavailable("The database is away.")
        self.lines += lines


@pytest.fixture
async def api() -> AsyncIterator[Upstream]:
    async with upstream() as there:
        yield there


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def gateway(api: Upstream, book: Book) -> AsyncIterator[Gateway]:
    async with Gateway(api.settings, KEYS, book).serving() as serving:
        yield serving


@asynccontextmanager
async def client(lane: Lane, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-api-key": token or lane.token}
    url = f"http://127.0.0.1:{lane.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=False, timeout=20) as made:
        yield made


async def ask(lane: Lane, way: tuple[str, Any], **more: Any) -> httpx.Response:
    async with client(lane) as http:
        return await http.post(way[0], json={**way[1], **more})


@pytest.mark.parametrize("kind", WAYS)
async def test_an_answer_passes_as_it_is_and_is_counted_to_the_token(
    gateway: Gateway, api: Upstream, book: Book, kind: str
) -> None:
    way, answer, _, cost = WAYS[kind]
    api.says(answer)
    async with gateway.open(ACCOUNT, None) as lane:
        assert (await ask(lane, way)).json() == answer
        assert (lane.spend.tokens, lane.spend.money_usd) == (1200, pytest.approx(cost))
    (line,) = book.lines
    assert (line.input_tokens, line.cached_tokens, line.output_tokens, line.tokens) == (600, 400, 200, 1200)
    assert (line.substrate, line.run, line.n, line.stage, line.question) == ("desk", "run-1", 4, "plan", "question-1")
    assert line.money_usd == pytest.approx(cost)
    assert (line.estimated, line.unpriced_tokens) == (False, 0)


@pytest.mark.parametrize("kind", WAYS)
async def test_a_stream_passes_event_by_event_and_is_counted_to_the_token(
    gateway: Gateway, api: Upstream, book: Book, kind: str
) -> None:
    way, _, events, cost = WAYS[kind]
    way = STREAM if kind == "generate" else way
    seen, next_one = 0, asyncio.Event()

    async def wait_until_it_was_seen(n: int) -> None:
        """The next event is sent only when the one before it has reached the client."""
        while seen < n:
            next_one.clear()
            await next_one.wait()

    shown = [event for event in events if b'"choices": []' not in event]
    api.streams(*events, pause=lambda n: wait_until_it_was_seen(min(n, len(shown) - 1)))
    got = b""
    async with gateway.open(ACCOUNT, None) as lane, client(lane) as http:
        asked = {**way[1], **({} if kind == "generate" else {"stream": True})}
        async with asyncio.timeout(10), http.stream("POST", way[0], json=asked) as response:
            async for part in response.aiter_raw():
                got += part
                seen = got.count(b"\n\n")
                next_one.set()
        assert (lane.spend.tokens, lane.spend.money_usd) == (1200, pytest.approx(cost))
    assert got == b"".join(shown)
    assert [(line.tokens, line.estimated) for line in book.lines] == [(1200, False)]


async def test_usage_that_a_client_did_not_ask_for_is_asked_for_and_kept_from_it(
    gateway: Gateway, api: Upstream
) -> None:
    api.streams(*CHAT_EVENTS)
    async with gateway.open(ACCOUNT, None) as lane:
        for options, shown in (
            ({}, CHAT_EVENTS[:2] + CHAT_EVENTS[3:]),
            ({"stream_options": {"include_obfuscation": False}}, CHAT_EVENTS[:2] + CHAT_EVENTS[3:]),
            ({"stream_options": {"include_usage": True}}, CHAT_EVENTS),
        ):
            answer = await ask(lane, CHATS, stream=True, **options)
            assert answer.content == b"".join(shown)
            assert api.asked[-1].told["stream_options"]["include_usage"] is True
        assert lane.spend.tokens == 3 * 1200
    assert api.asked[1].told["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert {**api.asked[0].told, "stream_options": None} == {**CHATS[1], "stream": True, "stream_options": None}


@pytest.mark.parametrize("kind", WAYS)
async def test_a_stream_that_breaks_is_estimated_and_not_taken_for_the_whole(
    gateway: Gateway, api: Upstream, book: Book, kind: str
) -> None:
    way, _, events, _ = WAYS[kind]
    way = STREAM if kind == "generate" else way
    api.streams(*events[: {"messages": -3, "chat": -2}.get(kind, -1)], breaks=True)
    async with gateway.open(ACCOUNT, None) as lane:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(lane, way, stream=True)
    (line,) = book.lines
    assert line.estimated
    assert 1 <= line.output_tokens <= 10
    if kind in ("messages", "generate"):  # they say at once how much came in
        assert (line.input_tokens, line.cached_tokens) == (600, 400)
    else:
        assert 5 <= line.input_tokens <= 50


async def test_an_answer_without_usage_is_estimated_from_its_size(gateway: Gateway, api: Upstream, book: Book) -> None:
    api.says({"choices": [{"message": {"content": "x" * 4000}}]})
    async with gateway.open(ACCOUNT, None) as lane:
        await ask(lane, CHATS)
    assert book.lines[0].estimated
    assert 1000 <= book.lines[0].output_tokens <= 1050


async def test_what_costs_nothing_is_passed_on_and_not_counted(gateway: Gateway, api: Upstream, book: Book) -> None:
    api.says({"input_tokens": 5})
    async with gateway.open(ACCOUNT, None) as lane, client(lane) as http:
        assert (await http.post("/anthropic/v1/messages/count_tokens?beta=true&x=1", json={})).status_code == 200
        assert (await http.get("/openai/v1/models?client_version=1")).json() == {"input_tokens": 5}
        assert (await http.post("/gemini/v1beta/models/gemini-2.5-pro:countTokens", json={})).status_code == 200
        assert lane.spend.tokens == 0
    assert [request.target for request in api.asked] == [
        "/v1/messages/count_tokens?beta=true",
        "/v1/models",
        "/v1beta/models/gemini-2.5-pro:countTokens",
    ]
    assert book.lines == []


async def test_the_key_goes_upstream_and_the_token_stays_here(gateway: Gateway, api: Upstream) -> None:
    api.says(MESSAGE)
    async with gateway.open(ACCOUNT, None) as lane, client(lane) as http:
        for way, where in ((MESSAGES, "x-api-key"), (RESPONSES, "authorization"), (GENERATE, "x-goog-api-key")):
            more = {"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "openai-organization": "other", "te": "trailers"}
            await http.post(way[0] + "?key=mine", json=way[1], headers={"anthropic-beta": "x", **more})
            request = api.asked[-1]
            assert request.headers[where] == (f"Bearer {KEY}" if where == "authorization" else KEY)
            assert lane.token not in str(request)
            assert "mine" not in str(request)
            assert not set(more) & set(request.headers)
            assert (request.headers["accept-encoding"], request.headers["anthropic-beta"]) == ("identity", "x")


async def test_cookies_of_the_upstream_reach_nobody(gateway: Gateway, api: Upstream) -> None:
    api.says(MESSAGE, set_cookie="who=lane-1; Path=/")
    async with gateway.open(ACCOUNT, None) as lane:
        assert "set-cookie" not in (await ask(lane, MESSAGES)).headers
        await ask(lane, MESSAGES)
    assert "cookie" not in api.asked[-1].headers


@pytest.mark.parametrize("place", ["bearer", "x-api-key", "x-goog-api-key", "query"])
async def test_the_token_counts_wherever_an_api_has_its_key(gateway: Gateway, api: Upstream, place: str) -> None:
    api.says(MESSAGE)
    async with gateway.open(ACCOUNT, None) as lane:
        headers = {"bearer": {"authorization": f"Bearer {lane.token}"}, "query": {}}.get(place, {place: lane.token})
        url = f"http://127.0.0.1:{lane.port}{MESSAGES[0]}" + (f"?key={lane.token}" if place == "query" else "")
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            assert (await http.post(url, json=MESSAGES[1], headers=headers)).status_code == 200
            assert (await http.post(url.partition("?")[0], json=MESSAGES[1])).status_code == 401


async def test_a_token_counts_for_its_own_lane_and_dies_with_it(gateway: Gateway, api: Upstream) -> None:
    api.says(MESSAGE)
    async with gateway.open(ACCOUNT, None) as first:
        async with gateway.open(ACCOUNT, "anthropic") as second:
            transport = httpx.AsyncHTTPTransport(uds=str(second.socket))
            async with httpx.AsyncClient(transport=transport, base_url="http://x", verify=False) as http:
                assert (await http.post(MESSAGES[0], json=MESSAGES[1], headers={"x-api-key": second.token})).is_success
                other = await http.post(MESSAGES[0], json=MESSAGES[1], headers={"x-api-key": first.token})
                assert (other.status_code, other.json()["error"]["type"]) == (401, "authentication_error")
                elsewhere = await http.post(RESPONSES[0], json=RESPONSES[1], headers={"x-api-key": second.token})
                assert elsewhere.status_code == 403
            token, socket = second.token, second.socket
        assert not socket.exists()
        async with client(first, token) as http:
            assert (await http.post(MESSAGES[0], json=MESSAGES[1])).status_code == 401
        assert (await ask(first, MESSAGES)).status_code == 200
    assert len(api.asked) == 2


async def test_a_call_that_outlives_its_lane_is_ended_and_counted(gateway: Gateway, api: Upstream, book: Book) -> None:
    heard, never = asyncio.Event(), asyncio.Event()

    async def hang(n: int) -> None:
        if n == 3:
            heard.set()
            await never.wait()

    api.streams(*MESSAGE_EVENTS, pause=hang)
    async with gateway.open(ACCOUNT, None) as lane:
        asking = asyncio.create_task(ask(lane, MESSAGES, stream=True))
        await heard.wait()
        await asyncio.sleep(0.05)
    with pytest.raises(httpx.HTTPError):
        await asking
    assert [(line.input_tokens, line.output_tokens, line.estimated) for line in book.lines] == [(600, 2, True)]


async def test_whoever_leaves_before_a_whole_answer_came_pays_for_it_all_the_same(
    gateway: Gateway, api: Upstream, book: Book
) -> None:
    left = asyncio.Event()
    api.says(MESSAGE)
    say = api.answering
    assert say is not None

    async def later(request: Any, send: Any) -> None:
        await left.wait()
        await say(request, send)

    api.answering = later
    async with gateway.open(ACCOUNT, None) as lane:
        body = json.dumps(MESSAGES[1]).encode()
        _, writer = await asyncio.open_unix_connection(str(lane.socket))
        writer.write(f"POST {MESSAGES[0]} HTTP/1.1\r\nhost: x\r\nx-api-key: {lane.token}\r\n".encode())
        writer.write(f"content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        await until(lambda: api.asked)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        left.set()
        await until(lambda: book.lines)
    assert [(line.tokens, line.estimated) for line in book.lines] == [(1200, False)]


@pytest.mark.parametrize("kind", WAYS)
async def test_errors_of_the_upstream_are_told_in_the_words_of_its_api(
    gateway: Gateway, api: Upstream, book: Book, kind: str
) -> None:
    way = WAYS[kind][0]
    own = {"error": {"type": "overloaded_error", "message": f"the key {KEY} is too fast"}}
    async with gateway.open(ACCOUNT, None) as lane:
        api.says(own, 429, retry_after="7")
        answer = await ask(lane, way)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["error"]["message"] == "the key [key] is too fast"
        api.says(b"<html>Bad gateway</html>", 503)
        answer = await ask(lane, way)
        assert answer.status_code == 503
        assert "answered with 503" in answer.json()["error"]["message"]
        api.says(b"", 302, location="https://elsewhere.example/")
        answer = await ask(lane, way)
        assert (answer.status_code, "location" in answer.headers) == (502, False)
        api.says(b"squeezed", content_encoding="gzip")
        assert (await ask(lane, way)).status_code == 502
        assert lane.spend.tokens == 0
    assert book.lines == []


@pytest.mark.parametrize("kind", WAYS)
async def test_an_upstream_that_is_away_is_said_in_the_words_of_its_api(kind: str) -> None:
    away = {"url": "http://127.0.0.1:9"}
    settings = GatewaySettings.model_validate({"anthropic": away, "openai": away, "gemini": away})
    async with Gateway(settings, KEYS).serving() as gateway, gateway.open(ACCOUNT, None) as lane:
        answer = await ask(lane, WAYS[kind][0])
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert "cannot be reached" in error["message"]
    told = {"messages": error.get("type") == "api_error", "generate": error.get("status") == "UNAVAILABLE"}
    assert told.get(kind, error.get("type") == "server_error")


async def test_a_key_that_is_missing_is_said_with_its_mend(api: Upstream) -> None:
    async with Gateway(api.settings, {"openai": KEY}).serving() as gateway:
        assert gateway.apis == ("openai",)
        with pytest.raises(
            Unavailable, match=r"has no ANTHROPIC_API_KEY; set it .* `key_from` in \[gateway.anthropic\]"
        ):
            gateway.open(ACCOUNT, "anthropic")
        with pytest.raises(Unavailable, match="GEMINI_API_KEY"):
            await gateway.ping("gemini")
        api.says({"data": []})
        assert "answers" in await gateway.ping("openai")
        api.says({"error": {}}, 401)
        with pytest.raises(Unavailable, match="does not take the key in OPENAI_API_KEY"):
            await gateway.ping("openai")
        async with gateway.open(ACCOUNT, None) as lane:
            assert (await ask(lane, MESSAGES)).status_code == 403


# What it costs, and when it is enough


@pytest.mark.parametrize("left", [Cap(tokens=10), Cap(money_usd=0.00001)], ids=["tokens", "money"])
async def test_a_call_whose_input_would_go_over_the_budget_is_not_made(
    gateway: Gateway, api: Upstream, left: Cap
) -> None:
    async with gateway.open(Account("desk", "run-1", 4, "plan", left), None) as lane:
        answer = await ask(lane, MESSAGES, system="x" * 4000)
        assert (answer.status_code, answer.json()["error"]["type"]) == (402, "billing_error")
        async with asyncio.timeout(1):
            assert "its next call would have gone over the" in await lane.exhausted()
        assert (await ask(lane, MESSAGES)).status_code == 402
    assert api.asked == []


@pytest.mark.parametrize("left", [Cap(tokens=1000), Cap(money_usd=0.002)], ids=["tokens", "money"])
async def test_a_budget_that_a_call_has_used_up_closes_the_lane_at_once(
    gateway: Gateway, api: Upstream, left: Cap
) -> None:
    api.says(MESSAGE)
    async with gateway.open(Account("desk", "run-1", 4, "plan", left), None) as lane:
        assert (await ask(lane, MESSAGES)).status_code == 200
        async with asyncio.timeout(1):
            assert "it was stopped, having used up the" in await lane.exhausted()
        assert (await ask(lane, MESSAGES)).status_code == 402
    assert len(api.asked) == 1


async def test_a_stream_that_goes_over_the_budget_by_itself_is_cut(gateway: Gateway, api: Upstream, book: Book) -> None:
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word " * 200}}
    start = {"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 100}}}
    endless = [f"data: {json.dumps(each)}\n\n".encode() for each in (start, *[text] * 500)]
    api.streams(*endless)
    async with gateway.open(Account("desk", "run-1", 4, "plan", Cap(tokens=5000)), None) as lane:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(lane, MESSAGES, stream=True)
        async with asyncio.timeout(1):
            await lane.exhausted()
    assert 5000 < book.lines[0].tokens < 5500


async def test_questions_side_by_side_share_what_is_left(gateway: Gateway, api: Upstream) -> None:
    api.says(MESSAGE)
    account = Account("desk", "run-1", 4, "plan", Cap(tokens=2000))
    async with gateway.open(account, None) as one, gateway.open(account, None) as two:
        await ask(one, MESSAGES)
        await ask(two, MESSAGES)
        async with asyncio.timeout(1):
            await asyncio.gather(one.exhausted(), two.exhausted())


async def test_a_model_without_a_price_counts_in_tokens_and_is_refused_where_money_is_limited(
    gateway: Gateway, api: Upstream, book: Book
) -> None:
    api.says({**MESSAGE, "model": "unheard-of-1"})
    async with gateway.open(Account("desk", "run-1", 4, "plan", Cap(tokens=10_000)), None) as lane:
        assert (await ask(lane, MESSAGES, model="unheard-of")).status_code == 200
        assert (lane.spend.tokens, lane.spend.unpriced_tokens, lane.spend.money_usd) == (1200, 1200, 0)
    assert (book.lines[0].money_usd, book.lines[0].unpriced_tokens) == (None, 1200)
    async with gateway.open(Account("desk", "run-1", 4, "plan", Cap(money_usd=10)), None) as lane:
        answer = await ask(lane, MESSAGES, model="unheard-of")
        assert answer.status_code == 402
        assert '[gateway.prices."unheard-of"] of moss.toml' in answer.json()["error"]["message"]
        api.says(MESSAGE)
        assert (await ask(lane, MESSAGES)).status_code == 200, "a model with a price is still let through"
    assert len(api.asked) == 2


async def test_an_owners_price_comes_before_the_built_in_one(api: Upstream, book: Book) -> None:
    dear = Price(input=1000, output=2000)
    settings = api.settings.model_copy(
        update={"prices": {"claude-*": Price(input=1, output=1), "claude-sonnet-*": dear}}
    )
    api.says(MESSAGE)
    async with Gateway(settings, KEYS, book).serving() as gateway, gateway.open(ACCOUNT, None) as lane:
        await ask(lane, MESSAGES)
        assert lane.spend.money_usd == pytest.approx((1000 * 1000 + 40 * 600 + 200 * 2000) / 1e6)


def test_the_built_in_prices_mean_what_they_say() -> None:
    assert price_of("claude-opus-4-5-20251101", {}) == BUILT_IN["claude-opus-4-[5678]*"]
    assert price_of("claude-opus-4-1", {}) == BUILT_IN["claude-opus-4*"]
    assert price_of("openai/gpt-5.4-mini", {}) == BUILT_IN["gpt-5.4-mini*"]
    assert price_of("gpt-5.4-pro", {}) is None
    assert price_of("gpt-5-pro-2025-10-06", {}) is None
    assert price_of("gpt-6", {}) is None
    assert price_of("gemini-3-pro-preview", {}) == BUILT_IN["gemini-3-pro*"]
    long = BUILT_IN["gemini-2.5-pro*"].of(Usage(input=200_001, output=10))
    assert long == pytest.approx((200_001 * 2.5 + 10 * 15) / 1e6)


@pytest.mark.parametrize(
    "model",
    [
        "gemini-3-pro-image-preview", "gemini-2.5-flash-image", "gemini-2.5-flash-preview-tts",
        "gemini-2.5-flash-native-audio-preview", "google/gemini-2.5-flash-live-preview", "gpt-4o-audio-preview",
        "gpt-4o-mini-realtime-preview-2024-12-17", "gpt-4o-mini-tts", "gpt-4o-transcribe", "gpt-4o-search-preview",
        "gpt-5.5-pro-2026-01-01", "gpt-5.2-pro-preview",
    ],
)  # fmt: skip
def test_a_make_that_is_sold_otherwise_is_not_taken_for_its_cheap_relative(model: str) -> None:
    assert price_of(model, {}) is None
    own = Price(input=1, output=2)
    assert price_of(model, {"*": own}) == own


async def test_what_could_not_be_written_down_is_written_with_the_next_call(
    gateway: Gateway, api: Upstream, book: Book
) -> None:
    api.says(MESSAGE)
    async with gateway.open(ACCOUNT, None) as lane:
        book.failing = True
        assert (await ask(lane, MESSAGES)).status_code == 200
        book.failing = False
        await ask(lane, MESSAGES)
    assert [line.tokens for line in book.lines] == [1200, 1200]
