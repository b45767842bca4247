"""The first start of a Moss without a moss.toml: its agent is laid down, its people get tokens, the desk goes live."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from bot import built_in, verbs
from bot.verbs import Moss
from core.folders import clear
from core.model.errors import MossError
from core.repository import begin
from core.store import people, swaps

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Welcome:
    tokens: dict[str, str]
    """Of the people who have just got one: nobody can read them again."""
    problem: str | None
    """Why the desk is not live."""


async def lay_desk(data: Path) -> None:
    """The desk, as a repository with one commit; the one that is there already is left alone."""
    target = built_in.repository(data)
    if target.exists():
        return
    making = target.with_name(f".{target.name}.partial")
    clear(making)
    shutil.copytree(built_in.examples() / built_in.DESK, making, ignore=shutil.ignore_patterns("__pycache__"))
    await begin(making, "The desk")
    making.rename(target)


async def welcome(moss: Moss) -> Welcome:
    """The desk goes live, and the people of a built-in Moss who have no token yet get one."""
    problem = None
    try:
        await _go_live(moss)
    except MossError as error:
        problem = error.sentence
        log.warning("the desk is not live", reason=problem)
    async with moss.store.reading() as db:
        known = {person.name for person in await people.listing(db)}
    # Last of all: a token that was made and not shown is lost.
    new = [name for name in (built_in.OPERATOR, built_in.USER) if name not in known]
    return Welcome({name: await people.add(moss.store, name, "moss") for name in new}, problem)


async def _go_live(moss: Moss) -> None:
    box = await _live_box(moss)
    if box and (seen := await moss.host.look(box)) and not seen.running:
        await moss.host.start(box)  # as an engine starts what ran before the machine was switched off
    await verbs.adopt(moss, built_in.DESK, None, "moss", token=None)


async def rest(moss: Moss) -> None:
    """Nobody who tries Moss out looks for a process that outlives it. The next start wakes the desk."""
    if box := await _live_box(moss):
        await moss.host.set_restart(box, "no")
        await moss.host.stop(box, moss.settings.substrate_named(built_in.DESK).run.stop_grace_s)


async def _live_box(moss: Moss) -> str | None:
    async with moss.store.reading() as db:
        live = await swaps.live_version(db, built_in.DESK)
    return live.box if live else None
