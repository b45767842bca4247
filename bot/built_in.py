"""What Moss works with where there is no moss.toml: the room, SQLite, plain processes, the desk, and two people.

The settings are those of `examples/desk-moss/moss.toml` with a few changes. The desk's code is copied into the data
directory, as a git repository of its own; what its owner keeps is read where it is installed.
"""

import hashlib
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

from core.coders.catalogue import CoderSettings, anchored
from core.model.errors import NotFound

OPERATOR, USER = "operator", "user"
DESK, OWNERS = "desk", "desk-moss"
RECORDING = "recorded_coder.py"

THIS_PYTHON = (sys.executable, "-S")
"""Where the example says `python3`, which may be missing here under that name, or be an old one."""


def examples() -> Path:
    """The directory of the examples: in a checkout, or where the wheel has put them."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    installed = [Path(sysconfig.get_path("data", scheme)) / "share" / "moss" / "examples" for scheme in schemes]
    for place in (Path(__file__).absolute().parents[1] / "examples", *installed):
        if (place / OWNERS / "moss.toml").is_file():
            return place
    raise NotFound("The examples are not installed with this Moss; install it whole, or write a moss.toml.")


def begun(data: Path) -> bool:
    """Whether this data directory is that of a built-in Moss: only `moss run` begins one."""
    return repository(data).is_dir()


def repository(data: Path) -> Path:
    return data / DESK


def volume(data: Path) -> str:
    """Volumes of an engine belong to the whole machine, and each built-in Moss has a desk of its own."""
    return f"desk-{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


def written(data: Path, host: str) -> dict[str, Any]:
    """As if it stood in a moss.toml, with absolute paths."""
    owners = examples() / OWNERS
    settings = tomllib.loads((owners / "moss.toml").read_text(encoding="utf-8"))
    desk, coder = settings["substrate"], settings["coder"]
    desk["repository"] = str(repository(data))
    desk["tasks"] = [str(owners / file) for file in desk["tasks"]]
    desk["grader"]["command"] = here(desk["grader"]["command"], owners)
    desk["health"]["every_s"] = 0.35
    del desk["run"]["publish"]  # people reach it through the room, and the port may be taken
    desk["run"]["volume"] = volume(data)
    coder["argv"] = here(coder["argv"], owners)
    return {
        "moss": {"data": str(data), "host": host},
        "substrate": desk if host == "docker" else _with_this_python(desk),
        "coder": coder,
        "consent": {"approvers": [OPERATOR], "allow_sole_approver": True},
        "permits": {"maintainers": [USER]},
        "evolve": {"depth": "shallow"},
    }


def recorded(coder: CoderSettings) -> bool:
    """Whether every role is played by the recording that comes with Moss, which does nothing but what is written."""
    try:
        recording = str(examples() / OWNERS / RECORDING)
    except NotFound:
        return False
    every = [coder.argv or (), *(role.argv for role in coder.roles.values() if role.argv)]
    return all(argv[: len(THIS_PYTHON) + 1] == (*THIS_PYTHON, recording) for argv in every)


def here(argv: list[str], base: Path) -> list[str]:
    """A command of the example that runs on this machine."""
    command: list[str] = _with_this_python(list(anchored(tuple(argv), base)))
    return command


def _with_this_python(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_this_python(inner) for key, inner in value.items()}
    if isinstance(value, list) and value[:1] == ["python3"]:
        return [*THIS_PYTHON, *value[1:]]
    return [_with_this_python(inner) for inner in value] if isinstance(value, list) else value
