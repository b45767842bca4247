"""The substrate: everything Moss must know about the agent under evolution. `docs/substrate.md` explains each field."""

from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.model.quiet import leaves_no_time, parse, quiet_until
from core.model.value import sha256

Command = tuple[str, ...]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Build(Part):
    dockerfile: str = "Dockerfile"
    context: str = "."
    command: Command | None = None
    """Processes only: run once in the exported tree, for example to compile."""
    network: bool = False
    timeout_s: float = Field(default=600, gt=0)
    """A build that takes longer is killed."""
    memory_mb: int = Field(default=2048, ge=64)
    """Containers only: what a step may take; one that takes more is killed."""
    cpus: float = Field(default=2.0, ge=0.01)
    """Containers only: of each step."""


class RunAs(Part):
    """How the live agent runs."""

    box: str | None = None
    """The name of the running container, to be adopted; without it Moss starts the agent itself."""
    command: Command | None = None
    """Needed for processes; for containers it overrides the image's CMD."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where the agent listens inside its container."""
    publish: int | None = Field(default=None, ge=1, le=65535)
    """The port on this machine under which users reach it."""
    env: dict[str, str] = {}
    env_from: tuple[str, ...] = ()
    """Names taken from Moss's own environment: for keys that must not stand in a file."""
    volume: str | None = None
    """A volume's name, or for processes a directory, that holds the agent's state."""
    state_path: str = "/state"
    """Where the volume is mounted inside the container."""
    user: str | None = None
    restart: Literal["no", "on-failure", "unless-stopped", "always"] = "unless-stopped"
    """What the engine does when the live container ends. Held back while a swap is under way. Moss starts one that does
    not run by the same rule, once an hour, and says so."""
    stop_grace_s: float = Field(default=10, gt=0, le=120)
    pids: int = Field(default=4096, ge=8)
    """Containers only: how many processes and threads it may have, so that one that forks without end harms itself
    and not the machine."""


class Replay(Part):
    """How one user turn is put to the agent."""

    kind: Literal["openai", "http", "exec"] = "openai"
    path: str = "/v1/chat/completions"
    model: str = "agent"
    headers: dict[str, str] = {}
    history: Literal["client", "server"] = "client"
    """client: every request carries the conversation so far. server: only the new turn; the agent keeps the session."""
    body: dict[str, object] | None = None
    """http: a JSON template; `{message}`, `{session}` and `{history}` are filled in."""
    reply: str | None = None
    """http: where the reply stands in the answer, as a dotted path such as `data.text`. exec: the same when the command
    prints JSON; without it, all that it prints is the reply."""
    command: Command | None = None
    """exec: run inside the container, the message on standard input; `{session}` is filled in."""
    ready_timeout_s: float = Field(default=60, gt=0)
    turn_timeout_s: float = Field(default=120, gt=0)
    reply_limit_bytes: int = Field(default=262_144, ge=1024)

    @model_validator(mode="after")
    def _complete(self) -> "Replay":
        if self.kind == "http" and (self.body is None or self.reply is None):
            raise ValueError("replay kind http needs `body` and `reply`")
        if self.kind == "exec" and not self.command:
            raise ValueError("replay kind exec needs `command`")
        return self


class Health(Part):
    """Probes of a fresh container. Running is always asked; at least one more is required."""

    http: str | None = None
    heartbeat: str | None = None
    """A JSON file in the container with `boot_id` and a `beat` that changes."""
    commands: tuple[Command, ...] = ()
    canary: str | None = None
    """A message put to the agent once, in a reserved session, before commit."""
    canary_expect: str | None = None
    window_s: float = Field(default=90, gt=0)
    every_s: float = Field(default=5, gt=0)
    passes: int = Field(default=3, ge=1)
    timeout_s: float = Field(default=5, gt=0)

    @model_validator(mode="after")
    def _one_probe(self) -> "Health":
        if not (self.http or self.heartbeat or self.commands or self.canary):
            raise ValueError("give at least one of http, heartbeat, commands, canary")
        return self


class Suite(Part):
    command: Command
    paths: tuple[str, ...] = ("tests/**",)
    """Taken from the base commit, whatever the candidate did to them."""
    timeout_s: float = Field(default=600, gt=0)


class Scope(Part):
    """What a diff may touch. Protected wins over editable."""

    editable: tuple[str, ...] = ("**",)
    protected: tuple[str, ...] = ()
    max_files: int = Field(default=40, ge=1)
    max_lines: int = Field(default=2000, ge=1)
    max_file_bytes: int = Field(default=1_000_000, ge=1)


