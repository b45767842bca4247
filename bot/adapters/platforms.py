"""The platforms that the settings name. Each comes with a library of its own, which is there with its extra only."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from bot.chat import Adapter, Inbox
from bot.sections import Discord, Slack
from bot.settings import Settings
from core.model.errors import BadInput
from core.store.store import Store

Ping = Callable[[], Awaitable[str]]
"""Says how it is, or raises MossError."""


def adapters(store: Store, settings: Settings, inbox: Inbox) -> Iterator[Adapter]:
    if settings.slack:
        with _extra("slack"):
            from bot.adapters.slack.adapter import SlackAdapter  # noqa: PLC0415
        yield SlackAdapter(store, settings, settings.slack, inbox)
    if settings.discord:
        with _extra("discord"):
            from bot.adapters.discord.adapter import DiscordAdapter  # noqa: PLC0415
        yield DiscordAdapter(store, settings, settings.discord, inbox)


def pings(settings: Settings) -> Iterator[tuple[str, Ping]]:
    """`moss doctor` asks each platform whether it takes what Moss was given."""
    for n, workspace in enumerate(settings.slack):
        yield f"slack {n}" if len(settings.slack) > 1 else "slack", partial(_slack, workspace)
    if settings.discord:
        yield "discord", partial(_discord, settings.discord)


async def _slack(section: Slack) -> str:
    with _extra("slack"):
        from bot.adapters.slack.ping import ping  # noqa: PLC0415
    return await ping(section)


async def _discord(section: Discord) -> str:
    with _extra("discord"):
        from bot.adapters.discord.ping import ping  # noqa: PLC0415
    return await ping(section)


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as problem:
        raise BadInput(
            f"[{name}] needs {problem.name}, which is not installed; install requirements.lock, or Moss with the extra "
            f"`{name}`."
        ) from None
