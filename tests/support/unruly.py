"""Programs that do not want to die, for the tests of core/process.py. Run as `python unruly.py <what>`."""

import os
import signal
import sys
import time


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def session_of_its_own(word: str = "ready", flees: bool = False) -> None:
    """Fork a child that leaves the session, so that killing the process group misses it."""
    if os.fork() == 0:
        os.setsid()
        if flees:
            say(word)
            respawn()
        sleep_on("" if flees else word)


def respawn() -> None:
    """Flee into a new process every two milliseconds, for a second, and then stay."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.002)


def sleep_on(word: str = "ready") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if word:
        say(word)
    time.sleep(300)
    os._exit(0)


def main(what: str) -> None:
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("ready")
        time.sleep(300)
    if what == "deaf-child":
        if os.fork() == 0:
            sleep_on()
        time.sleep(300)
    if what == "deaf-family":
        session_of_its_own()
        sleep_on()
    if what == "family":
        session_of_its_own()
        time.sleep(300)
    if what == "leave-one-behind":
        session_of_its_own(word="")
        say("done")
    if what == "respawn":
        session_of_its_own(flees=True)
        time.sleep(300)
    if what == "late-word":
        if os.fork() == 0:
            time.sleep(0.2)
            say("the end of it")
            os._exit(0)
        os._exit(3)


if __name__ == "__main__":
    main(sys.argv[1])
