"""Reading what a coder left in its checkout, without git and without believing any of it.

Git run in a directory that somebody else wrote obeys what stands there: settings, attributes, ignore rules, nested
repositories. So the directory is walked here, nothing in it is followed, and git is only handed the bytes.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pathspec import GitIgnoreSpec

from core.model.errors import OutOfScope
from core.model.substrate import Scope
from core.repository.scope import EXECUTABLE, FILE, LINK, SUBMODULE, fold, too_big, too_many_files

MAX_ENTRIES = 200_000
MAX_DEPTH = 100
MAX_BYTES = 20_000_000
WIDEST = Scope(max_files=2_000, max_lines=1_000_000, max_file_bytes=10_000_000)
"""Beyond this nobody asks which scope applies."""

LEFT_BEHIND = ("__pycache__/", "*.pyc", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".venv/", "node_modules/")
"""New files that tools leave by themselves. A coder that ran the tests has not changed the code."""

_PART_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a tree, as git has it."""

    mode: str
    oid: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is new, or differs from the base."""

    path: str
    mode: str
    content: bytes


class IgnoreRules:
    """The rules of a tree's own .gitignore files. The base's: what a coder writes into them hides nothing."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """`files`: the path of each .gitignore, with its text."""
        texts = {"": "", **{path.removesuffix(".gitignore"): text for path, text in files.items()}}
        self._specs = {
            folder: GitIgnoreSpec.from_lines([*(LEFT_BEHIND if not folder else ()), *text.splitlines()])
            for folder, text in texts.items()
        }

    def hide(self, path: str, is_folder: bool) -> bool:
        """The rules nearest to the path decide, and among them the last that matches."""
        asked = path + "/" if is_folder else path
        for folder in _folders_above(path):
            if spec := self._specs.get(folder):
                found = spec.check_file(asked[len(folder) :])
                if found.include is not None:
                    return found.include
        return False


def written_and_gone(
    target: Path, base: Mapping[str, Blob], ignored: IgnoreRules, scope: Scope
) -> tuple[list[Written], list[str]]:
    """What the checkout adds to or changes in the base, and what it lacks of it.

    Raises OutOfScope for what cannot become a change at all, before any of it is read that is too much to read.
    """
    if target.is_symlink() or not target.is_dir():
        raise OutOfScope("The checkout is gone; a coder may change the files in it, and not the directory itself.")
    walk = _Walk(base, ignored, scope)
    top = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        walk.folder(top, "", hidden=False, depth=0)
    finally:
        os.close(top)
    gone = [path for path, blob in base.items() if path not in walk.seen and blob.mode != SUBMODULE]
    if len(walk.written) + len(gone) > scope.max_files:
        raise too_many_files(len(walk.written) + len(gone), scope.max_files)
    return walk.written, gone


class _Walk:
    def __init__(self, base: Mapping[str, Blob], ignored: IgnoreRules, scope: Scope) -> None:
        self.base, self.ignored, self.scope = base, ignored, scope
        self.holds_base = {folder for path in base for folder in _folders_above(path)}
        self.seen: set[str] = set()
        self.written: list[Written] = []
        self.entries = self.bytes = 0

    def folder(self, fd: int, prefix: str, hidden: bool, depth: int) -> None:
        with os.scandir(fd) as scan:
            found = sorted(self._counted(scan), key=lambda entry: entry.name)
        names = {entry.name for entry in found}
        if not hidden and prefix and f"{prefix}HEAD" not in self.base and {"HEAD", "objects", "refs"} <= names:
            raise _nested(prefix)
        for entry in found:
            if prefix or entry.name != ".git":
                self.entry(fd, entry, prefix + entry.name, hidden, depth)

    def entry(self, fd: int, entry: "os.DirEntry[str]", path: str, hidden: bool, depth: int) -> None:
        known = self.base.get(path)
        is_folder = entry.is_dir(follow_symlinks=False)
        hidden = hidden or (path not in self.base and self.ignored.hide(path, is_folder))
        if hidden and known is None and f"{path}/" not in self.holds_base:
            return
        if fold(entry.name) == ".git":
            raise _nested(path.removesuffix(entry.name))
        try:
            if known is not None and known.mode == SUBMODULE:
                self._submodule(fd, entry, path, is_folder)
            elif is_folder:
                self._subfolder(fd, entry, path, hidden, depth)
            elif entry.is_symlink():
                self._keep(path, LINK, os.fsencode(os.readlink(entry.name, dir_fd=fd)), known)
            else:
                self._file(fd, entry, path, known)
        except OSError as error:
            raise OutOfScope(
                f"{path} cannot be read ({error.strerror}); leave plain, readable files and nothing running."
            ) from error

    def _subfolder(self, fd: int, entry: "os.DirEntry[str]", path: str, hidden: bool, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise OutOfScope(f"{path[:80]}... lies more than {MAX_DEPTH} directories deep; make it flatter.")
        inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            self.folder(inner, f"{path}/", hidden, depth + 1)
        finally:
            os.close(inner)

    def _submodule(self, fd: int, entry: "os.DirEntry[str]", path: str, is_folder: bool) -> None:
        """A checkout has an empty directory where a submodule belongs."""
        if not is_folder:
            raise OutOfScope(f"{path} is a submodule; a change may not touch submodules.")
        inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            with os.scandir(inner) as scan:
                if next(scan, None) is not None:
                    raise OutOfScope(f"{path} is a submodule; a change may not touch submodules.")
        finally:
            os.close(inner)

    def _file(self, fd: int, entry: "os.DirEntry[str]", path: str, known: Blob | None) -> None:
        looked = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(looked.st_mode):
            raise OutOfScope(f"{path} is a pipe, a socket or a device; a change holds plain files only.")
        limit = self.scope.max_file_bytes
        if looked.st_size > limit and (known is None or known.size_bytes != looked.st_size):
            raise too_big(path, looked.st_size, limit)
        # Not blocking and not following: what was a file a moment ago may be a pipe or a link now.
        file = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
        with os.fdopen(file, "rb") as content:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode) or before.st_size != looked.st_size:
                raise OutOfScope(f"{path} changed while it was read; leave nothing running.")
            mode = EXECUTABLE if before.st_mode & stat.S_IXUSR else FILE
            if before.st_size > limit:
                parts = iter(partial(content.read, _PART_BYTES), b"")
                if known is None or _hash_of(parts, before.st_size) != known.oid:
                    raise too_big(path, before.st_size, limit)
                if mode != known.mode:
                    raise OutOfScope(f"The mode of {path} went from {known.mode} to {mode}; leave it as it was.")
                self.seen.add(path)
                return
            data = content.read(limit + 1)
        if len(data) > limit:
            raise too_big(path, len(data), limit)
        self._keep(path, mode, data, known)

    def _keep(self, path: str, mode: str, content: bytes, known: Blob | None) -> None:
        self.seen.add(path)
        if known and known.mode == mode and _hash_of((content,), len(content)) == known.oid:
            return
        if any(0xD800 <= ord(letter) < 0xE000 for letter in path):  # how Python spells a byte that is not UTF-8
            raise OutOfScope(f"{path!a} is a name that is not UTF-8; choose another name.")
        self.written.append(Written(path, mode, content))
        self.bytes += len(content)
        if self.bytes > MAX_BYTES:
            raise OutOfScope(f"The change has more than {MAX_BYTES} bytes; make it smaller.")
        if len(self.written) > self.scope.max_files:
            raise too_many_files(len(self.written), self.scope.max_files)

    def _counted(self, scan: "Iterator[os.DirEntry[str]]") -> "Iterator[os.DirEntry[str]]":
        for entry in scan:
            self.entries += 1
            if self.entries > MAX_ENTRIES + len(self.base):
                raise OutOfScope(f"The checkout holds more than {MAX_ENTRIES} new files; remove what is not a change.")
            yield entry


def _nested(folder: str) -> OutOfScope:
    return OutOfScope(f"{folder or './'} holds a git repository of its own; a change may not bring one.")


def _folders_above(path: str) -> Iterator[str]:
    """`a/b/c` -> `a/b/`, `a/`, ``: the nearest first, in the form in which they precede a path."""
    while path:
        path = path.rstrip("/").rpartition("/")[0]
        path = f"{path}/" if path else ""
        yield path


def _hash_of(parts: Iterable[bytes], size: int) -> str:
    """The name that git gives to this content."""
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for part in parts:
        found.update(part)
    return found.hexdigest()
