"""A model that says what a test wants, on loopback, in the four dialects that coding agents speak.

It has no memory: what it says next follows from how many results of tools stand in the request already. The dialects
are Anthropic Messages, OpenAI Responses, OpenAI chat completions and Gemini generateContent, each streamed.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 1000, 50
"""What every single answer claims to have taken."""

KEY = "moss-test-key-123456"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as all dialects have it."""

    path: str
    key: str
    model: str
    system: str
    said: str
    """All that the user said, without results of tools."""
    results: tuple[str, ...]
    """What the tools gave back so far, as JSON."""
    tools: frozenset[str]
    body: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Write:
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Read:
    path: str


@dataclass(frozen=True, slots=True)
class Shell:
    command: str


@dataclass(frozen=True, slots=True)
class Refuse:
    status: int
    kind: str = "api_error"
    message: str = "The stub refuses."


@dataclass(frozen=True, slots=True)
class Endless:
    """Goes on and on, and never ends."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Takes the question and says nothing."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Breaks off in the middle."""


Say = Text | Write | Read | Shell | Refuse | Endless | Silent | Cut
Script = Callable[[Asked], Say]


def steps(*says: Say) -> Script:
    """One after another; the last again and again."""
    return lambda asked: says[min(len(asked.results), len(says) - 1)]


class ModelStub:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.others: list[str] = []
        """Paths that no model API has."""
        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def model(*says: Say, script: Script | None = None) -> Iterator[ModelStub]:
    stub = ModelStub(script or steps(*says))
    stub.start()
    try:
        yield stub
    finally:
        stub.stop()


