"""What stands on the volume of the little agent, which writes all the time: nothing lost, torn or interleaved."""

import hashlib


def line(seal: str, said: str) -> str:
    """As the agent writes it, after the one with this seal."""
    return f"{said} {hashlib.sha256(f'{seal} {said}'.encode()).hexdigest()[:16]}\n"


def problem(text: str) -> str | None:
    """Where the diary is not what one writer after the other wrote, or None."""
    seal = ""
    for number, found in enumerate(text.splitlines(keepends=True)):
        said = found.rpartition(" ")[0]
        if found != line(seal, said) or said.split(" ")[0] != str(number):
            return f"line {number} of the diary does not follow the one before it: {found[:80]!r}"
        seal = found.split()[-1]
    return None


def last_writer(text: str) -> tuple[str, str]:
    """Version and boot id of whoever wrote the last line."""
    _, version, boot_id, _ = text.splitlines()[-1].split(" ")
    return version, boot_id
