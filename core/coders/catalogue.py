"""From the settings to the coder of each role."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.coders.coder import Coder, Lanes, Sandbox
from core.coders.command import Command
from core.coders.host_sandbox import HostSandbox
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

Provider = Literal["command"]
Containment = Literal["auto", "container", "bubblewrap", "host"]
Argv = tuple[str, ...]

_OURS = frozenset(Variable) | {"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH"}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoleSettings(Part):
    """What is different for one role. What is not given is as in `[coder]`."""

    provider: Provider | None = None
    name: str | None = Field(default=None, min_length=1, max_length=60)
    argv: Argv | None = Field(default=None, min_length=1)
    env_from: tuple[str, ...] | None = None
    timeout_s: float | None = Field(default=None, gt=0)

    @field_validator("env_from")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and _passable(names)


class CoderSettings(Part):
    """The coding agent that does the work of the roles: any program that follows `docs/coder-protocol.md`."""

    provider: Provider = "command"
    """`command`: any program."""
    name: str | None = Field(default=None, min_length=1, max_length=60)
    """Shown in messages; without it the name of the program."""
    argv: Argv = Field(min_length=1)
    """The program and its arguments, without a shell. Those that begin with `./`, `../` or `~/` are paths."""
    env_from: tuple[str, ...] = ()
    """Names of variables of Moss's own environment that the program gets, such as the key of its model."""
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
    def _not_ours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _passable(names)

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
        return self.model_copy(update={"argv": anchored(self.argv, base), "roles": roles, "shows": shows})


@dataclass(frozen=True, slots=True)
class Coders:
    settings: CoderSettings
    by_role: Mapping[Role, Coder]

    def of(self, role: Role) -> Coder:
        return self.by_role[role]

    def timeout_s(self, role: Role) -> float:
        own = self.settings.roles.get(role)
        return (own and own.timeout_s) or self.settings.timeout_s or TIME_LIMITS_S[role]

    def distinct(self) -> tuple[Coder, ...]:
        """Each program once, for whoever asks all of them for a sign of life."""
        return tuple(dict.fromkeys(self.by_role.values()))


def coders(settings: CoderSettings, sandbox: Sandbox | None = None, lanes: Lanes | None = None) -> Coders:
    sandbox = sandbox or HostSandbox()
    by_role = {role: _coder(settings, settings.roles.get(role, RoleSettings()), sandbox, lanes) for role in Role}
    return Coders(settings, by_role)


def _coder(common: CoderSettings, own: RoleSettings, sandbox: Sandbox, lanes: Lanes | None) -> Coder:
    argv = common.argv if own.argv is None else own.argv
    env_from = common.env_from if own.env_from is None else own.env_from
    named = own.name or (common.name if own.argv is None else None)
    provider = own.provider or common.provider
    match provider:
        case "command":
            if "/" in argv[0] and not Path(argv[0]).is_absolute():
                raise BadInput(
                    f"The coder's program `{argv[0]}` is a relative path, which would lead into the code under repair; "
                    "give an absolute path or a program on PATH."
                )
            return Program(named or Path(argv[0]).name, argv, Command(), env_from, sandbox, lanes, common.shows)
        case _:
            assert_never(provider)


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