ALWAYS_PROTECTED = (
    ".git/**",
    "**/.git/**",
    ".gitmodules",
    "**/.gitattributes",
    ".github/**",
    ".gitlab-ci.yml",
    ".moss/**",
    "moss.toml",
    # What can switch tests off from outside their directory.
    "**/conftest.py",
    "**/pytest.ini",
    "**/tox.ini",
    "**/setup.cfg",
    "**/sitecustomize.py",
)
"""Protected in every substrate, in addition to what its owner names and to the paths of its tests."""


class Grader(Part):
    """A program of the owner's that scores a reply by code. It answers the schema of the role `evaluate`."""

    command: Command
    """Words that begin with `./`, `../` or `~/` are paths, relative to moss.toml."""
    timeout_s: float = Field(default=60, gt=0)


class Trials(Part):
    workers: int = Field(default=2, ge=1, le=64)
    memory_mb: int = Field(default=512, ge=32)
    cpus: float = Field(default=1.0, gt=0)
    pids: int = Field(default=128, ge=8)
    tmp_mb: int = Field(default=64, ge=1)
    timeout_s: float = Field(default=600, gt=0)
    fixture: str | None = None
    """A directory of this machine, of which every trial finds a copy of its own, read-only."""
    fixture_path: str = Field(default="/fixture", pattern=r"^/[^/]")
    """Where it finds that; it is told in MOSS_FIXTURE_DIR."""
    env: dict[str, str] = {}
    """What the agent gets on trial besides `run.env`, and instead of it. `{gateway}` and `{token}` stand for the way to
    its model: the address of the model gateway, and what counts as a key there."""


class Swapping(Part):
    """When a swap may begin, and how far back one can go. An approved run waits until it may. A rollback that a person
    asked for never waits: it is how people mend what is broken now."""

    freeze: bool = False
    """Nothing is swapped until this is taken back."""
    quiet: tuple[str, ...] = ()
    """Times of the week in which nothing is swapped, such as `22:00-07:00` or `Fri 16:00-24:00`."""
    timezone: str = "UTC"
    """In which time zone that is meant, such as `Europe/Berlin`."""
    drain_s: float = Field(default=30, ge=0, le=600)
    """How long a swap waits for the agent to finish what people are asking it through Moss. New messages wait for the
    version that goes live."""
    keep_versions: int = Field(default=5, ge=1)
    """How many of the newest versions keep their images, so that one can go back to them."""

    @field_validator("quiet")
    @classmethod
    def _hours(cls, quiet: tuple[str, ...]) -> tuple[str, ...]:
        if leaves_no_time([parse(text) for text in quiet]):
            raise ValueError("leaves no time in which a swap could begin; shorten it, or set `freeze`")
        return quiet

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone; write one such as `UTC` or `Europe/Berlin`") from None
        return name

    def quiet_until(self, now: datetime) -> datetime | None:
        return quiet_until([parse(text) for text in self.quiet], ZoneInfo(self.timezone), now)


class Webhook(Part):
    """Where the live agent hears of its own evolution."""

    url: str = Field(pattern=r"^https?://[^\s]+$")
    """Each notice is posted here as JSON."""
    token_from: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$|^$")
    """The name of a variable of Moss's own environment: what it holds goes along as `Authorization: Bearer ...`."""


class Substrate(Part):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    repository: str
    branch: str = "main"
    ahead: Literal["refuse", "include"] = "refuse"
    """What to do when the branch has commits that are not live: refuse a run, or start it from them."""
    publish: bool = True
    """Push the branch of an offered candidate, and after a swap `moss/live` and a tag such as `moss/v3`, to the
    repository."""
    trusted: bool = False
    """The owner vouches for the code and for every change to it: required where nothing isolates it."""
    build: Build = Build()
    run: RunAs = RunAs()
    replay: Replay = Replay()
    health: Health
    tests: Suite | None = None
    smoke: Command | None = None
    """Run once in every fresh image; exit code 0 is required."""
    scope: Scope = Scope()
    grader: Grader | None = None
    tasks: tuple[str, ...] = ()
    """Files of golden, safety and holdout tasks (JSON lines), outside the repository."""
    trials: Trials = Trials()
    swap: Swapping = Swapping()
    notices: Webhook | None = None

    @field_validator("tasks")
    @classmethod
    def _not_empty(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        if any(not file.strip() for file in files):
            raise ValueError("a file name is empty")
        return files

    def protected(self) -> tuple[str, ...]:
        tests = self.tests.paths if self.tests else ()
        return (*ALWAYS_PROTECTED, *self.scope.protected, *tests)

    def digest(self) -> str:
        """Of what a run depends on: when its candidate may go live, and who hears of it, can be
        changed at any time."""
        return sha256(self.model_dump_json(exclude={"notices", "swap"}).encode())
