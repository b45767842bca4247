"""From the settings to the coder of each role."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.coders import coder
from core.coders.claude import Claude
from core.coders.coder import Coder, Lanes, Sandbox
from core.coders.codex import Codex
from core.coders.command import Command
from core.coders.gemini import Gemini
from core.coders.host_sandbox import HostSandbox
from core.coders.opencode import OpenCode, service_of
from core.coders.program import Program, Variable
from core.model.errors import BadInput
from core.model.replies import Role

TIME_LIMITS_S: Mapping[Role, float] = {
    Role.locate: 1800,
    Role.plan: 1800,
    Role.plan_review: 1500,
    Role.implement: 3600,
    Role.code_review: 1800,
    Role.evaluate: 1500,
    Role.verdict: 1200,
    Role.scan: 1500,
}

Provider = Literal["claude", "codex", "command", "gemini", "opencode"]
Containment = Literal["auto", "container", "bubblewrap", "host"]
Argv = tuple[str, ...]

MODELS: Mapping[Provider, str] = {"claude": "sonnet", "codex": "gpt-5.5", "gemini": "gemini-2.5-pro"}
"""What a provider's program asks where no `model` is named. OpenCode speaks to any, so that its must be."""

KEYS = frozenset({"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"})
"""What stands for the maker's own service: who names another variable in `env_from` means something else."""

_OURS = frozenset(Variable) | {"LD_PRELOAD", "LD_LIBRARY_PATH"}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoleSettings(Part):
    """What is different for one role. What is not given is as in `[coder]`."""

    provider: Provider | None = None
    """With another provider than that of `[coder]`, nothing else is taken from there but `timeout_s`."""
    name: str | None = Field(default=None, min_length=1, max_length=60)
    argv: Argv | None = Field(default=None, min_length=1)
    model: str | None = Field(default=None, min_length=1, max_length=200)
    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    env_from: tuple[str, ...] | None = None
    timeout_s: float | None = Field(default=None, gt=0)

    @field_validator("env_from")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and _passable(names)


class CoderSettings(Part):
    """The coding agent that does the work of the roles: one that Moss knows how to speak to (`docs/coders.md`), or any
    program that follows `docs/coder-protocol.md`."""

    provider: Provider = "command"
    """Claude Code, Codex, the Gemini CLI, OpenCode, or with `command` any program."""
    name: str | None = Field(default=None, min_length=1, max_length=60)
    """Shown in messages; without it the name of the provider, or of the program of `command`."""
    argv: Argv | None = Field(default=None, min_length=1)
    """The program and its arguments, without a shell. Those that begin with `./`, `../` or `~/` are paths. `command`
    needs it; without it the others are looked up on PATH by the name of the provider."""
    model: str | None = Field(default=None, min_length=1, max_length=200)
    """Which model, as the program names it: by default `sonnet` for `claude`, `gpt-5.5` for `codex` and
    `gemini-2.5-pro` for `gemini`. `opencode` needs one, with `anthropic/` before its name if it is Anthropic's. Not for
    `command`."""
    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Where the model's service is, reached without the gateway and so without being counted; `url` in [gateway] is the
    better place for another address. Not for `command`."""
    env_from: tuple[str, ...] | None = None
    """Names of variables of Moss's own environment that the program gets, such as the key of its model. What they hold
    counts as secret: it goes out of all that is kept, and no change may hold it. Without it none for `command`, and for
    the others the variable of their key, which stays with the gateway: `ANTHROPIC_API_KEY`, `OPENAI_API_KEY` or
    `GEMINI_API_KEY`."""
    timeout_s: float | None = Field(default=None, gt=0)
    """The most that one stage may take, in every role; without it each role has its own limit."""
    sandbox: Containment = "auto"
    """Where the program is started: `auto` takes what works here, and `host`, which confines nothing, must be asked
    for; see `docs/sandbox.md`."""
    image: str | None = Field(default=None, min_length=1)
    """For containers: an image on the engine that holds the program, and `python3` for what watches over it."""
    shows: tuple[Path, ...] = ()
    """Files and directories of this machine that the program may read in its sandbox, besides what every one may."""
    roles: dict[Role, RoleSettings] = {}
    """What is different for one role."""

    @field_validator("env_from")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and _passable(names)

    @model_validator(mode="after")
    def _complete(self) -> "CoderSettings":
        for role in (None, *self.roles):
            own = self.of(role)
            at = f"in role {role}, " if role else ""
            if own.provider == "command":
                if own.argv is None:
                    raise ValueError(f"{at}`argv` is missing: name the program, or another `provider` than command")
                for name in ("model", "base_url"):
                    if getattr(own, name) is not None:
                        raise ValueError(f"{at}`{name}` is not for the provider command; put it into `argv`")
            elif own.model is None and own.provider not in MODELS:
                raise ValueError(f"{at}`model` is missing: {own.provider} has no model of its own; name one")
        return self

    def of(self, role: Role | None) -> "RoleSettings":
        """What holds in a role, or where nothing is different."""
        own = self.roles.get(role, RoleSettings()) if role else RoleSettings()
        mine = ("argv", "model", "base_url", "env_from", "name")
        other = own.provider is not None and own.provider != self.provider
        shared = {} if other else {name: getattr(self, name) for name in mine}
        if own.argv is not None and self.provider == "command":
            shared.pop("name", None)  # another program
        told = {name: value for name in mine if (value := getattr(own, name)) is not None}
        return RoleSettings.model_construct(provider=own.provider or self.provider, **{**shared, **told})

    @model_validator(mode="after")
    def _has_image(self) -> "CoderSettings":
        if self.sandbox == "container" and self.image is None:
            raise ValueError('`sandbox = "container"` needs an `image`, which holds the program; name one')
        return self

    def starting_at(self, base: Path) -> "CoderSettings":
        """With every path made absolute: a coder's working directory is the checkout, and nothing in it may be run."""
        roles = {
            role: own.model_copy(update={"argv": own.argv and anchored(own.argv, base)})
            for role, own in self.roles.items()
        }
        shows = tuple(Path(os.path.abspath(base / path.expanduser())) for path in self.shows)
        argv = self.argv and anchored(self.argv, base)
        return self.model_copy(update={"argv": argv, "roles": roles, "shows": shows})


