"""A model's API on the loopback, as far as the gateway sees of it: it keeps what it was asked, and answers as told."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from core.gateway.settings import GatewaySettings

KEY = "sk-the-real-key-0123456789"
"""What must never be seen on the other side of the gateway."""


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


Send = Callable[[bytes], Awaitable[None]]
Answering = Callable[[Request, Send], Awaitable[None]]


@dataclass
class Upstream:
    url: str
    asked: list[Request] = field(default_factory=list)
    answering: Answering | None = None

    @property
    def settings(self) -> GatewaySettings:
        one = {"url": self.url}
        return GatewaySettings.model_validate({"anthropic": one, "openai": one, "gemini": one})

    def says(self, told: object, status: int = 200, **headers: str) -> None:
        """The same JSON, or bytes, to whatever is asked."""
        body = told if isinstance(told, bytes) else json.dumps(told).encode()

        async def answer(request: Request, send: Send) -> None:
            more = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
            lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
            await send(f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)

        self.answering = answer

    def streams(
        self, *events: bytes, pause: Callable[[int], Awaitable[None]] | None = None, breaks: bool = False
    ) -> None:
        """Each as a chunk of its own. One that `breaks` closes the connection instead of ending its answer."""

        async def answer(request: Request, send: Send) -> None:
            await send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for n, event in enumerate(events):
                if pause:
                    await pause(n)
                await send(b"%x\r\n%s\r\n" % (len(event), event))
            if breaks:
                raise ConnectionError
            await send(b"0\r\n\r\n")

        self.answering = answer


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())

        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                there.asked.append(Request(method, target, headers, body))
                assert there.answering is not None
                await there.answering(there.asked[-1], send)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    there = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield there
    finally:
        server.close()
        for task in tasks:
            if task:
                task.cancel()


def sse(*events: object) -> list[bytes]:
    """Events as Anthropic and OpenAI's Responses write them, with their type, or plain ones."""
    return [_event(each) for each in events]


def _event(told: object) -> bytes:
    name = f"event: {told['type']}\n" if isinstance(told, dict) and "type" in told else ""
    data = told if isinstance(told, str) else json.dumps(told)
    return f"{name}data: {data}\n\n".encode()


# One answer of each API, all with the same usage where they can say it: 1,000 in, 400 of them cached, 200 out

MESSAGE = {
    "type": "message",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "hello"}],
    "usage": {
        "input_tokens": 600,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
        "output_tokens": 200,
    },
}
MESSAGE_EVENTS = sse(
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**MESSAGE["usage"], "output_tokens": 2}}},  # type: ignore[dict-item]
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo, I am not done yet"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 200}},
    {"type": "message_stop"},
)
RESPONSE = {
    "object": "response",
    "model": "gpt-5.1-2025-11-13",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}],
    "usage": {"input_tokens": 1000, "input_tokens_details": {"cached_tokens": 400}, "output_tokens": 200},
}
RESPONSE_EVENTS = sse(
    {"type": "response.created", "response": {**RESPONSE, "output": [], "usage": None}},
    {"type": "response.output_text.delta", "delta": "hello, I am not done yet"},
    {"type": "response.completed", "response": RESPONSE},
)
CHAT = {
    "object": "chat.completion",
    "model": "gpt-5.1-2025-11-13",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 400}, "completion_tokens": 200},
}
_CHUNK = {"object": "chat.completion.chunk", "model": CHAT["model"], "usage": None}
CHAT_EVENTS = sse(
    {**_CHUNK, "choices": [{"index": 0, "delta": {"content": "hello, I am"}}]},
    {**_CHUNK, "choices": [{"index": 0, "delta": {"content": " not done yet"}, "finish_reason": "stop"}]},
    {**_CHUNK, "choices": [], "usage": CHAT["usage"]},
    "[DONE]",
)
GENERATED = {
    "modelVersion": "gemini-2.5-pro",
    "candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 400,
        "candidatesTokenCount": 150,
        "thoughtsTokenCount": 50,
        "totalTokenCount": 1200,
    },
}
GENERATED_EVENTS = sse(
    {
        "modelVersion": "gemini-2.5-pro",
        "candidates": [{"content": {"parts": [{"text": "hello, I am"}]}}],
        "usageMetadata": {"promptTokenCount": 1000, "cachedContentTokenCount": 400},
    },
    {**GENERATED, "candidates": [{"content": {"parts": [{"text": " not done yet"}]}, "finishReason": "STOP"}]},
)
