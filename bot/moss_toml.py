"""The moss.toml that `moss init` writes: what was found, as commented lines. Pure."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bot.dockerfile import Dockerfile
from bot.settings import SOCKET_PATH_LIMIT
from bot.words import line
from core.containers.host import TAKEN, Portrait

DATA = "moss-data"
GUESSED_PORT = 8080
NO_CODER = "./coder"
CODERS = ("claude", "codex", "opencode", "gemini")
"""The programs that are looked for, and the providers of the same name."""
OPENCODE_MODEL = "openai/gpt-5.5"


class HostName(StrEnum):
    auto = "auto"
    docker = "docker"
    process = "process"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What whoever calls it says; the rest is found."""

    name: str | None = None
    approvers: tuple[str, ...] = ()
    coder: tuple[str, ...] = ()
    host: HostName = HostName.auto
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    portrait: Portrait = field(repr=False)
    commit: str | None
    why: str
    """Why it is taken for this agent."""


@dataclass(frozen=True, slots=True)
class Found:
    repository: Path
    """As it is written: relative to the directory of moss.toml where it lies there."""
    branch: str | None
    dockerfile: str | None
    about: Dockerfile
    engine: str | None
    """What answers, or None."""
    no_engine: str
    coders: tuple[str, ...]
    container: Container | None
    problems: tuple[str, ...] = ()
    """What has to be mended before Moss can work, whatever stands in the file."""
    no_sandbox: str = ""
    """Why nothing confines coders here."""


def moss_toml(found: Found, wishes: Wishes, base: Path) -> str:
    return "\n".join(
        [*_head(found, wishes, base), *_substrate(found, wishes, base), *_coder(found, wishes), *_consent(wishes)]
    )


def _head(found: Found, wishes: Wishes, base: Path) -> Iterator[str]:
    yield "# Written by `moss init`. docs/configuration.md has every line that may stand here; docs/substrate.md tells"
    yield "# more of those of your agent. Relative paths start at this file. `moss doctor` says what is still missing."
    yield ""
    yield "[moss]"
    yield f"data = {_toml(data_directory(base))}  # database, artefacts, control socket; nothing of it belongs into git"
    if wishes.host is not HostName.auto:
        yield f"host = {_toml(wishes.host)}"
    yield ""


def data_directory(base: Path) -> str:
    """Beside the file, unless the path of its socket would be longer than a system takes."""
    fits = len(os.fsencode(base / DATA / "moss.sock")) <= SOCKET_PATH_LIMIT
    return DATA if fits else f"~/.moss/{name_of(base)}"


def _substrate(found: Found, wishes: Wishes, base: Path) -> Iterator[str]:
    about, name = found.about, wishes.name or name_of(found.repository)
    yield "[substrate]"
    yield f"name = {_toml(name)}"
    yield f"repository = {_toml(os.path.relpath(found.repository, base))}"
    yield f"branch = {_toml(found.branch or 'main')}" + ("" if found.branch else "  # a guess")
    if wishes.trusted:
        yield "trusted = true  # you vouch for this agent and for every change to it, also where nothing isolates it"
    elif found.engine is None:
        yield f"# {line(found.no_engine, 200)}"
        yield "# trusted = true  # needed without an engine: you vouch for this agent and every change to it"
    yield ""
    if found.dockerfile and found.dockerfile != "Dockerfile":
        yield "[substrate.build]"
        yield f"dockerfile = {_toml(found.dockerfile)}"
        yield ""
    yield "[substrate.run]"
    yield from _adopted(found.container) if found.container else _fresh(found, name)
    yield ""
    yield '# How one talks to it: "openai" (POST /v1/chat/completions), "http" (any JSON) or "exec" (a command).'
    yield "[substrate.replay]"
    yield 'kind = "openai"'
    yield ""
    yield "# How one sees that it is well; more probes are better: heartbeat, commands, canary."
    yield "[substrate.health]"
    guess = "" if about.health else "  # a guess: the Dockerfile has no HEALTHCHECK that asks for a path"
    yield f"http = {_toml(about.health or '/health')}{guess}"
    yield ""
    yield "# What its own tests are, run inside every candidate's image."
    yield "# [substrate.tests]"
    yield '# command = ["python3", "-m", "pytest", "-q"]'
    yield '# paths = ["tests/**"]'
    yield ""


