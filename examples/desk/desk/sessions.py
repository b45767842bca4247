"""Sessions: what was said, one JSON line a message, on the volume, so that a new version remembers it."""

import hashlib
import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

from desk.records import Message, Record


class Sessions:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.Lock()

    def history(self, session: str) -> list[Message]:
        """What users said and the desk answered, oldest first."""
        path = self._path(session)
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{"role": line["role"], "content": line["content"]} for line in lines]

    def add(self, session: str, question: str, answer: str, trace: list[Record]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        calls = [
            {
                "name": call["name"],
                "arguments": json.dumps(call["arguments"]),
                "result": json.dumps(call.get("result", "")),
                "error": call.get("error"),
            }
            for call in trace
        ]
        lines = (
            {"role": "user", "content": question, "at": now},
            {"role": "assistant", "content": answer, "at": now, "tool_calls": calls},
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with self._lock, self._path(session).open("a", encoding="utf-8") as file:
            file.write(text)

    def _path(self, session: str) -> Path:
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", session)
        name = session if plain else hashlib.sha256(session.encode()).hexdigest()
        return self._directory / f"{name}.jsonl"
