"""Stands between a process host and one agent: bounds its log, writes down how it ended, and leaves nobody behind.

`python boxed.py DIRECTORY COMMAND...`. It is not Moss's child any longer once Moss was started anew, so that nobody
else could ask for the exit code. A single file of the standard library: it outlives upgrades of everything around it.
"""

import contextlib
import os
import signal
import sys
import threading
import time

LOG_BYTES = 4_000_000
"""Of each of two files."""
DEATH_S = 5.0


def keep_log(pipe: int, path: str) -> None:
    log = open(path, "ab", buffering=0)  # noqa: SIM115 - it is exchanged below
    while said := os.read(pipe, 65_536):
        with contextlib.suppress(OSError):  # a full disk; the agent must not hang on it
            log.write(said)
            if log.tell() > LOG_BYTES:
                os.replace(path, f"{path}.1")
                log.close()
                log = open(path, "ab", buffering=0)  # noqa: SIM115


def write(path: str, number: int) -> None:
    with open(f"{path}.new", "w") as file:
        file.write(str(number))
    os.replace(f"{path}.new", path)


def end_all_that_carry(tag: bytes) -> None:
    """What left the group as well, and the commands that run in the box: their tags begin alike."""
    until = time.monotonic() + DEATH_S
    while [pid for pid in others() if was_killed(pid, tag)] and time.monotonic() < until:
        time.sleep(0.005)


def others() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except FileNotFoundError:  # no Linux: ending the group must do
        return []


def was_killed(pid: int, tag: bytes) -> bool:
    """Whether it lived and carried the tag. Looked at through a handle, so that a reused number is never hit."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if tag_of(pid).startswith(tag):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def tag_of(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
        return next((each for each in environment.read().split(b"\0") if each.startswith(b"MOSS_TAG=")), b"")
    return b""


def main(directory: str, command: list[str]) -> None:
    write(f"{directory}/pid", os.getpid())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        try:
            os.execvp(command[0], command)
        except OSError as problem:
            os.write(2, f"`{command[0]}` cannot be started: {problem.strerror}\n".encode())
        os._exit(127)
    os.close(writer)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the whole group is told; the agent decides what comes of it
    log = threading.Thread(target=keep_log, args=(reader, f"{directory}/log"), daemon=True)
    log.start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # As in a container: with the first process all others end. No other box may start on their volume before.
    if tag := tag_of(os.getpid()):
        end_all_that_carry(tag)
    log.join(timeout=0.5)  # a background process that holds the pipe may be the one that is left
    write(f"{directory}/exit", code if code >= 0 else 128 - code)
    os.killpg(0, signal.SIGKILL)  # what carries no tag, and this one too


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
