"""`moss doctor`: one line per thing Moss depends on, each asked by its own owner, each with its mend."""

import asyncio
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from bot import control
from bot.data import installation
from bot.render import line
from bot.settings import Settings
from core.clock import system_clock
from core.coders import catalogue
from core.containers.choose import choose
from core.containers.docker_host import DockerHost
from core.containers.host import label
from core.model.errors import BadInput, MossError, Unavailable
from core.model.substrate import Substrate
from core.model.value import new_id
from core.pipeline.check_substrate import Finding, Outcome, check_substrate
from core.repository import Clone, git
from core.store.store import Store

LIMIT_S = 60.0
LITTLE_SPACE_BYTES = 2_000_000_000


Check = Callable[[], Awaitable[str]]
"""Answers with what it found, or raises MossError."""


async def examine(load: Callable[[], Settings]) -> list[Finding]:
    findings = [await _checked("python", _python), await _checked("git", git.ping)]
    try:
        settings = load()
    except MossError as problem:
        return [*findings, Finding("settings", Outcome.failed, problem.sentence)]
    findings.append(Finding("settings", Outcome.ok, f"{len(settings.substrate)} substrate(s), data in {settings.data}"))
    if not settings.consent.approvers:
        findings.append(_warning("consent", "Nobody may approve; name people as `approvers` in [consent]."))
    findings.append(await _checked("data", lambda: _data(settings.data)))
    findings += _space(settings.data)
    findings.append(await _checked("socket", lambda: _socket(settings)))
    findings.append(await _checked("database", lambda: _database(settings)))
    findings += await _host(settings)
    findings += await _coders(settings)
    for substrate in settings.substrate:
        findings += await examine_substrate(settings, substrate)
    return findings


async def examine_substrate(settings: Settings, substrate: Substrate) -> list[Finding]:
    name = f"substrate {substrate.name}"
    findings = [await _checked(name, lambda: _repository(settings, substrate))]
    missing = [file for file in substrate.tasks if not Path(file).is_file()]
    if missing:
        findings.append(
            Finding(name, Outcome.failed, f"`tasks` names {missing[0]}, which is not a file; mend the path.")
        )
    if substrate.tests is None:
        findings.append(
            _warning(name, "It names no tests, so that only replays judge a change; add [substrate.tests].")
        )
    return findings


def _warning(name: str, sentence: str) -> Finding:
    return Finding(name, Outcome.warning, sentence)


async def _checked(name: str, check: Check) -> Finding:
    try:
        async with asyncio.timeout(LIMIT_S):
            return Finding(name, Outcome.ok, await check())
    except MossError as problem:
        return Finding(name, Outcome.failed, problem.sentence)
    except TimeoutError:
        return Finding(
            name, Outcome.failed, f"It did not answer within {LIMIT_S:.0f} s; see what keeps it, and try again."
        )


async def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return f"Python {version}"


def _nearest(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


async def _data(data: Path) -> str:
    nearest = _nearest(data)
    if not nearest.is_dir():
        raise BadInput(f"{nearest} is not a directory; name another `data` in [moss].")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInput(f"{nearest} cannot be written by this user; change its owner, or name another `data` in [moss].")
    if nearest != data:
        return f"{data} will be made by the first `moss run`"
    mode = stat.S_IMODE(data.stat().st_mode)
    if mode & 0o077:
        raise BadInput(f"{data} is open to other users (mode {mode:o}), and holds what people said; chmod 700 it.")
    return f"{data} is writable and private"


def _space(data: Path) -> list[Finding]:
    free = shutil.disk_usage(_nearest(data)).free
    if free >= LITTLE_SPACE_BYTES:
        return [Finding("space", Outcome.ok, f"{free / 1e9:.0f} GB free")]
    return [_warning("space", f"Only {free / 1e9:.1f} GB are free at {data}; images and transcripts need more.")]


async def _socket(settings: Settings) -> str:
    control.check_length(settings.socket)
    try:
        answer = await control.Client(settings.socket).ask("hello", timeout_s=5)
    except Unavailable:
        return f"{settings.socket}; no Moss is running on it"
    return f"Moss {answer['version']} is running, process {answer['pid']}"


async def _database(settings: Settings) -> str:
    store = await Store.open(settings.database_url, system_clock)
    try:
        return await store.ping()
    finally:
        await store.close()


async def _host(settings: Settings) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        known = installation(settings.data)
        data = settings.data if settings.data.is_dir() else Path(scratch)
        owner = known or new_id("doctor")
        host, why = await choose(settings.moss.host, data, owner)
        try:
            findings = [await _checked("host", host.ping)]
            if not host.isolates:
                findings.append(_warning("isolation", why))
            elif isinstance(host, DockerHost) and findings[0].level is Outcome.ok:
                findings.append(await _checked("relay", lambda: _relay(host)))
            if not known and findings[0].level is Outcome.ok:
                for image in await host.images({label.OWNER: owner}):
                    await host.remove_image(image)
            return findings
        finally:
            await host.close()


async def _relay(host: DockerHost) -> str:
    """Builds the relay's image when it is not there yet, and reaches one through the data directory."""
    if problem := await host.data_path_problem():
        raise BadInput(problem)
    return "A relay can be built, and is reached through the data directory"


async def _coders(settings: Settings) -> list[Finding]:
    try:
        coders = catalogue.coders(settings.coder)
    except MossError as problem:
        return [Finding("coder", Outcome.failed, problem.sentence)]
    return [await _checked(f"coder {coder.name}", coder.ping) for coder in coders.distinct()]


async def _repository(settings: Settings, substrate: Substrate) -> str:
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        data = settings.data if installation(settings.data) else Path(scratch)
        clone = await Clone.of(substrate.repository, data / "repos" / f"{substrate.name}.git")
        head = await clone.head(substrate.branch)
    return f"`{substrate.branch}` of {substrate.repository} is at {head[:12]}"


async def check_thoroughly(settings: Settings, substrate: Substrate, tell: Callable[[Finding], None]) -> None:
    """`moss substrate check`: builds the agent, talks to it on trial, asks its grader; minutes, not seconds."""
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        # An owner of its own: a running Moss would tidy away what it finds of its own and does not know.
        owner = new_id("check")
        data = settings.data if installation(settings.data) else Path(scratch)
        host, _ = await choose(settings.moss.host, data, owner)
        try:
            clone = await Clone.of(substrate.repository, data / "repos" / f"{substrate.name}.git")
            await check_substrate(host, substrate, clone, owner=owner, scratch=Path(scratch), tell=tell)
        finally:
            for image in await host.images({label.OWNER: owner}):
                await host.remove_image(image)
            await host.close()


def row(finding: Finding) -> Text:
    style = {Outcome.ok: "green", Outcome.warning: "yellow", Outcome.failed: "red"}[finding.level]
    return Text.assemble(f"{finding.name:<22} ", (f"{finding.level:<8}", style), line(finding.sentence, 500))


def report(findings: list[Finding]) -> RenderableType:
    return Group(*map(row, findings))
