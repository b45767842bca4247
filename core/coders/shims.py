"""Shims: what a version manager such as pyenv or rbenv puts on PATH in place of the programs themselves.

A shim chooses a program by the settings of the home and of the repository that it is started in, and needs its manager
beside it. A coder has a fresh home, and the repository must not choose what runs there.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def without_shims(search: str) -> str:
    """A PATH with the directories of the chosen versions in place of those of shims."""
    return os.pathsep.join(str(folder) for each in search.split(os.pathsep) for folder in _behind(Path(each)))


def _behind(folder: Path) -> Iterator[Path]:
    versions = folder.parent / "versions"
    if folder.name != "shims" or not versions.is_dir():
        yield folder
        return
    try:
        chosen = (folder.parent / "version").read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return
    for name in chosen:
        if (versions / name / "bin").is_dir():
            yield versions / name / "bin"
