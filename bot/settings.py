"""Settings: `moss.toml` and the environment (`MOSS_...`), checked as a whole; every mistake is named at once.

`docs/configuration.md` is made from these classes by `make docs`.
"""

import difflib
import json
import os
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from bot import built_in
from bot.files import Unreadable, text_of
from bot.sections import GROUP, Announce, Digest, Discord, Evolve, Flags, Installation, Permits, Room, Slack
from core.coders.catalogue import CoderSettings, anchored
from core.containers.host import TAKEN
from core.gateway.settings import GatewaySettings
from core.model.consent import Policy
from core.model.errors import BadInput, NotFound
from core.model.mistakes import in_words
from core.model.substrate import Substrate

NOT_SETTINGS = frozenset({"MOSS_BOOT_ID", "MOSS_COMMIT", "MOSS_CONFIG", "MOSS_TAG", "MOSS_TOKEN"})
"""Names of ours that live in the environment and are no settings."""
OF_TESTS = "MOSS_TEST_"
"""Names that begin so are no settings either."""

SEVERAL = ("slack", "substrate")
"""Sections of which there may be several."""
FILE_BYTES = 1_000_000
SOCKET_PATH_LIMIT = 104
"""Bytes of a unix socket's path that every system takes."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class Settings(BaseSettings):
    """What Moss runs with. Made by `load`, never by hand."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    moss: Installation = Installation()
    substrate: Annotated[tuple[Substrate, ...], BeforeValidator(_as_list), Field(min_length=1)]
    """The agent under evolution. Several are written as several `[[substrate]]`."""
    coder: CoderSettings
    """The coding-agent program that reads, plans, edits and judges."""
    gateway: GatewaySettings = GatewaySettings()
    consent: Policy = Policy()
    """Who may approve. With nobody named, nobody may."""
    evolve: Evolve = Evolve()
    flags: Flags = Flags()
    room: Room = Room()
    slack: Annotated[tuple[Slack, ...], BeforeValidator(_as_list)] = ()
    """Workspaces of Slack. One is written as `[slack]`, several as several `[[slack]]`."""
    discord: Discord | None = None
    permits: Permits = Permits()
    announce: Announce = Announce()
    digest: Digest = Digest()
    people: dict[str, tuple[str, ...]] = {}
    """A person's other names, such as `anna = ["cli:anna"]`, so that who starts a run cannot approve it alone."""

    _built_in: bool = PrivateAttr(default=False)
    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _distinct(self) -> "Settings":
        names = [substrate.name for substrate in self.substrate]
        if len(set(names)) != len(names):
            raise ValueError("two substrates have the same name; rename one")
        return self

    @property
    def built_in(self) -> bool:
        """Nobody wrote them: this Moss is one to be tried out."""
        return self._built_in

    @property
    def file(self) -> Path | None:
        """Where they are written."""
        return self._file

    @property
    def data(self) -> Path:
        return self.moss.data

    @property
    def database_url(self) -> str:
        given = self.moss.database
        return given.get_secret_value() if given else f"sqlite:///{self.data / 'moss.db'}"

    @property
    def socket(self) -> Path:
        return self.data / "moss.sock"

    def substrate_named(self, name: str | None) -> Substrate:
        """The one that is meant: by name, or the only one there is."""
        names = [substrate.name for substrate in self.substrate]
        if name is None and len(names) > 1:
            raise BadInput(f"Several substrates are configured; say which with --substrate: {', '.join(names)}.")
        for substrate in self.substrate:
            if name in (None, substrate.name):
                return substrate
        raise NotFound(f"No substrate is named {name!r} in moss.toml; there is {', '.join(names)}.")

    def person(self, who: str) -> str:
        """The name of the person behind a name such as `cli:anna`: as [people] has it, or the approver of that name, so
        that nobody approves alone what they started under another name."""
        local = who.removeprefix("cli:")
        unlisted = local if local in self.consent.approvers else who
        return next((person for person, others in self.people.items() if who in others), unlisted)


