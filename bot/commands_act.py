"""Verbs that act: they ask the running Moss over its control socket, and say so when none runs."""

import asyncio
import contextlib
import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from bot import render
from bot.settings import Settings, variable
from bot.terminal import EXIT_NOT_OFFERED, AsJson, TokenFile, Which, client, load_settings, show, token, verb
from core.model.errors import BadInput, Unavailable
from core.model.events import Fact, Noun
from core.model.run import Dial, Run, RunState

RunId = Annotated[str, typer.Argument(metavar="RUN")]

BEFORE_PEOPLE = (RunState.queued, RunState.running)
"""`evolve --wait` waits while a run is in one of these: the rest is up to people, or over."""
ADOPT_TIMEOUT_S = 600.0
"""Starting an agent and probing it may take its whole window."""


@verb
async def adopt(
    substrate: Which = None,
    commit: Annotated[str | None, typer.Option(help="The commit its image was built from, when no label says.")] = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take over the agent that runs already, or start it: version 0, and the first that is known to be good.

    Adopting again after something was live takes an approver's token.
    """
    settings = load_settings()
    payload = {"substrate": settings.substrate_named(substrate).name, "commit": commit}
    given = await asyncio.to_thread(token, token_file) if token_file or variable("MOSS_TOKEN") else None
    answer = await client(settings).ask("adopt", payload, token=given, timeout_s=ADOPT_TIMEOUT_S)
    version = answer["version"]
    show(answer, f"Version {version['number']} is adopted and good: {version['commit'][:12]}.", as_json)


@verb
async def import_evidence(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, as docs/batches.md shows; - is standard input.")
    ],
    substrate: Which = None,
    as_json: AsJson = False,
) -> None:
    """Add evidence from a file to the open batches of its conversations."""
    settings = load_settings()
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{file} cannot be read ({problem}); name a UTF-8 file of JSON lines.") from None
    payload = {"substrate": settings.substrate_named(substrate).name, "lines": text.split("\n")}
    answer = await client(settings).ask("import", payload, timeout_s=120)
    places = ", ".join(f"{batch['id']} ({batch['state']})" for batch in answer["batches"])
    show(answer, f"Flagged turns taken: {answer['lines']}, in {places}.", as_json)


@verb
async def evolve(
    batch: Annotated[str | None, typer.Argument(metavar="[BATCH]")] = None,
    depth: Annotated[Dial | None, typer.Option(help="How far to go; the settings say otherwise.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is offered or over; 3 when nothing is.")] = False,
    substrate: Which = None,
    as_json: AsJson = False,
) -> None:
    """Start a run on a batch, which seals it; without a name, on the only one that waits."""
    settings = load_settings()
    name = settings.substrate_named(substrate).name if substrate or not batch else None
    answer = await client(settings).ask("evolve", {"substrate": name, "batch": batch, "depth": depth})
    run = Run.model_validate(answer["run"])
    if not wait:
        show({"run": run}, f"{run.id} is queued on {run.batch}; `moss run show {run.id}` follows it.", as_json)
        return
    ended = await _follow(settings, run, answer["seq"], as_json)
    show({"run": ended}, f"{ended.id} is {ended.state}: {render.harmless(ended.sentence)}", as_json)
    if ended.state is not RunState.awaiting_consent:
        raise typer.Exit(EXIT_NOT_OFFERED)


async def _follow(settings: Settings, run: Run, since: int, as_json: bool) -> Run:
    """Show what happens until the run waits for people or is over."""
    out = render.console(stderr=as_json)
    lines: deque[str] = deque(maxlen=12)
    started = time.monotonic()

    def view() -> Group:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        spinner = Spinner("dots", Text(f"{run.id}  {minutes}:{seconds:02}"))
        return Group(*(Text(line) for line in lines), spinner)

    live = Live(get_renderable=view, console=out, transient=True) if out.is_terminal else contextlib.nullcontext()
    with live:
        async for raw in client(settings).facts(run.substrate, since):
            fact = Fact.model_validate(raw)
            if fact.id not in (run.id, run.batch):
                continue
            lines.append(render.fact(fact))
            if not out.is_terminal:
                out.print(lines[-1], soft_wrap=True)
            if fact.noun is Noun.run and fact.after and fact.after not in BEFORE_PEOPLE:
                break
    ended = Run.model_validate((await client(settings).ask("look", {"run": run.id}))["run"])
    if ended.state in BEFORE_PEOPLE:
        raise Unavailable(f"Moss is ending; {run.id} goes on with the next `moss run`.")
    return ended


@verb
async def stop(run: RunId, as_json: AsJson = False) -> None:
    """End a run at once; what it made is kept."""
    answer = await client(load_settings()).ask("stop", {"run": run})
    show(answer, f"{run} is stopped.", as_json)


@verb
async def restart(run: RunId, as_json: AsJson = False) -> None:
    """Set a stopped, failed or exhausted run aside and start anew on its batch."""
    answer = await client(load_settings()).ask("restart", {"run": run})
    show(answer, f"{answer['run']['id']} is queued in place of {run}.", as_json)


@verb
async def approve(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Or the id of a rollback's consent.")],
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Allow what a run offers to become the live agent. Takes your personal token."""
    await _decide("approve", {"run": run}, token_file, as_json)


@verb
async def decline(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Or the id of a rollback's consent.")],
    reason: Annotated[str, typer.Option(help="Why not; kept with the decision.")],
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse what a run offers. Takes your personal token."""
    await _decide("decline", {"run": run, "reason": reason}, token_file, as_json)


@verb
async def rollback(
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="Without it: the one before.")] = None,
    substrate: Which = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask for an older version, with your own vote for it. Takes your personal token."""
    name = load_settings().substrate_named(substrate).name
    await _decide("rollback", {"substrate": name, "version": version}, token_file, as_json)


async def _decide(what: str, payload: dict[str, Any], token_file: Path | None, as_json: bool) -> None:
    settings = load_settings()
    asking = client(settings)
    await asking.ask("hello", timeout_s=5)  # nobody types a token into the void
    given = await asyncio.to_thread(token, token_file)
    answer = await asking.ask(what, payload, token=given)
    show(answer, render.harmless(answer["sentence"]), as_json)