def _handler(stub: ModelStub) -> type[BaseHTTPRequestHandler]:
    class Requests(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._plain(200, {})

        def do_GET(self) -> None:
            stub.others.append(self.path)
            self._plain(404, {"error": {"message": "nothing here"}})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            speaks = next((each for end, each in _DIALECTS.items() if end in path), None)
            if speaks is None:
                stub.others.append(self.path)
                self._plain(404, {"error": {"message": "nothing here"}})
                return
            key = next((v for n in ("x-api-key", "authorization", "x-goog-api-key") if (v := self.headers.get(n))), "")
            asked = speaks.read(path, key.removeprefix("Bearer "), json.loads(raw))
            stub.asked.append(asked)
            self._say(speaks, asked, stub.script(asked))

        def _say(self, speaks: "type[_Dialect]", asked: Asked, say: Say) -> None:
            if isinstance(say, Refuse):
                self._plain(say.status, speaks.error(say))
                return
            if not speaks.streams(asked, self.path):
                self._plain(200, speaks.whole(asked, say))
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                if isinstance(say, Silent):
                    stub.ending.wait(120)
                    return
                text = say.text if isinstance(say, Text) else "and on and on "
                events = speaks.events(asked, Text(text) if isinstance(say, Endless | Cut) else say)
                if isinstance(say, Cut):
                    events = events[: len(events) // 2]
                for event in events:
                    self._event(event)
                    if isinstance(say, Endless) and text in json.dumps(event):
                        while not stub.ending.is_set():
                            self._event(event)
                            time.sleep(0.02)
            except OSError:
                pass  # whoever asked has gone

        def _event(self, event: dict[str, Any] | str) -> None:
            name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
            data = event if isinstance(event, str) else json.dumps(event)
            self.wfile.write(f"{name}data: {data}\n\n".encode())
            self.wfile.flush()

        def _plain(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Requests


class _Dialect:
    @staticmethod
    def read(path: str, key: str, body: Any) -> Asked:
        raise NotImplementedError

    @staticmethod
    def events(asked: Asked, say: Say) -> Sequence[dict[str, Any] | str]:
        raise NotImplementedError

    @staticmethod
    def whole(asked: Asked, say: Say) -> object:
        return {}

    @staticmethod
    def streams(asked: Asked, path: str) -> bool:
        return bool(asked.body.get("stream"))

    @staticmethod
    def error(say: Refuse) -> object:
        return {"error": {"type": say.kind, "code": say.kind, "message": say.message}}


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content or [] if isinstance(part, dict))


class _Anthropic(_Dialect):
    """As Claude Code speaks it."""

    @staticmethod
    def read(path: str, key: str, body: Any) -> Asked:
        said, results = [], []
        for message in body["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
            if message["role"] == "user":
                said += [part.get("text") or "" for part in parts]
                results += [json.dumps(part) for part in parts if part.get("type") == "tool_result"]
        tools = frozenset(tool["name"] for tool in body.get("tools", []))
        return Asked(path, key, body["model"], _texts(body.get("system")), "\n".join(said), tuple(results), tools, body)

    @staticmethod
    def error(say: Refuse) -> object:
        return {"type": "error", "error": {"type": say.kind, "message": say.message}}

    @staticmethod
    def _block(asked: Asked, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
        if isinstance(say, Text):
            return {"type": "text", "text": ""}, {"type": "text_delta", "text": say.text}
        bash = {"name": "Bash", "input": {"command": getattr(say, "command", ""), "description": "run it"}}
        called = {
            Write: lambda: {"name": "Write", "input": {"file_path": say.path, "content": say.text}},
            Read: lambda: {"name": "Read", "input": {"file_path": say.path}},
            Shell: lambda: bash,
        }[type(say)]()
        begin = {"type": "tool_use", "id": f"toolu_{len(asked.results)}", "name": called["name"], "input": {}}
        return begin, {"type": "input_json_delta", "partial_json": json.dumps(called["input"])}

    @staticmethod
    def events(asked: Asked, say: Say) -> Sequence[dict[str, Any] | str]:
        begin, delta = _Anthropic._block(asked, say)
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 1},
        }
        reason = "end_turn" if begin["type"] == "text" else "tool_use"
        return [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": begin},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
            {"type": "message_stop"},
        ]

    @staticmethod
    def whole(asked: Asked, say: Say) -> object:
        text = say.text if isinstance(say, Text) else "ok"
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
        }


class _Responses(_Dialect):
    """As Codex speaks it."""

    @staticmethod
    def read(path: str, key: str, body: Any) -> Asked:
        said, results, system = [], [], [body.get("instructions") or ""]
        for item in body["input"]:
            if item.get("type") == "message":
                (said if item["role"] == "user" else system).append(_texts(item["content"]))
            elif str(item.get("type")).endswith("_output"):
                results.append(json.dumps(item))
        tools = frozenset(str(tool.get("name") or tool.get("type")) for tool in body.get("tools", []))
        return Asked(path, key, body["model"], "\n".join(system), "\n".join(said), tuple(results), tools, body)

    @staticmethod
    def _item(asked: Asked, say: Say) -> dict[str, Any]:
        number = len(asked.results)
        if isinstance(say, Text):
            content = [{"type": "output_text", "text": say.text, "annotations": []}]
            return {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": content}
        call = {"call_id": f"call_{number}", "status": "completed"}
        if isinstance(say, Write):
            lines = "".join(f"+{line}\n" for line in say.text.splitlines())
            patch = f"*** Begin Patch\n*** Add File: {say.path}\n{lines}*** End Patch\n"
            if "apply_patch" in asked.tools:
                return {"type": "custom_tool_call", "name": "apply_patch", "input": patch, **call}
            say = Shell(f"apply_patch <<'END_OF_PATCH'\n{patch}END_OF_PATCH")
        command = say.command if isinstance(say, Shell) else f"cat {say.path}"  # type: ignore[union-attr]
        if "exec_command" in asked.tools:
            name, arguments = "exec_command", {"cmd": command, "yield_time_ms": 30000}
        else:
            name, arguments = "shell_command", {"command": command}
        return {"type": "function_call", "name": name, "arguments": json.dumps(arguments), **call}

    @staticmethod
    def events(asked: Asked, say: Say) -> Sequence[dict[str, Any] | str]:
        item = _Responses._item(asked, say)
        usage = {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }
        response = {"id": f"resp_{len(asked.results)}", "object": "response", "output": []}
        events: list[dict[str, Any] | str] = [{"type": "response.created", "response": response}]
        if isinstance(say, Text):
            begun = {**item, "content": []}
            events += [
                {"type": "response.output_item.added", "output_index": 0, "item": begun},
                {"type": "response.output_text.delta", "item_id": item["id"], "output_index": 0, "delta": say.text},
            ]
        return [
            *events,
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {**response, "output": [item], "usage": usage}},
        ]


class _Chat(_Dialect):
    """As OpenCode speaks it."""

    @staticmethod
    def read(path: str, key: str, body: Any) -> Asked:
        of: dict[str, list[str]] = {"system": [], "user": [], "tool": []}
        for message in body["messages"]:
            of.setdefault(message["role"], []).append(_texts(message.get("content")))
        tools = frozenset(tool["function"]["name"] for tool in body.get("tools", []))
        system, said = "\n".join(of["system"]), "\n".join(of["user"])
        return Asked(path, key, body["model"], system, said, tuple(of["tool"]), tools, body)

    @staticmethod
    def _call(say: Say) -> tuple[str, dict[str, Any]]:
        match say:
            case Write(path, text):
                return "write", {"filePath": path, "content": text}
            case Read(path):
                return "read", {"filePath": path}
            case Shell(command):
                return "bash", {"command": command, "description": "run it"}
        raise TypeError(say)

    @staticmethod
    def events(asked: Asked, say: Say) -> Sequence[dict[str, Any] | str]:
        def chunk(delta: dict[str, Any], why: str | None = None, **more: Any) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": why}
            common = {"id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": asked.model}
            return {**common, "choices": [choice], **more}

        if isinstance(say, Text):
            delta: dict[str, Any] = {"role": "assistant", "content": say.text}
            why = "stop"
        else:
            name, arguments = _Chat._call(say)
            function = {"name": name, "arguments": json.dumps(arguments)}
            call = {"index": 0, "id": f"call_{len(asked.results)}", "type": "function", "function": function}
            delta, why = {"role": "assistant", "tool_calls": [call]}, "tool_calls"
        usage = {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }
        return [chunk(delta), chunk({}, why, usage=usage), "[DONE]"]

    @staticmethod
    def whole(asked: Asked, say: Say) -> object:
        message = {"role": "assistant", "content": say.text if isinstance(say, Text) else "ok"}
        return {"id": "chat_1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}


class _Gemini(_Dialect):
    """As the Gemini CLI speaks it."""

    @staticmethod
    def read(path: str, key: str, body: Any) -> Asked:
        said, results = [], []
        for content in body["contents"]:
            for part in content["parts"]:
                if "functionResponse" in part:
                    results.append(json.dumps(part["functionResponse"]))
                elif content.get("role") == "user":
                    said.append(part.get("text") or "")
        declared = [each for tool in body.get("tools", []) for each in tool.get("functionDeclarations", [])]
        tools = frozenset(each["name"] for each in declared)
        system = _texts((body.get("systemInstruction") or {}).get("parts"))
        name = path.rpartition("/")[2].partition(":")[0]
        return Asked(path, key, name, system, "\n".join(said), tuple(results), tools, body)

    @staticmethod
    def streams(asked: Asked, path: str) -> bool:
        return ":streamGenerateContent" in path

    @staticmethod
    def error(say: Refuse) -> object:
        return {"error": {"code": say.status, "message": say.message, "status": say.kind}}

    @staticmethod
    def _chunk(parts: list[dict[str, Any]], why: str | None) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0} | ({"finishReason": why} if why else {})
        usage = {
            "promptTokenCount": INPUT_TOKENS,
            "candidatesTokenCount": OUTPUT_TOKENS,
            "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
        }
        return {"candidates": [candidate], "usageMetadata": usage}

    @staticmethod
    def events(asked: Asked, say: Say) -> Sequence[dict[str, Any] | str]:
        match say:
            case Text(text):
                return [_Gemini._chunk([{"text": text}], None), _Gemini._chunk([{"text": ""}], "STOP")]
            case Write(path, text):
                call = {"name": "write_file", "args": {"file_path": path, "content": text}}
            case Read(path):
                call = {"name": "read_file", "args": {"file_path": path}}
            case Shell(command):
                call = {"name": "run_shell_command", "args": {"command": command, "description": "run it"}}
            case _:
                raise TypeError(say)
        return [_Gemini._chunk([{"functionCall": call}], "STOP")]

    @staticmethod
    def whole(asked: Asked, say: Say) -> object:
        return _Gemini._chunk([{"text": say.text if isinstance(say, Text) else "{}"}], "STOP")


_DIALECTS: dict[str, type[_Dialect]] = {
    "/v1/messages": _Anthropic,
    "/responses": _Responses,
    "/chat/completions": _Chat,
    "GenerateContent": _Gemini,
    "generateContent": _Gemini,
}
