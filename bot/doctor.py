"""`moss doctor`: one line per thing Moss depends on, each asked by its own owner, each with its mend."""

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from bot import control, models, pitfalls
from bot.adapters import platforms
from bot.chat import Health
from bot.containment import containment
from bot.data import installation
from bot.pitfalls import failed, warning
from bot.settings import Settings
from bot.words import count, duration, line
from core.clock import system_clock
from core.coders import catalogue
from core.coders.coder import Doubtful
from core.containers.choose import choose
from core.containers.commit import dockerfile_of
from core.containers.docker_host import DockerHost
from core.containers.host import Host, label
from core.model.errors import BadInput, BuildFailed, MossError, Unavailable
from core.model.substrate import Substrate
from core.model.value import new_id
from core.pipeline.check_substrate import Finding, Outcome, check_substrate
from core.repository import Clone, git
from core.store import people, swaps
from core.store.store import Store

LIMIT_S = 60.0
LITTLE_SPACE_BYTES = 2_000_000_000
CLOCK_DRIFT_S = 60.0


Check = Callable[[], Awaitable[str]]
"""Answers with what it found, or raises MossError."""


async def examine(load: Callable[[], Settings]) -> list[Finding]:
    findings = [await _checked("python", _python), await _checked("git", git.ping)]
    try:
        settings = load()
    except MossError as problem:
        return [*findings, failed("settings", problem.sentence)]
    substrates = count(len(settings.substrate), "substrate")
    findings.append(Finding("settings", Outcome.ok, f"{substrates}, data in {settings.data}"))
    findings += pitfalls.of_consent(settings.consent)
    findings += pitfalls.of_places(settings, await _connections(settings))
    findings.append(await _checked("data", lambda: _data(settings.data)))
    findings += _space(settings.data)
    findings.append(await _checked("socket", lambda: _socket(settings)))
    async with contextlib.AsyncExitStack() as stack:
        store, finding = await _database(settings, stack)
        findings.append(finding)
        findings += pitfalls.of_people(settings, await _with_token(settings, store))
        if settings.room.enabled:
            findings.append(await _checked("room", lambda: _room(settings)))
        for name, ping in platforms.pings(settings):
            findings.append(await _checked(name, ping))
        findings += await _coders(settings)
        findings += await _host(settings, store)
    return findings


async def _checked(name: str, check: Check) -> Finding:
    try:
        async with asyncio.timeout(LIMIT_S):
            return Finding(name, Outcome.ok, await check())
    except MossError as problem:
        return failed(name, problem.sentence)
    except TimeoutError:
        return failed(name, f"It did not answer within {LIMIT_S:.0f} s; see what keeps it, and try again.")


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
    return [
        warning(
            "space", f"Only {free / 1e9:.1f} GB are free at {data}, and images and transcripts need more; free some."
        )
    ]


async def _socket(settings: Settings) -> str:
    control.check_length(settings.socket)
    try:
        answer = await control.Client(settings.socket).ask("hello", timeout_s=5)
    except Unavailable:
        return f"{settings.socket}; no Moss is running on it"
    return f"Moss {answer['version']} is running, process {answer['pid']}"


async def _connections(settings: Settings) -> list[Health]:
    """Of the Moss that runs here, if one does."""
    try:
        answer = await control.Client(settings.socket).ask("hello", timeout_s=5)
    except MossError:
        return []
    return [Health.model_validate(each) for each in answer.get("chats", [])]


async def _database(settings: Settings, stack: contextlib.AsyncExitStack) -> tuple[Store | None, Finding]:
    """Open until the stack is left; None when it cannot be opened, or comes with the first start."""
    if settings.moss.database is None and not (settings.data / "moss.db").exists():
        will_be = f"{settings.data / 'moss.db'} will be made by the first `moss run`"
        return None, Finding("database", Outcome.ok, will_be)
    opened: list[Store] = []

    async def ping() -> str:
        opened.append(await Store.open(settings.database_url, system_clock))
        stack.push_async_callback(opened[0].close)
        return await opened[0].ping()

    finding = await _checked("database", ping)
    return (opened[0] if finding.level is Outcome.ok else None), finding


