"""The door of the room: who comes in, what they may send, and how often."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bot.adapters.room import door
from bot.adapters.room.door import BURST
from bot.adapters.room.server import HEADERS
from core.clock import system_clock
from core.store import Store, people
from tests.support.rooms import House, a_room, refused, stream


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


@pytest.fixture
async def anna(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("anna") as client:
        yield client


@pytest.fixture
async def ben(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("ben") as client:
        yield client


# Who people are


async def test_without_a_token_of_ours_nothing_is_answered(house: House) -> None:
    paths = ("/api/me", "/api/messages?channel=desk", "/api/events", "/pictures/1")
    async with await house.client() as nobody:
        for path in paths:
            refused(await nobody.get(path), 401, "This needs your token")
        refused(await nobody.post("/api/messages", json={"channel": "desk", "text": "?"}), 401, "needs your token")
        page = await nobody.get("/c/desk")
        assert (page.status_code, page.headers["location"]) == (303, "/enter?next=/c/desk")
    async with await house.client(Authorization="Bearer moss_wrong") as stranger:
        for path in paths:
            refused(await stranger.get(path), 401, "Nobody here has that token")
    assert await house.heard() == []


async def test_a_person_who_was_removed_is_out_at_once(house: House, anna: httpx.AsyncClient) -> None:
    async with await house.client() as browser:
        entered = await browser.post("/enter", content=f"token={await house.token('anna')}")
        assert entered.status_code == 303
        assert (await browser.get("/api/me")).json() == {"name": "anna"}
        async with stream(anna) as first, stream(browser) as second:
            assert [(await each.next())[0] for each in (first, second)] == ["here", "here"]
            await people.remove(house.store, "anna")
            await house.say("News.")
            assert [(await each.next())[0] for each in (first, second)] == ["out", "out"]
        refused(await anna.get("/api/me"), 401, "Nobody here has that token")
        refused(await browser.get("/api/me"), 401, "not in any more")
        del house.tokens["anna"]
        await house.token("anna")  # somebody new with the same name
        refused(await browser.get("/api/me"), 401, "not in any more")


async def test_removal_by_another_process_ends_a_silent_stream(house: House, anna: httpx.AsyncClient) -> None:
    other = await Store.open(str(house.store._where.url), system_clock)
    async with stream(anna) as events:
        assert (await events.next())[0] == "here"
        await people.remove(other, "anna")
        assert (await events.next())[0] == "out"
    await other.close()


async def test_the_cookie_is_a_secret_of_its_own_that_no_script_reads(house: House) -> None:
    async with await house.client() as browser:
        entered = await browser.post("/enter", content=f"token={await house.token('anna')}&next=/history")
        assert entered.headers["location"] == "/history"
        cookie = entered.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert await house.token("anna") not in cookie
        assert (await browser.get("/api/me")).status_code == 200
        left = await browser.post("/leave", headers={"Origin": house.url})
        assert left.status_code == 303
        browser.cookies.set(*cookie.split(";")[0].split("=", 1))
        refused(await browser.get("/api/me"), 401, "not in any more")


async def test_entering_leads_to_no_other_site(house: House) -> None:
    async with await house.client() as browser:
        token = await house.token("anna")
        for goal in ("//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)", "\t//evil.test"):
            entered = await browser.post("/enter", content=f"token={token}&next={goal}")
            assert entered.headers["location"] == "/", goal
            browser.cookies.clear()


async def test_a_wrong_token_is_told_on_the_page_and_may_not_be_tried_forever(house: House) -> None:
    async with await house.client() as browser:
        answers = [await browser.post("/enter", content="token=moss_guess") for _ in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert "Nobody here has that token" in answers[0].text


async def test_nobody_is_taken_for_moss_or_for_the_agent(house: House) -> None:
    for name in ("moss", "Moss", "agent:desk"):
        async with await house.client(name) as impostor:
            refused(await impostor.get("/api/me"), 401, "would be taken for Moss itself")


async def test_a_page_of_another_site_can_do_nothing_with_a_browser_that_is_in(house: House) -> None:
    async with await house.client() as browser:
        await browser.post("/enter", content=f"token={await house.token('anna')}")
        body = {"channel": "desk", "text": "Refund?"}
        port = httpx.URL(house.url).port
        for origin in ("http://evil.test", "null", "http://localhost:3000", f"http://localhost:{port}"):
            refused(await browser.post("/api/messages", json=body, headers={"Origin": origin}), 403, "another site")
        refused(await browser.post("/api/messages", json=body), 403, "which page sends this")
        own = await browser.post("/api/messages", json=body, headers={"Origin": house.url})
        assert own.status_code == 201
    async with await house.client("anna", Origin="http://evil.test") as anna:
        refused(await anna.post("/api/messages", json=body), 403, "another site")
    assert len(await house.heard()) == 1


async def test_a_name_that_somebody_led_here_is_refused(house: House, anna: httpx.AsyncClient) -> None:
    port = httpx.URL(house.url).port
    for name in ("evil.test", f"evil.test:{port}", "127.0.0.1.evil.test", "192.168.0.7", "[::1", ""):
        refused(await anna.get("/api/me", headers={"Host": name}), 421, "not known under this name")
    for name in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert (await anna.get("/api/me", headers={"Host": name})).status_code == 200


async def test_a_room_for_the_network_is_reached_by_address_and_by_the_names_it_has(tmp_path: Path) -> None:
    more = 'host = "0.0.0.0"\nnames = ["moss.acme.test"]\n'
    async with a_room(tmp_path, more=more) as house, await house.client("anna") as anna:
        for name in ("192.168.0.7:8090", "moss.acme.test"):
            assert (await anna.get("/api/me", headers={"Host": name})).status_code == 200
        refused(await anna.get("/api/me", headers={"Host": "evil.test"}), 421, "not known")


# Limits


async def test_what_is_wrong_is_told_in_one_sentence(house: House, anna: httpx.AsyncClient) -> None:
    post = "/api/messages"
    for body, words in (
        (b"{", "is not JSON"),
        (b"[]", "."),
        (b'{"channel": "desk"}', "`text` is missing"),
        (b'{"channel": "desk", "text": ""}', "`text` is empty"),
        (b'{"channel": "desk", "text": " \\n "}', "message is empty"),
        (b'{"channel": "desk", "text": "?", "who": "ben"}', "`who` is not known"),
        (b'{"channel": "desk", "text": "?", "key": "a b"}', "`key` should match"),
        (json.dumps({"channel": "desk", "text": "x" * 4001}).encode(), "`text` is too long; 4000 is the most"),
        (b"\xff\xfe", "is not JSON"),
    ):
        refused(await anna.post(post, content=body), 400, words)
    refused(await anna.post(post, content=b'"' + b"x" * 70_000), 413, "larger than 64,000 bytes")
    refused(await anna.post(post, json={"channel": "nope", "text": "?"}), 404, "no channel 'nope'")
    for thread in ("77", "m-1", "-1", "1e3", "٣"):
        refused(await anna.post(post, json={"channel": "desk", "text": "?", "thread": thread}), 404, "no .*message")
    refused(await anna.get("/api/messages?channel=desk&before=x"), 400, "`before` should be a whole number")
    refused(await anna.get("/api/events?since=x"), 400, "`since` should be a whole number")
    refused(await anna.get("/api/nothing"), 404, "nothing at this address")
    refused(await anna.put("/api/messages"), 405, "PUT is not possible here")
    assert await house.heard() == []


async def test_what_fails_inside_tells_nothing_of_its_inside(
    house: House, anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> bool:
        raise RuntimeError("password=geheim")

    monkeypatch.setattr(house.inbox, "add", fail)
    answer = await anna.post("/api/messages", json={"channel": "desk", "text": "?"})
    refused(answer, 500, "its log has the reason")
    assert "geheim" not in answer.text


async def test_who_does_too_much_is_told_to_wait_and_may_look_meanwhile(
    house: House, anna: httpx.AsyncClient, ben: httpx.AsyncClient
) -> None:
    id = await house.say("Refunded 17.", agent="desk")
    answers = [await anna.put(f"/api/messages/{id}/reactions/x") for _ in range(BURST + 20)]
    slowed = [answer for answer in answers if answer.status_code == 429]
    assert slowed
    refused(slowed[0], 429, "too often")
    assert int(slowed[0].headers["retry-after"]) >= 0
    assert (await anna.get("/api/me")).status_code == 200
    assert (await ben.put(f"/api/messages/{id}/reactions/x")).status_code == 204


async def test_who_looks_too_often_is_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "READ_BURST", 5)
    monkeypatch.setattr(door, "READS_PER_S", 0.001)
    async with (
        a_room(tmp_path) as house,
        await house.client("anna") as anna,
        await house.client("ben") as ben,
    ):
        assert [(await anna.get("/api/me")).status_code for _ in range(5)] == [200] * 5
        refused(await anna.get("/api/messages?channel=desk"), 429, "too often")
        for path in ("/c/desk", "/runs/run-1/log", "/batches", "/api/events"):
            assert (await anna.get(path)).status_code == 429, path
        assert (await ben.get("/api/me")).status_code == 200
        assert (await anna.post("/api/messages", json={"channel": "desk", "text": "Hello."})).status_code == 201


async def test_of_very_many_only_whoever_came_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "REMEMBERED", 3)
    pace = door.Pace(1, 0.0001)
    for who in ("first", "second", "third", "fourth"):
        pace.take(who)
    pace.take("first")
    for who in ("third", "fourth", "first"):
        with pytest.raises(door.TooOften):
            pace.take(who)


async def test_to_ask_for_the_head_of_the_stream_opens_none(house: House, anna: httpx.AsyncClient) -> None:
    for _ in range(door.STREAMS + 1):
        answer = await anna.head("/api/events")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    async with anna.stream("GET", "/api/events") as events:
        assert events.status_code == 200


async def test_every_answer_forbids_what_pages_do_not_need(house: House, anna: httpx.AsyncClient) -> None:
    for path in ("/c/desk", "/enter", "/static/room.js", "/api/me", "/api/nothing", "/nothing"):
        headers = (await anna.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert {name.lower() for name in HEADERS} <= headers.keys(), path
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
