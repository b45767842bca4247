"""How often people may do something, counted in this process over the last minute."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from core.model.errors import Refused

WINDOW_S = 60.0
PEOPLE = 10_000
"""So many are remembered, the latest."""


@dataclass(slots=True)
class Rates:
    _times: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def count(self, person: str, per_minute: int) -> None:
        """Once more. Raises Refused, and does not count, when that is too often."""
        now = time.monotonic()
        times = self._times.setdefault(person, deque())
        self._times.move_to_end(person)
        if len(self._times) > PEOPLE:
            self._times.popitem(last=False)
        while times and now - times[0] >= WINDOW_S:
            times.popleft()
        if len(times) >= per_minute:
            wait_s = max(1.0, WINDOW_S - (now - times[0]))
            raise Refused(f"You have sent {per_minute} messages within a minute; send it again in {wait_s:.0f} s.")
        times.append(now)
