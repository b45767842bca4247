"""Transcripts: what was said between people and the agent, with the agent's tool calls and errors."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from core.model.value import Value


class Place(Value):
    """Where a conversation happens."""

    platform: str
    workspace: str
    channel: str
    thread: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.platform, self.workspace, self.channel, self.thread) if part)


class ToolCall(Value):
    name: str
    arguments: str = ""
    result: str = ""
    error: str | None = None


class Message(Value):
    role: Literal["system", "user", "assistant"]
    content: str
    id: str | None = None
    who: str | None = None
    at: datetime | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    agent_version: str | None = None
    error: str | None = None


class Transcript(Value):
    messages: tuple[Message, ...] = Field(min_length=1)

    def up_to(self, index: int) -> "Transcript":
        return Transcript(messages=self.messages[: index + 1])

    def user_turns(self) -> tuple[Message, ...]:
        return tuple(m for m in self.messages if m.role == "user")

    def last_reply(self) -> Message | None:
        return next((m for m in reversed(self.messages) if m.role == "assistant"), None)
