"""What people look at from a chat: cards, and the artefacts of a run as text, a page at a time."""

import asyncio
import io
from datetime import timedelta
from enum import StrEnum

from rich.console import Console, RenderableType

from bot import cards, render
from bot.cards.lists import BATCHES_SHOWN, VERSIONS_SHOWN
from bot.chat import Card, Event, Line, Section
from bot.digest import compose
from bot.permits import own, refusal_elsewhere, sight
from bot.report import (
    Report,
    evidence,
    gather,
    listed,
    missing,
    read_diff,
    read_logs,
    read_trials,
    standing,
)
from bot.verbs import Moss
from bot.words import harmless
from core.model.errors import BadInput, NotFound, Refused
from core.model.transcript import Place
from core.store import runs, swaps

PAGE_CHARS = 2600
"""Of text on one page: what every platform takes in one message, with what stands around it."""
LOGS_BYTES = 200_000
"""Of all logs of a run: some eighty pages."""
DIGEST_DAYS = 366
WIDTH = 78
"""Columns of what is laid out as on a terminal."""


class Artefact(StrEnum):
    diagnosis = "diagnosis"
    plan = "plan"
    diff = "diff"
    trials = "trials"
    matrix = "matrix"
    log = "log"


async def status(moss: Moss) -> Card:
    return cards.status([await standing(moss.store, substrate.name) for substrate in moss.settings.substrate])


async def all_batches(moss: Moss, event: Event, substrate: str, page: int) -> Card:
    at, skip = await sight(moss.settings, moss.chats, event), (max(page, 1) - 1) * BATCHES_SHOWN
    shown, held = await listed(moss.store, substrate, BATCHES_SHOWN, skip=skip, at=at)
    _first(held, page, BATCHES_SHOWN)
    return cards.all_batches(shown, substrate, page, held)


async def batch(moss: Moss, event: Event, id: str) -> Card:
    found = await evidence(moss.store, id)
    await _check(moss, event, found.batch.place)
    return cards.batch(found)


async def history(moss: Moss, substrate: str, page: int) -> Card:
    async with moss.store.reading() as db:
        versions = await swaps.versions(db, substrate)
    newer = _first(len(versions), page, VERSIONS_SHOWN)
    return cards.history(versions[: len(versions) - newer], substrate, page)


async def digest(moss: Moss, substrate: str, days: int) -> Card:
    if not 1 <= days <= DIGEST_DAYS:
        raise BadInput(f"A digest looks back 1 to {DIGEST_DAYS} days; `/moss digest 7` is a week.")
    until = moss.store.now()
    return await compose(moss.store, substrate, until - timedelta(days=days), until, moss.chats)


async def latest_run(moss: Moss, event: Event, substrate: str) -> str:
    at = await sight(moss.settings, moss.chats, event)
    async with moss.store.reading() as db:
        latest = await runs.listing(db, substrate, 1, at=at)
    if not latest:
        where = "" if at is None else " for this conversation"
        raise NotFound(f"No run of {substrate} was started yet{where}; `/moss evolve` starts one.")
    return latest[0].id


async def whole_run(moss: Moss, event: Event, run: str) -> Card:
    report = await _report(moss, event, run)
    rest = moss.page(run) or f"`moss run show {run}` on the command line"
    return cards.run(report, link=moss.page(run), rest=rest).model_copy(update={"actions": ()})


async def artefact(moss: Moss, event: Event, run: str, what: str, page: int = 1) -> Card:
    """One page of it."""
    if what not in set(Artefact):
        raise BadInput(f"A run has no `{what}`; name one of {', '.join(Artefact)}.")
    report = await _report(moss, event, run)
    text = await asyncio.to_thread(_text, report, Artefact(what))
    pages = paged(text)
    if not 1 <= page <= len(pages):
        raise BadInput(f"The {what} of {run} has {len(pages)} pages; there is no page {page}.")
    lines = []
    if len(pages) > 1:
        after = f"; next: `/moss run {run} {what} page {page + 1}`" if page < len(pages) else ""
        lines = [Line(name="Page", text=f"{page} of {len(pages)}{after}")]
    body = Section(text=pages[page - 1], look="code")
    return Card(title=f"{run}: {what}", lines=tuple(lines), body=(body,), link=moss.page(run))


async def _report(moss: Moss, event: Event, run: str) -> Report:
    report = await gather(moss.store, moss.settings.data, run)
    await _check(moss, event, report.batch.place)
    return report


async def _check(moss: Moss, event: Event, place: Place) -> None:
    """Whether whoever asks here may see what was said in that place."""
    elsewhere = own(place) != own(event.place)
    if elsewhere and (refused := await refusal_elsewhere(moss.settings, moss.chats, event)):
        raise Refused(refused)


def paged(text: str, chars: int = PAGE_CHARS) -> list[str]:
    """Pages that end with a line where they can. Never none."""
    pages, page = [], ""
    for line in harmless(text).strip("\n").splitlines(keepends=True):
        for piece in (line[n : n + chars] for n in range(0, len(line), chars)):
            if len(page) + len(piece) > chars:
                pages.append(page.rstrip("\n"))
                page = ""
            page += piece
    return [*pages, page.rstrip("\n")] if page.strip() or not pages else pages


def _text(report: Report, what: Artefact) -> str:
    """Blocks: reads files."""
    match what:
        case Artefact.diagnosis if report.diagnosis:
            return _laid_out(render.diagnosis(report.diagnosis))
        case Artefact.plan if report.plan:
            return _laid_out(render.plan(report.plan, report.prediction))
        case Artefact.diff:
            return read_diff(report)
        case Artefact.trials:
            return _laid_out(render.trials(read_trials(report)))
        case Artefact.matrix if report.matrices:
            return _laid_out(render.matrices(*report.matrices, report.prediction))
        case Artefact.matrix if one := report.matrix or report.control or report.baseline:
            return _laid_out(render.matrix(one))
        case Artefact.log:
            return _laid_out(render.logs(read_logs(report, LOGS_BYTES)))
        case _:
            raise missing(report.run, what)


def _laid_out(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, markup=False, highlight=False, emoji=False).print(what)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _first(count: int, page: int, shown: int) -> int:
    """How many a page leaves out before it begins."""
    before = (page - 1) * shown
    if page < 1 or before >= max(count, 1):
        raise BadInput(f"There is no page {page}; the last one is {max(1, -(-count // shown))}.")
    return before
