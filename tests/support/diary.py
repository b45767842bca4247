"""What stands on the volume of the little agent, which writes all the time: nothing lost, torn or interleaved."""

import hashlib


def entries(text: str) -> list[tuple[str, str]]:
    """Version and boot id of whoever wrote each line."""
    return [(words[1], words[2]) for words in (line.split(" ") for line in text.splitlines())]


def problem(text: str) -> str | None:
    """Where the diary is not what one writer after the other wrote, or None."""
    seal = ""
    if text and not text.endswith("\n"):
        return "the last line of the diary is torn"
    for number, line in enumerate(text.splitlines()):
        said, _, found = line.rpartition(" ")
        wanted = hashlib.sha256(f"{seal} {said}".encode()).hexdigest()[:16]
        if found != wanted or said.split(" ")[0] != str(number):
            return f"line {number} of the diary does not follow the one before it: {line[:80]!r}"
        seal = found
    return None
