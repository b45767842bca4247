"""The fixture of trials: files of the owner's, of which every trial finds a copy of its own.

A run keeps them as they were when it first needed them: control and candidate must find the same. No trial shares a
file with another one, also because locks on it would be a way to speak to each other.
"""

import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from core.containers.host import BoxSpec, Volume
from core.folders import clear, to_its_end
from core.model.errors import Refused
from core.model.substrate import Trials


@asynccontextmanager
async def with_fixture(box: BoxSpec, given: Trials, scratch: Path) -> AsyncIterator[BoxSpec]:
    """The box with its copy, which is gone afterwards. `scratch` is a directory of the run's."""
    if given.fixture is None:
        yield box
        return
    kept, own = scratch.with_name("fixture"), scratch.with_name("fixtures") / box.name
    try:
        await to_its_end(_keep, Path(given.fixture), kept)
        await to_its_end(_copy, kept, own)
        yield replace(box, fixture=Volume(str(own), given.fixture_path))
    finally:
        await to_its_end(clear, own)


def _keep(source: Path, kept: Path) -> None:
    if kept.is_dir():
        return
    if kept.resolve().is_relative_to(source.resolve()):  # a copy of it would hold itself, without an end
        raise Refused(f"`trials.fixture` names {source}, which holds Moss's own data; name a directory without it.")
    new = kept.with_name(f".fixture-{secrets.token_hex(4)}")
    try:
        _copy(source, new)
    except (OSError, shutil.Error) as problem:
        clear(new)
        raise Refused(
            f"`trials.fixture` names {source}, which cannot be copied: {_why(problem)}; mend it."
        ) from problem
    new.chmod(0o755)
    with contextlib.suppress(OSError):  # another trial was faster
        new.rename(kept)
    clear(new)


def _copy(source: Path, target: Path) -> None:
    """For everybody to read, whoever the agent is in its container, and for nobody to write. Links stay links."""
    clear(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, symlinks=True)
    for path in (target, *_below(target)):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o555 if executable else 0o444)


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_symlink())


def _why(problem: OSError | shutil.Error) -> str:
    if isinstance(problem, shutil.Error):
        return str(problem.args[0][0][2])
    return problem.strerror or str(problem)
