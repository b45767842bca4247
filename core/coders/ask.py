"""Asking a coder: a fresh home, one answer, a look at what it did meanwhile, a checked reply or one more try.

Nothing a coder says is believed: the reply is what its program printed just now, never a file it left; and what it
may not touch is compared with how it was before.
"""

import asyncio
import contextlib
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.coders.coder import NOTES, STDERR, STDOUT, Answer, Brief, Coder, failed
from core.coders.events import spelt_out
from core.coders.reply import NotAReply, read_reply
from core.folders import clear
from core.model.errors import CoderFailed, Misconduct
from core.model.replies import Reply
from core.model.run import Spend
from core.process_table import survivors, sweep, tag_of
from core.redact import Redactor
from core.repository import fingerprint, tampering

PROMPT, REPLY, REPAIR = "prompt.md", "reply.json", "repair"

Objection = Callable[[Reply], str | None]
"""What a reply must meet beyond its schema: None, or what is wrong, as the rest of a sentence about the reply."""

REPAIR_NOTE = """

## Your reply was not accepted

You have worked on this before, and your final reply could not be used: {problem}.
What you changed in the working directory, if anything, is still there. Reply again as the page above asks: end with one
JSON object that matches the schema, and nothing after it.
"""

_LEAST_S = 1.0
"""With less time than this left, there is no second try."""


async def ask(
    coder: Coder, brief: Brief, repair: bool = True, objection: Objection | None = None
) -> tuple[Reply, Spend]:
    """The coder's checked reply and what it cost.

    Raises CoderFailed or Misconduct, each with what was spent all the same. Both tries share the stage's time.
    """
    until = time.monotonic() + brief.timeout_s
    first, second = _tags(brief)
    await end_leftovers(f"{brief.tag}/")
    await asyncio.to_thread(_clear_away, brief)
    spend = Spend()
    try:
        reply, cost = await _try(coder, replace(brief, tag=first), objection)
        spend = spend + cost
        left_s = until - time.monotonic()
        if isinstance(reply, NotAReply) and repair and left_s > _LEAST_S:
            again = replace(
                brief,
                tag=second,
                prompt=brief.prompt + REPAIR_NOTE.format(problem=reply),
                artefacts=brief.artefacts / REPAIR,
                timeout_s=left_s,
                account=brief.account and brief.account.after(spend),
            )
            reply, cost = await _try(coder, again, objection)
            spend = spend + cost
    except (CoderFailed, Misconduct) as error:
        error.spend = spend + (error.spend or Spend())
        raise
    if isinstance(reply, NotAReply):
        raise failed(coder, brief, f"its reply cannot be used, {reply}", spend)
    await asyncio.to_thread(_keep, brief.artefacts / REPLY, reply.model_dump_json(indent=1))
    return reply, spend


async def _try(coder: Coder, brief: Brief, objection: Objection | None) -> tuple[Reply | NotAReply, Spend]:
    await asyncio.to_thread(_keep, brief.artefacts / PROMPT, brief.prompt)
    # By the run: what its evidence calls by one name is called so in all that comes of it.
    words = Redactor(brief.tag.partition("/")[0], coder.secrets)
    answer = await _watched(coder, brief, words)
    try:
        # In a thread: megabytes of hostile text take seconds.
        reply = await asyncio.to_thread(read_reply, brief.role, answer.text, words)
        problem = objection(reply) if objection else None
        return (NotAReply(problem) if problem else reply), answer.spend
    except NotAReply as problem:
        return NotAReply(words.text(str(problem))), answer.spend


async def _watched(coder: Coder, brief: Brief, words: Redactor) -> Answer:
    """One answer, and then the question what else happened: that counts more than how the program ended."""
    evidence, before = await asyncio.to_thread(_sealed, brief)
    place = Path(tempfile.mkdtemp(prefix=_place_prefix(brief.tag)))
    home = place / "home"
    home.mkdir(mode=0o700)
    outcome: Answer | Exception
    try:
        outcome = await coder.answer(brief, home)
    except Exception as error:  # a mistake of ours hides no deed either
        outcome = error
    finally:
        await asyncio.shield(asyncio.to_thread(_tidy, place, brief, words))
    left = await end_leftovers(brief.tag)
    wrong = "left a process behind, which was killed" if left else None
    if wrong is None and await asyncio.to_thread(_contents, brief.evidence) != evidence:
        wrong = "changed the evidence"
    if wrong is None:
        try:
            after = await asyncio.to_thread(fingerprint, brief.checkout)
            wrong = tampering(before, after, may_write=brief.may_write)
        except RecursionError:
            wrong = "left directories that are nested too deep to look at"
    if wrong and not isinstance(outcome, Misconduct):
        misconduct = Misconduct(f"Coder {coder.name} in role {brief.role} {spelt_out(words.text(wrong))}.")
        misconduct.spend = outcome.spend if isinstance(outcome, Answer | CoderFailed) else None
        raise misconduct
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _tags(brief: Brief) -> tuple[str, str]:
    """Of the first and of the second try. The slash keeps `plan-1` from being taken for a part of `plan-10`."""
    return f"{brief.tag}/1", f"{brief.tag}/2"


