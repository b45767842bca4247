"""A turn of the agent under evolution, as it is written and read. Pure; `core/agent.py` sends and receives.

What the agent answers may be broken or hostile: what is not as `docs/substrate.md` asks for is AgentFailed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from core.model.errors import AgentFailed
from core.model.substrate import Replay
from core.model.transcript import Message, ToolCall

TRACE = "moss_trace"
"""In an answer, if the agent likes: the tool calls that led to it."""

_OPENAI_REPLY = "choices.0.message.content"
_QUOTED_CHARS = 200


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: object


def request(replay: Replay, history: Sequence[Message], message: str, session: str) -> Request:
    """What is posted for one turn."""
    so_far = [{"role": said.role, "content": said.content} for said in history] if replay.history == "client" else []
    headers = {name: value.replace("{session}", session) for name, value in replay.headers.items()}
    if replay.kind == "openai":
        turn = {"role": "user", "content": message}
        body: object = {"model": replay.model, "messages": [*so_far, turn], "user": session, "stream": False}
        return Request(replay.path, {**headers, "X-Session-Id": session}, body)
    path = replay.path.replace("{session}", quote(session, safe=""))
    return Request(path, headers, _filled(replay.body, {"message": message, "session": session, "history": so_far}))


def _filled(template: object, values: Mapping[str, Any]) -> object:
    """Each gap is filled once, so that a message that holds `{session}` stays as it is."""
    if isinstance(template, dict):
        return {key: _filled(value, values) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(value, values) for value in template]
    if not isinstance(template, str):
        return template
    if template == "{history}":
        return values["history"]
    lines = "\n".join(f"{said['role']}: {said['content']}" for said in values["history"])
    texts = {**values, "history": lines}
    return re.sub(r"\{(message|session|history)\}", lambda gap: str(texts[gap[1]]), template)


def read(replay: Replay, data: bytes) -> Message:
    """The agent's turn from what it sent: `replay.reply` is a dotted path into JSON, or all of it is the text."""
    reply = _OPENAI_REPLY if replay.kind == "openai" else replay.reply
    if reply is None:
        return _spoken(data.decode("utf-8", "replace"), ())
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise AgentFailed(f"The agent's answer is not JSON; it begins with: {quoted(data)}") from None
    return _spoken(_at(answer, reply), _trace(answer))


def _spoken(text: object, calls: tuple[ToolCall, ...]) -> Message:
    if not isinstance(text, str):
        raise AgentFailed(f"The agent's reply is {_kind(text)} where a text is due.")
    if not text.strip():
        raise AgentFailed("The agent's reply is empty.")
    return Message(role="assistant", content=clean(text).strip(), tool_calls=calls)


def _at(answer: object, path: str) -> object:
    found = answer
    for step in path.split("."):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            raise AgentFailed(f"The agent's answer has nothing at `{path}`; it is: {quoted(json.dumps(answer))}")
    return found


def _trace(answer: object) -> tuple[ToolCall, ...]:
    calls = answer.get(TRACE) if isinstance(answer, dict) else None
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise AgentFailed(f"The agent's `{TRACE}` is {_kind(calls)} where a list of tool calls is due.")
    found = []
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise AgentFailed(f"A tool call in the agent's `{TRACE}` has no name.")
        error = call.get("error")
        found.append(
            ToolCall(
                name=clean(call["name"]),
                arguments=_as_text(call.get("arguments")),
                result=_as_text(call.get("result")),
                error=None if error is None else _as_text(error),
            )
        )
    return tuple(found)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def clean(text: str) -> str:
    """JSON can spell half a character, and a NUL: no file and no database takes those."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def quoted(said: bytes | str) -> str:
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    line = " ".join(clean(text[: 4 * _QUOTED_CHARS]).split())
    return line if len(line) <= _QUOTED_CHARS else line[:_QUOTED_CHARS] + "…"