@dataclass(frozen=True, slots=True)
class Coders:
    settings: CoderSettings
    by_role: Mapping[Role, Coder]

    def of(self, role: Role) -> Coder:
        return self.by_role[role]

    @property
    def secrets(self) -> Mapping[str, str]:
        return {name: value for coder in self.by_role.values() for name, value in coder.secrets.items()}

    def timeout_s(self, role: Role) -> float:
        own = self.settings.roles.get(role)
        return (own and own.timeout_s) or self.settings.timeout_s or TIME_LIMITS_S[role]

    def distinct(self) -> tuple[Coder, ...]:
        """Each program once, for whoever asks all of them for a sign of life."""
        return tuple(dict.fromkeys(self.by_role.values()))


def coders(settings: CoderSettings, sandbox: Sandbox | None = None, lanes: Lanes | None = None) -> Coders:
    sandbox = sandbox or HostSandbox()
    return Coders(settings, {role: _coder(settings.of(role), sandbox, lanes, settings.shows) for role in Role})


def _coder(chosen: RoleSettings, sandbox: Sandbox, lanes: Lanes | None, shows: tuple[Path, ...]) -> Coder:
    kind = chosen.provider or "command"
    argv = chosen.argv or (kind,)
    if "/" in argv[0] and not Path(argv[0]).is_absolute():
        raise BadInput(
            f"The coder's program `{argv[0]}` is a relative path, which would lead into the code under repair; "
            "give an absolute path or a program on PATH."
        )
    provider, key = _provider(kind, chosen)
    env_from = chosen.env_from
    if env_from is None:
        env_from = (key,) if key else ()
    if key and (chosen.base_url or key not in env_from or key not in KEYS):
        lanes = None  # its owner has another way in mind, with another key or to another service
    if lanes is not None:
        # The key stays with the gateway.
        env_from = tuple(name for name in env_from if name != key)
    name = chosen.name or (Path(argv[0]).name if kind == "command" else kind)
    return Program(name, argv, provider, env_from, sandbox, lanes, shows)


def _provider(kind: Provider, chosen: RoleSettings) -> tuple[coder.Provider, str | None]:
    """And the variable with the key of its model."""
    model, url = chosen.model or MODELS.get(kind, ""), chosen.base_url
    named = next(iter(chosen.env_from or ()), None)
    match kind:
        case "command":
            return Command(chosen.env_from or ()), None
        case "claude":
            return Claude(model, url), "ANTHROPIC_API_KEY"
        case "codex":
            key = named or "OPENAI_API_KEY"
            return Codex(model, url, key), key
        case "opencode":
            key = named or service_of(model).key
            return OpenCode(model, url, key), key
        case "gemini":
            return Gemini(model, url), "GEMINI_API_KEY"
        case _:
            assert_never(kind)


def anchored(argv: Argv, base: Path) -> Argv:
    """Symbolic links are kept: the Python of a virtual environment is one."""
    return tuple(
        os.path.abspath(base / Path(word).expanduser()) if word.startswith(("./", "../", "~/")) else word
        for word in argv
    )


def _passable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name in _OURS or name.startswith("MOSS_"):
            raise ValueError(f"`{name}` is set by Moss or belongs to Moss; a coder cannot be given it")
    return names
