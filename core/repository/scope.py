"""What a change is, and the rule of what it may touch and hold."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pathspec import GitIgnoreSpec

from core.model.errors import OutOfScope
from core.model.substrate import Scope
from core.redact import secrets_in, values_in

FILE, EXECUTABLE, LINK, SUBMODULE = "100644", "100755", "120000", "160000"
ABSENT = "000000"

MAX_ADDED_CHARS = 1_000_000
"""Few lines can still be long. Nobody can review more than this, and looking for secrets in it takes a second."""

_CONTROLS = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n|$)")
_HIDDEN = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff]|[\ufe00-\ufe0f]{2}"
)
"""Marks that no reader sees, or that make a line read otherwise than a compiler sees it: what is approved must be what
runs. Two that vary one sign carry something else."""
_FAR = re.compile(r"\S[^\S\n]{80,}+\S")
"""Who reads a diff does not look so far to the right."""
_LATIN = re.compile("[A-Za-z]")
_ALIKE = re.compile(
    "[\u0400-\u052f\u0391\u0392\u0395-\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf]"
)
"""A word of two alphabets, the letters of one passing for those of the other: it names something else than it reads."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a change. A rename is two of them, the side that goes and the side that comes."""

    path: str
    old_mode: str
    new_mode: str
    size_bytes: int = 0
    binary: bool = False
    twin: str | None = None
    """Another path of the new tree that differs from this one in case or Unicode form only."""

    @property
    def deleted(self) -> bool:
        return self.new_mode == ABSENT

    @property
    def added(self) -> bool:
        return self.old_mode == ABSENT


@dataclass(frozen=True, slots=True)
class Change:
    """What lies between a base and a tree. `diff_hash` is the SHA-256 of `diff`, the very text that people approve."""

    tree: str
    diff: str = field(repr=False)
    diff_hash: str
    files: tuple[str, ...]
    insertions: int
    deletions: int
    entries: tuple[Entry, ...]


def check_scope(
    change: Change, scope: Scope, protected: tuple[str, ...], secrets: Mapping[str, str] | None = None
) -> None:
    """Raises OutOfScope, naming the file and the rule that it breaks. `secrets` are what its author was given, by the
    names of the variables."""
    if not change.entries:
        raise OutOfScope("The coder changed nothing; the plan asks for a change to the code.")
    if len(change.entries) > scope.max_files:
        raise too_many_files(len(change.entries), scope.max_files)
    lines = change.insertions + change.deletions
    if lines > scope.max_lines:
        raise OutOfScope(f"The change has {lines} lines, and at most {scope.max_lines} are allowed; make it smaller.")

    for entry in change.entries:  # before a path is repeated
        if names := values_in(entry.path, secrets or {}):
            raise OutOfScope(f"The name of a file holds what {names[0]} holds; choose another name.")
    editable = GitIgnoreSpec.from_lines(scope.editable)
    guarded = GitIgnoreSpec.from_lines(fold(pattern) for pattern in protected)
    for entry in change.entries:
        if problem := _problem_of_name(entry) or _problem_of_kind(entry, scope):
            raise OutOfScope(problem)
        found = guarded.check_file(fold(entry.path))
        if found.include and found.index is not None:
            deed = "deleted" if entry.deleted else "added" if entry.added else "changed"
            raise OutOfScope(
                f"{entry.path} is protected by `{protected[found.index]}` and was {deed}; leave it as it is."
            )
        if not editable.match_file(entry.path):
            allowed = ", ".join(f"`{pattern}`" for pattern in scope.editable) or "nothing"
            raise OutOfScope(f"{entry.path} is outside of what may be edited ({allowed}); leave it as it is.")

    added = added_lines(change.diff)
    chars = sum(map(len, added.values()))
    if chars > MAX_ADDED_CHARS:
        raise OutOfScope(
            f"The change adds {chars} characters, and at most {MAX_ADDED_CHARS} are allowed; make it smaller."
        )
    for path, text in added.items():
        if names := values_in(text, secrets or {}):
            raise OutOfScope(
                f"The change puts what {names[0]} holds into {path}; read it from the environment instead."
            )
        if problem := _problem_of_text(path, text):
            raise OutOfScope(problem)


def too_many_files(count: int, limit: int) -> OutOfScope:
    return OutOfScope(f"The change touches {count} files, and at most {limit} are allowed; make it smaller.")


def too_big(path: str, size_bytes: int, limit: int) -> OutOfScope:
    return OutOfScope(f"{path} has {size_bytes} bytes, and at most {limit} are allowed for one file; leave it out.")


def fold(path: str) -> str:
    """What a file system that ignores case and Unicode form takes the path for."""
    return unicodedata.normalize("NFKC", path).casefold()


