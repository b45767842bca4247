"""`/moss` with its verbs as Discord's menus offer them, and "Flag for Moss" in the menu of a message.

Each command says its words as if they had been typed; what they mean stands in `bot/commands.py` alone.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import discord
from discord import app_commands
from discord.app_commands import Choice, Range

from bot.commands import VERBS
from bot.looking import Artefact
from core.model.run import Dial

Asked = discord.Interaction[Any]
Hear = Callable[[Asked, list[object | None]], Awaitable[None]]
"""Writes a command down and lets Discord know that it arrived."""
Offer = Callable[[Asked, str], Awaitable[list[str]]]
"""What an option may be: `batch`, `run`, `question` or `version`."""
Flag = Callable[[Asked, int], Awaitable[None]]
"""Asks what was wrong with a message."""

FLAG_MENU = "Flag for Moss"
OFFERED = 25
_DEPTHS = [Choice(name=depth.value, value=depth.value) for depth in Dial]
_ARTEFACTS = [Choice(name=artefact.value, value=artefact.value) for artefact in Artefact]
_VERBS = [Choice(name=name, value=name) for name in VERBS]

Page = Range[int, 1, 9999]


def commands(hear: Hear, offer: Offer, flag_it: Flag) -> list[app_commands.Group | app_commands.ContextMenu]:
    """Everything that is registered at Discord."""
    moss = app_commands.Group(
        name="moss",
        description="Complaints about the agent, and what is done about them.",
        allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True),
        allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
    )

    def verb(name: str) -> Callable[[Any], app_commands.Command[Any, ..., Any]]:
        return moss.command(name=name, description=VERBS[name].does[:100])

    def offers(what: str) -> Callable[[Asked, str], Coroutine[Any, Any, list[Choice[str]]]]:
        async def choices(asked: Asked, current: str) -> list[Choice[str]]:
            found = [one for one in await offer(asked, what) if current.strip().lower() in one.lower()]
            return [Choice(name=one[:100], value=one.partition(" ")[0]) for one in found[:OFFERED]]

        return choices

    def paged(page: int | None) -> str | None:
        return f"page {page}" if page else None

    @verb("flag")
    @app_commands.describe(reason="What was wrong, in your words")
    async def flag(asked: Asked, reason: Range[str, 0, 1500] | None = None) -> None:
        await hear(asked, ["flag", reason])

    @verb("status")
    async def status(asked: Asked) -> None:
        await hear(asked, ["status"])

    @verb("batches")
    async def batches(asked: Asked, page: Page | None = None) -> None:
        await hear(asked, ["batches", paged(page)])

    @verb("batch")
    @app_commands.autocomplete(batch=offers("batch"))
    @app_commands.describe(batch="Without one: the batch that is open here")
    async def one_batch(asked: Asked, batch: str | None = None) -> None:
        await hear(asked, ["batch", batch])

    @verb("evolve")
    @app_commands.autocomplete(batch=offers("batch"))
    @app_commands.choices(depth=_DEPTHS)
    @app_commands.describe(batch="Without one: the batch that is open here", depth="How far the repair goes")
    async def evolve(asked: Asked, batch: str | None = None, depth: str | None = None) -> None:
        await hear(asked, ["evolve", batch, depth])

    @verb("run")
    @app_commands.autocomplete(run=offers("run"))
    @app_commands.choices(made=_ARTEFACTS)
    @app_commands.describe(run="Without one: the latest run", made="What the run made; without it, a summary")
    async def one_run(asked: Asked, run: str | None = None, made: str | None = None, page: Page | None = None) -> None:
        await hear(asked, ["run", run, made, paged(page)])

    @verb("stop")
    @app_commands.autocomplete(run=offers("run"))
    @app_commands.describe(run="Without one: the run that is under way")
    async def stop(asked: Asked, run: str | None = None) -> None:
        await hear(asked, ["stop", run])

    @verb("restart")
    @app_commands.autocomplete(run=offers("run"))
    @app_commands.describe(run="Without one: the last that can be restarted")
    async def restart(asked: Asked, run: str | None = None) -> None:
        await hear(asked, ["restart", run])

    @verb("approve")
    @app_commands.autocomplete(run=offers("question"))
    @app_commands.describe(run="Without one: the only question that waits")
    async def approve(asked: Asked, run: str | None = None) -> None:
        await hear(asked, ["approve", run])

    @verb("decline")
    @app_commands.autocomplete(run=offers("question"))
    @app_commands.describe(reason="Why not: it helps the next repair", run="Without one: the only question that waits")
    async def decline(asked: Asked, reason: Range[str, 1, 1500], run: str | None = None) -> None:
        await hear(asked, ["decline", run, reason])

    @verb("rollback")
    @app_commands.autocomplete(version=offers("version"))
    @app_commands.describe(version="Without one: the version before the live one")
    async def rollback(asked: Asked, version: str | None = None) -> None:
        await hear(asked, ["rollback", version])

    @verb("history")
    async def history(asked: Asked, page: Page | None = None) -> None:
        await hear(asked, ["history", paged(page)])

    @verb("digest")
    @app_commands.describe(days="How many days back; without it, a week")
    async def digest(asked: Asked, days: Range[int, 1, 366] | None = None) -> None:
        await hear(asked, ["digest", days])

    @verb("help")
    @app_commands.choices(verb=_VERBS)
    async def help_(asked: Asked, verb: str | None = None) -> None:
        await hear(asked, ["help", verb])

    async def flag_message(asked: Asked, message: discord.Message) -> None:
        await flag_it(asked, message.id)

    return [moss, app_commands.ContextMenu(name=FLAG_MENU, callback=flag_message)]
