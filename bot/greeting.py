"""What `moss run` says on a terminal: where everything is and what to do next, and then what happens, line by line."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bot import VERSION, render
from bot.first_start import Welcome, tokens_file
from bot.verbs import Moss
from bot.words import line
from core.model.errors import MossError
from core.store import facts, people, substrates, swaps

LOOK_S = 5.0
"""Other processes write facts too, and wake nobody."""


@dataclass(frozen=True, slots=True)
class Start:
    version: str
    pid: int
    data: str
    socket: str
    host: str
    """What answers, or why nothing does."""
    isolates: bool
    sandbox: str
    """Where coders work, or why nowhere."""
    sandbox_works: bool
    room: str | None
    """The address of the page."""
    live: dict[str, int | None]
    """Substrate -> number of its live version."""
    approvers: tuple[str, ...]
    without_token: tuple[str, ...]
    tokens: dict[str, str]
    """Of the people of a built-in Moss who have not seen theirs, where they may be shown."""
    tokens_file: str | None
    """Where those tokens wait, where they may not."""
    problem: str | None
    """Why its agent is not live."""


async def started(moss: Moss, welcome: Welcome | None = None, *, may_show: bool = True) -> Start:
    settings = moss.settings
    try:
        host = await moss.host.ping()
    except MossError as problem:
        host = problem.sentence
    async with moss.store.reading() as db:
        names = [substrate.name for substrate in settings.substrate]
        versions = {name: await swaps.live_version(db, name) for name in names}
        known = {person.name for person in await people.listing(db)}
    tokens = welcome.tokens if welcome else {}
    approvers = tuple(sorted(settings.consent.approvers))
    return Start(
        version=VERSION,
        pid=os.getpid(),
        data=str(settings.data),
        socket=str(settings.socket),
        host=host,
        isolates=moss.host.isolates,
        sandbox=moss.contained.sentence if moss.contained else "",
        sandbox_works=moss.contained is None or moss.contained.works,
        room=_room(settings.data),
        live={name: version.number if version else None for name, version in versions.items()},
        approvers=approvers,
        without_token=tuple(name for name in approvers if ":" not in name and name not in known),
        tokens=tokens if may_show else {},
        tokens_file=str(tokens_file(settings.data)) if tokens and not may_show else None,
        problem=welcome.problem if welcome else None,
    )


def _room(data: Path) -> str | None:
    """As the room wrote it down once it listened."""
    try:
        found = json.loads((data / "room.json").read_text(encoding="utf-8"))
        return str(found["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def greeting(start: Start) -> RenderableType:
    rows = [("data", start.data), ("host", line(start.host, 200))]
    rows += [("coders", line(start.sandbox, 300))] if start.sandbox and start.sandbox_works else []
    rows += [("room", start.room)] if start.room else []
    rows += [(name, f"version {n} is live" if n is not None else "not live yet") for name, n in start.live.items()]
    rows += [("approvers", ", ".join(start.approvers) or "nobody yet: name some in [consent] of moss.toml")]
    width = max(len(name) for name, _ in rows)
    head = Text(f"Moss {start.version} works, process {start.pid}. Ctrl-C ends it; agents live on.", style="bold green")
    told: list[RenderableType] = [Text.assemble((f"  {name:<{width}}  ", "bold"), value) for name, value in rows]
    if not start.isolates:
        told.append(Text("  Nothing isolates agents from this machine; only trusted ones are run.", style="yellow"))
    if not start.sandbox_works:
        told.append(Text(f"  No repair can be made: {line(start.sandbox, 300)}", style="red"))
    if start.problem:
        told.append(Text(f"  {line(start.problem, 300)}", style="red"))
    if start.tokens:
        told += [Text(""), tokens(start)]
    return Group(head, *told, Text(""), Text("Next, in another terminal:", style="bold"), *_next(start), Text(""))


def tokens(start: Start) -> RenderableType:
    """How the people of a built-in Moss come in. Whoever may read this output may be any of them."""
    room = start.room or "the room is switched off"
    links = [Text(f"  {name:<9} {room}/enter#{token}") for name, token in start.tokens.items()]
    about = "Enter the room as one of them; what follows the # is a token, and is shown this once:"
    return Group(Text(about, style="bold"), *links)


def tokens_wait(start: Start) -> RenderableType:
    """For a log, which keeps what it is told."""
    where = f"{start.room}/enter#TOKEN" if start.room else "the command line"
    return Text(
        f"The first tokens stand in {start.tokens_file}, which only its owner reads; use them at {where}, and then "
        "remove the file."
    )


def _next(start: Start) -> Iterator[Text]:
    several = len(start.live) > 1
    steps = [
        (f"moss adopt{f' --substrate {name}' if several else ''}", f"take over {name}, or start it")
        for name, number in start.live.items()
        if number is None
    ]
    steps += [(f"moss people add {name}", "a token, for approving and for the room") for name in start.without_token]
    if not steps and start.room:
        steps.append((start.room, "talk to the agent, and flag what is wrong"))
    steps.append(("moss evolve --wait", "repair what was flagged"))
    width = max(len(words) for words, _ in steps)
    yield from (Text(f"  {words:<{width}}  {about}") for words, about in steps)


async def narrate(moss: Moss, out: Console) -> None:
    """Facts as they come, of all agents, until cancelled."""
    async with moss.store.reading() as db:
        seen = {name: await facts.head(db, name) for name in await substrates.names(db)}
    changes = -1
    while True:
        async with moss.store.reading() as db:
            fresh = [fact for name in seen for fact in await facts.since(db, name, seen[name])]
        for fact in fresh:
            seen[fact.substrate] = fact.seq
            out.print(render.fact(fact), soft_wrap=True)
        changes = await moss.store.wait_for_change(changes, LOOK_S)
