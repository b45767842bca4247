"""The kill sweep: a rehearsal shows every durable write of the story, and then Moss is killed before and after each."""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kill_story import Life, Story, is_deed
from tests.support.mortal_moss import NOT_IN_EACH

AT_ONCE = 2
KILLS_EACH = 8
"""In one story. One that turns out unsound is told again for each of its kills, so that the right one is named."""
LONGEST_LIFE = 0.6
"""Of the deeds of a whole story, so that five lives come to its end on a slow machine too."""


@dataclass(frozen=True, slots=True)
class Row:
    kill: str
    wrong: tuple[str, ...] = ()


@dataclass(slots=True)
class Sweep:
    host: str
    where: Path
    ends: str = "applied"
    bug: str = "none"
    since: str = ""
    """The moment from which on Moss is killed, and at which it dies first in every story."""
    limit_s: float = 3600
    """A story that has not begun by then is not told any more, which counts as unsound."""
    began: float = field(default_factory=time.monotonic)

    def moments(self) -> list[str]:
        """Every moment of a story without deaths, in the order in which they come."""
        news = self._rehearsed()
        news = news[news.index(self.since) + 1 if self.since else 0 :]
        heard = [said for said in dict.fromkeys(news) if said.startswith(("before ", "after "))]
        return [said for said in heard if said.partition(" ")[2].partition(" in ")[0] not in NOT_IN_EACH]

    def kill_at_each(self, moments: Sequence[str]) -> list[Row]:
        stories = -(-len(moments) // KILLS_EACH)
        chains = [list(moments[first::stories]) for first in range(stories)]
        with ThreadPoolExecutor(AT_ONCE) as tellers:
            rows = [row for told in tellers.map(self._chain, range(stories), chains) for row in told]
        return sorted(rows, key=lambda row: moments.index(row.kill))

    def kill_at_random(self, seeds: Sequence[int], kills: int) -> list[Row]:
        longest = round(LONGEST_LIFE * sum(map(is_deed, self._rehearsed())))
        with ThreadPoolExecutor(AT_ONCE) as tellers:
            return list(tellers.map(lambda seed: self._random(seed, kills, longest), seeds))

    def _rehearsed(self) -> list[str]:
        """What is heard of a story without deaths."""
        story = self._story("rehearsal", [])
        wrong = story.tell()
        assert not wrong, f"the story is unsound without any death: {wrong}"
        return story.news

    def _chain(self, number: int, moments: list[str]) -> list[Row]:
        story = self._story(f"c{number}", moments)
        wrong = self._tell(story)
        if not wrong or len(moments) == 1:
            return [Row(moment, wrong) for moment in moments]
        fault = [what for what in wrong if what not in story.missed()]
        again = moments if fault else story.moments  # another order of events may leave out a moment
        alone = [Row(each, self._tell(self._story(f"c{number}-{n}", [each]))) for n, each in enumerate(again)]
        if fault and not any(row.wrong for row in alone):
            alone[-1] = Row(again[-1], tuple(f"after {len(moments) - 1} other deaths: {what}" for what in fault))
        return [*(Row(moment) for moment in moments if moment not in again), *alone]

    def _random(self, seed: int, kills: int, longest: int) -> Row:
        chance = random.Random(seed)
        story = self._story(f"r{seed}", [])
        story.lives = [Life(chance.randrange(longest), chance.uniform(0, 0.3)) for _ in range(kills)]
        wrong = self._tell(story) or (() if story.deaths else ("it never died",))
        return Row(f"with seed {seed}, {', '.join(story.deaths)}", wrong)

    def _story(self, name: str, moments: list[str]) -> Story:
        since = self.since if moments else ""
        return Story.foreign(self.where / name, self.host, list(moments), ends=self.ends, since=since, bug=self.bug)

    def _tell(self, story: Story) -> tuple[str, ...]:
        if time.monotonic() - self.began > self.limit_s:
            return ("not told: the sweep took too long",)
        began, planned = time.monotonic(), len(story.moments) or len(story.lives)
        try:
            wrong = tuple(story.tell())
        except Exception as problem:
            wrong = (f"the story broke off: {type(problem).__name__}: {problem}",)
        seconds = time.monotonic() - began
        name = f"{self.host} {self.ends} {story.world.root.name}"
        found = "; ".join(wrong) or "sound"
        print(f"{name:30} {len(story.deaths):2} of {planned:2} deaths {seconds:6.1f} s  {found}", flush=True)
        return wrong


def table(rows: Sequence[Row]) -> str:
    """One line for each durable write: what came of a death before it, and of one after it."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        when, _, name = row.kill.partition(" ")
        cells.setdefault(name, {})[when] = "UNSOUND" if row.wrong else "sound"
    width = max(map(len, cells), default=0)
    lines = [f"{name:{width}}  {cell.get('before', '-'):8} {cell.get('after', '-')}" for name, cell in cells.items()]
    return "\n".join([f"{'killed at':{width}}  before   after", *lines])


def unsound(rows: Sequence[Row]) -> list[str]:
    return [f"killed {row.kill}: {'; '.join(row.wrong)}" for row in rows if row.wrong]