def file(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Where the settings stand: as said, as in the environment, or here."""
    environ = os.environ if environ is None else environ
    return (path or Path(environ.get("MOSS_CONFIG") or "moss.toml")).absolute()


def load(path: Path | None = None, environ: Mapping[str, str] | None = None, *, beginning: bool = False) -> Settings:
    """Read, check, and make paths absolute. Raises BadInput that names every mistake.

    Where nobody names a file and none is here, the built-in settings count: for whoever is `beginning`, which is
    `moss run`, and after that for every verb.
    """
    environ = os.environ if environ is None else environ
    named = path is not None or bool(environ.get("MOSS_CONFIG"))
    path = file(path, environ)
    from_environment, mistakes = _from_environment(environ)
    built = None if named or path.exists() else _built_in(path.parent, from_environment, beginning)
    text = "" if built else _text(path)
    try:
        written = built or tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise BadInput(f"{path} is not valid TOML: {str(problem).rstrip('.')}; correct it there.") from None

    class Here(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                InitSettingsSource(settings_cls, init_kwargs=from_environment),
                InitSettingsSource(settings_cls, init_kwargs=written),
            )

    mistakes += _number(from_environment, written)
    where = Whereabouts(path, text, environ, listed=frozenset(key for key in written if isinstance(written[key], list)))
    try:
        settings = Here()  # type: ignore[call-arg]
    except ValidationError as problem:
        mistakes += [_sentence(error, where) for error in problem.errors()]
    else:
        mistakes += [f"{where.of(keys)}: {what}." for keys, what in (*_contradictions(settings), *_strangers(settings))]
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise BadInput(f"The settings have {count}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
    settings._built_in = built is not None
    settings._file = None if built else path
    return _absolute(settings, path.parent)


def _built_in(here: Path, from_environment: Mapping[str, Any], beginning: bool) -> dict[str, Any] | None:
    given = from_environment.get("moss", {})
    data = (here / str(given.get("data", Installation().data))).resolve()
    if not (beginning or built_in.begun(data)):
        return None
    return built_in.written(data, str(given.get("host", "process")))


def variable(name: str) -> str | None:
    """One variable of the environment that is no setting, such as MOSS_TOKEN."""
    return os.environ.get(name) or None


def _text(path: Path) -> str:
    if not path.exists():
        raise BadInput(
            f"{path} does not exist; write one (`moss init` does, docs/configuration.md explains it), or name it with "
            "--config."
        )
    try:
        return text_of(path, FILE_BYTES)
    except Unreadable as problem:
        raise BadInput(f"{path} cannot be read: {problem}; make it a readable UTF-8 file.") from None


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """`MOSS_EVOLVE__DEPTH=deep` -> {"evolve": {"depth": "deep"}}; the keys of [moss] need no section's name."""
    nested: dict[str, Any] = {}
    mistakes = []
    short = {f"MOSS_{key.upper()}": ("moss", key) for key in Installation.model_fields}
    for name, text in sorted(environ.items()):
        if not name.startswith("MOSS_") or name.startswith(OF_TESTS) or name in NOT_SETTINGS:
            continue
        keys = short.get(name) or tuple(name.removeprefix("MOSS_").lower().split("__"))
        if len(keys) == 1:
            # Other programs set such names too (a cluster's MOSS_SERVICE_HOST), so only a near miss is refused.
            if near := difflib.get_close_matches(name, [*short, *NOT_SETTINGS], n=1, cutoff=0.85):
                mistakes.append(f"{name} (environment): no such setting; did you mean {near[0]}?")
            continue
        value: Any = text
        if text.startswith(("[", "{")):
            try:
                value = json.loads(text)
            except ValueError:
                mistakes.append(f"{name} (environment): looks like JSON and is not; mend it.")
                continue
        table = nested
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                break
        if isinstance(table, dict):
            table[keys[-1]] = value
        else:
            mistakes.append(f"{name} (environment): contradicts {name.rsplit('__', 1)[0]}; remove one of them.")
    return nested, mistakes


def _number(given: dict[str, Any], written: Mapping[str, Any]) -> list[str]:
    """`MOSS_SLACK__1__BOT_TOKEN` belongs to the second `[[slack]]`, wherever the rest of that is written."""
    mistakes = []
    for name in SEVERAL:
        numbered = given.get(name)
        if not isinstance(numbered, dict) or not numbered or not all(key.isdecimal() for key in numbered):
            continue
        found = written.get(name, [])
        there = list(found) if isinstance(found, list) else [found]
        for key in sorted(numbered, key=int):
            if int(key) > len(there):
                start = f"MOSS_{name.upper()}__{key}"
                mistakes.append(f"{start} (environment): there is no [[{name}]] before it; they are counted from 0.")
            elif int(key) == len(there):
                there.append(numbered[key])
            else:
                there[int(key)] = _over(there[int(key)], numbered[key])
        given[name] = there
    return mistakes


def _over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: _over(below.get(key), above.get(key, below.get(key))) for key in [*below, *above]}
    return above


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Finds the place of a setting for whoever has to mend it."""

    path: Path
    text: str
    environ: Mapping[str, str]
    listed: frozenset[str]
    """Sections that are written as a list, so that their number is part of the name."""

    def keys(self, location: Sequence[object]) -> list[str]:
        keys = [str(key) for key in location]
        if keys and keys[0] in SEVERAL and keys[0] not in self.listed:
            return [key for n, key in enumerate(keys) if n != 1 or not key.isdigit()]
        return keys

    def of(self, location: Sequence[object]) -> str:
        keys = self.keys(location)
        short = f"MOSS_{keys[-1].upper()}" if keys[:1] == ["moss"] else ""
        found = sorted({f"MOSS_{'__'.join(keys).upper()}", short} & self.environ.keys())
        if found:
            return f"{found[0]} (environment)"
        line = _line_of(self.text, keys)
        return f"{self.path.name}{f', line {line}' if line else ''}: {'.'.join(keys) or 'settings'}"


def _sentence(error: ErrorDetails, whereabouts: Whereabouts) -> str:
    """One mistake: where it stands, what is wrong, how to mend it. Never the value: it may be a secret."""
    keys, where = whereabouts.keys(error["loc"]), whereabouts.of(error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1)
        mend = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}." if known else "remove it."
        return f"{where}: no such setting; {mend}"
    if error["type"] == "missing":
        section = ".".join(keys[:-1])
        return f"{where}: is missing; add {f'it to [{section}]' if section else f'a section [{keys[-1]}]'}."
    return f"{where}: {in_words(error)}."


def _contradictions(settings: Settings) -> Iterator[tuple[Sequence[object], str]]:
    """Each setting is right by itself and they do not go together: nothing would work, and it would not say why."""
    if any(GROUP.fullmatch(name) for name in settings.consent.approvers):
        why = "whoever may edit that group would choose who approves"
        yield ("consent", "approvers"), f"names a group, and {why}; name each person, and leave groups to [permits]"
    for n, substrate in enumerate(settings.substrate):
        run, replay, health, here = substrate.run, substrate.replay, substrate.health, ("substrate", n)
        if substrate.name == TAKEN:
            yield (*here, "name"), f"is `{TAKEN}`, as Moss names its own images; choose another name"
        if substrate.name.endswith("-"):
            yield (*here, "name"), "ends with a dash, as no image can be named; take it off"
        needs_port = "`health.http`" if health.http else ""
        needs_port = needs_port if replay.kind == "exec" else f"`replay` of the kind {replay.kind}"
        if needs_port and run.port is None:
            yield (*here, "run", "port"), f"is missing, and {needs_port} needs it; add it to [substrate.run]"
        if run.publish and run.port is None:
            yield (*here, "run", "publish"), "leads nowhere without `run.port`; add that"
        if replay.kind != "exec" and not replay.path.startswith("/"):
            yield (*here, "replay", "path"), "should begin with a slash"
        if health.http and not health.http.startswith("/"):
            yield (*here, "health", "http"), "should begin with a slash, such as `/health`"
        if not run.state_path.startswith("/"):
            yield (*here, "run", "state_path"), "should begin with a slash, since it is a path in the container"


def _strangers(settings: Settings) -> Iterator[tuple[Sequence[object], str]]:
    """Channels of a platform that lead to no agent."""
    names = [substrate.name for substrate in settings.substrate]
    there: list[tuple[tuple[object, ...], Mapping[str, str]]] = [
        (("slack", n), one.channels) for n, one in enumerate(settings.slack)
    ]
    there += [(("discord",), settings.discord.channels)] if settings.discord else []
    for keys, channels in there:
        for channel, name in channels.items():
            if name not in names:
                yield (*keys, "channels", channel), f"names no substrate; there is {', '.join(names)}"


def _known_keys(keys: list[str]) -> list[str]:
    """The names that may stand in the table with this path."""
    model: type[BaseModel] = Settings
    for key in keys:
        if key.isdigit():
            continue
        inner = next(_models(model.model_fields[key].annotation), None) if key in model.model_fields else None
        if inner is None:
            return []
        model = inner
    return sorted(model.model_fields)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections inside a type such as `Suite | None` or `tuple[Substrate, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _line_of(text: str, keys: list[str]) -> int | None:
    """The line on which a key is written, or its nearest table; good enough to find it, never needed to be right."""
    table: list[str] = []
    wanted = [key for key in keys if not key.isdigit()]
    which = next((int(key) for key in keys if key.isdigit()), None)
    nearest = None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if which is not None and stripped.startswith(f"[[{wanted[0]}]]"):
            which -= 1
        if which not in (None, -1):
            continue  # of another one in the list
        if stripped.startswith("["):
            table = [part.strip() for part in stripped.strip("[]").split("]")[0].split(".")]
            if table == wanted[: len(table)]:
                nearest = number
        elif "=" in stripped and not stripped.startswith("#"):
            written = [*table, *(part.strip().strip('"') for part in stripped.split("=")[0].split("."))]
            if written == wanted:
                return number
            if written == wanted[: len(written)]:
                nearest = number
    return nearest


def _absolute(settings: Settings, base: Path) -> Settings:
    """Every path that is relative starts at the directory of moss.toml, wherever `moss` was called."""

    def path(text: str) -> str:
        return str((base / Path(text).expanduser()).resolve())

    installation = settings.moss.model_copy(update={"data": Path(path(str(settings.moss.data)))})
    url = settings.database_url
    if settings.moss.database and url.startswith("sqlite:///"):
        secret = SecretStr("sqlite:///" + path(url.removeprefix("sqlite:///")))
        installation = installation.model_copy(update={"database": secret})
    substrates = []
    for substrate in settings.substrate:
        remote = "://" in substrate.repository or "@" in substrate.repository.split("/")[0]
        volume = substrate.run.volume
        changes: dict[str, Any] = {
            "repository": substrate.repository if remote else path(substrate.repository),
            "tasks": tuple(path(file) for file in substrate.tasks),
        }
        if substrate.trials.fixture:
            changes["trials"] = substrate.trials.model_copy(update={"fixture": path(substrate.trials.fixture)})
        if substrate.grader:
            command = anchored(substrate.grader.command, base)
            changes["grader"] = substrate.grader.model_copy(update={"command": command})
        if volume and "/" in volume:  # a directory; a volume of the engine has a plain name
            changes["run"] = substrate.run.model_copy(update={"volume": path(volume)})
        substrates.append(substrate.model_copy(update=changes))
    update = {"moss": installation, "substrate": tuple(substrates), "coder": settings.coder.starting_at(base)}
    return settings.model_copy(update=update)
