"""Waiting for a change of the store: told by the commit itself, and never slept through."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.store import Store, facts, marks, posts
from core.store.store import NO_SUBSTRATE, Change
from tests.support import stored
from tests.support.databases import DATABASES, opened
from tests.support.paper_chat import PAPER
from tests.support.stored import DESK, PLACE, with_substrate


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path) as store:
        await with_substrate(store)
        yield store


async def changed(change: Change) -> None:
    await stored.sealed_batch(change, PLACE)


async def test_the_first_call_returns_at_once_and_the_next_waits_for_a_commit(store: Store) -> None:
    seen = await store.wait_for_change(-1, 30)
    waiting = asyncio.create_task(store.wait_for_change(seen, 30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    async with store.changing(DESK) as change:
        await changed(change)
        await asyncio.sleep(0.05)
        assert not waiting.done()  # not before it is committed
    async with asyncio.timeout(1):
        assert await waiting > seen


async def test_what_commits_while_nobody_waits_is_not_slept_through(store: Store) -> None:
    seen = await store.wait_for_change(-1, 30)
    async with store.writing() as db:
        await marks.put(db, store.now(), "reader", 1)
    async with asyncio.timeout(1):
        assert await store.wait_for_change(seen, 30) > seen


async def test_who_waits_for_a_substrate_is_woken_by_nothing_else(store: Store) -> None:
    of = {name: await store.wait_for_change(-1, 30, of=name) for name in (DESK, NO_SUBSTRATE)}
    waiting = {name: asyncio.create_task(store.wait_for_change(seen, 30, of=name)) for name, seen in of.items()}
    async with store.writing() as db:
        await marks.put(db, store.now(), "reader", 1)
    async with asyncio.timeout(1):
        assert await waiting[NO_SUBSTRATE] > of[NO_SUBSTRATE]
    await asyncio.sleep(0.05)
    assert not waiting[DESK].done()
    async with store.changing(DESK) as change:
        await changed(change)
    async with asyncio.timeout(1):
        assert await waiting[DESK] > of[DESK]
    assert await store.wait_for_change(of[NO_SUBSTRATE], 30, of=NO_SUBSTRATE) == of[NO_SUBSTRATE] + 1


async def test_a_change_that_fails_wakes_nobody(store: Store) -> None:
    seen = await store.wait_for_change(-1, 30)
    with contextlib.suppress(RuntimeError):
        async with store.changing(DESK) as change:
            await changed(change)
            raise RuntimeError
    assert await store.wait_for_change(seen, 0.05) == seen


async def test_everybody_who_waits_is_woken(store: Store) -> None:
    seen = await store.wait_for_change(-1, 30)
    waiting = [asyncio.create_task(store.wait_for_change(seen, 30)) for _ in range(5)]
    await asyncio.sleep(0.02)
    async with store.changing(DESK) as change:
        await changed(change)
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)


async def test_a_follower_sees_every_fact_while_others_write(store: Store) -> None:
    async def follow() -> list[int]:
        seen, changes = [], -1
        while len(seen) < 40:
            changes = await store.wait_for_change(changes, 5)
            async with store.reading() as db:
                seen += [fact.seq for fact in await facts.since(db, DESK, seen[-1] if seen else 0)]
        return seen

    following = asyncio.create_task(follow())
    for n in range(13):
        async with store.changing(DESK) as change:
            await stored.sealed_batch(change, PLACE.model_copy(update={"channel": f"c{n}"}))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        seen = await following
    assert seen == list(range(1, len(seen) + 1))


async def test_a_mark_is_moved_on_by_one_of_two(store: Store) -> None:
    async def advance() -> bool:
        async with store.writing() as db:
            if await marks.get(db, "digest") == "today":
                return False
            await marks.put(db, store.now(), "digest", "today")
            return True

    assert sorted(await asyncio.gather(*(advance() for _ in range(6)))) == [False] * 5 + [True]


async def test_a_key_is_posted_once_and_its_message_is_known_as_ours(store: Store) -> None:
    async with store.writing() as db:
        assert await posts.add(db, store.now(), "run:1", PAPER, message="m1", shown="a")
        assert not await posts.add(db, store.now(), "run:1", PAPER, message="m2", shown="b")
        await posts.edited(db, store.now(), "run:1", "c")
    async with store.reading() as db:
        found = await posts.of_key(db, "run:1")
        assert found is not None
        assert (found.message, found.shown, found.place) == ("m1", "c", PAPER)
        assert await posts.of_message(db, PAPER, "m1") == found
        assert await posts.of_message(db, PAPER, "m2") is None
        assert await posts.of_key(db, "run:2") is None
