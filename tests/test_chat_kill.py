"""`moss run` and its room, killed with SIGKILL again and again while people talk, flag and start a run."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.converse import LOST
from core.model.run import RunState
from tests.support.outsider import end_everything
from tests.support.world import World

CHANNEL = "prices"


class Person:
    """Somebody with a token, who tries again when Moss is away."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.token = world.moss("people", "add", name)["token"]

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        until = time.monotonic() + 120
        while True:
            try:
                url = json.loads((self.world.root / "data" / "room.json").read_text())["url"]
                answer = httpx.request(
                    method,
                    url + path,
                    json=body,
                    headers={"Authorization": f"Bearer {self.token}"},
                    timeout=10,
                    verify=False,
                )
                if answer.status_code < 429:
                    return answer
            except (OSError, httpx.TransportError, ValueError):
                pass
            assert time.monotonic() < until, self.world.tail()
            time.sleep(0.1)

    def say(self, text: str, key: str) -> str:
        return str(self.send("POST", "/api/messages", {"channel": CHANNEL, "text": text, "key": key}).json()["id"])

    def thread(self, id: str) -> list[dict[str, Any]]:
        answer = self.send("GET", f"/api/messages?channel={CHANNEL}&thread={id}")
        found: list[dict[str, Any]] = answer.json()["messages"]
        return found

    def replies(self, id: str) -> list[dict[str, Any]]:
        return [one for one in self.thread(id) if one["by"]["kind"] == "agent"]

    def answers(self, id: str) -> list[dict[str, Any]]:
        """What is no message of a person."""
        return [one for one in self.thread(id) if one["by"]["kind"] != "person"]

    def until(self, condition: Callable[[], Any], within_s: float = 120) -> Any:
        until = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < until, self.world.tail()
            time.sleep(0.1)
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World.foreign(tmp_path, "process")
    yield world
    end_everything(world)


def test_no_message_flag_or_command_is_lost_or_done_twice(world: World) -> None:
    world.start()
    ann = Person(world, "ann")
    world.moss("adopt", timeout_s=120)
    asked = []
    for n, pause_s in enumerate((0.0, 0.1)):
        asked.append(ann.say(f"pear{n}", f"k{n}"))
        time.sleep(pause_s)
        world.kill()
        world.start()
        assert ann.say(f"pear{n}", f"k{n}") == asked[-1]  # the page sends again what it got no answer for
    for n, id in enumerate(asked):
        (reply,) = ann.until(lambda id=id: ann.answers(id))
        # Moss may have died while the agent was answering; the agent is not asked a second time.
        assert reply["text"] in (f"pear{n} costs nothing we know.", LOST.format("prices"))
    for id in asked:
        ann.send("PUT", f"/api/messages/{ann.replies(id)[0]['id']}/reactions/x")
    world.kill()
    world.start()
    ann.until(lambda: [batch["chunks"] for batch in world.moss("batches")] == [2])
    ann.send("POST", "/api/commands", {"channel": CHANNEL, "words": "evolve", "key": "go"})
    world.kill()
    world.start()
    ann.send("POST", "/api/commands", {"channel": CHANNEL, "words": "evolve", "key": "go"})
    (batch,) = ann.until(lambda: [one for one in world.moss("batches") if one["run"]])
    assert (batch["chunks"], batch["state"]) == (2, "sealed")
    assert len(world.moss("status")["substrates"][0]["runs"]) == 1
    assert batch["run"]["state"] in set(RunState)
    assert [len(ann.replies(id)) for id in asked] == [1, 1]
    assert world.moss("db", "verify")["sound"]
