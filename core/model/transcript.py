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

    @property
    def conversation(self) -> "Place":
        """The channel or direct message with all its threads: what one batch collects for."""
        return self.model_copy(update={"thread": ""}) if self.thread else self

    def __str__(self) -> str:
        return "/".join(part for part in (self.platform, self.workspace, self.channel, self.thread) if part)


class ToolCall(Value):
    name: str = Field(description="The tool.")
    arguments: str = Field(default="", description="As the agent passed them, often JSON.")
    result: str = Field(default="", description="What the tool answered.")
    error: str | None = Field(default=None, description="What went wrong in it.")


class Message(Value):
    role: Literal["system", "user", "assistant"] = Field(description="Who speaks; `assistant` is the agent.")
    content: str = Field(description="What was said.")
    id: str | None = Field(default=None, description="The platform's id of the message.")
    who: str | None = Field(default=None, description="Which person, under another name.")
    at: datetime | None = Field(default=None, description="When.")
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="What the agent did before it answered.")
    agent_version: str | None = Field(default=None, description="Which version of the agent answered.")
    error: str | None = Field(default=None, description="Why the agent gave no proper answer.")


class Transcript(Value):
    messages: tuple[Message, ...] = Field(min_length=1)

    def user_turns(self) -> tuple[Message, ...]:
        return tuple(m for m in self.messages if m.role == "user")

    @property
    def reply(self) -> Message | None:
        """What the last turn of the user was answered with; None when nobody has answered it."""
        return self.messages[-1] if self.messages[-1].role == "assistant" else None
