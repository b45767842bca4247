"""Verbs that only look: they work on the store alone, whether a Moss runs or not."""

import json
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from bot import render
from bot.chat import Health
from bot.report import Report, Standing, gather, missing, read_diff, read_logs, read_trials, standing
from bot.settings import Settings
from bot.terminal import AsJson, Which, client, load_settings, opened_store, show, verb
from bot.words import cost, count, harmless, moment
from core.model.errors import Unavailable
from core.model.events import INSTALLATION
from core.store import batches, facts, runs, substrates, swaps
from flags import exchange

T = TypeVar("T")


@verb
async def list_batches(substrate: Which = None, as_json: AsJson = False) -> None:
    """List the batches of evidence, newest first."""
    settings = load_settings()
    async with opened_store(settings) as store, store.reading() as db:
        listed = [
            (batch, await batches.count(db, batch.id), await runs.latest_of(db, batch.id))
            for batch in await batches.listing(db, _named(settings, substrate))
        ]
    data = [{**batch.model_dump(mode="json"), "chunks": count, "run": run} for batch, count, run in listed]
    show(data, lambda: render.batches(listed), as_json)


def _named(settings: Settings, substrate: str | None) -> str | None:
    """None stands for all of them."""
    return settings.substrate_named(substrate).name if substrate else None


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
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="Without it: all of them.")] = None,
    substrate: Which = None,
    as_json: AsJson = False,
) -> None:
    """Write evidence as JSON lines, in the form that `moss import` reads; with --json as one list."""
    settings = load_settings()
    async with opened_store(settings) as store:
        if batch is None:
            async with store.reading() as db:
                chosen = [each.id for each in reversed(await batches.listing(db, _named(settings, substrate)))]
        texts = [await exchange.export(store, each) for each in ([batch] if batch else chosen)]
    if as_json:
        show([json.loads(line) for text in texts for line in text.split("\n") if line], "", as_json)
    else:
        typer.echo("".join(texts), nl=False)


@verb
async def status(substrate: Which = None, as_json: AsJson = False) -> None:
    """Show what is live, what runs and what waits for people."""
    settings = load_settings()
    chosen = [settings.substrate_named(substrate)] if substrate else list(settings.substrate)
    running = await _running(settings)
    async with opened_store(settings) as store:
        async with store.reading() as db:
            known = set(await substrates.names(db))
        standings = {each.name: await standing(store, each.name) if each.name in known else None for each in chosen}
    data = [_as_data(name, found) for name, found in standings.items()]
    show({"moss": running, "substrates": data}, lambda: _status(running, standings), as_json)


async def _running(settings: Settings) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = await client(settings).ask("hello", timeout_s=5)
    except Unavailable:
        return None
    return answer


def _as_data(name: str, found: Standing | None) -> dict[str, Any]:
    if found is None:
        return {"substrate": name, "known": False, "live": None, "runs": []}
    return {
        "substrate": name,
        "known": True,
        "live": found.live,
        "needs_adoption": found.needs_adoption,
        "swap": found.swap,
        "runs": found.runs,
        "batches": {"open": found.open_batches, "sealed": found.sealed_batches},
        "waiting_for_consent": found.asked,
        "held_back": found.held_back,
        "spent_this_month": found.month.model_dump(exclude={"seconds"}),
    }


def _status(running: dict[str, Any] | None, standings: Mapping[str, Standing | None]) -> RenderableType:
    head = f"Moss {running['version']} runs, process {running['pid']}" if running else "No Moss runs; `moss run`"
    parts: list[RenderableType] = [Text(head)]
    parts += [_connection(Health.model_validate(each)) for each in (running or {}).get("chats", [])]
    for name, found in standings.items():
        parts.append(Text(""))
        if found is None:
            parts.append(Text(f"{name}: never seen by a running Moss; `moss run`, then `moss adopt`"))
            continue
        live = found.live
        what = f"version {live.number} live since {moment(live.since)}, {live.commit[:12]}" if live else "not live"
        parts.append(Text(f"{name}: {what}", style="bold"))
        if found.needs_adoption:
            text = "needs a person: `moss adopt`" if live else "`moss adopt` takes it over, or starts it"
            parts.append(Text(text, style="red" if live else ""))
        if found.swap:
            parts.append(Text(f"swap {found.swap.id} is {found.swap.state}"))
        if found.held_back:
            parts.append(Text(f"approved, and not swapped yet: {found.held_back}"))
        parts.append(Text(f"batches: {found.open_batches} open, {found.sealed_batches} sealed"))
        if found.month.tokens or found.month.money_usd:
            parts.append(Text(f"spent this month: {cost(found.month)}"))
        for asked in found.asked:
            subject = asked.run or asked.id
            parts.append(Text(f"waits for approval: `moss approve {subject}`, until {moment(asked.expires_at)}"))
        parts.append(render.runs(found.runs))
    return Group(*parts)


