"""A Moss in Slack without an engine: adapter, inbox and announcer as bot/wiring.py puts them together.

As a program, `slack_process.py DATABASE MOSS_TOML SLACK`, it is a process of its own that ends when it is killed.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from bot import announcer, inbox
from bot.adapters.slack.adapter import SlackAdapter
from bot.announcer import Announcer
from bot.inbox import Inbox
from bot.receive import give_up, receive
from bot.sections import Slack
from bot.settings import Settings, load
from bot.verbs import Moss
from core.clock import system_clock
from core.containers.host import Host
from core.dispatch import Dispatch
from core.process_table import identity
from core.store import Store, leases
from tests.support.chat_moss import NoHost, StillDispatch
from tests.support.slack_server import TEAM
from tests.support.until import until

NEWS = "CNEWS"
"""The channel for news that belongs to no conversation."""
SOON_S = 0.1


def settings_of(moss_toml: Path) -> Settings:
    return load(moss_toml, {"MOSS_ANNOUNCE__PLACE": f"slack/{TEAM}/{NEWS}"})


@asynccontextmanager
async def one_moss(store: Store, slack: dict[str, Any], settings: Settings) -> AsyncIterator[SlackAdapter]:
    holder = f"{identity()}.{secrets.token_hex(4)}"
    await leases.claim(store, holder, 60)
    box = Inbox(store, lambda: holder)
    section = Slack.model_validate(slack | {"app_token": "xapp-test"})
    adapter = SlackAdapter(store, settings, [section], box, first_pause_s=0.05)
    dispatch = cast(Dispatch, StillDispatch(store))
    moss = Moss(settings, store, cast(Host, NoHost()), dispatch, box, {"slack": adapter.chat})
    telling = Announcer(store, settings, moss.chats)
    tasks = [
        asyncio.create_task(adapter.serve()),
        asyncio.create_task(box.work(partial(receive, moss), partial(give_up, moss), moss.chats)),
        asyncio.create_task(telling.run()),
    ]
    try:
        await until(lambda: adapter.health[0].connected)
        yield adapter
    finally:
        adapter.stop()
        await box.finish(1)
        telling.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def _live(database: str, moss_toml: str, slack: str) -> None:
    announcer.EDIT_EVERY_S = announcer.FIRST_PAUSE_S = announcer.LOOK_S = inbox.LOOK_S = SOON_S
    store = await Store.open(database, system_clock)
    reached = {"bot_token": "xoxb-test", "base_url": f"{slack}/api/", "ping_interval_s": 0.5}
    async with one_moss(store, reached, settings_of(Path(moss_toml))):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_live(*sys.argv[1:]))
