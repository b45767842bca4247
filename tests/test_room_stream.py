"""The room's stream of events: whatever happens, to everybody who may see it, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from bot.adapters.room.door import STREAMS
from tests.support.databases import DATABASES
from tests.support.rooms import DESK, House, a_room, refused, say, stream


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


@pytest.fixture(params=DATABASES)
async def any_house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path, kind=request.param) as house:
        yield house


@pytest.fixture
async def anna(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("anna") as client:
        yield client


@pytest.fixture
async def ben(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("ben") as client:
        yield client


async def test_the_stream_brings_what_happens_as_it_happens(any_house: House) -> None:
    async with (
        await any_house.client("anna") as anna,
        await any_house.client("ben") as ben,
        stream(anna) as events,
    ):
        assert (await events.next())[0] == "here"
        began = asyncio.get_running_loop().time()
        id = await say(ben, "Refund?")
        name, seen = await events.next()
        assert (name, seen["id"], events.last) == ("message", id, str(seen["seq"]))
        await ben.put(f"/api/messages/{id}/reactions/tada")
        assert (await events.next())[1]["reactions"][0]["people"] == ["ben"]
        await any_house.room.chat.working(DESK, id, True)
        assert (await events.next())[1]["answering"]
        reply = await any_house.say("Done.", DESK.model_copy(update={"thread": id}), agent="desk")
        changed = {one["id"]: one for _, one in [await events.next(), await events.next()]}
        assert changed[reply]["by"] == {"kind": "agent", "name": "desk"}
        assert changed[id]["replies"] == 1
        await any_house.room.chat.working(DESK, id, False)
        assert not (await events.next())[1]["answering"]
        assert asyncio.get_running_loop().time() - began < 4, "it is woken, and does not look now and then"


async def test_the_stream_brings_nobody_what_is_private_to_another(
    house: House, anna: httpx.AsyncClient, ben: httpx.AsyncClient
) -> None:
    async with stream(anna, 0) as mine, stream(ben, 0) as theirs:
        await say(anna, "/moss status")
        await house.room.chat.whisper(DESK, "anna", "All is well.", "", "w-1")
        public = await house.say("News.")
        assert [(await mine.next())[1]["text"] for _ in range(3)] == ["/moss status", "All is well.", "News."]
        assert (await theirs.next())[1]["id"] == public


async def test_nothing_is_lost_by_whoever_breaks_off_and_comes_back(any_house: House) -> None:
    """Several write while a reader leaves again and again, at any moment."""
    written: set[str] = set()
    read: dict[str, int] = {}

    async def write(name: str) -> None:
        async with await any_house.client(name) as client:
            for n in range(12):
                written.add(await say(client, f"{name} {n}"))

    async def follow() -> None:
        last, kept = 0, 0
        async with await any_house.client("reader") as reader:
            while len(read) < 36:
                kept += 1
                async with stream(reader, last) as events:
                    for _ in range(min(1 + kept % 5, 36 - len(read))):
                        _, one = await events.next()
                        assert one["seq"] > last, "each change once, in order"
                        last = one["seq"]
                        read[one["id"]] = last

    async with asyncio.timeout(40):
        await asyncio.gather(follow(), write("anna"), write("ben"), write("carl"))
    assert read.keys() == written


async def test_a_browser_that_comes_back_says_so_in_a_header(house: House, anna: httpx.AsyncClient) -> None:
    await say(anna, "one")
    two = await say(anna, "two")
    async with stream(anna, 0, **{"Last-Event-ID": "1"}) as events:
        assert (await events.next())[1]["id"] == two


async def test_a_reader_of_another_room_is_told_to_begin_anew(house: House, anna: httpx.AsyncClient) -> None:
    id = await say(anna, "Refund?")
    async with stream(anna, 4000) as events:
        assert (await events.next())[0] == "anew"
        await anna.put(f"/api/messages/{id}/reactions/x")
        assert (await events.next())[1]["id"] == id


async def test_one_person_has_only_so_many_streams(house: House, anna: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(stream(anna)) for _ in range(STREAMS)]
        for events in opened:
            await events.next()
        refused(await anna.get("/api/events"), 429, "close one")
    for _ in range(50):  # until the server has noticed that they are closed
        await asyncio.sleep(0.1)
        async with stream(anna) as events:
            if events.response.status_code == 200:
                return
    pytest.fail("no stream was opened again")
