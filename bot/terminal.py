"""What all verbs of the CLI share: their options, output as text or as JSON, and errors as one sentence and a code."""

import asyncio
import contextlib
import functools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from pydantic_core import to_jsonable_python
from rich.console import RenderableType

from bot import settings as configuration
from bot.control import Client
from bot.files import Unreadable, text_of
from bot.render import console
from bot.settings import Settings
from bot.words import harmless
from core.clock import system_clock
from core.model.errors import BadInput
from core.store.store import Store

P = ParamSpec("P")

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Which = Annotated[str | None, typer.Option("--substrate", metavar="NAME", help="Which agent, when there are several.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="Holds your token; otherwise MOSS_TOKEN, otherwise you are asked."
    ),
]

TOKEN_BYTES = 4096
_chosen: list[Path] = []


def choose_settings(path: Path | None) -> None:
    """What `moss --config FILE` says, for the verb that follows."""
    _chosen[:] = [path] if path else []


def settings_file() -> Path:
    return configuration.file(_chosen[0] if _chosen else None)


def load_settings(*, beginning: bool = False) -> Settings:
    return configuration.load(_chosen[0] if _chosen else None, beginning=beginning)


def verb(run: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A verb is written async; typer calls it without a loop."""

    @functools.wraps(run)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await run(*args, **kwargs)

        asyncio.run(main())

    return call


@contextlib.asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    store = await Store.open(settings.database_url, system_clock)
    try:
        yield store
    finally:
        await store.close()


def client(settings: Settings) -> Client:
    return Client(settings.socket)


def show(value: object, text: RenderableType | Callable[[], RenderableType], as_json: bool) -> None:
    if as_json:
        # One line, for whoever reads lines; ASCII, since it may hold text from a model that no terminal must obey.
        typer.echo(json.dumps(to_jsonable_python(value), sort_keys=True, ensure_ascii=True))
    else:
        console().print(text() if callable(text) else text, soft_wrap=not sys.stdout.isatty())


def complain(sentence: str, as_json: bool) -> None:
    typer.echo(harmless(sentence), err=True)
    if as_json:
        typer.echo(json.dumps({"error": sentence}))


def token(file: Path | None) -> str:
    """A person's token; never an argument, since the process table shows those to everybody."""
    if file is not None:
        try:
            given = text_of(file, TOKEN_BYTES).strip()
        except Unreadable as problem:
            raise BadInput(f"The token file {file} cannot be read: {problem}; name another.") from None
    elif variable := configuration.variable("MOSS_TOKEN"):
        given = variable.strip()
    elif sys.stdin.isatty():
        given = str(typer.prompt("Your token", hide_input=True, err=True)).strip()
    else:
        raise BadInput("This needs your token; give it in --token-file or MOSS_TOKEN.")
    if not given:
        raise BadInput("The token is empty; `moss people add NAME` makes one.")
    return given
