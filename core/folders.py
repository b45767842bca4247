"""Directories that are laid afresh, and removed whatever a hostile program left standing in them."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def lay(target: Path, files: Mapping[str, str]) -> None:
    """A fresh directory that holds exactly these files."""
    clear(target)
    target.mkdir(parents=True)
    for name, text in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def clear(target: Path) -> None:
    """Remove a directory with all that was made unreadable or unwritable in it; of a link, the link.

    Another may be removing it at the same time. What cannot be removed even so raises OSError.
    """

    if target.is_symlink() or target.is_file():
        target.unlink(missing_ok=True)
    elif target.exists():
        _open_up(target)
        shutil.rmtree(target, onerror=_unless_gone)


def _open_up(target: Path) -> None:
    """From the top, since a closed directory cannot be looked into."""
    with contextlib.suppress(FileNotFoundError):
        target.chmod(0o700)
        for folder, folders, _ in os.walk(target):
            for path in (Path(folder, name) for name in folders):
                if not path.is_symlink():
                    path.chmod(0o700)


def _unless_gone(_: object, path: str, failed: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(failed[1], FileNotFoundError):
        raise failed[1]
