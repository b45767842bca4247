"""Files that people name: read as text, up to a limit, with the reason in words when that cannot be."""

import sys
from pathlib import Path


class Unreadable(Exception):
    """Says why, as the rest of a sentence about the file."""


def text_of(file: Path | None, limit_bytes: int) -> str:
    """None stands for standard input. Some files never end."""
    try:
        if file is None:
            data = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(limit_bytes + 1)
    except OSError as problem:
        raise Unreadable((problem.strerror or "no reason given").lower()) from None
    if len(data) > limit_bytes:
        raise Unreadable(f"it is larger than {limit_bytes:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