async def _with_token(settings: Settings, store: Store | None) -> set[str]:
    """Everybody, when nobody can be asked: that was told before."""
    if store is None:
        return set(settings.consent.approvers)
    async with store.reading() as db:
        return {person.name for person in await people.listing(db)}


async def _room(settings: Settings) -> str:
    where = f"{settings.room.host}:{settings.room.port}"
    if settings.room.port == 0 or await _is_running(settings):
        return f"It listens at {where}" if settings.room.port else "It takes any free port"
    if not is_free(settings.room.host, settings.room.port):
        raise Unavailable(f"{where} is taken, or not an address of this machine; change `port` or `host` in [room].")
    return f"{where} is free"


async def _is_running(settings: Settings) -> bool:
    try:
        await control.Client(settings.socket).ask("hello", timeout_s=5)
    except MossError:
        return False
    return True


def is_free(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as plug:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            plug.bind(address)
    except OSError:
        return False
    return True


async def _coders(settings: Settings) -> list[Finding]:
    contained = await containment(settings, installation(settings.data) or new_id("doctor"))
    if not contained.works:
        findings = [failed("sandbox", contained.sentence)]
    elif contained.sandbox.confines:
        findings = [Finding("sandbox", Outcome.ok, contained.sentence), *pitfalls.of_ways(settings.coder)]
    else:
        findings = [warning("sandbox", contained.sentence)]
    try:
        gateway = models.gateway(settings)
    except MossError as problem:
        return [*findings, failed("models", problem.sentence)]
    try:
        coders = catalogue.coders(settings.coder, contained.sandbox, gateway)
        findings += [await _sign_of_life(f"coder {coder.name}", coder.ping) for coder in coders.distinct()]
        return findings + [await _sign_of_life(f"models {api}", partial(gateway.ping, api)) for api in gateway.apis]
    except MossError as problem:
        return [*findings, failed("coder", problem.sentence)]
    finally:
        await gateway.close()


async def _sign_of_life(name: str, check: Check) -> Finding:
    said: list[str] = []

    async def ping() -> str:
        said.append(await check())
        return said[0]

    finding = await _checked(name, ping)
    return warning(name, finding.sentence) if said and isinstance(said[0], Doubtful) else finding


async def _host(settings: Settings, store: Store | None) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        known = installation(settings.data)
        data = settings.data if settings.data.is_dir() else Path(scratch)
        owner = known or new_id("doctor")
        host, why = await choose(settings.moss.host, data, owner)
        try:
            findings = [await _checked("host", host.ping)]
            answers = findings[0].level is Outcome.ok
            if not host.isolates:
                findings.append(warning("isolation", why))
            elif isinstance(host, DockerHost) and answers:
                findings.append(await _relay(host))
                findings.append(await _clock(host))
            for substrate in settings.substrate:
                findings += await _substrate(settings, substrate, host, store)
            if not known and answers:
                for image in await host.images({label.OWNER: owner}):
                    await host.remove_image(image)
            return findings
        finally:
            await host.close()


async def _relay(host: DockerHost) -> Finding:
    """Fetches nothing, and has to go without a relay when one cannot be had otherwise."""
    with contextlib.suppress(MossError):  # told below
        if base := await host.relay_lacks():
            return warning("relay", pitfalls.not_there(base, "of which relays are made,"))
    return await _checked("relay", lambda: _reached(host))


async def _reached(host: DockerHost) -> str:
    """Builds the relay's image when it is not there yet, and reaches one through the data directory."""
    if problem := await host.data_path_problem():
        raise BadInput(problem)
    return "A relay can be built, and is reached through the data directory"


async def _clock(host: DockerHost) -> Finding:
    try:
        ahead_s = ((await host.clock()) - system_clock()).total_seconds()
    except MossError as problem:
        return failed("clock", problem.sentence)
    if abs(ahead_s) < CLOCK_DRIFT_S:
        return Finding("clock", Outcome.ok, "The engine's clock agrees with ours")
    way = "ahead of" if ahead_s > 0 else "behind"
    return warning(
        "clock", f"The engine's clock is {duration(abs(ahead_s))} {way} ours, so that logs do not match; set it."
    )


async def _substrate(settings: Settings, substrate: Substrate, host: Host, store: Store | None) -> list[Finding]:
    name, dockerfile = f"substrate {substrate.name}", ""

    async def repository() -> str:
        nonlocal dockerfile
        sentence, dockerfile = await _repository(settings, substrate)
        return sentence

    findings = [await _checked(name, repository)]
    findings += pitfalls.of_substrate(substrate, host)
    with contextlib.suppress(MossError):  # the host does not answer, which was told before
        if isinstance(host, DockerHost):
            findings += await _images(name, host, dockerfile, substrate.build.network)
        findings += await _way_in(substrate, host, store)
    return findings


async def _way_in(substrate: Substrate, host: Host, store: Store | None) -> list[Finding]:
    """What must be free, or there, before the agent can be adopted."""
    name, run = f"substrate {substrate.name}", substrate.run
    if await _lives(substrate, host, store):
        return []
    if run.box:
        there = await host.look(run.box) is not None
        return [] if there else [failed(name, f"There is no box {run.box} here; start it, or leave out `run.box`.")]
    if run.publish and not is_free("", run.publish):
        return [failed(name, f"`run.publish` is {run.publish}, and something else has that port; free or change it.")]
    return []


async def _images(name: str, host: DockerHost, dockerfile: str, network: bool) -> list[Finding]:
    """What the first build has to fetch. Nothing is fetched for it here."""
    try:
        return [warning(name, sentence) for sentence in await pitfalls.to_fetch(host, dockerfile)]
    except BuildFailed as problem:
        return [] if network else [failed(name, problem.sentence)]


async def _repository(settings: Settings, substrate: Substrate) -> tuple[str, str]:
    """A sentence on it, and the Dockerfile there."""
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        data = settings.data if installation(settings.data) else Path(scratch)
        clone = await Clone.of(substrate.repository, data / "repos" / f"{substrate.name}.git")
        head = await clone.head(substrate.branch)
        dockerfile = await dockerfile_of(clone, substrate, head, Path(scratch) / "dockerfile")
    return f"`{substrate.branch}` of {substrate.repository} is at {head[:12]}", dockerfile


async def _lives(substrate: Substrate, host: Host, store: Store | None) -> bool:
    """Whether the agent that Moss answers for runs, and so has the port that is its own."""
    if store is None:
        return False
    async with store.reading() as db:
        live = await swaps.live_version(db, substrate.name)
    seen = await host.look(live.box) if live else None
    return seen is not None and seen.running


async def check_thoroughly(settings: Settings, substrate: Substrate, tell: Callable[[Finding], None]) -> None:
    """`moss substrate check`: builds the agent, talks to it on trial, asks its grader; minutes, not seconds."""
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        # An owner of its own: a running Moss would tidy away what it finds of its own and does not know.
        owner = new_id("check")
        data = settings.data if installation(settings.data) else Path(scratch)
        host, _ = await choose(settings.moss.host, data, owner)
        try:
            clone = await Clone.of(substrate.repository, data / "repos" / f"{substrate.name}.git")
            async with models.gateway(settings).serving() as lanes:
                await check_substrate(
                    host, substrate, clone, owner=owner, scratch=Path(scratch), tell=tell, lanes=lanes
                )
        finally:
            for image in await host.images({label.OWNER: owner}):
                await host.remove_image(image)
            await host.close()


def row(finding: Finding) -> Text:
    style = {Outcome.ok: "green", Outcome.warning: "yellow", Outcome.failed: "red"}[finding.level]
    return Text.assemble(f"{finding.name:<22} ", (f"{finding.level:<8}", style), line(finding.sentence, 500))


def report(findings: list[Finding]) -> RenderableType:
    found = Counter(finding.level for finding in findings)
    bad = [f"{found[Outcome.failed]} failed"] if found[Outcome.failed] else []
    bad += [count(found[Outcome.warning], "warning")] if found[Outcome.warning] else []
    style = "red" if found[Outcome.failed] else "yellow" if bad else "green"
    return Group(*map(row, findings), Text(", ".join(bad) or "Everything is there.", style=style))
