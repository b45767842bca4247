"""How often people may do something, counted in this process over the last minute or hour."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from core.model.errors import Refused

WINDOW_S, HOUR_S = 60.0, 3600.0
PEOPLE = 10_000
"""So many are remembered, the latest."""


@dataclass(slots=True)
class Rates:
    _times: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def count(self, person: str, per_minute: int) -> None:
        """Once more. Raises Refused, and does not count, when that is too often."""
        times = self._lately(person, WINDOW_S)
        if len(times) >= per_minute:
            wait_s = max(1.0, WINDOW_S - (time.monotonic() - times[0]))
            raise Refused(f"You have sent {per_minute} messages within a minute; send it again in {wait_s:.0f} s.")
        times.append(time.monotonic())

    def hourly(self, what: str, most: int) -> bool:
        """Once more, unless that is too often."""
        times = self._lately(what, HOUR_S)
        if len(times) >= most:
            return False
        times.append(time.monotonic())
        return True

    def spent(self, what: str, most: int) -> bool:
        """Whether once more would be too often for `hourly`."""
        return len(self._lately(what, HOUR_S)) >= most

    def _lately(self, what: str, within_s: float) -> deque[float]:
        times = self._times.setdefault(what, deque())
        self._times.move_to_end(what)
        if len(self._times) > PEOPLE:
            self._times.popitem(last=False)
        while times and time.monotonic() - times[0] >= within_s:
            times.popleft()
        return times