def _fresh(found: Found, name: str) -> Iterator[str]:
    about = found.about
    if found.engine is None:
        command = about.command or ("./start",)
        guess = "" if about.command else "  # a guess: no Dockerfile names a command"
        yield f"command = {_toml(command)}{guess}"
    elif about.command:
        yield f"# command = {_toml(about.command)}  # that of the image"
    guess = "" if about.port else "  # a guess: the Dockerfile exposes none"
    yield f"port = {about.port or GUESSED_PORT}{guess}"
    yield f"# publish = {about.port or GUESSED_PORT}  # under which port of this machine users reach it"
    yield f"volume = {_toml(f'{name}-state')}  # what the agent writes below state_path outlives a swap"
    yield f"state_path = {_toml(about.volume or '/state')}"
    yield '# env_from = ["MODEL_API_KEY"]  # names of variables that Moss passes on to the live agent'


def _adopted(container: Container) -> Iterator[str]:
    """As it runs: whatever is not said here, its replacement would not have."""
    seen = container.portrait
    yield f"box = {_toml(seen.name)}  # it runs here; {line(container.why)}"
    if container.commit is None:
        yield "# Nothing says from which commit it was built: adopt it with `moss adopt --commit ID`."
    if seen.command:
        yield f"command = {_toml(seen.command)}"
    published = {inside: outside for inside, outside in seen.ports.items() if outside}
    port = next(iter([*published, *seen.ports]), None)
    yield f"port = {port or GUESSED_PORT}" + ("" if port else "  # a guess: it exposes none")
    if port in published:
        yield f"publish = {published[port]}"
    if seen.volumes:
        yield f"volume = {_toml(seen.volumes[0].name)}"
        yield f"state_path = {_toml(seen.volumes[0].target)}"
    if seen.env:
        yield f"env_from = {_toml(sorted(seen.env))}  # set these before `moss run`; their values are not written here"
    if seen.user:
        yield f"user = {_toml(seen.user)}"
    yield f"restart = {_toml(seen.restart or 'no')}"
    for beyond in seen.beyond:
        yield f"# `moss adopt` will refuse it: it {line(beyond)}"


def _coder(found: Found, wishes: Wishes) -> Iterator[str]:
    yield "# The coding agent: one of those in docs/coders.md, or any program that follows docs/coder-protocol.md."
    yield "[coder]"
    yield from _sandbox(found, wishes)
    if wishes.coder:
        yield f"argv = {_toml(wishes.coder)}"
        yield ""
        return
    if not found.coders:
        yield f"argv = {_toml([NO_CODER])}  # none of {', '.join(CODERS)} is on PATH; name a program of yours"
        yield ""
        return
    first, *others = found.coders
    if others:
        yield f"# Also on PATH: {', '.join(others)}."
    yield f"provider = {_toml(first)}  # docs/coders.md: which model, which key, what it may do"
    if first == "opencode":
        yield f"model = {_toml(OPENCODE_MODEL)}  # a guess: whichever you have a key for"
    yield ""


def _sandbox(found: Found, wishes: Wishes) -> Iterator[str]:
    if not found.no_sandbox:
        return
    yield f"# {line(found.no_sandbox, 300)}"
    if wishes.trusted:
        yield 'sandbox = "host"  # it runs as Moss\'s own user then, and may do and read whatever that user may'
    else:
        yield '# sandbox = "host"  # without a sandbox it may do and read whatever Moss\'s own user may'


def _consent(wishes: Wishes) -> Iterator[str]:
    yield "# Who may allow a change to go live. Who starts a run, or alone flagged what it mends, may not allow it."
    yield "[consent]"
    nobody = "" if wishes.approvers else "  # nobody yet, so nothing can go live"
    yield f"approvers = {_toml(wishes.approvers)}{nobody}"
    if len(wishes.approvers) == 1:
        yield "# allow_sole_approver = true  # one person may then approve what they started; every question says so"
    yield "quorum = 1"
    yield ""


def name_of(directory: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-")[:40].strip("-")
    return "agent" if name in ("", TAKEN) else name


def _toml(value: str | Sequence[str]) -> str:
    """JSON's texts and lists are TOML's as well, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
