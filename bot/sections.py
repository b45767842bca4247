"""The sections of `moss.toml` that belong to the faces; those of the agent and of consent are nouns of the core."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator

from bot import schedule
from core.model.evidence import FailureKind
from core.model.run import Budget, Cap, Dial
from flags.seal import SEAL_AGE_S, SEAL_COUNT


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Installation(Section):
    data: Path = Path("moss-data")
    """The directory for the database, artefacts, clones and the control socket. A relative path starts at moss.toml."""
    database: SecretStr | None = None
    """`sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`. Without it: `moss.db` in the data directory."""
    host: Literal["auto", "docker", "process"] = "auto"
    """Where agents are built and run. `auto` takes a Docker engine when one answers, and plain processes otherwise."""


class Evolve(Section):
    depth: Dial = Dial.standard
    """How far a run goes when nobody says otherwise."""
    budget: Budget = Budget()
    """Limits of every run; none by default."""
    month: Cap = Cap()
    """What all runs of one agent may spend together in a calendar month, in UTC: the same for each agent. None by
    default."""


class Flags(Section):
    seal_count: int = Field(default=SEAL_COUNT, ge=1)
    """An open batch is sealed when it holds this many chunks."""
    seal_age_s: float = Field(default=SEAL_AGE_S, gt=0)
    """An open batch is sealed when it is this old."""
    emoji: dict[str, FailureKind] = {}
    """More emoji that flag a reply, or other meanings for those Moss knows, such as `hourglass = "stopping"`."""
    per_hour: int = Field(default=60, ge=1)
    """How many flags one person may raise in an hour."""


class Room(Section):
    enabled: bool = True
    """The chat that Moss brings along, with a web page."""
    host: str = "127.0.0.1"
    """Where it listens. Another address than this machine's own opens the room to the network, without encryption."""
    port: int = Field(default=8090, ge=0, le=65535)
    """0 takes any free port; `room.json` in the data directory says which."""
    names: tuple[str, ...] = ()
    """By which other names browsers reach it, behind a proxy for one: `moss.example.org`. A request under any other
    name is refused, since it may come from a page that had its own name lead here."""
    channels: dict[str, str] = {}
    """Further channels, and which substrate is talked to there: `sales = "desk"`. Each substrate has a channel of its
    name in any case."""


GROUP = re.compile(r"slack:[^/]+/S[A-Z0-9]+|discord:[0-9]+/[0-9]+")
"""How groups of a platform are named."""


class Who(StrEnum):
    anyone = "anyone"
    maintainers = "maintainers"
    approvers = "approvers"


class Permits(Section):
    """Who may use which verb. An approver may whatever a maintainer may."""

    maintainers: frozenset[str] = frozenset()
    """The people who may do what is left to maintainers, and groups whose people may, where they are in them: user
    groups `slack:WORKSPACE/GROUP`, roles `discord:SERVER/ROLE`. With nobody named, only approvers may."""
    evolve: Who = Who.maintainers
    stop: Who = Who.maintainers
    restart: Who = Who.maintainers
    rollback: Who = Who.maintainers
    """Who may ask for a rollback. It still takes the consent of approvers."""
    digest: Who = Who.maintainers
    flag: Who = Who.anyone
    status: Who = Who.anyone
    """Also `batches`, `batch`, `history` and what a run made: of the conversation where they ask; what belongs to
    another one, or was imported, is for maintainers and approvers alone."""
    talk: Who = Who.anyone
    """Who may talk to the agent through Moss."""
    talk_per_minute: int = Field(default=30, ge=1)
    """How many messages one person may send to the agent in a minute."""


class Announce(Section):
    place: str = ""
    """Where the news of runs on imported evidence goes: `platform/workspace/channel`. Without it: the room's channel of
    the substrate."""
    receipts: bool = True
    """Whether, once a repair is live, each reply that was flagged gets before and after in its thread."""


class Digest(Section):
    cron: str = "0 9 * * mon-fri"
    """When: minute, hour, day, month, weekday. A day and a weekday together mean either, as cron has it."""
    timezone: str = "UTC"
    """In which time zone that is meant, such as `Europe/Berlin`."""
    places: tuple[str, ...] = ()
    """Where it is posted, as `platform/workspace/channel`. Without any: wherever news of runs goes."""
    nothing: Literal["line", "silence"] = "line"
    """What is posted when nothing happened."""

    @field_validator("cron")
    @classmethod
    def _due(cls, cron: str) -> str:
        if problem := schedule.problem(cron):
            raise ValueError(problem)
        return cron

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone; write one such as `UTC` or `Europe/Berlin`") from None
        return name


