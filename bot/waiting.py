"""Staying with a run until it waits for people or is over: a line per stage, and on a terminal what goes on now."""

import asyncio
import contextlib
import time

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from bot.cards.progress import DOING, came
from bot.control import Client
from bot.report import Report, gather
from bot.settings import Settings
from bot.words import duration
from core.model.errors import Unavailable
from core.model.events import Fact, Noun
from core.model.run import Done, Failed, Run, RunState
from core.store.store import Store

BEFORE_PEOPLE = (RunState.queued, RunState.running)
"""While a run is in one of these there is something to wait for: the rest is up to people, or over."""


async def stay(settings: Settings, store: Store, run: Run, since: int, out: Console) -> Run:
    """The run as it is at the end. What happens is shown on `out`; whoever breaks this off breaks off nothing else."""
    report = await gather(store, settings.data, run.id)
    began, spinner = time.monotonic(), Spinner("dots")

    def now() -> Spinner:
        step = report.under_way
        doing = f"{DOING[step.stage]}{f', iteration {step.iteration}' if step.iteration else ''}" if step else "waiting"
        spinner.update(text=Text(f"{doing}  {duration(time.monotonic() - began)}"))
        return spinner

    shown = 0
    live = Live(get_renderable=now, console=out, transient=True) if out.is_terminal else contextlib.nullcontext()
    try:
        with live:
            async for raw in Client(settings.socket).facts(run.substrate, since):
                fact = Fact.model_validate(raw)
                if fact.noun is not Noun.run or fact.id != run.id:
                    continue
                report = await gather(store, settings.data, run.id)
                for done in report.steps[shown:]:
                    out.print(stage(done, report), soft_wrap=True)
                shown = len(report.steps)
                if report.run.state not in BEFORE_PEOPLE:
                    return report.run
    except asyncio.CancelledError:
        out.print(f"{run.id} goes on without you; `moss run show {run.id}` shows it, `moss stop {run.id}` ends it.")
        raise
    raise Unavailable(f"Moss is ending; {run.id} goes on with the next `moss run`.")


def stage(done: Done, report: Report) -> Text:
    """`12:03:04    3.2 s  iter-1/locate  cause found: ...`"""
    took = duration((done.ended_at - done.started_at).total_seconds())
    style = "red" if isinstance(done.result, Failed) else ""
    return Text.assemble(
        (f"{done.ended_at:%H:%M:%S} ", "dim"),
        f"{took:>12}  ",
        (f"{done.step.name:<22} ", "bold"),
        (came(done, report), style),
    )
