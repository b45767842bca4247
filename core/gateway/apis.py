"""The model APIs as the gateway knows them: what may pass, how each says no, what a request asks for. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.coders.coder import Api
from core.gateway.usage import Kind

Headers = list[tuple[bytes, bytes]]

APIS: tuple[Api, ...] = ("anthropic", "openai", "gemini")

VALUES = 1_000_000
"""A request with more commas outside of any text, or in it, would take too much memory to be looked at."""


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that may be asked of an API."""

    api: Api
    method: str
    path: str
    """Below the API's address."""
    kind: Kind | None = None
    """None when it costs nothing."""
    model: str = ""
    """Where the path names it."""
    query: frozenset[str] = frozenset()
    """Names that may pass."""


class No(Exception):
    """What is not done, in words for whoever asked."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


_FIXED = {
    ("POST", "/anthropic/v1/messages"): Route(
        "anthropic", "POST", "/v1/messages", "messages", query=frozenset({"beta"})
    ),
    ("POST", "/anthropic/v1/messages/count_tokens"): Route(
        "anthropic", "POST", "/v1/messages/count_tokens", query=frozenset({"beta"})
    ),
    ("POST", "/openai/v1/responses"): Route("openai", "POST", "/v1/responses", "responses"),
    ("POST", "/openai/v1/chat/completions"): Route("openai", "POST", "/v1/chat/completions", "chat"),
    ("GET", "/openai/v1/models"): Route("openai", "GET", "/v1/models"),
}
_GEMINI = re.compile(r"/gemini(/v1beta/models/([A-Za-z0-9][A-Za-z0-9._-]{0,199}):([A-Za-z]+))")
_GEMINI_VERBS: Mapping[str, Kind | None] = {
    "generateContent": "generate",
    "streamGenerateContent": "generate",
    "countTokens": None,
}

PASSED_ON = frozenset({
    b"accept", b"anthropic-beta", b"anthropic-dangerous-direct-browser-access", b"anthropic-version", b"content-type",
    b"conversation_id", b"idempotency-key", b"openai-beta", b"originator", b"session_id", b"user-agent", b"version",
    b"x-app", b"x-goog-api-client",
})  # fmt: skip
"""Of a request. Beside these, what the makers' own libraries say about themselves (`x-stainless-...`)."""
PASSED_BACK = frozenset({
    b"content-type", b"openai-model", b"openai-processing-ms", b"openai-version", b"request-id", b"retry-after",
    b"retry-after-ms", b"x-request-id", b"x-should-retry",
})  # fmt: skip
"""Of an answer. Beside these, how much of a rate limit is left."""


def api_of(path: str) -> Api | None:
    """By whose words an error is told, whether or not anything is there."""
    return next((api for api in APIS if path.startswith(f"/{api}/")), None)


def route(method: str, path: str) -> Route:
    """By the path as it was sent: nothing is decoded, so nothing can hide in it. Raises No."""
    if found := _FIXED.get((method, path)):
        return found
    if (match := _GEMINI.fullmatch(path)) and match[3] in _GEMINI_VERBS:
        if method != "POST":
            raise No(405, f"{method} is not allowed here")
        return Route("gemini", "POST", match[1], _GEMINI_VERBS[match[3]], match[2], frozenset({"alt"}))
    if any(known == path for _, known in _FIXED):
        raise No(405, f"{method} is not allowed here")
    raise No(404, "this path does not lead through the gateway; docs/gateway.md lists those that do")


def query(route: Route, text: str) -> str:
    """What of a request's query passes. Raises No."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise No(400, "the query has too many parts") from None
    return urlencode([(name, value) for name, value in pairs if name in route.query])


def tokens(headers: Headers, text: str) -> list[str]:
    """Everything in a request that may be a key, wherever the APIs have theirs."""
    found = []
    for name, value in headers:
        said = value.decode("latin-1").strip()
        if name == b"authorization" and said[:7].lower() == "bearer ":
            found.append(said[7:].strip())
        elif name in (b"x-api-key", b"x-goog-api-key"):
            found.append(said)
    try:
        found += [value for name, value in parse_qsl(text, max_num_fields=20) if name == "key"]
    except ValueError:
        return found
    return found


def request_headers(api: Api, headers: Headers, key: str) -> Headers:
    kept = [(name, value) for name, value in headers if name in PASSED_ON or name.startswith(b"x-stainless-")]
    own = {
        "anthropic": (b"x-api-key", key.encode()),
        "openai": (b"authorization", b"Bearer " + key.encode()),
        "gemini": (b"x-goog-api-key", key.encode()),
    }
    return [*kept, own[api], (b"accept-encoding", b"identity")]


def answer_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    limits = (b"anthropic-ratelimit-", b"x-ratelimit-")
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name in PASSED_BACK or name.startswith(limits)]


# How each API says no

_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
_OPENAI = {401: "invalid_api_key", 402: "insufficient_quota", 404: "not_found", 429: "rate_limit_exceeded"}
_GOOGLE = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def refusal(api: Api | None, status: int, why: str) -> bytes:
    """An error in the words of the API, so that a client of it understands."""
    told: dict[str, Any]
    match api:
        case "anthropic":
            kind = _ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
            told = {"type": "error", "error": {"type": kind, "message": why}}
        case "gemini":
            kind = _GOOGLE.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
            told = {"error": {"code": status, "message": why, "status": kind}}
        case _:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            told = {"error": {"message": why, "type": kind, "param": None, "code": _OPENAI.get(status)}}
    return json.dumps(told).encode()


def is_refusal(body: bytes) -> bool:
    """Whether an upstream's error is one in its own words already, and not the page of a proxy before it."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if isinstance(told, list) and len(told) == 1:  # Gemini, when a stream was asked for
        told = told[0]
    return isinstance(told, dict) and "error" in told


def is_object(body: bytes) -> bool:
    """Whether an answer is one of an API, and not the page of something before it."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


# What a request asks for


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore")
    model: str | None = Field(default=None, max_length=200)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    model: str
    body: bytes
    """As it goes upstream."""
    hide_usage: bool = False
    """Usage was asked for in addition, and the client does not expect the chunk that holds it."""


def read(body: bytes) -> dict[str, Any]:
    """Raises No for what cannot be read, since what it costs could not be told either."""
    if body.count(b",") > VALUES:
        raise No(413, "the request holds too many values")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise No(400, "the request is not JSON as this API has it")
    return told


def written(told: Mapping[str, Any]) -> bytes:
    """Always anew: what names a thing twice could mean one to us, and another to the service. Raises No."""
    try:
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a character
        return json.dumps(told, separators=(",", ":")).encode()
    except RecursionError:
        raise No(400, "the request is nested too deeply") from None


def asked(route: Route, told: dict[str, Any]) -> Asked:
    """Raises No."""
    try:
        about = _Asked.model_validate(told)
    except ValidationError:
        raise No(400, "the request is not JSON with a `model` as this API has it") from None
    model = route.model or about.model or ""
    if not model:
        raise No(400, "the request names no `model`")
    options = about.stream_options or {}
    if route.kind != "chat" or not about.stream or options.get("include_usage"):
        return Asked(model, written(told))
    return Asked(model, written({**told, "stream_options": {**options, "include_usage": True}}), hide_usage=True)
