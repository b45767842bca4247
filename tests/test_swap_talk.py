"""People talk to the agent through Moss while it is swapped: nobody sees an error, and no turn is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.clock import system_clock
from core.model.swap import Swap, SwapState
from core.store import Store, asking, marks, swaps
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import opened
from tests.support.house import House, a_house, little
from tests.support.stored import offered, swap_of, with_substrate
from tests.support.until import until

SLOW = "0.5"


@asynccontextmanager
async def talking(tmp: Path, drain_s: float) -> AsyncIterator[tuple[House, ChatMoss]]:
    """In front of an agent that takes as many seconds for a turn as the turn says."""
    probes = {"canary": None, "canary_expect": None}
    substrate = little("process", swap={"drain_s": drain_s}, health=probes)
    async with a_house("process", tmp, substrate) as house:
        await house.live("slow", greet="0")
        async with chat_moss(house.store, tmp, host=house.host, substrate=substrate) as chat:
            yield house, chat


async def is_asked(store: Store) -> bool:
    async with store.reading() as db:
        return await asking.any_left(db, "little", store.now())


async def has_planned(store: Store) -> bool:
    async with store.reading() as db:
        return await swaps.in_flight(db, "little") is not None


async def swapped_while(house: House, chat: ChatMoss, turn: str, meanwhile: str) -> Swap:
    """One turn is under way when a swap begins, and another comes while that waits."""
    fresh = await house.image("1", "slow")
    await chat.take(chat.said(turn, message="first", addressed=True))
    working = asyncio.create_task(chat.work(60))
    await until(lambda: is_asked(house.store))
    swapping = asyncio.create_task(house.swap_to(fresh))
    await until(lambda: has_planned(house.store))
    await chat.take(chat.said(meanwhile, message="second", addressed=True))
    swap = await swapping
    await working
    return swap


def answers(chat: ChatMoss) -> dict[str, object]:
    return {shown.place.thread: shown.what for shown in chat.chat.shown}


async def test_a_swap_waits_for_turns_under_way_and_new_ones_wait_for_the_swap(tmp_path: Path) -> None:
    async with talking(tmp_path, drain_s=30) as (house, chat):
        swap = await swapped_while(house, chat, "1.5", SLOW)
        assert swap.state is SwapState.live
        assert answers(chat) == {"first": "version 0 hears you", "second": "version 1 hears you"}
        assert await house.memory() == ["0", "1.5", SLOW]
        assert chat.chat.told() == []


async def test_a_turn_that_takes_longer_than_swaps_wait_is_put_to_what_went_live(tmp_path: Path) -> None:
    async with talking(tmp_path, drain_s=0.2) as (house, chat):
        swap = await swapped_while(house, chat, "4", SLOW)
        assert swap.state is SwapState.live
        assert answers(chat) == {"first": "version 1 hears you", "second": "version 1 hears you"}
        assert sorted(await house.memory()) == ["0", SLOW, "4", "4"]
        assert chat.chat.told() == []


async def test_a_turn_at_which_the_agent_itself_fails_is_put_once(tmp_path: Path) -> None:
    async with talking(tmp_path, drain_s=30) as (house, chat):
        await chat.did(chat.said("no number", addressed=True))
        assert "could not answer" in chat.chat.texts()[0]
        assert await house.memory() == ["0", "no number"]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path, system_clock) as store:
        await with_substrate(store)
        yield store


async def test_no_turn_begins_while_a_swap_is_in_flight(store: Store) -> None:
    async with store.changing("desk") as change:
        assert await asking.begin(change, "reply:1", 60)
        await swaps.plan(change, swap_of(await offered(change), "desk"))
        assert not await asking.begin(change, "reply:2", 60)
        assert await asking.any_left(change.db, "desk", change.now)
        assert not await asking.any_left(change.db, "other", change.now)
    async with store.writing() as db:
        await asking.end(db, "desk", "reply:1")
        assert not await asking.any_left(db, "desk", store.now())


async def test_a_turn_of_a_process_that_died_holds_nothing_up(store: Store) -> None:
    async with store.changing("desk") as change:
        assert await asking.begin(change, "reply:1", 60)
        (name,) = await marks.named(change.db, "asking:")
        holder, until_ = await marks.get(change.db, name)
        dead = ".".join([*holder.split(".")[:2], "999999999", "1"])
        await marks.put(change.db, change.now, name, [dead, until_])
        assert not await asking.any_left(change.db, "desk", change.now)


async def test_a_turn_holds_a_swap_up_for_its_own_time_at_most(store: Store) -> None:
    async with store.changing("desk") as change:
        assert await asking.begin(change, "reply:1", 0)
        assert not await asking.any_left(change.db, "desk", change.now)
