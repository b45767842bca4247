"""The values that travel between the model, the dispatcher and the tools."""

import json
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]
"""A ticket, a service level, an engineer, a part: whatever a tool gives."""

Message = dict[str, Any]
"""One message of a conversation, as the chat completions API has it."""


class Call(NamedTuple):
    """A tool call that the model asks for."""

    tool: str
    arguments: Record


class ToolError(Exception):
    """A tool cannot do what it was asked; the text is for the model."""


def load(path: Path) -> Record:
    """The data of the desk, as the ticket system exports it."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object")
    return data