async def end_leftovers(tag_prefix: str) -> bool:
    """Kill every process of a coder whose tag begins so; whether there was one. A coder outlives a Moss that is killed,
    so this comes before a checkout is laid anew: else the old one would go on writing into it."""
    tags = {tag_of(pid) for pid in survivors(tag_prefix)} - {None}
    for tag in tags:
        await sweep(str(tag), looks=3)
    return bool(tags)


def _clear_away(brief: Brief) -> None:
    """What an earlier attempt at this step left, when Moss was killed while the coder worked."""
    for name in (PROMPT, STDOUT, STDERR, NOTES, REPLY):
        (brief.artefacts / name).unlink(missing_ok=True)
    _remove(brief.artefacts / REPAIR)
    for tag in _tags(brief):
        _remove_places(_place_prefix(tag))


def _place_prefix(tag: str) -> str:
    """Of the directory that holds the home, and what its sandbox lays beside it, and that nobody else may enter. Short,
    since programs put sockets below it; named after the try, so that what a crash left is found again."""
    return f"moss-{hashlib.sha256(tag.encode()).hexdigest()[:12]}-"


def _remove_places(prefix: str) -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # it is gone already
            if place.lstat().st_uid == os.getuid():  # a name can be guessed by anybody
                _remove(place)


def _tidy(place: Path, brief: Brief, words: Redactor) -> None:
    """However it ended: its home goes, and what it printed, or is told of it, is redacted."""
    _remove(place)
    for path in brief.artefacts.glob("*.txt"):
        _clean(path, words)


def clean_outputs(artefacts: Path, words: Redactor) -> None:
    """What coders printed is kept as it comes, and cleaned when the question ends: unless Moss was killed meanwhile."""
    for name in (STDOUT, STDERR, NOTES):
        for path in artefacts.rglob(name):
            _clean(path, words)


def _clean(path: Path, words: Redactor) -> None:
    """What cannot be cleaned is not kept."""
    try:
        words.file(path)
    except OSError:
        _remove(path)


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _remove(directory: Path) -> None:
    """What cannot be removed is left to the machine: it must not hide how the coder did."""
    with contextlib.suppress(OSError):
        clear(directory)


def _sealed(brief: Brief) -> tuple[str, str]:
    """How evidence and checkout stand before anybody works on them."""
    _seal(brief.evidence)
    return _contents(brief.evidence), fingerprint(brief.checkout)


def _seal(directory: Path) -> None:
    """Read-only, against accidents: whoever owns the files can undo it, and so they are compared as well."""
    for folder, _, files in os.walk(directory, topdown=False):
        for path in (*(Path(folder, name) for name in files), Path(folder)):
            path.chmod(0o555 if path.is_dir() else 0o444)


def _head(path: Path) -> bytes:
    """Enough of a file of evidence to know it again; a coder could have made it endless."""
    with path.open("rb") as file:
        return file.read(64_000_000)


def _contents(directory: Path) -> str:
    """A digest of all names, modes and bytes below a directory; symbolic links are read, not followed."""
    found = hashlib.sha256()
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            mode, size_bytes = path.lstat().st_mode, path.lstat().st_size
            found.update(f"{path.relative_to(directory)}\0{mode}\0{size_bytes}\0".encode(errors="surrogateescape"))
            with contextlib.suppress(OSError):  # made unreadable: its mode is another, which is enough
                if stat.S_ISREG(mode):
                    found.update(hashlib.sha256(_head(path)).digest())
                elif stat.S_ISLNK(mode):
                    found.update(os.readlink(path).encode(errors="surrogateescape") + b"\0")
    return found.hexdigest()