DISCORD_API = "https://discord.com/api/v10"
DISCORD_GATEWAY = "wss://gateway.discord.gg/"

Snowflake = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]
"""An id, as Discord writes it; in quotes, since it is longer than some programs' numbers."""


class Slack(Section):
    """One workspace of Slack. Several are written as several `[[slack]]`."""

    bot_token: SecretStr = Field(min_length=1)
    """`xoxb-...`: what Moss speaks with. Secrets belong in the environment: `MOSS_SLACK__BOT_TOKEN`."""
    app_token: SecretStr | None = Field(default=None, min_length=1)
    """`xapp-...`: with it Moss opens a socket to Slack, and needs no address of its own."""
    signing_secret: SecretStr | None = Field(default=None, min_length=1)
    """With it, and without an app token, Slack calls Moss at `host` and `port`, and signs every call."""
    host: str = "127.0.0.1"
    """Where Slack's calls are taken, behind a proxy that speaks HTTPS. Not used with a socket."""
    port: int = Field(default=8091, ge=0, le=65535)
    path: str = Field(default="/slack/events", pattern=r"^/[A-Za-z0-9/_-]*$")
    base_url: str = Field(default="https://slack.com/api/", pattern=r"^https?://[^\s]+$")
    """Slack's Web API."""
    ping_interval_s: float = Field(default=10.0, gt=0)
    """How often the socket is asked for a sign of life. One that gives none is replaced."""
    renew_after_s: float = Field(default=900.0, gt=0)
    """A socket on which nothing happened for so long is replaced too: one that is deaf looks like a quiet one."""
    agent_user: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """The agent's own bot user (`U...`), bot (`B...`) or app (`A...`): Moss then watches what it answers."""
    channels: dict[str, str] = {}
    """Which substrate is talked to in which channel: `C0123ABCD = "desk"`. Not needed where there is but one."""
    history_per_minute: int = Field(default=20, ge=0)
    """How often in a minute Moss may read what was said before it saw it; 0 for never."""

    @property
    def signed_by(self) -> str:
        """The secret by which a call shows where it comes from; empty with a socket, on which Slack itself speaks."""
        return "" if self.app_token or not self.signing_secret else self.signing_secret.get_secret_value()

    @model_validator(mode="after")
    def _reachable(self) -> "Slack":
        if self.app_token is None and self.signing_secret is None:
            raise ValueError("needs `app_token`, for a socket to Slack, or `signing_secret`, for calls from Slack")
        return self


class Discord(Section):
    """An application of Discord's. One is enough for several servers."""

    token: SecretStr
    """Of the application's bot user."""
    guilds: frozenset[Snowflake] = Field(min_length=1)
    """The servers where Moss listens. It is deaf in any other one that invites it."""
    channels: dict[Snowflake, str] = Field(default_factory=dict)
    """Channels, and which substrate is talked to there: `"1234567890" = "desk"`. With one substrate none is needed."""
    agent_user: Snowflake | None = None
    """The user as whom the agent speaks when it has a bot of its own: Moss keeps what that user says."""
    direct_messages: bool = True
    """People may talk to the agent in direct messages."""
    message_content: bool = True
    """Hear messages that do not mention Moss, as threads without mentions and an agent of its own need. The intent of
    this name has to be switched on for the application."""
    api: str = DISCORD_API
    gateway: str = DISCORD_GATEWAY
    heartbeat_timeout_s: float = Field(default=60.0, gt=0)
    """A gateway that is silent for so long is left, and called again."""

    @field_validator("api")
    @classmethod
    def _http(cls, url: str) -> str:
        if not re.match(r"https?://[^\s/]+", url):
            raise ValueError(f"is no address; write one such as `{DISCORD_API}`")
        return url.rstrip("/")

    @field_validator("gateway")
    @classmethod
    def _socket(cls, url: str) -> str:
        if not re.match(r"wss?://[^\s/]+", url):
            raise ValueError(f"is no address of a web socket; write one such as `{DISCORD_GATEWAY}`")
        return url