def twins_of(changed: Iterable[str], listing: Iterable[str]) -> dict[str, str]:
    """Changed path -> a path of the tree that differs from it, or from a directory above it, in case or form only."""
    spellings: dict[str, set[str]] = {}
    for path in listing:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            spellings.setdefault(fold(name), set()).add(name)
    twins: dict[str, str] = {}
    for path in changed:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            if others := spellings.get(fold(name), set()) - {name}:
                twins[path] = min(others)
                break
    return twins


def added_lines(diff: str) -> Mapping[str, str]:
    """File -> the text that a diff adds to it. Counts the lines of each hunk, so that no content can pass for a header.
    Only a line feed ends a line: `splitlines` would also split at a form feed and lose what stands behind it."""
    added: dict[str, list[str]] = {}
    lines = iter(diff.split("\n"))
    path = ""
    for line in lines:
        if line.startswith("+++ "):
            path = _unquoted(line[4:])
        elif hunk := _HUNK.match(line):
            added.setdefault(path, []).extend(_added_in_hunk(lines, int(hunk[1] or 1), int(hunk[2] or 1)))
    return {name: "\n".join(texts) for name, texts in added.items()}


_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def _added_in_hunk(lines: Iterator[str], old: int, new: int) -> Iterator[str]:
    while old > 0 or new > 0:
        line = next(lines, None)
        if line is None:
            return
        if line.startswith("+"):
            new -= 1
            yield line[1:]
        elif line.startswith("-"):
            old -= 1
        elif line.startswith(" ") or not line:
            old, new = old - 1, new - 1


def _unquoted(name: str) -> str:
    return name.strip('"').removesuffix("\t").removeprefix("b/")


def _problem_of_name(entry: Entry) -> str | None:
    path = entry.path
    if "\\" in path or any(unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029" for letter in path):
        return f"{path!a} has a character that hides or is read in two ways; choose another name."
    if entry.deleted:
        return None
    if word := disguised(path):
        return f"The name {path!a} has a word in letters of two alphabets that look alike ({word!a}); spell it in one."
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "/".join(parts) != path:
        return f"{path!r} is not a plain path inside the repository; choose another name."
    if any(part.endswith((".", " ")) or re.fullmatch(r"\.git|git~\d+", fold(part).rstrip(". ")) for part in parts):
        return f"{path!r} is a name that some systems take for another; choose another name."
    if entry.twin:
        return f"{path!r} differs from {entry.twin!r} only in case or in the form of its letters; choose another name."
    if kinds := secrets_in(path):
        return f"The name of a file looks like a secret ({', '.join(kinds)}); choose another name."
    return None


def _problem_of_kind(entry: Entry, scope: Scope) -> str | None:
    path, modes = entry.path, (entry.old_mode, entry.new_mode)
    if SUBMODULE in modes:
        return f"{path} is a submodule; a change may not touch submodules."
    if entry.deleted:
        return None
    if entry.new_mode == LINK:
        return f"{path} is a symbolic link; a change may not make or turn one, so write a file instead."
    if entry.new_mode not in (FILE, EXECUTABLE):
        return f"{path} has the mode {entry.new_mode}; only plain files may be changed."
    if not entry.added and entry.old_mode != entry.new_mode:
        return f"The mode of {path} went from {entry.old_mode} to {entry.new_mode}; leave it as it was."
    if entry.size_bytes > scope.max_file_bytes:
        return str(too_big(path, entry.size_bytes, scope.max_file_bytes))
    if entry.binary:
        return f"{path} is a binary file, which nobody can review; leave it out."
    return None


def _problem_of_text(path: str, text: str) -> str | None:
    if kinds := secrets_in(text):
        return f"The change puts a secret into {path} ({', '.join(kinds)}); read it from the environment instead."
    if "\0" in text:
        return f"{path} is a binary file, which nobody can review; leave it out."
    if _CONTROLS.search(text):
        return f"A line of {path} holds control characters, which can hide it from a reader; write them as escapes."
    if _HIDDEN.search(text):
        return (
            f"A line of {path} holds marks that nobody sees, or that turn the direction of text; write them as escapes."
        )
    if _FAR.search(text):
        return f"A line of {path} goes on behind so many blanks that nobody sees it; write it as a line of its own."
    if word := disguised(text):
        return f"{path} holds {word!a}, some letters of which pass for those of another alphabet; spell it in one."
    return None


def disguised(text: str) -> str | None:
    """The first word that is spelt in two alphabets which look alike."""
    if text.isascii():
        return None
    words = (found[0] for found in re.finditer(r"\w+", text))
    return next((word for word in words if _ALIKE.search(word) and _LATIN.search(word)), None)
