"""One box of a process host, as the disk tells of it: asked anew each time, as another Moss may have been at work."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from core import process
from core.containers import inside
from core.containers.host import BoxSpec, BoxState, Limits, Volume, label
from core.process_table import tagged

KILLED = 137


class Box:
    def __init__(self, directory: Path, volumes: Path) -> None:
        about = json.loads((directory / "box.json").read_text())
        self.directory = directory
        self.owner: str = about["owner"]
        self.tag: str = about["tag"]
        self.spec = spec_of(about["spec"])
        self.labels = {**self.spec.labels, label.OWNER: self.owner}
        self.tree = directory / "tree"
        self.laid = directory / "laid"
        self.home = directory / "home"
        volume = self.spec.volume
        self.state = volumes / volume.name if volume else directory / "state"

    @property
    def port(self) -> int | None:
        """None before the first start."""
        try:
            port: int = json.loads((self.directory / "run.json").read_text())["port"]
        except FileNotFoundError:
            return None
        return port

    def env(self, port: int) -> dict[str, str]:
        fixture = self.spec.fixture.name if self.spec.fixture else None
        told = inside.environment(self.spec, port=port, state=str(self.state), fixture=fixture)
        return process.safe_env(**{"HOME": str(self.home), "TMPDIR": str(self.home), **told})

    def pid(self) -> int | None:
        """Of the living one that boxes it; or, when somebody killed that alone, of an agent that lives on."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.directory / "pid").read_text())
            if process.alive(pid, self.tag):
                return pid
        if self.port is None or self.exit_code() is not None:
            return None
        # Moss may have died before it wrote the number down, and another asked before the process itself did so.
        alive = tagged(self.tag)
        return next((pid for pid in alive if _is_boxing(pid, self.directory)), next(iter(alive), None))

    def exit_code(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.directory / "exit").read_text())
        return None

    def look(self) -> BoxState:
        running = self.pid() is not None
        ended = not running and self.port is not None
        code = self.exit_code()
        return BoxState(
            name=self.spec.name,
            image=self.spec.image,
            running=running,
            labels=self.labels,
            exit_code=(KILLED if code is None else code) if ended else None,
        )

    def place_of(self, path: str) -> tuple[Path | None, Path]:
        """Where a path of the inside is on this machine, and the directory that it must not leave."""
        path = path.replace("{state}", self.spec.state_path)
        if not path.startswith("/"):
            return self.tree / path, self.tree
        below = Path(path).is_relative_to(self.spec.state_path)
        return (self.state / Path(path).relative_to(self.spec.state_path) if below else None), self.state


def spec_of(about: dict[str, Any]) -> BoxSpec:
    volume, fixture, command = about["volume"], about.get("fixture"), about["command"]
    return BoxSpec(
        **{
            **about,
            "command": tuple(command) if command else None,
            "volume": Volume(**volume) if volume else None,
            "fixture": Volume(**fixture) if fixture else None,
            "limits": Limits(**about["limits"]),
        }
    )


def _is_boxing(pid: int, directory: Path) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return str(directory).encode() in argv and os.getsid(pid) == pid
    except OSError:
        return False


def write(path: Path, what: object) -> None:
    """Whole or not at all; for the owner only, because an environment holds keys."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # boxed.py may write the same file at this moment
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w") as file:
        json.dump(what, file)
        file.flush()
        os.fsync(handle)
    new.replace(path)
