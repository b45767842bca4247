"""Runs the tools that the model asks for, and keeps the case: what this turn is about, a record of each kind.

The model names a tool and gives search terms. What a tool needs beyond that comes from the case, where the tools before
it have put what they found.
"""

import json
from collections.abc import Mapping

from desk.records import Call, Message, Record, ToolError
from desk.tools import Tool


class Case:
    """The ticket, its service level, the engineer, the part: filled in as the tools find them."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def keep(self, kind: str, rows: list[Record]) -> None:
        """Rows come best match first. A search that finds nothing clears what an earlier one had found."""
        self._records.pop(kind, None)
        for row in rows:
            self._records.setdefault(kind, row)

    def record(self, kind: str) -> Record | None:
        return self._records.get(kind)


class Dispatcher:
    """One for each turn."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._case = Case()
        self.trace: list[Record] = []
        """Every call as it really went: name, arguments, result, error."""

    def run(self, call: Call) -> Message:
        """The tool message that answers the call."""
        try:
            tool = self._tool(call.tool)
            arguments = self._complete(tool, call.arguments)
            rows = self._run(tool, arguments)
        except ToolError as error:
            return _tool_message(call, {"error": str(error)})
        self._case.keep(tool.gives, rows)
        record = self._case.record(tool.gives)
        return _tool_message(call, {"records": [record] if record else []})

    def _tool(self, name: str) -> Tool:
        if name not in self._tools:
            raise ToolError(f"there is no tool {name}")
        return self._tools[name]

    def _complete(self, tool: Tool, arguments: Record) -> Record:
        if tool.needs is None:
            return arguments
        record = self._case.record(tool.needs)
        if record is None:
            raise ToolError(f"{tool.name} needs a {tool.needs}, and no search has found one")
        return {**arguments, tool.needs: record}

    def _run(self, tool: Tool, arguments: Record) -> list[Record]:
        entry: Record = {"name": tool.name, "arguments": arguments}
        self.trace.append(entry)
        try:
            rows = tool.run(**arguments)
        except ToolError as error:
            entry["error"] = str(error)
            raise
        except TypeError as error:
            entry["error"] = f"wrong arguments: {error}"
            raise ToolError(entry["error"]) from error
        entry["result"] = rows
        return rows


def _tool_message(call: Call, content: Record) -> Message:
    return {"role": "tool", "name": call.tool, "content": json.dumps(content)}
