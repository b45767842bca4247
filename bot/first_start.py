"""The first start of a Moss without a moss.toml: its agent is laid down, its people get tokens, the desk goes live."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from bot import built_in, verbs
from bot.verbs import Moss
from core.folders import clear
from core.model.errors import MossError, Refused
from core.repository import begin
from core.store import people, substrates, swaps
from core.store.store import Store
from core.swap import wake

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Welcome:
    tokens: dict[str, str]
    """Of the people who have not seen theirs yet. Whoever shows them says so with `shown`."""
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
    return Welcome(await first_tokens(moss.store, moss.settings.data), problem)


async def first_tokens(store: Store, data: Path) -> dict[str, str]:
    """Of those whom nobody has shown theirs yet. They stand in a file before the store knows them, until they were
    shown: a Moss that dies in between shows them at its next start. One that was replaced or removed meanwhile is
    forgotten, and never made good again."""
    async with store.reading() as db:
        known = {person.name for person in await people.listing(db)}
        kept = {name: token for name, token in _read(data).items() if await people.by_token(db, token) == name}
    fresh = {name: people.new_token() for name in (built_in.OPERATOR, built_in.USER) if name not in known}
    if kept or fresh:
        _write(data, kept | fresh)
    else:
        shown(data)
    for name, token in fresh.items():
        await people.add(store, name, "moss", token)
    return kept | fresh


def tokens_file(data: Path) -> Path:
    return data / "first-tokens.json"


def shown(data: Path) -> None:
    """Somebody has them now."""
    tokens_file(data).unlink(missing_ok=True)


def _read(data: Path) -> dict[str, str]:
    try:
        found = json.loads(tokens_file(data).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(token) for name, token in found.items()} if isinstance(found, dict) else {}


def _write(data: Path, tokens: dict[str, str]) -> None:
    """For its owner alone from the first byte on, and whole or not at all."""
    file = tokens_file(data)
    making = file.with_suffix(".partial")
    making.unlink(missing_ok=True)
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(tokens, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    making.replace(file)


async def _go_live(moss: Moss) -> None:
    async with moss.store.reading() as db:
        known = await swaps.versions(db, built_in.DESK)
        needed = await substrates.needs_adoption(db, built_in.DESK)
    if not known:
        await verbs.adopt(moss, built_in.DESK, None, "moss", token=None)
    elif needed:
        raise Refused(f"{built_in.DESK} waits for an approver: `moss adopt`, with a token, makes it live again.")
    elif not await wake.wake(moss.store, moss.host, moss.settings.substrate_named(built_in.DESK)):
        log.info("the desk is left to the swap that is under way")


async def rest(moss: Moss) -> None:
    """Nobody who tries Moss out looks for a process that outlives it. The next start wakes the desk."""
    try:
        rests = await wake.lay_to_rest(moss.store, moss.host, moss.settings.substrate_named(built_in.DESK))
    except MossError as error:
        log.warning("the desk was not stopped", reason=error.sentence)
    else:
        log.info("the desk is stopped" if rests else "the desk is left as it is")
