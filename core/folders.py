"""Directories that are laid afresh, and removed whatever a hostile program left standing in them."""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

DEEP = 100


async def to_its_end(work: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """In a thread, and waited for even when cancelled: nothing may write into a directory that is being removed."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        working.exception()  # looked at, or asyncio complains that nobody did
        raise


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
        return
    with contextlib.suppress(OSError, RecursionError):  # unless somebody made it hard, or is at it too
        shutil.rmtree(target)
    waiting = [target] if target.exists() else []
    while waiting:
        waiting += _clear_but_the_deep(waiting.pop())


def _clear_but_the_deep(target: Path) -> list[Path]:
    """Remove a tree. What lies so deep that no recursion or path name reaches it is moved up, to be cleared next."""
    deep = []
    folders = [(target, 0)]
    for folder, depth in folders:  # grows while it is walked; parents before children
        with contextlib.suppress(FileNotFoundError):
            folder.chmod(0o700)  # a closed directory cannot be looked into
            inner = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
            for path in inner:
                if depth < DEEP:
                    folders.append((path, depth + 1))
                else:
                    path.chmod(0o700)
                    deep.append(path.rename(target.with_name(f".deep-{secrets.token_hex(8)}")))
    shutil.rmtree(target, onerror=_unless_gone)
    return deep


def _unless_gone(_: object, path: str, failed: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(failed[1], FileNotFoundError):
        raise failed[1]
