"""Verbs that act: they ask the running Moss over its control socket, and say so when none runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bot import render
from bot.exits import NOT_OFFERED
from bot.files import Unreadable, text_of
from bot.places import ROOM, place_named
from bot.settings import Settings, variable
from bot.terminal import AsJson, TokenFile, Which, client, load_settings, opened_store, show, token, verb
from bot.waiting import stay
from bot.words import harmless
from core.model.errors import BadInput
from core.model.evidence import FailureKind
from core.model.run import Dial, Run, RunState
from core.model.transcript import Place

RunId = Annotated[str, typer.Argument(metavar="RUN")]

EVIDENCE_BYTES = 50_000_000
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
async def release(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the agent as well; without it, it runs on.")] = False,
    substrate: Which = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Let go of the agent: remove what Moss made around it, and manage it no more until the next `moss adopt`.

    Its volume, the evidence and the history stay. Takes an approver's token while the agent runs.
    """
    settings = load_settings()
    name = settings.substrate_named(substrate).name
    given = await asyncio.to_thread(token, token_file) if token_file or variable("MOSS_TOKEN") else None
    answer = await client(settings).ask(
        "release", {"substrate": name, "stop": stop}, token=given, timeout_s=ADOPT_TIMEOUT_S
    )
    show(answer, "\n".join(_released(settings, answer)), as_json)


def _released(settings: Settings, answer: dict[str, Any]) -> Iterator[str]:
    name, removed = answer["substrate"], (len(answer["boxes"]), len(answer["images"]))
    yield f"{name} is released; removed: {removed[0]} boxes and {removed[1]} images."
    for box in answer["stopped"]:
        yield f"Stopped: {box}"
    for box in answer["running"]:
        yield f"Runs on by itself: {box}"
    yield from (harmless(sentence) for sentence in answer["left"])
    volume = settings.substrate_named(name).run.volume
    if volume:
        yield f"Untouched: the agent's volume {volume}. It is its memory, and yours to keep or to remove."
    yield f"Untouched: {settings.data}, with evidence and history. Nothing in it is needed once Moss has ended."


@verb
async def flag(
    *,
    reason: Annotated[str, typer.Argument(metavar="REASON", help="What is wrong with it; kept as it is said.")] = "",
    place: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="platform/workspace/channel[/thread]; otherwise the agent's channel."),
    ] = None,
    message: Annotated[
        str | None, typer.Option(metavar="ID", help="Which reply; otherwise the last one there.")
    ] = None,
    kind: Annotated[FailureKind, typer.Option(help="What kind of failure it is.")] = FailureKind.other,
    substrate: Which = None,
    as_json: AsJson = False,
) -> None:
    """Complain about a reply of the agent: it becomes evidence in the open batch of its conversation."""
    settings = load_settings()
    payload = {
        "place": _place(settings, place, substrate).model_dump(),
        "message": message,
        "reason": reason,
        "kind": kind,
    }
    answer = await client(settings).ask("flag", payload)
    batch = answer["batch"]
    noted = "noted, since it is flagged already in" if answer["late"] else "flagged, in"
    show(answer, f"The reply is {noted} {batch['id']}, which is {batch['state']}.", as_json)


def _place(settings: Settings, text: str | None, substrate: str | None) -> Place:
    if text is None:
        return Place(platform=ROOM, workspace=ROOM, channel=settings.substrate_named(substrate).name)
    channel, thread = text, ""
    if text.count("/") == 3:
        channel, _, thread = text.rpartition("/")
    return place_named(channel).model_copy(update={"thread": thread})


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
        text = text_of(None if str(file) == "-" else file, EVIDENCE_BYTES)
    except Unreadable as problem:
        raise BadInput(f"{file} cannot be read: {problem}; name a UTF-8 file of JSON lines.") from None
    payload = {"substrate": settings.substrate_named(substrate).name, "lines": text.split("\n")}
    answer = await client(settings).ask("import", payload, timeout_s=120)
    places = ", ".join(f"{batch['id']} ({batch['state']})" for batch in answer["batches"])
    show(answer, f"Flagged turns taken: {answer['lines']}, in {places}.", as_json)


@verb
async def evolve(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH")] = None,
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
    out = render.console(stderr=as_json)
    out.print(f"{run.id} is queued on {run.batch}.", soft_wrap=True)
    async with opened_store(settings) as store:
        ended = await stay(settings, store, run, answer["seq"], out)
    then = f"\n  moss run show {ended.id}    what it offers\n  moss approve {ended.id}     let it go live"
    offered = ended.state is RunState.awaiting_consent
    show({"run": ended}, f"{ended.id} is {ended.state}: {harmless(ended.sentence)}{then if offered else ''}", as_json)
    if not offered:
        raise typer.Exit(NOT_OFFERED)


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
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="Without it: the one before.")] = None,
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
    show(answer, harmless(answer["sentence"]), as_json)
