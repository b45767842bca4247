"""A small file that changes while the desk is alive, and says which start of it that is."""

import json
import os
import time
from pathlib import Path

BEAT_EVERY_S = 0.2


class Heartbeat:
    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._count = 0
        self._due = 0.0

    def beat(self) -> None:
        """To be called often, by the loop whose life it proves."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + BEAT_EVERY_S
        self._count += 1
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"boot_id": self._boot_id, "beat": self._count}), encoding="utf-8")
        os.replace(new, self._path)  # a reader never sees half a file
