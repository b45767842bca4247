"""How many tokens an answer took, read as it passes by. Nothing here waits, and nothing that passes is held up.

Each API says it in its own words and at its own place. Where none can be found, as when an answer breaks off, it is
estimated from what was said.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["messages", "responses", "chat", "generate"]
"""What an answer is written in: Anthropic's Messages, OpenAI's Responses and chat completions, Gemini's."""

BYTES_PER_TOKEN = 4
HELD_BYTES = 16_000_000
"""Of an answer that comes as a whole, and of one event of a stream; what is longer is passed on, and estimated."""
_MOST = 10**10
_ENDS = (b"\n\n", b"\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Usage:
    input: int = 0
    """Beside what was read from a cache or written into one."""
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_hour: int = 0
    """Written to be kept for an hour, which Anthropic sells at another price."""
    estimated: bool = False

    @property
    def cached(self) -> int:
        return self.cache_read + self.cache_write + self.cache_write_hour

    @property
    def total(self) -> int:
        return self.input + self.output + self.cached


def estimate(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


@dataclass(slots=True)
class Reader:
    """Fed with an answer as it comes, it knows what it took."""

    kind: Kind
    stream: bool
    """Whether the answer is a stream of events. Otherwise it is one JSON text."""
    asked_bytes: int
    """The size of the request: what its input is estimated from."""
    hide_usage: bool = False
    """Keep from the client the last chunk, with the usage that only Moss asked for."""
    model: str = ""
    """As the answer names it."""
    _seen: dict[str, int] = field(default_factory=dict)
    _final: bool = False
    """The usage that ends an answer was seen, with numbers in it, and nothing was said after it."""
    _said_bytes: int = 0
    """Of the text of a stream so far, without what it is wrapped in; of an answer that comes as a whole, all of it."""
    _held: bytearray = field(default_factory=bytearray)
    _searched: int = 0
    """No event ends before this place in what is held."""
    _lost: bool = False
    """More came than can be held."""

    def feed(self, chunk: bytes) -> bytes:
        """What of it the client gets, which is all of it, and at once, unless something has to be hidden."""
        if self._lost:
            self._said_bytes += len(chunk)
            return chunk
        self._held += chunk
        passed = self._events() if self.stream else b""
        if len(self._held) > HELD_BYTES:
            self._lost = True
            self._said_bytes += len(self._held)
            passed += bytes(self._held)
            self._held.clear()
        return passed if self.hide_usage and self.stream else chunk

    def rest(self) -> bytes:
        """At the end of the answer: what is still held back."""
        held = bytes(self._held)
        self._held.clear()
        if self.stream:
            passes = not held or self._pass(held)
            return held if self.hide_usage and passes else b""
        if not self._lost:
            self._take_whole(held)
        return b""

    def usage(self) -> Usage:
        """So far, or in all."""
        known = self._known()
        said_bytes = self._said_bytes + (0 if self.stream else len(self._held))
        put_in = known.input if known.input or known.cached else estimate(self.asked_bytes)
        if self._final and put_in == known.input and (known.output or not said_bytes):
            return known
        rest = self._seen.get("total", 0) - put_in - known.cached  # some name nothing but a total
        said = max(known.output, estimate(said_bytes), rest)
        return Usage(put_in, said, known.cache_read, known.cache_write, known.cache_write_hour, estimated=True)

    def _known(self) -> Usage:
        seen = self._seen
        return Usage(
            input=seen.get("input", 0),
            output=seen.get("output", 0),
            cache_read=seen.get("cache_read", 0),
            cache_write=seen.get("cache_write", 0),
            cache_write_hour=seen.get("cache_write_hour", 0),
        )

    def _events(self) -> bytes:
        """Takes out every event that is complete; those that may pass."""
        passed = bytearray()
        while True:
            found = [(at, len(end)) for end in _ENDS if (at := self._held.find(end, self._searched)) >= 0]
            if not found:
                self._searched = max(len(self._held) - 3, 0)
                return bytes(passed)
            at, length = min(found)
            event = bytes(self._held[: at + length])
            del self._held[: at + length]
            self._searched = 0
            if self._pass(event):
                passed += event

    def _pass(self, event: bytes) -> bool:
        data = b"\n".join(
            line[5:].strip() for line in event.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data:")
        )
        if not data or data == b"[DONE]":
            return True
        told = _parsed(data)
        if not isinstance(told, dict):
            return True
        self._take(told)
        return not (self.hide_usage and told.get("usage") and told.get("choices") == [])

    def _take_whole(self, text: bytes) -> None:
        self._said_bytes = len(text)
        told = _parsed(text)
        for each in told if isinstance(told, list) else [told]:
            if isinstance(each, dict):
                self._take(each)

    def _take(self, told: dict[str, Any]) -> None:
        match self.kind:
            case "messages":
                self._messages(told)
            case "responses":
                self._responses(told)
            case "chat":
                self._chat(told)
            case "generate":
                self._generate(told)

    def _messages(self, told: dict[str, Any]) -> None:
        about = _table(told, "message") if told.get("type") == "message_start" else told
        self._named(about.get("model"))
        usage, made = _table(about, "usage"), _table(_table(about, "usage"), "cache_creation")
        hour = _number(made, "ephemeral_1h_input_tokens")
        told_some = self._see(
            input=_number(usage, "input_tokens"),
            output=_number(usage, "output_tokens"),
            cache_read=_number(usage, "cache_read_input_tokens"),
            cache_write=max(_number(usage, "cache_creation_input_tokens") - hour, 0),
            cache_write_hour=hour,
        )
        self._said(_table(told, "delta"), "text", "partial_json", "thinking", "signature")
        self._final |= told_some and told.get("type") in ("message_delta", "message")

    def _responses(self, told: dict[str, Any]) -> None:
        about = _table(told, "response") if "response" in told else told
        self._named(about.get("model"))
        usage = _table(about, "usage")
        cached = _number(_table(usage, "input_tokens_details"), "cached_tokens")
        told_some = self._see(
            input=max(_number(usage, "input_tokens") - cached, 0),
            output=_number(usage, "output_tokens"),
            cache_read=cached,
            total=_number(usage, "total_tokens"),
        )
        self._said(told, "delta")
        self._final |= told_some

    def _chat(self, told: dict[str, Any]) -> None:
        self._named(told.get("model"))
        usage = _table(told, "usage")
        cached = _number(_table(usage, "prompt_tokens_details"), "cached_tokens")
        told_some = self._see(
            input=max(_number(usage, "prompt_tokens") - cached, 0),
            output=_number(usage, "completion_tokens"),
            cache_read=cached,
            total=_number(usage, "total_tokens"),
        )
        for choice in _tables(told, "choices"):
            delta = _table(choice, "delta")
            self._said(delta, "content", "reasoning_content", "reasoning", "refusal")
            for call in _tables(delta, "tool_calls"):
                self._said(_table(call, "function"), "name", "arguments")
        self._final |= told_some

    def _generate(self, told: dict[str, Any]) -> None:
        self._named(told.get("modelVersion"))
        usage = _table(told, "usageMetadata")
        cached = _number(usage, "cachedContentTokenCount")
        put_in = _number(usage, "promptTokenCount") + _number(usage, "toolUsePromptTokenCount")
        told_some = self._see(
            input=max(put_in - cached, 0),
            output=_number(usage, "candidatesTokenCount") + _number(usage, "thoughtsTokenCount"),
            cache_read=cached,
            total=_number(usage, "totalTokenCount"),
        )
        ends = not self.stream or "candidates" not in told  # a prompt that was refused has no candidates
        for candidate in _tables(told, "candidates"):
            ends |= bool(candidate.get("finishReason"))
            for part in _tables(_table(candidate, "content"), "parts"):
                self._said(part, "text")
                if call := part.get("functionCall"):
                    self._said_bytes += len(json.dumps(call))
        self._final |= told_some and ends

    def _named(self, model: Any) -> None:
        if isinstance(model, str) and model and not self.model:
            self.model = model[:200]

    def _see(self, **counts: int) -> bool:
        """Every count in every API grows, or is told once. Whether there was any."""
        for name, count in counts.items():
            self._seen[name] = max(self._seen.get(name, 0), count)
        return any(counts.values())

    def _said(self, told: Mapping[str, Any], *names: str) -> None:
        for name in names:
            if isinstance(said := told.get(name), str) and said:
                self._said_bytes += len(said.encode("utf-8", "replace"))
                self._final = False


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _table(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _tables(told: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = told.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _number(told: Mapping[str, Any], name: str) -> int:
    """0 where there is none that can be believed."""
    found = told.get(name)
    if (
        isinstance(found, bool)
        or not isinstance(found, int | float)
        or (isinstance(found, float) and not found.is_integer())
    ):
        return 0
    return min(max(int(found), 0), _MOST)
