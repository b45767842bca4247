"""The control socket: who may open it, who asks, what an answer and an error become on the other side."""

import asyncio
import os
import pwd
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.control import BODY_LIMIT_BYTES, Answer, Client, Server
from bot.serving import GRACE_S
from core.model.errors import BadInput, Busy, MossError, NotFound, Unavailable


async def echo(payload: dict[str, Any], who: str, token: str | None) -> Any:
    return {"payload": payload, "who": who, "token": token}


async def busy(payload: dict[str, Any], who: str, token: str | None) -> Any:
    raise Busy("desk has run run-1, which is running; wait for its end, or stop it.")


async def broken(payload: dict[str, Any], who: str, token: str | None) -> Any:
    raise RuntimeError("password=geheim")


ANSWERS: dict[str, Answer] = {"echo": echo, "busy": busy, "broken": broken}


async def three_facts(substrate: str | None, since: int | None) -> AsyncIterator[dict[str, Any] | None]:
    for seq in range((since or 0) + 1, 4):
        yield {"substrate": substrate, "seq": seq}
        yield None


@asynccontextmanager
async def serving(path: Path, facts: Any = three_facts) -> AsyncIterator[Client]:
    server = Server(path, ANSWERS, facts)
    server.listen()
    task = asyncio.create_task(server.serve())
    try:
        yield Client(path)
    finally:
        server.stop()
        await asyncio.wait_for(task, 30)


async def test_only_the_owner_can_open_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "moss.sock"
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_who_asks_is_told_by_the_kernel_and_not_by_the_request(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock") as client:
        answer = await client.ask("echo", {"who": "cli:anna"})
    assert answer["who"] == f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


async def test_a_token_arrives_and_its_absence_too(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock") as client:
        assert (await client.ask("echo", token="moss_abc"))["token"] == "moss_abc"
        assert (await client.ask("echo"))["token"] is None


async def test_an_error_is_the_same_error_on_the_other_side(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock") as client:
        with pytest.raises(Busy, match="desk has run run-1") as problem:
            await client.ask("busy")
    assert problem.value.exit_code == 5


async def test_a_failure_inside_moss_tells_nothing_of_its_inside(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock") as client:
        with pytest.raises(MossError, match="its log has the reason") as problem:
            await client.ask("broken")
    assert "geheim" not in problem.value.sentence


async def test_a_request_that_is_no_object_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "moss.sock"
    async with serving(path):
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://moss", timeout=30) as http:
            for body in (b"[1]", b"nonsense", b"\xff"):
                assert (await http.post("/echo", content=body)).json()["kind"] == "BadInput"
            large = b'{"a": "' + b"x" * BODY_LIMIT_BYTES + b'"}'
            assert "larger than" in (await http.post("/echo", content=large)).json()["error"]
            assert (await http.get("/facts?since=-1")).json()["kind"] == "BadInput"


async def test_facts_come_as_they_happen_from_where_one_left_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock") as client:
        assert [fact["seq"] async for fact in client.facts("desk", 1)] == [2, 3]


def unknown_substrate(substrate: str | None, since: int | None) -> AsyncIterator[dict[str, Any] | None]:
    raise NotFound(f"No substrate is named {substrate!r}.")


async def test_following_what_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock", unknown_substrate) as client:
        with pytest.raises(NotFound, match="No substrate is named 'dsek'"):
            await anext(client.facts("dsek", 0))


async def test_a_place_without_sockets_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No socket can be made"):
        Server(tmp_path / "gone" / "moss.sock", ANSWERS, three_facts).listen()


async def test_ending_does_not_wait_for_whoever_still_follows(tmp_path: Path) -> None:
    followed = asyncio.Event()

    async def endless(substrate: str | None, since: int | None) -> AsyncIterator[dict[str, Any] | None]:
        while True:
            followed.set()
            await asyncio.sleep(0.01)
            yield None

    async with serving(tmp_path / "moss.sock", endless) as client:
        following = asyncio.create_task(_count(client))
        await asyncio.wait_for(followed.wait(), 10)
    assert await asyncio.wait_for(following, 30) == 0


async def test_a_stream_on_which_nothing_happens_ends_at_once_too(tmp_path: Path) -> None:
    followed, ended = asyncio.Event(), asyncio.Event()

    async def silent(substrate: str | None, since: int | None) -> AsyncIterator[dict[str, Any] | None]:
        followed.set()
        try:
            await asyncio.sleep(60)
            yield None
        finally:
            ended.set()

    async with serving(tmp_path / "moss.sock", silent) as client:
        following = asyncio.create_task(_count(client))
        await asyncio.wait_for(followed.wait(), 10)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < GRACE_S / 2
    assert await asyncio.wait_for(following, 30) == 0
    assert ended.is_set()


async def test_to_ask_for_the_head_of_the_stream_follows_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "moss.sock", unknown_substrate):
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "moss.sock"), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://moss", timeout=5) as http:
            assert (await http.head("/facts")).status_code == 200


async def test_a_request_whose_head_does_not_arrive_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.serving.HEAD_S", 0.3)
    async with serving(tmp_path / "moss.sock"):
        for sent, whole in ((b"", False), (b"POST /echo HTTP/1.1\r\nHost:", False), (b"POST /ec", True)):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "moss.sock"))
            if whole:  # another request came before, on the same connection
                writer.write(b"POST /echo HTTP/1.1\r\nHost: moss\r\nContent-Length: 2\r\n\r\n{}")
                await asyncio.wait_for(reader.readuntil(b"null}"), 5)
            writer.write(sent)
            answer = asyncio.create_task(reader.read())
            for _ in range(80):
                await asyncio.sleep(0.05)
                if answer.done():
                    break
                writer.write(b"x" if sent else b"")  # a byte now and then earns no more time
            assert answer.done(), sent
            await asyncio.gather(answer, return_exceptions=True)
            writer.close()
        assert (await Client(tmp_path / "moss.sock").ask("echo"))["token"] is None


async def _count(client: Client) -> int:
    return len([fact async for fact in client.facts("desk", 0)])


async def test_a_socket_that_a_dead_moss_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "moss.sock"
    path.touch()
    async with serving(path) as client:
        assert (await client.ask("echo", {"a": 1}))["payload"] == {"a": 1}
    assert not path.exists()


@pytest.mark.parametrize("left", ["nothing", "a file", "a dead socket"])
async def test_without_a_running_moss_one_is_told_to_start_it(tmp_path: Path, left: str) -> None:
    path = tmp_path / "moss.sock"
    if left == "a file":
        path.touch()
    elif left == "a dead socket":
        async with serving(path):
            os.link(path, tmp_path / "kept")
        (tmp_path / "kept").rename(path)
    with pytest.raises(Unavailable, match=f"No Moss is running on {tmp_path}; start it with `moss run`"):
        await Client(path).ask("echo")


async def test_a_path_that_no_socket_can_have_is_named_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "moss.sock"
    with pytest.raises(BadInput, match="choose a shorter `data`"):
        Server(path, ANSWERS, three_facts)
    with pytest.raises(BadInput, match="choose a shorter `data`"):
        await Client(path).ask("echo")
