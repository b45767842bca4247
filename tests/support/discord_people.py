"""People in the loopback Discord, as the story and the consent table know them."""

import re
from dataclasses import dataclass
from typing import Any

from core.model.evidence import FailureKind
from tests.support.discord_server import BOT, CHANNEL, GUILD, DiscordServer
from tests.support.story import Shown
from tests.support.until import until

USERS = {"anna": 11, "ben": 12, "mary": 13, "eve": 14}
ANSWER_S = 60.0
DIRECT = 1_000_000
"""Added to a person's id it is that of their direct messages."""


def sections(server: DiscordServer) -> str:
    """Of moss.toml."""
    people = "\n".join(f'{name} = ["discord:{USERS[name]}"]' for name in ("mary", "anna", "ben"))
    return (
        f'[discord]\ntoken = "not-a-token"\nguilds = ["{GUILD}"]\napi = "http://{server.url}/api/v10"\n'
        f'gateway = "ws://{server.url}/"\n\n'
        f'[people]\n{people}\n\n[announce]\nplace = "discord/{GUILD}/{CHANNEL}"\n'
    )


@dataclass
class DiscordPeople:
    server: DiscordServer

    async def say(self, person: str, text: str, thread: str = "") -> str:
        words, channel = (text, int(thread)) if thread else (f"<@{BOT}> {text}", CHANNEL)
        return str(await self.server.says(USERS[person], words, channel))

    async def react(self, person: str, message: Shown, emoji: str) -> str:
        direct = USERS[person] + DIRECT
        before = len(self.server.messages.get(direct, []))
        await self.server.reacts(USERS[person], int(message.id), emoji, channel=channel_of(message))
        await until(lambda: len(self.server.messages.get(direct, [])) > before, ANSWER_S)
        return words_of(self.server.messages[direct][before])

    async def complain(self, person: str, message: Shown, kind: FailureKind, reason: str) -> str:
        who, channel = USERS[person], channel_of(message)
        form = await self.server.callback(await self.server.opens_menu(who, int(message.id), channel), ANSWER_S)
        return await self.answered(await self.server.fills_in(who, form["data"]["custom_id"], reason, channel))

    async def command(self, person: str, words: str) -> str:
        return await self.answered(await self.server.commands(USERS[person], words))

    async def press(self, person: str, message: Shown, label: str) -> str:
        found = next(one for one in self.server.messages[channel_of(message)] if one["id"] == message.id)
        (button,) = [one for one in buttons(found) if one["label"] == label]
        who, id = USERS[person], int(message.id)
        return await self.answered(await self.server.presses(who, button["custom_id"], id, channel_of(message)))

    def shown(self) -> list[Shown]:
        return [
            Shown(
                id=one["id"],
                text=words_of(one),
                thread="" if channel == CHANNEL else str(channel),
                buttons=tuple(button["label"] for button in buttons(one)),
            )
            for channel in (CHANNEL, *self.server.threads)
            for one in self.server.messages.get(channel, [])
            if one["author"]["id"] == str(BOT)
        ]

    async def answered(self, token: str) -> str:
        return words_of(await self.server.answer(token, ANSWER_S))


def channel_of(message: Shown) -> int:
    return int(message.thread or CHANNEL)


def words_of(message: dict[str, Any]) -> str:
    """Everything a person can read in it, without what escapes it."""
    bodies = [embed.get("description") or "" for embed in message.get("embeds") or []]
    return re.sub(r"\\([^\w\s])", r"\1", "\n".join([message.get("content") or "", *bodies]))


def buttons(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [button for row in message.get("components") or [] for button in row["components"]]
