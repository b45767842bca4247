"""The measured side of `benchmarks/chat.py`: one adapter, the inbox and a store, in a process of their own.

Says `ready` once it is connected. Told to end, it waits until every reaction is committed and says when each was.
"""

import asyncio
import contextlib
import json
import resource
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from bot import logs, sections
from bot.adapters.discord.adapter import DiscordAdapter
from bot.adapters.missed import LOOKED_BACK
from bot.adapters.slack.adapter import SlackAdapter
from bot.chat import Adapter, AnyEvent, Reacted
from bot.inbox import Inbox
from bot.receive import give_up, receive
from core.clock import system_clock
from core.model.transcript import Message, Place
from core.store import turns
from core.store.store import Store, upgrade
from tests.support.chat_moss import chat_moss
from tests.support.discord_server import CHANNEL as DISCORD_CHANNEL
from tests.support.discord_server import GUILD
from tests.support.slack_server import CHANNEL, TEAM
from tests.support.until import until

PEOPLE, REPLIES = 200, 1000
LATE_S = 60.0
PLACES = {
    "slack": Place(platform="slack", workspace=TEAM, channel=CHANNEL),
    "discord": Place(platform="discord", workspace=str(GUILD), channel=str(DISCORD_CHANNEL)),
}


def pair(platform: str, n: int) -> tuple[str, str]:
    """Who puts the nth reaction on which reply: no two are the same, up to 200,000."""
    person, reply = n % PEOPLE, (n + n // PEOPLE) % REPLIES
    if platform == "slack":
        return f"U{person}", f"{1_790_000_000 + reply}.000100"
    return str(5000 + person), str(700_000 + reply)


class WatchedStore(Store):
    """Knows when each reaction was committed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.numbers: dict[tuple[str, str], int] = {}
        self.committed = array("d")
        self._added: dict[int, list[int]] = {}

    def added(self, db: AsyncConnection, event: AnyEvent) -> None:
        if isinstance(event, Reacted):
            key = (event.person.rpartition("/")[2].rpartition(":")[2], event.message)
            self._added.setdefault(id(db), []).append(self.numbers[key])

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with super().writing() as db:
            yield db
        for n in self._added.pop(id(db), ()):
            self.committed[n] = self.committed[n] or time.monotonic()


class WatchedInbox(Inbox):
    async def add_all(self, db: Any, events: Sequence[AnyEvent]) -> list[bool]:
        for event in events:
            self._store.added(db, event)  # type: ignore[attr-defined]
        return await super().add_all(db, events)


async def serve(platform: str, address: str, total: int, root: Path) -> dict[str, Any]:
    url = f"sqlite:///{root / 'moss.db'}"
    await upgrade(url)
    store = await WatchedStore.open(url, system_clock)
    assert isinstance(store, WatchedStore)
    store.numbers = {pair(platform, n): n for n in range(total)}
    store.committed = array("d", bytes(8 * total))
    heard = array("d", bytes(8 * total))
    async with chat_moss(store, root) as chat:
        chat.limit(per_hour=1_000_000)
        await replies(store, platform)
        inbox = WatchedInbox(store, lambda: "bench.first")
        adapter = adapted(platform, address, store, inbox, chat.moss.settings)
        if isinstance(adapter, DiscordAdapter):
            noting(adapter, store, heard)
        moss = replace(chat.moss, inbox=inbox, chats={platform: adapter.chat})
        work = inbox.work(partial(receive, moss), partial(give_up, moss), [platform])
        tasks = [asyncio.create_task(adapter.serve()), asyncio.create_task(work)]
        await until(lambda: adapter.health[0].connected and adapter.health[0].since, LATE_S)
        print("ready", flush=True)
        memory = await sampled()
        with contextlib.suppress(TimeoutError):
            await until(lambda: all(store.committed), LATE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await adapter.close()
    await store.close()
    return {"committed": list(store.committed), "heard": list(heard), "memory": memory}


async def replies(store: Store, platform: str) -> None:
    """So long ago that nobody looks for reactions that were missed."""
    async with store.writing() as db:
        at = store.now() - 2 * LOOKED_BACK
        for n in range(REPLIES):
            id = pair(platform, n)[1]
            for role, words, message in (("user", "Refund?", f"q{id}"), ("assistant", "No refunds.", id)):
                said = Message.model_validate({"role": role, "content": words, "id": message})
                seconds = 0.5 if role == "assistant" else None
                await turns.keep(db, at, "little", PLACES[platform], said=said, seconds=seconds)


def adapted(platform: str, address: str, store: Store, inbox: Inbox, settings: Any) -> Adapter:
    if platform == "slack":
        given = {"bot_token": "xoxb-bench", "app_token": "xapp-bench", "base_url": f"{address}/api/"}
        return SlackAdapter(store, settings, [sections.Slack.model_validate(given)], inbox)
    section = sections.Discord(
        token=SecretStr("bench"),
        guilds=frozenset({str(GUILD)}),
        api=f"http://{address}/api/v10",
        gateway=f"ws://{address}/",
    )
    return DiscordAdapter(store, settings, section, inbox)


def noting(adapter: DiscordAdapter, store: WatchedStore, heard: "array[float]") -> None:
    hear = adapter._heard

    def note(what: Any, session: str, number: int) -> None:
        heard[store.numbers[str(what.user_id), str(what.message_id)]] = time.monotonic()
        hear(what, session, number)

    adapter._heard = note  # type: ignore[method-assign]


async def sampled() -> list[int]:
    """Memory in bytes, second by second, until this process is told to end."""
    told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    memory = []
    while not told.done():
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
        await asyncio.wait({told}, timeout=1)
    return memory


def main() -> None:
    platform, address, total = sys.argv[1:]
    logs.start_logging()
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as scratch:
        print(json.dumps(asyncio.run(serve(platform, address, int(total), Path(scratch)))), flush=True)


if __name__ == "__main__":
    main()
