"""Until when something counts, in words that another process can judge.

On this machine, until it is started anew, by the clock that nobody sets: one on the wall that jumps must not end a
claim whose holder is at work, nor keep one for ever. Elsewhere, and after a restart, the one on the wall has to do.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from core.process_table import boot


@dataclass(frozen=True, slots=True)
class Deadline:
    wall: datetime
    boot: str = ""
    """Of which start of the machine `steady_s` speaks; empty where nobody knows."""
    steady_s: float = 0.0

    @classmethod
    def after(cls, seconds: float, now: datetime) -> "Deadline":
        wall, here = now + timedelta(seconds=seconds), boot()
        return cls(wall, here, round(monotonic() + seconds, 3)) if here else cls(wall)

    @classmethod
    def read(cls, words: str) -> "Deadline":
        wall, *steady = words.split()
        return cls(datetime.fromisoformat(wall), *((steady[0], float(steady[1])) if steady else ()))

    def __str__(self) -> str:
        return f"{self.wall.isoformat()} {self.boot} {self.steady_s}" if self.boot else self.wall.isoformat()

    def has_passed(self, now: datetime) -> bool:
        return monotonic() >= self.steady_s if self.boot and self.boot == boot() else now >= self.wall
