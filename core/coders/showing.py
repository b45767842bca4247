"""What of this machine a program needs in order to run, and what none may ever see."""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.model.errors import BadInput

SYSTEM = (Path("/usr"), Path("/bin"), Path("/sbin"), Path("/lib"), Path("/lib32"), Path("/lib64"), Path("/libx32"))
"""Programs and libraries of the machine, the same for everybody."""
_NEVER = (Path("/etc"), Path("/proc"), Path("/sys"), Path("/dev"), Path("/run"), Path("/boot"))
_HEAD_BYTES = 256


@dataclass(frozen=True, slots=True)
class Secret:
    """The places of this machine that no coder sees, whatever its command names."""

    data: Path
    """Where this Moss keeps what people said."""
    home: Path
    """Of the person as whom Moss runs."""
    settings: Path | None = None
    """The file, which may hold tokens; what lies beside it is the business of who runs Moss."""

    def hides(self, path: Path) -> bool:
        """Whether a path that a command happens to name is better not shown."""
        real = path.resolve()
        above = (self.data, self.home, *((self.settings,) if self.settings else ()))
        if any(place.is_relative_to(real) for place in (*above, *_NEVER)):  # `/` too
            return True
        if any(real.is_relative_to(place) for place in (self.data, *_NEVER)):
            return True
        inner = real.relative_to(self.home).parts if real.is_relative_to(self.home) else ()
        return bool(inner) and inner[0].startswith(".")

    def check(self, shows: Iterable[Path]) -> None:
        for path in shows:
            if not path.exists():
                raise BadInput(f"`shows` names {path}, which does not exist; correct it.")
            for place, what in ((self.data, "Moss's data directory"), (self.home, "a home directory")):
                if place.is_relative_to(path.resolve()):
                    raise BadInput(f"`shows` names {path}, which would show {what}; name what is needed, and no more.")


@dataclass(frozen=True, slots=True)
class Shown:
    path: Path
    link: str | None = None
    """Where a symbolic link leads, as it is written."""


def needed(argv: tuple[str, ...], search: str, secret: Secret) -> list[Shown]:
    """What a command needs beyond SYSTEM: the program, and the files that its arguments name."""
    found = dict.fromkeys(_of_program(Path(argv[0]), search))
    for path in _of_arguments(argv, secret):
        program = path.is_file() and os.access(path, os.X_OK)
        found |= dict.fromkeys(_of_program(path, search) if program else _hops(path))
    return [shown for shown in found if not _is_system(shown.path)]


def named(argv: tuple[str, ...], secret: Secret) -> list[Path]:
    """The files and directories of this machine that the arguments of a command name."""
    return [path for path in _of_arguments(argv, secret) if not _is_system(path)]


def _of_arguments(argv: tuple[str, ...], secret: Secret) -> Iterator[Path]:
    for word in argv[1:]:
        path = Path(word.partition("=")[2] if word.startswith("-") and "=" in word else word)
        if path.is_absolute() and _is_plain(path) and not secret.hides(path):
            yield path


def _of_program(program: Path, search: str, deep: int = 0) -> Iterator[Shown]:
    real = program.resolve()
    for hop in _hops(program):
        yield hop
        prefix = hop.path.parent.parent
        if (prefix / "pyvenv.cfg").is_file():
            yield Shown(prefix)
    if package := _package_of(real):
        yield Shown(package)
    yield from _python(real)
    if deep < 4 and (interpreter := _interpreter(real, search)):
        yield from _of_program(interpreter, search, deep + 1)


def _hops(path: Path) -> Iterator[Shown]:
    """Each link on the way, and at its end the thing itself."""
    for _ in range(40):
        if not path.is_symlink():
            break
        target = os.readlink(path)
        yield Shown(path, target)
        path = Path(os.path.normpath(path.parent / target))
    if path.exists():
        yield Shown(path)
        if path.resolve() != path:
            yield Shown(path.resolve())


def _package_of(real: Path) -> Path | None:
    """The directory that a program was installed in together with what it needs: of npm, all packages beside it."""
    parts = real.parts
    if "node_modules" in parts:
        return Path(*parts[: parts.index("node_modules") + 1])
    for n, part in enumerate(parts[:-2]):
        if part in ("site-packages", "dist-packages"):
            return Path(*parts[: n + 2])
    return None


def _python(real: Path) -> Iterator[Shown]:
    """The library of a Python that is not the machine's own."""
    if not re.fullmatch(r"python[\d.]*", real.name) or real.parent.name != "bin":
        return
    library = real.parent.parent / "lib"
    for path in (*library.glob("python3*"), *library.glob("libpython*")):
        yield from _hops(path)


def _interpreter(real: Path, search: str) -> Path | None:
    """Of a script."""
    try:
        with real.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if not head.startswith(b"#!"):
        return None
    words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        found = shutil.which(words[0], path=search) if words else None
        return Path(found) if found else None
    return Path(words[0]) if words else None


def _is_plain(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _is_system(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in SYSTEM)
