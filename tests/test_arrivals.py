"""What arrives at one moment is written down together, and each is told what became of it."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from bot import arrivals
from bot.arrivals import Arrivals
from bot.chat import AnyEvent, Commanded
from core.model.errors import Unavailable
from tests.support.databases import HeldClock
from tests.support.paper_chat import PAPER


def event(n: int) -> Commanded:
    return Commanded(id=f"e{n}", place=PAPER, person="paper:eve", at=HeldClock()(), words="help")


class Written:
    """A store that takes its time; `e13` it never takes."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.away: Exception | None = None

    async def write(self, arrived: Callable[[], Sequence[AnyEvent]]) -> list[bool]:
        await asyncio.sleep(0)
        if self.away:
            raise self.away
        ids = [one.id for one in arrived()]
        await asyncio.sleep(0)
        if "e13" in ids:
            raise ValueError("unlucky")
        known = {id for batch in self.batches for id in batch}
        self.batches.append(ids)
        return [id not in known for id in ids]


async def test_what_arrives_before_it_is_its_turn_is_written_down_together_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "TOGETHER", 6)
    written = Written()
    taking = Arrivals(written.write)
    fresh = await asyncio.gather(*(taking.take(event(n)) for n in (*range(10), 0)))
    assert written.batches == [[f"e{n}" for n in range(6)], ["e6", "e7", "e8", "e9", "e0"]]
    assert fresh == [*[True] * 10, False]


async def test_one_that_cannot_be_kept_takes_no_other_with_it() -> None:
    written = Written()
    taking = Arrivals(written.write)
    told = await asyncio.gather(*(taking.take(event(n)) for n in range(12, 15)), return_exceptions=True)
    assert [str(one) for one in told] == ["True", "unlucky", "True"]


async def test_a_store_that_is_away_is_told_to_all_and_the_next_are_taken() -> None:
    written = Written()
    taking = Arrivals(written.write)
    written.away = Unavailable("The database is away.")
    told = await asyncio.gather(*(taking.take(event(n)) for n in range(3)), return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable] * 3
    written.away = None
    assert await taking.take(event(4))


async def test_whoever_does_not_wait_holds_up_nobody() -> None:
    written = Written()
    taking = Arrivals(written.write)
    gone = asyncio.create_task(taking.take(event(1)))
    await asyncio.sleep(0)
    gone.cancel()
    assert await taking.take(event(2))
    left = asyncio.create_task(taking.take(event(3)))
    await asyncio.sleep(0)
    left.cancel()
    await taking.end(1)
    assert [id for batch in written.batches for id in batch] == ["e1", "e2", "e3"]
