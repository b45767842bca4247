"""A program of its own, standard library only: which regular expressions occur in a text, each within its time.

It reads `{"patterns": [...], "text": "...", "limit_s": 1.0}` and says a word a line as it goes: yes, no, slow or wrong.
A pattern is the owner's and the text is not, so that a careless one can be kept busy for years: `(a+)+$` on forty
letters. The alarm counts the time of this process and not that of the clock, so that a busy machine changes no score.
"""

import json
import re
import signal
import sys


class Slow(Exception):
    pass


def ring(*_: object) -> None:
    raise Slow


def found(pattern: str, text: str, limit_s: float) -> str:
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
            return "yes" if re.search(pattern, text) else "no"
        except (re.error, RecursionError, OverflowError):
            return "wrong"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except Slow:  # it may ring at any moment until it is off, also while an error is told
        return "slow"


if __name__ == "__main__":
    signal.signal(signal.SIGVTALRM, ring)
    asked = json.load(sys.stdin)
    for each in asked["patterns"]:
        sys.stdout.write(found(each, asked["text"], asked["limit_s"]) + "\n")
        sys.stdout.flush()
