"""Pages about what Moss did: runs with every artefact, batches, and what was live when."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from bot import cards
from bot.adapters.room.artefacts import diff_lines, matrix_rows, tone
from bot.adapters.room.chat import row_of
from bot.adapters.room.door import status_of
from bot.adapters.room.inside import Endpoint, Inside
from bot.adapters.room.shown import kept, shown_card
from bot.cards.progress import progress
from bot.permits import allowed, allowed_elsewhere, own
from bot.places import ROOM
from bot.report import Report, evidence, gather, listed, missing, read_diff, read_logs, read_trials
from core.model.errors import MossError, NotFound, Refused
from core.model.transcript import Place
from core.store import posts, swaps

LOGS_BYTES = 1_000_000
"""Of all logs of a run on one page."""
DIFF_LINES = 20_000
BATCHES = 50
"""Of each agent on one page."""
ALL = own(Place(platform=ROOM, workspace=ROOM, channel=""))
"""Whose evidence is for everybody who is in: that of every channel here."""


class Draw(Protocol):
    def __call__(self, name: str, request: Request, person: str, *, status: int = 200, **values: Any) -> Response: ...


class Records:
    def __init__(self, inside: Inside, draw: Draw) -> None:
        self._inside = inside
        self._draw = draw

    def pages(self) -> dict[str, Endpoint]:
        return {
            "/runs/{run}": self.run,
            "/runs/{run}/{what}": self.artefact,
            "/batches": self.batches,
            "/batches/{batch}": self.batch,
            "/history": self.history,
        }

    def _check(self, person: str) -> None:
        settings = self._inside.settings
        if refusal := allowed(settings, "status", settings.person(person)):
            raise Refused(refusal)

    def _check_place(self, person: str, place: Place) -> None:
        settings = self._inside.settings
        if own(place) != ALL and (refusal := allowed_elsewhere(settings, settings.person(person))):
            raise Refused(refusal)

    async def run(self, request: Request, person: str) -> Response:
        report = await self._report(request, person)
        whole = cards.run(report, rest="the pages of this run").model_copy(update={"actions": ()})
        card = shown_card(kept(whole), None)
        async with self._inside.store.reading() as db:
            post = await posts.of_key(db, f"run:{report.run.id}")
        asked = None
        if post and post.message and post.place.platform == ROOM:
            asked = f"/c/{quote(post.place.channel, safe='')}#m-{post.message}"
        return self._page(request, person, report, "", card=card, progress=progress(report), asked=asked)

    async def artefact(self, request: Request, person: str) -> Response:
        report = await self._report(request, person)
        what = request.path_params["what"]
        if what not in ARTEFACTS:
            raise NotFound(f"A run has no `{what}`; it has {', '.join(ARTEFACTS)}.")
        try:
            found = await asyncio.to_thread(ARTEFACTS[what], report)
        except MossError as problem:
            return self._page(request, person, report, what, status=status_of(problem), problem=problem.sentence)
        return self._page(request, person, report, what, **found)

    async def batches(self, request: Request, person: str) -> Response:
        self._check(person)
        page = max(row_of(request.query_params.get("page", "1")), 1)
        settings, skip = self._inside.settings, (page - 1) * BATCHES
        at = ALL if allowed_elsewhere(settings, settings.person(person)) else None
        found = [
            (substrate.name, *await listed(self._inside.store, substrate.name, BATCHES, skip=skip, at=at))
            for substrate in settings.substrate
        ]
        older = any(held > page * BATCHES for _, _, held in found)
        return self._draw("batches.html", request, person, listed=found, page=page, older=older, tone=tone)

    async def batch(self, request: Request, person: str) -> Response:
        self._check(person)
        found = await evidence(self._inside.store, request.path_params["batch"])
        self._check_place(person, found.batch.place)
        return self._draw("batch.html", request, person, one=found, tone=tone)

    async def history(self, request: Request, person: str) -> Response:
        self._check(person)
        async with self._inside.store.reading() as db:
            listed = [
                (substrate.name, (await swaps.versions(db, substrate.name))[::-1])
                for substrate in self._inside.settings.substrate
            ]
            runs = {
                swap.id: swap.run
                for _, versions in listed
                for version in versions
                if version.swap and (swap := await swaps.get(db, version.swap))
            }
        return self._draw("history.html", request, person, listed=listed, runs=runs)

    async def _report(self, request: Request, person: str) -> Report:
        self._check(person)
        report = await gather(self._inside.store, self._inside.settings.data, request.path_params["run"])
        self._check_place(person, report.batch.place)
        return report

    def _page(
        self, request: Request, person: str, report: Report, what: str, *, status: int = 200, **values: Any
    ) -> Response:
        given = {"report": report, "what": what, "artefacts": list(ARTEFACTS), "tone": tone, "problem": ""}
        return self._draw("run.html", request, person, status=status, **(given | values))


# What each artefact's page lays out. All of it may come from a model or from the agent, and is plain text there.


def _diagnosis(report: Report) -> dict[str, Any]:
    if report.diagnosis is None:
        raise missing(report.run, "diagnosis")
    return {"diagnosis": report.diagnosis}


def _plan(report: Report) -> dict[str, Any]:
    if report.plan is None:
        raise missing(report.run, "plan")
    return {"plan": report.plan}


def _diff(report: Report) -> dict[str, Any]:
    lines = list(diff_lines(read_diff(report)))
    return {"lines": lines[:DIFF_LINES], "more": max(0, len(lines) - DIFF_LINES)}


def _trials(report: Report) -> dict[str, Any]:
    trials = read_trials(report)
    tasks: dict[str, list[Any]] = {}
    for trial in trials:
        tasks.setdefault(trial.task, []).append(trial)
    return {"tasks": tasks}


def _matrix(report: Report) -> dict[str, Any]:
    if report.matrices:
        return {"columns": ("recorded", "live", "candidate"), "rows": matrix_rows(*report.matrices)}
    for name, matrix in (("candidate", report.matrix), ("live", report.control), ("recorded", report.baseline)):
        if matrix:
            return {"columns": (name,), "rows": matrix_rows(matrix)}
    raise missing(report.run, "matrix")


def _log(report: Report) -> dict[str, Any]:
    return {"logs": read_logs(report, LOGS_BYTES)}


ARTEFACTS: dict[str, Callable[[Report], dict[str, Any]]] = {
    "diagnosis": _diagnosis,
    "plan": _plan,
    "diff": _diff,
    "trials": _trials,
    "matrix": _matrix,
    "log": _log,
}
