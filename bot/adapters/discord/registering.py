"""The commands at Discord: written there when they are others than last time, since Discord counts how often."""

import json

from bot.adapters.discord.client import Client
from bot.adapters.discord.errors import translated
from bot.adapters.discord.places import PLATFORM
from core.model.value import sha256
from core.store import marks
from core.store.store import Store


async def register(store: Store, client: Client) -> None:
    wanted = sha256(json.dumps([one.to_dict(client.tree) for one in client.tree.get_commands()]).encode())
    name = f"{PLATFORM}:commands:{client.application_id}"
    async with store.reading() as db:
        if await marks.get(db, name) == wanted:
            return
    with translated("its commands"):
        await client.tree.sync()
    async with store.writing() as db:
        await marks.put(db, store.now(), name, wanted)