def _connection(one: Health) -> Text:
    where = harmless(" ".join(dict.fromkeys(filter(None, (one.platform, one.workspace)))))
    if not one.connected:
        return Text(f"{where}: not connected. {harmless(one.problem)}".rstrip(), style="red")
    heard = f", last event {moment(one.last_event_at)}" if one.last_event_at else ""
    again = f", {count(one.reconnects, 'reconnect')}" if one.reconnects else ""
    return Text(f"{where}: connected{heard}{again}")


@verb
async def history(substrate: Which = None, as_json: AsJson = False) -> None:
    """List what was live when, oldest first."""
    settings = load_settings()
    async with opened_store(settings) as store, store.reading() as db:
        found = await swaps.versions(db, settings.substrate_named(substrate).name)
    show(found, lambda: render.history(found), as_json)


@verb
async def digest(
    days: Annotated[int, typer.Option(min=1, max=366, help="How far to look back.")] = 7,
    substrate: Which = None,
    as_json: AsJson = False,
) -> None:
    """Tell what was flagged, repaired, approved and rolled back, and what waits."""
    from bot import digest as telling  # noqa: PLC0415 (it schedules as well, which takes a while to import)
    from bot.cards.digest import digest as as_card  # noqa: PLC0415

    settings = load_settings()
    name = settings.substrate_named(substrate).name
    async with opened_store(settings) as store:
        until = store.now()
        since = until - timedelta(days=days)
        async with store.reading() as db:
            window = await facts.between(db, name, since, until)
        summary = await telling.summary(store, name, since, until, window, chats={})
    show(summary, lambda: render.card(as_card(summary)), as_json)


@verb
async def verify_chain(substrate: Which = None, as_json: AsJson = False) -> None:
    """Check the chains of what happened to an agent and to people's tokens: nothing was changed or taken out."""
    settings = load_settings()
    name = settings.substrate_named(substrate).name
    links: dict[str, int] = {}
    async with opened_store(settings) as store, store.reading() as db:
        for chain in (name, INSTALLATION):
            broken = await facts.verify(db, chain)
            links[chain] = len(await facts.chain(db, chain)) if broken is None else broken.seq - 1
            if broken:
                show({"sound": False, "facts": links[chain], "problem": broken.sentence}, broken.sentence, as_json)
                raise typer.Exit(1)
    data = {"sound": True, "facts": links[name], "facts_about_people": links[INSTALLATION]}
    said = f"All {links[name]} facts of {name} follow from one another, and all {links[INSTALLATION]} about tokens."
    show(data, said, as_json)


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
    what: Annotated[
        What | None, typer.Argument(metavar="WHAT", help="Nothing: the run's steps and what came of it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run, or one of its artefacts."""
    settings = load_settings()
    async with opened_store(settings) as store:
        report = await gather(store, settings.data, run)
    match what:
        case None:
            data = {name: getattr(report, name) for name in ("run", "steps", "candidate", "consent", "swap", "version")}
            data |= {"spend": report.spend, "spend_by_stage": report.by_stage, "spent_this_month": report.month}
            show(
                data,
                lambda: render.run(
                    report.run, report.steps, report.candidate, report.consent, report.spend, report.by_stage
                ),
                as_json,
            )
        case What.diagnosis:
            diagnosis = _there(report.diagnosis, report, what)
            show(diagnosis, lambda: render.diagnosis(diagnosis), as_json)
        case What.plan:
            plan = _there(report.plan, report, what)
            told = {**plan.model_dump(mode="json"), "prediction": report.prediction}
            show(told, lambda: render.plan(plan, report.prediction), as_json)
        case What.diff:
            diff = read_diff(report)
            show({"diff": diff}, lambda: render.diff(diff), as_json)
        case What.matrix if report.matrices:
            matrices = report.matrices
            scores = dict(zip(("baseline", "control", "matrix"), matrices, strict=True))
            told = {**scores, "prediction": report.prediction}
            show(told, lambda: render.matrices(*matrices, report.prediction), as_json)
        case What.matrix:
            matrix = _there(report.matrix or report.control or report.baseline, report, what)
            show({"matrix": matrix}, lambda: render.matrix(matrix), as_json)
        case What.trials:
            trials = read_trials(report)
            show(trials, lambda: render.trials(trials), as_json)
        case What.log:
            texts = read_logs(report)
            show(texts, lambda: render.logs(texts), as_json)


def _there(found: T | None, report: Report, what: What) -> T:
    if found is None:
        raise missing(report.run, what)
    return found
