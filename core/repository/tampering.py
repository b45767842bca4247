"""What a coder did to its checkout that it may not do: with files, when its role only reads; with git, in any role."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

MAX_ENTRIES = 200_000
_WHOLE_BYTES = 64_000_000
"""A larger file is known by its size and times."""

_WATCHED = ("HEAD", "refs", "packed-refs", "config", "config.worktree", "hooks", "info", "modules", "worktrees")
"""In the throw-away git directory. The index, logs and objects change when somebody merely looks or stages."""


def fingerprint(target: Path) -> str:
    """How a checkout stands. To be compared by `tampering`; it is text, so that it can be kept."""
    if target.is_symlink() or not target.is_dir():
        return json.dumps({"gone": True})
    own = target / ".git"
    files: dict[str, str] = {}
    git: dict[str, str] = {}
    if own.is_dir() and not own.is_symlink():
        for name in (*_WATCHED, "objects/info"):
            git |= _looks(own / name, own)
    else:
        git["gone"] = "gone"
    for path in islice(_below(target, skip=own), MAX_ENTRIES):
        files |= {path.relative_to(target).as_posix(): _look(path)}
    return json.dumps({"git": git, "files": files})


def tampering(before: str, after: str, *, may_write: bool) -> str | None:
    """What is wrong, as the rest of a sentence that begins with the coder; None when nothing is."""
    old, new = json.loads(before), json.loads(after)
    if "gone" in old:
        return None
    if "gone" in new:
        return "removed its checkout"
    if "gone" in new["git"] and "gone" not in old["git"]:
        return "removed the git directory of its checkout"
    if changed := _changed(old["git"], new["git"]):
        return _git_deed(changed)
    touched = _changed(old["files"], new["files"])
    nested = next((path for path in touched if ".git" in path.casefold().split("/") and path in new["files"]), None)
    if nested:
        return f"made a git repository of its own at {nested}"
    if touched and not may_write:
        more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
        return f"changed {touched[0]}{more}, though this role may only read"
    return None


def _git_deed(changed: list[str]) -> str:
    if any(name == "HEAD" or name.startswith(("refs", "packed-refs")) for name in changed):
        return "made commits or branches in its checkout, where only Moss commits"
    name = changed[0]
    if name.startswith("hooks"):
        return f"planted a git hook in its checkout ({name})"
    if name.startswith("config"):
        return "changed the git settings of its checkout"
    return f"changed .git/{name} in its checkout"


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def _looks(start: Path, root: Path) -> dict[str, str]:
    if not start.is_symlink() and start.is_dir():
        return {path.relative_to(root).as_posix(): _look(path) for path in islice(_below(start), MAX_ENTRIES)}
    return {start.relative_to(root).as_posix(): _look(start)} if os.path.lexists(start) else {}


def _below(folder: Path, skip: Path | None = None) -> Iterator[Path]:
    """Everything below, links unfollowed. Directories count only when nothing is in them or they are named .git."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if here / name != skip)
        for name in sorted([*folders, *names]):
            path = here / name
            if path == skip:
                continue
            if name not in folders or path.is_symlink() or name.casefold() == ".git" or _empty(path):
                yield path


def _empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as found:
            return next(found, None) is None
    except OSError:
        return True


def _look(path: Path) -> str:
    """Mode and content; for what cannot be read, that it cannot."""
    try:
        found = path.lstat()
        mode = oct(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            return f"{mode} {os.readlink(path)!a}"
        if not stat.S_ISREG(found.st_mode):
            return mode
        if found.st_size > _WHOLE_BYTES:
            return f"{mode} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as content:
            return f"{mode} {hashlib.file_digest(content, 'sha256').hexdigest()}"
    except OSError as error:
        return f"unreadable: {error.strerror}"
