"""The room as a process: where it is found, how it ends, and that its description is true."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bot.chat import Commanded, Said
from core.model.errors import BadInput
from tests.support.rooms import DESK, House, a_room, answering, serving, stream
from tests.support.tracked import ROOT


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


async def test_where_the_room_is_stands_in_a_file_while_it_listens(tmp_path: Path) -> None:
    async with a_room(tmp_path) as house:
        file = house.settings.data / "room.json"
        assert json.loads(file.read_text()) == {"url": house.url}
        assert house.room.page("run-1") == f"{house.url}/runs/run-1"
    assert not file.exists()


async def test_a_port_that_is_taken_is_named_with_the_mend(house: House) -> None:
    port = httpx.URL(house.url).port
    room = house.settings.room.model_copy(update={"port": port})
    settings = house.settings.model_copy(update={"room": room})
    with pytest.raises(BadInput, match=f"cannot listen on 127.0.0.1:{port} .*choose another `port`"):
        async with serving(house.store, settings):
            pass


async def test_ending_does_not_wait_for_whoever_still_follows(tmp_path: Path) -> None:
    async with a_room(tmp_path) as house, await house.client("anna") as anna, stream(anna) as events:
        await events.next()
        began = asyncio.get_running_loop().time()
        house.room.stop()
        with pytest.raises(EOFError):
            await events.next()
        assert asyncio.get_running_loop().time() - began < 2


async def test_a_session_outlives_a_restart(tmp_path: Path) -> None:
    async with a_room(tmp_path) as house:
        token = await house.token("anna")
        async with await house.client() as browser:
            entered = await browser.post("/enter", content=f"token={token}")
        secret = entered.headers["set-cookie"].split(";")[0].split("=", 1)[1]
        async with serving(house.store, house.settings) as again, await again.client() as browser:
            browser.cookies.set(f"moss_room_{httpx.URL(again.url).port}", secret)
            assert (await browser.get("/api/me")).json() == {"name": "anna"}


# The page that describes it


def test_the_page_of_the_interface_names_every_route_and_no_other(tmp_path: Path) -> None:
    source = (ROOT / "bot/adapters/room/api.py").read_text()
    routes = {re.sub(r"\{id\}", "12", path) for path in re.findall(r'route\("([^"]+)"', source)}
    routes = {path.replace("{emoji}", "thumbsdown") for path in routes}
    page = (ROOT / "docs/room.md").read_text()
    named = set(re.findall(r"`(?:GET|POST|PUT|DELETE) ((?:/api|/pictures)[^`? ]*)", page))
    described = named | set(re.findall(r"`(/api/commands)`", page))
    assert {path.replace("/messages/12/flag", "/messages/12/flag") for path in described} == routes


async def test_the_client_on_that_page_gets_its_answer(house: House, tmp_path: Path) -> None:
    page = (ROOT / "docs/room.md").read_text()
    program = tmp_path / "client.py"
    program.write_text(page.split("```python\n")[1].split("```")[0])

    async def answer(event: Said | Commanded) -> None:
        assert isinstance(event, Said)
        place = DESK.model_copy(update={"thread": event.message})
        await house.room.chat.post(place, f"You asked: {event.text}", event.id, as_agent="desk")

    async with answering(house, answer):
        arguments = (str(program), house.url, await house.token("anna"), "desk", "Refund order 17?")
        client = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        printed, _ = await asyncio.wait_for(client.communicate(), 30)
    assert printed.decode().splitlines()[-1] == "desk: You asked: Refund order 17?"
