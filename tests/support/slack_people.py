"""People in the loopback Slack, as the story and the consent table know them: by a socket, or by signed calls."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.model.evidence import FailureKind
from tests.support.slack_server import CHANNEL, SECRET, TEAM, LoopbackSlack, call, reaction, said
from tests.support.story import Shown
from tests.support.until import until

FORMS = ("slash_commands", "interactive")
ANSWER_S = 60.0


def user(person: str) -> str:
    """`anna` is UANNA there."""
    return f"U{person.upper()}"


def sections(slack: LoopbackSlack, port: int = 0) -> str:
    """Of moss.toml. With a port Slack calls Moss there, and signs; without one Moss opens a socket."""
    reached = f'signing_secret = "{SECRET}"\nport = {port}' if port else 'app_token = "xapp-test"'
    people = "\n".join(f'{name} = ["slack:{TEAM}/{user(name)}"]' for name in ("mary", "anna", "ben"))
    return (
        f'[slack]\nbot_token = "xoxb-test"\nbase_url = "{slack.url}/api/"\nping_interval_s = 2\n{reached}\n\n'
        f'[people]\n{people}\n\n[announce]\nplace = "slack/{TEAM}/{CHANNEL}"\n'
    )


@dataclass
class SlackPeople:
    slack: LoopbackSlack
    port: int = 0
    """Where Moss takes calls; 0 when it opened a socket."""
    acks: list[tuple[float, str]] = field(default_factory=list)
    """How long each delivery took to be acknowledged, in seconds, and what it was."""

    async def say(self, person: str, text: str, thread: str = "") -> str:
        stamp = self.slack.stamp()
        words, more = (text, {"thread_ts": thread}) if thread else (f"<@UMOSS> {text}", {})
        await self.event(said(words, stamp, user(person), **more))
        return stamp

    async def react(self, person: str, message: Shown, emoji: str) -> str:
        before = len(self.slack.whispers)
        await self.event(reaction(message.id, emoji, user(person), at=self.slack.stamp()))
        await until(lambda: len(self.slack.whispers) > before, ANSWER_S)
        whisper = self.slack.whispers[before]
        assert whisper["user"] == user(person)
        return words_of(whisper)

    async def complain(self, person: str, message: Shown, kind: FailureKind, reason: str) -> str:
        shortcut = self.slack.shortcut(message.id, user(person), thread=message.thread)
        view = await self.form(shortcut)
        values = {"kind": {"selected_option": {"value": kind.value}}, "reason": {"value": reason}}
        sent = self.slack.submission(view, values, user(person))
        return await self.answered(shortcut, lambda: self.send("interactive", sent))

    async def command(self, person: str, words: str) -> str:
        payload = self.slack.command(words, user(person))
        return await self.answered(payload, lambda: self.send("slash_commands", payload))

    async def press(self, person: str, message: Shown, label: str) -> str:
        (button,) = [one for one in buttons(self.slack.messages[CHANNEL, message.id]) if one["text"]["text"] == label]
        payload = self.slack.press(button, message.id, user(person))
        return await self.answered(payload, lambda: self.send("interactive", payload))

    def shown(self) -> list[Shown]:
        return [
            Shown(
                id=stamp,
                text=words_of(one),
                thread=str(one.get("thread_ts") or ""),
                buttons=tuple(button["text"]["text"] for button in buttons(one)),
            )
            for (channel, stamp), one in list(self.slack.messages.items())
            if channel == CHANNEL
        ]

    # How it arrives

    async def send(self, type_: str, payload: dict[str, Any]) -> None:
        began = time.monotonic()
        if self.port:
            assert await call(self.port, payload, form=type_ in FORMS) == 200
        else:
            await self.slack.deliver(type_, payload)
        what = payload.get("text") or payload.get("event", {}).get("type") or payload.get("type")
        self.acks.append((time.monotonic() - began, f"{type_} {what}"))

    async def event(self, event: dict[str, Any], id: str = "") -> None:
        await self.send("events_api", self.slack.envelope(event, id))

    async def form(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The form that it opens."""
        before = len(self.slack.views)
        await self.send("interactive", payload)
        await until(lambda: len(self.slack.views) > before, ANSWER_S)
        return self.slack.views[before]

    async def answered(self, payload: dict[str, Any], send: Callable[[], Any]) -> str:
        """What is said at the address that came with it."""
        url = payload["response_url"]
        await send()
        await until(lambda: self.slack.answered.get(url), ANSWER_S)
        return words_of(self.slack.answered[url][-1])


def words_of(message: dict[str, Any]) -> str:
    """Everything a person can read in it."""
    found = [message.get("text", "")] if not message.get("blocks") else []

    def read(part: Any) -> None:
        if isinstance(part, list):
            for one in part:
                read(one)
        elif isinstance(part, dict) and part.get("type") != "actions":
            found.extend([part["text"]] if isinstance(part.get("text"), str) else [])
            for one in part.values():
                read(one)

    read(message.get("blocks", []))
    return re.sub("[\u2060]", "", "".join(found))


def buttons(message: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [block for block in message.get("blocks", []) if block["type"] == "actions"]
    return [button for row in rows for button in row["elements"] if "value" in button]
