"""Verbs that only look: they work on the store alone, whether a Moss runs or not."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from bot import render
from bot.settings import Settings
from bot.terminal import AsJson, Which, client, load_settings, opened_store, show, verb
from core.model.brief import DIFF, TrialFile
from core.model.errors import NotFound, Refused, Unavailable
from core.model.run import Done, Implemented, Located, Planned, Run, RunState, Scored, Stage
from core.model.value import sha256
from core.pipeline import history as past
from core.store import batches, consents, facts, runs, substrates, swaps
from core.store.store import Store
from flags import exchange


@verb
async def list_batches(substrate: Which = None, as_json: AsJson = False) -> None:
    """List the batches of evidence, newest first."""
    async with opened_store(load_settings()) as store, store.reading() as db:
        listed = [
            (batch, len(await batches.chunks(db, batch.id)), await runs.latest_of(db, batch.id))
            for batch in await batches.listing(db, substrate)
        ]
    data = [{**batch.model_dump(mode="json"), "chunks": count, "run": run} for batch, count, run in listed]
    show(data, lambda: render.batches(listed), as_json)


@verb
async def show_batch(batch: Annotated[str, typer.Argument(metavar="BATCH")], as_json: AsJson = False) -> None:
    """Show the evidence in a batch: what was said, and who flagged it why."""
    async with opened_store(load_settings()) as store, store.reading() as db:
        found = await batches.get(db, batch)
        chunks = await batches.chunks(db, batch)
        run = await runs.latest_of(db, batch)
    data = {**found.model_dump(mode="json"), "chunks": chunks, "run": run}
    show(data, lambda: render.batch(found, chunks, run), as_json)


@verb
async def export(
    batch: Annotated[str | None, typer.Argument(metavar="[BATCH]", help="Without it: all of them.")] = None,
    substrate: Which = None,
) -> None:
    """Write evidence as JSON lines, in the form that `moss import` reads."""
    async with opened_store(load_settings()) as store:
        if batch is None:
            async with store.reading() as db:
                chosen = [each.id for each in reversed(await batches.listing(db, substrate))]
        for each in [batch] if batch else chosen:
            typer.echo(await exchange.export(store, each), nl=False)


@verb
async def status(substrate: Which = None, as_json: AsJson = False) -> None:
    """Show what is live, what runs and what waits for people."""
    settings = load_settings()
    chosen = [settings.substrate_named(substrate)] if substrate else list(settings.substrate)
    running = await _running(settings)
    async with opened_store(settings) as store:
        data = [await _standing(store, each.name) for each in chosen]
    show({"moss": running, "substrates": data}, lambda: _status(running, data), as_json)


async def _running(settings: Settings) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = await client(settings).ask("hello", timeout_s=5)
    except Unavailable:
        return None
    return answer


async def _standing(store: Store, name: str) -> dict[str, Any]:
    async with store.reading() as db:
        if name not in await substrates.names(db):
            return {"substrate": name, "known": False, "live": None, "runs": []}
        waiting = [batch for batch in await batches.listing(db, name) if batch.state in ("open", "sealed")]
        return {
            "substrate": name,
            "known": True,
            "live": await swaps.live_version(db, name),
            "needs_adoption": await substrates.needs_adoption(db, name),
            "swap": await swaps.in_flight(db, name),
            "runs": await runs.listing(db, name, 5),
            "batches": {state: sum(batch.state == state for batch in waiting) for state in ("open", "sealed")},
            "waiting_for_consent": await consents.asked(db, name),
        }


def _status(running: dict[str, Any] | None, standings: list[dict[str, Any]]) -> RenderableType:
    head = f"Moss {running['version']} runs, process {running['pid']}" if running else "No Moss runs; `moss run`"
    parts: list[RenderableType] = [Text(head)]
    for each in standings:
        parts.append(Text(""))
        if not each["known"]:
            parts.append(Text(f"{each['substrate']}: never seen by a running Moss; `moss run`, then `moss adopt`"))
            continue
        live = each["live"]
        what = (
            f"version {live.number} live since {render.moment(live.since)}, {live.commit[:12]}" if live else "not live"
        )
        parts.append(Text(f"{each['substrate']}: {what}", style="bold"))
        if each["needs_adoption"]:
            parts.append(Text("needs a person: `moss adopt`", style="red"))
        if each["swap"]:
            parts.append(Text(f"swap {each['swap'].id} is {each['swap'].state}"))
        parts.append(Text(f"batches: {each['batches']['open']} open, {each['batches']['sealed']} sealed"))
        for asked in each["waiting_for_consent"]:
            subject = asked.run or asked.id
            parts.append(Text(f"waits for approval: `moss approve {subject}`, until {render.moment(asked.expires_at)}"))
        parts.append(render.runs(each["runs"]))
    return Group(*parts)


@verb
async def history(substrate: Which = None, as_json: AsJson = False) -> None:
    """List what was live when, oldest first."""
    settings = load_settings()
    async with opened_store(settings) as store, store.reading() as db:
        found = await swaps.versions(db, settings.substrate_named(substrate).name)
    show(found, lambda: render.history(found), as_json)


@verb
async def verify_chain(substrate: Which = None, as_json: AsJson = False) -> None:
    """Check the chain of what happened: nothing in it was changed or taken out."""
    settings = load_settings()
    name = settings.substrate_named(substrate).name
    async with opened_store(settings) as store, store.reading() as db:
        broken = await facts.verify(db, name)
        links = len(await facts.chain(db, name)) if broken is None else broken.seq - 1
    if broken:
        show({"sound": False, "facts": links, "problem": broken.sentence}, broken.sentence, as_json)
        raise typer.Exit(1)
    show({"sound": True, "facts": links}, f"All {links} facts of {name} follow from one another.", as_json)


class What(StrEnum):
    diagnosis = "diagnosis"
    plan = "plan"
    diff = "diff"
    trials = "trials"
    matrix = "matrix"
    log = "log"


@verb
async def show_run(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    what: Annotated[What | None, typer.Argument(help="Nothing: the run's steps and what came of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run, or one of its artefacts."""
    settings = load_settings()
    async with opened_store(settings) as store, store.reading() as db:
        found = await runs.get(db, run)
        steps = await runs.history(db, run)
        offered = await runs.candidates(db, run)
        consent = await consents.of_run(db, run)
    candidate = offered[-1] if offered else None
    folder = settings.data / "runs" / run
    match what:
        case None:
            data = {"run": found, "steps": steps, "candidate": candidate, "consent": consent}
            show(data, lambda: render.run(found, steps, candidate, consent), as_json)
        case What.diagnosis | What.plan:
            _show_reasoning(steps, what, found, as_json)
        case What.diff:
            written_by = _latest(found, steps, Implemented, what)
            text = _artefact(folder, candidate.diff_artefact if candidate else f"{written_by.step.name}/{DIFF}")
            if candidate and sha256(text.encode()) != candidate.diff_hash:
                raise Refused(f"The diff of {run} is not the one that was offered; somebody changed it on the disk.")
            show({"diff": text}, lambda: render.diff(text), as_json)
        case What.matrix:
            if candidate:
                matrices = {name: getattr(candidate, name) for name in ("baseline", "control", "matrix")}
                show(matrices, lambda: render.matrices(*matrices.values()), as_json)
            else:
                scored = _latest(found, steps, Scored, what).result
                assert isinstance(scored, Scored)
                show({"matrix": scored.matrix}, lambda: render.matrix(scored.matrix), as_json)
        case What.trials:
            step = _latest(found, steps, Scored, what, Stage.evaluate, Stage.control).step
            trials = [
                TrialFile.model_validate_json(file.read_bytes())
                for file in sorted((folder / step.name / "trials").glob("*.json"))
            ]
            show(trials, lambda: render.trials(trials), as_json)
        case What.log:
            logs = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*.log"))}
            texts = {name: file.read_text("utf-8", "replace") for name, file in logs.items()}
            if not texts:
                raise NotFound(f"Run {run} is {found.state} and has built nothing yet, so it has no log.")
            show(texts, lambda: render.logs(texts), as_json)


def _show_reasoning(steps: list[Done], what: What, run: Run, as_json: bool) -> None:
    located, planned = past.last(steps, Located), past.last(steps, Planned)
    if what is What.diagnosis and located:
        return show(located.diagnosis, lambda: render.diagnosis(located.diagnosis), as_json)
    if what is What.plan and planned:
        return show(planned.plan, lambda: render.plan(planned.plan), as_json)
    raise _nothing(run, what)


def _latest(run: Run, steps: list[Done], kind: type, what: What, *stages: Stage) -> Done:
    for done in reversed(steps):
        if isinstance(done.result, kind) and (not stages or done.step.stage in stages):
            return done
    raise _nothing(run, what)


def _nothing(run: Run, what: What) -> NotFound:
    yet = " yet" if run.state in (RunState.queued, RunState.running) else ""
    return NotFound(f"Run {run.id} is {run.state} and has no {what}{yet}.")


def _artefact(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        raise NotFound(f"{folder / name} is gone; somebody removed it from the data directory.") from None
