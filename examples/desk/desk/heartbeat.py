"""A small file that changes while the desk is alive, and says which start of it that is."""

import json
import os
import threading
from pathlib import Path

BEAT_EVERY_S = 0.5


class Heartbeat:
    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        beat = 0
        while True:
            beat += 1
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps({"boot_id": self._boot_id, "beat": beat}), encoding="utf-8")
            os.replace(new, self._path)  # a reader never sees half a file
            if self._ended.wait(BEAT_EVERY_S):
                return
