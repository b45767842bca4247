"""`moss demo`: the whole story, told on this machine in less than a minute."""

import asyncio
import signal
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bot.demo import stage
from bot.demo.screen import Screen
from bot.demo.story import Ending, Options, tell
from bot.exits import INTERRUPTED, NOT_OFFERED
from bot.terminal import AsJson, show
from core.model.errors import BadInput, MossError
from core.model.run import RunState


class Where(StrEnum):
    auto = "auto"
    docker = "docker"
    process = "process"


class Fix(StrEnum):
    recorded = "recorded"
    none = "none"
    wrong = "wrong"


class Coder(StrEnum):
    recorded = "recorded"
    claude = "claude"
    codex = "codex"
    gemini = "gemini"
    opencode = "opencode"


def demo(
    *,
    host: Annotated[
        Where, typer.Option(help="Where the agents run; `auto` takes a Docker engine that can build the desk.")
    ] = Where.auto,
    fix: Annotated[
        Fix, typer.Option(help="What the stand-in coder does: the recorded repair, nothing, or one that is of no use.")
    ] = Fix.recorded,
    coder: Annotated[
        Coder, typer.Option(help="Who does the thinking: a recording, or a coding agent on PATH with its key set.")
    ] = Coder.recorded,
    headless: Annotated[bool, typer.Option("--headless", help="Ask nothing: it approves by itself.")] = False,
    browser: Annotated[bool, typer.Option("--open", help="Show the room's page in a browser meanwhile.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data directory as it is at the end.")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what the terminal shows into an SVG file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the whole story with the built-in desk: flag, evolve, approve, swap, roll back. Leaves nothing behind.

    Diagnosis, plan and diff are recorded, so that no key is needed; everything else happens. With --coder a real
    coding agent makes them; MOSS_CODER__MODEL names its model.
    """
    if coder is not Coder.recorded and fix is not Fix.recorded:
        raise BadInput("`--fix` says what the stand-in does, and with `--coder` there is none; leave out one of them.")
    screen = Screen(stderr=as_json, picture=picture)
    ending = asyncio.run(_played(screen, host, fix, coder, headless=headless, browser=browser, keep=keep))
    if ending is None:
        raise typer.Exit(INTERRUPTED)
    screen.keep_picture()
    if as_json:
        show(asdict(ending), "", as_json)
    if ending.swap_state is None:
        raise typer.Exit(NOT_OFFERED)
    if ending.run_state != RunState.applied:
        raise typer.Exit(MossError.exit_code)


async def _played(
    screen: Screen, host: Where, fix: Fix, coder: Coder, *, headless: bool, browser: bool, keep: bool
) -> Ending | None:
    """None when somebody ended it; then, too, nothing is left. Whoever is impatient is told once that it is tidied."""
    chosen, why = await stage.choose(host.value)
    options = Options(chosen, why, fix.value, headless=headless, browser=browser, keep=keep, coder=coder.value)
    telling = asyncio.create_task(tell(options, screen))
    loop = asyncio.get_running_loop()

    def end() -> None:
        if not telling.cancelling():
            screen.note("Ending; what was made is removed.")
            telling.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        return await telling
    except asyncio.CancelledError:
        return None
