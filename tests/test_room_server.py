"""The room as a process: where it is found, how it ends, and that its description is true."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from bot.chat import Commanded, Health, Said
from core.clock import system_clock
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


async def test_whoever_watches_over_moss_sees_how_each_platform_is_reached_and_no_names(tmp_path: Path) -> None:
    def everywhere() -> tuple[Health, ...]:
        heard = system_clock() - timedelta(seconds=60)
        slack = Health(platform="slack", workspace="T1", connected=True, reconnects=2, last_event_at=heard)
        return slack, Health(platform="discord", problem="Discord refuses the token of anna.")

    async with a_room(tmp_path) as house:
        house.room._everywhere = everywhere
        async with await house.client() as nobody:
            said = await nobody.get("/healthz")
    assert said.status_code == 200
    slack, discord = said.json()["chats"]
    assert 60 <= slack.pop("last_event_age_s") < 90
    assert slack == {"platform": "slack", "connected": True, "reconnects": 2}
    assert discord == {"platform": "discord", "connected": False, "reconnects": 0, "last_event_age_s": None}


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
