"""A clone that Moss owns. Its git directory lies where no coder writes; git never runs in a directory where one did.

`refs/remotes/origin/*` are the owner's branches, as last fetched. `refs/heads/*` are ours.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pathspec import GitIgnoreSpec

from core.folders import clear, to_its_end
from core.model.errors import BadInput, MossError, NotFound, OutOfScope, Refused, Unavailable
from core.model.substrate import Scope
from core.model.value import sha256
from core.repository import git
from core.repository.remotes import cannot_push, cannot_reach, location, shown, trusting
from core.repository.scope import Change, Entry, twins_of
from core.repository.worktree import WIDEST, Blob, IgnoreRules, Written, written_and_gone

T = TypeVar("T")
U = TypeVar("U")

_OURS = "moss/"
"""Branches below this are ours everywhere, and may be moved with force."""

_DIFF = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--full-index", "--diff-algorithm=myers")
"""The text of a diff is hashed and approved: nothing may change how it looks."""

_REFSPECS = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/origin-tags/*")
_PACKS_KEPT = 4
_HEX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Clone:
    git_dir: Path
    _apart: Path | None = None
    """Where objects are written meanwhile; those of the clone are read all the same."""
    _trees: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    async def of(cls, source: str, git_dir: Path) -> "Clone":
        """The clone of this repository, made when it is not there yet. `source` is a path or an address."""
        source = location(source)
        made = cls(git_dir.absolute())
        async with _alone(made.git_dir):
            if not made.git_dir.exists():
                await _make(source, made.git_dir)
            elif await made._origin() != source:
                await git.must(made.git_dir, "config", "remote.origin.url", source)
                await made._fetch()
        return made

    async def fetch(self) -> None:
        """The owner's branches and tags, as they are now. One at a time: git minds two that move the same branch."""
        async with _alone(self.git_dir):
            await self._fetch()

    async def _fetch(self) -> None:
        source = await self._origin()
        with trusting(source) as env:
            words = ("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--update-shallow")
            said = await git.ask(self.git_dir, *words, "origin", *_REFSPECS, env=env, timeout_s=git.NETWORK_S)
        if said.exit_code != 0:
            raise cannot_reach(source, said)

    async def head(self, branch: str) -> str:
        """The commit at the tip of the owner's branch, asked now."""
        await self.fetch()
        if found := await self._find(f"refs/remotes/origin/{branch}^{{commit}}"):
            return found
        source = await self._origin()
        names = ("for-each-ref", "--format=%(refname:lstrip=3)", "--count=10", "refs/remotes/origin")
        branches = (await git.must(self.git_dir, *names)).text.split()
        if not branches:
            raise NotFound(f"Repository {shown(source)} has no commits yet; push the agent's code to it.")
        raise NotFound(f"Repository {shown(source)} has no branch {branch}; it has {', '.join(branches)}.")

    async def contains(self, commit: str) -> bool:
        return await self._find(f"{_hex(commit)}^{{commit}}") is not None

    async def is_ancestor(self, commit: str, of: str) -> bool:
        """Also of itself."""
        said = await git.ask(self.git_dir, "merge-base", "--is-ancestor", _hex(commit), _hex(of))
        if said.exit_code not in (0, 1):
            raise NotFound(f"Commit {commit[:12]} or {of[:12]} is not in the clone: {git.first_line(said.error)}.")
        return said.exit_code == 0

    async def commits_between(self, old: str, new: str) -> list[str]:
        """What `new` has and `old` has not, oldest first."""
        said = await git.must(self.git_dir, "rev-list", "--reverse", f"{_hex(old)}..{_hex(new)}", "--")
        return said.text.split()

    async def subjects(self, commits: Sequence[str]) -> list[str]:
        """The first line of each commit's message."""
        if not commits:
            return []
        words = ("log", "-z", "--no-walk=unsorted", "--no-show-signature", "--format=%s", *map(_hex, commits), "--")
        return (await git.must(self.git_dir, *words)).text.removesuffix("\0").split("\0")

    async def tree_of(self, commit: str) -> str:
        """Of a tree: itself. A commit never gets another tree, so it is asked once."""
        if known := self._trees.get(commit):
            return known
        if found := await self._find(f"{_hex(commit)}^{{tree}}"):
            self._trees[commit] = found
            return found
        raise NotFound(f"Commit {commit[:12]} is not in the clone; push it to the agent's repository.")

    async def export(self, commit: str, target: Path) -> None:
        """The files of a commit and nothing else, in a fresh directory."""
        await to_its_end(clear, target)
        await to_its_end(target.mkdir, parents=True)
        with tempfile.TemporaryDirectory(prefix="moss-index-") as scratch:
            await self._lay(_hex(commit), target, Path(scratch) / "index")

    async def put_tests(self, commit: str, globs: Sequence[str], target: Path) -> None:
        """The files of a commit that match, laid into a directory."""
        wanted = GitIgnoreSpec.from_lines(globs)
        paths = [path for path in await self._listing(commit) if wanted.match_file(path)]
        await to_its_end(target.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="moss-index-") as scratch:
            env = {"GIT_INDEX_FILE": f"{scratch}/index"}
            await git.must(self.git_dir, "read-tree", _hex(commit), env=env)
            words = ("checkout-index", "--force", "--quiet", "-z", "--stdin")
            stdin = "".join(f"{path}\0" for path in paths).encode(errors="surrogateescape")
            await git.must(self.git_dir, *words, work_tree=target, stdin=stdin, env=env)

    async def checkout(self, commit_or_tree: str, target: Path) -> None:
        """A fresh work tree for a coder, with a throw-away git directory of one commit. Whatever was there goes."""
        tree, own = await self.tree_of(commit_or_tree), target / ".git"
        pack = await self._pack(tree)
        await to_its_end(_laid_out, target, tree, pack)
        await self._lay(tree, target, own / "index")

    async def _pack(self, tree: str) -> Path:
        """The directory of a pack with a tree and all that is in it. A run checks the same few trees out again and
        again, so the latest packs are kept. They are copied: what a coder does to its own leaves them as they are."""
        kept = self.git_dir / "moss-packs" / tree
        if not kept.is_dir():
            making = kept.with_name(f"{secrets.token_hex(8)}.partial")
            await asyncio.to_thread(making.mkdir, parents=True)
            words = ("pack-objects", "--quiet", "--threads=1", "--window=0", "--revs", str(making / "pack"))
            await git.must(self.git_dir, *words, stdin=f"{tree}\n".encode())
            await asyncio.to_thread(_keep, making, kept)
        return kept

    async def snapshot(
        self, target: Path, base: str, scope: Scope = WIDEST, allow: Callable[[Change], None] | None = None
    ) -> Change:
        """What stands in a checkout, as a change to its base. The checkout's own git directory is not looked at, and
        files that the base ignores are no part of it. Raises OutOfScope for what is too much to even be looked at.

        The clone keeps nothing of a change that `allow` refuses, by raising: it may hold a secret."""
        listing = await self._listing(base)
        rules = IgnoreRules(await self._texts(listing, ".gitignore"))
        written, gone = await asyncio.to_thread(written_and_gone, target, listing, rules, scope)
        with tempfile.TemporaryDirectory(prefix="moss-objects-") as objects:
            apart = Clone(self.git_dir, Path(objects))
            change = await apart.change(base, await apart._tree(base, written, gone))
            if allow:
                await asyncio.to_thread(allow, change)
            await to_its_end(_take_in, Path(objects), self.git_dir / "objects")
        self._trees[change.tree] = change.tree
        return change

    async def change(self, old: str, new: str) -> Change:
        """What lies between two commits or trees, with all that `check_scope` asks about."""
        tree = await self.tree_of(new)
        words = ("diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", "--numstat", _hex(old), tree)
        diff, raw = await _both(self.diff(old, new), git.must(self.git_dir, *words, env=self._env))
        modes, lines = _modes_and_lines(raw.out)
        listing = await self._listing(tree)
        twins = await asyncio.to_thread(twins_of, modes, listing)
        entries = tuple(
            Entry(
                path=path,
                old_mode=before,
                new_mode=after,
                size_bytes=listing[path].size_bytes if path in listing else 0,
                binary=lines.get(path) is None,
                twin=twins.get(path),
            )
            for path, (before, after) in sorted(modes.items())
        )
        counted = [count for count in lines.values() if count]
        return Change(
            tree=tree,
            diff=diff,
            diff_hash=sha256(diff.encode()),
            files=tuple(entry.path for entry in entries),
            insertions=sum(plus for plus, _ in counted),
            deletions=sum(minus for _, minus in counted),
            entries=entries,
        )

    async def diff(self, old: str, new: str) -> str:
        said = await git.must(self.git_dir, "diff-tree", "-r", "-p", *_DIFF, _hex(old), _hex(new), env=self._env)
        return said.out.decode(errors="backslashreplace")

    async def commit(
        self,
        tree: str,
        parent: str,
        message: str,
        trailers: Mapping[str, str],
        *,
        at: datetime,
        author_name: str = "Moss",
        author_email: str = "moss@localhost",
    ) -> str:
        """The same values give the same commit, however often it is made."""
        tail = "\n".join(f"{name}: {' '.join(value.split())}" for name, value in trailers.items())
        text = "\n\n".join(part for part in (message.replace("\0", "").strip(), tail) if part) + "\n"
        who = _signature(author_name, author_email, f"@{int(at.timestamp())} +0000")
        words = ("commit-tree", _hex(tree), "-p", _hex(parent), "-F", "-")
        return (await git.must(self.git_dir, *words, stdin=text.encode(errors="replace"), env=who)).text

    async def set_branch(self, name: str, commit: str) -> None:
        await git.must(self.git_dir, "update-ref", f"refs/heads/{await self._name(name)}", _hex(commit))

    async def tag(self, name: str, commit: str) -> None:
        """Tags do not move: setting one to another commit is refused."""
        ref = f"refs/tags/{await self._name(name)}"
        if (stands := await self._find(ref)) not in (None, commit):
            raise Refused(f"Tag {name} names commit {(stands or '')[:12]} already; choose another name.")
        await git.must(self.git_dir, "update-ref", ref, _hex(commit))

    async def publish(self, branch: str, remote: str, tag: str | None = None) -> None:
        """Push one of our branches to a repository of the owner's, and a tag with it. Only branches below moss/ replace
        what is there."""
        remote, ref = location(remote), f"refs/heads/{await self._name(branch)}"
        if not await self._find(ref):
            raise NotFound(f"The clone has no branch {branch}, so that it cannot be published.")
        force = "+" if branch.startswith(_OURS) else ""
        with trusting(remote) as env:
            refs = [f"{force}{ref}:{ref}", *([f"refs/tags/{await self._name(tag)}"] if tag else [])]
            words = ("push", "--quiet", "--no-verify", "--", remote, *refs)
            said = await git.ask(self.git_dir, *words, env=env, timeout_s=git.NETWORK_S)
        if said.exit_code != 0:
            raise cannot_push(branch, remote, said)

    @property
    def _env(self) -> dict[str, str]:
        if self._apart is None:
            return {}
        own = str(self.git_dir / "objects").replace("\\", "\\\\").replace('"', '\\"')
        return {"GIT_OBJECT_DIRECTORY": str(self._apart), "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{own}"'}

    async def _origin(self) -> str:
        return (await git.must(self.git_dir, "config", "--get", "remote.origin.url")).text

    async def _find(self, revision: str) -> str | None:
        said = await git.ask(self.git_dir, "rev-parse", "--verify", "--quiet", revision, env=self._env)
        return said.text if said.exit_code == 0 else None

    async def _name(self, name: str) -> str:
        if (await git.ask(self.git_dir, "check-ref-format", f"refs/heads/{name}")).exit_code != 0:
            raise BadInput(f"{name!r} cannot be the name of a branch or tag; use letters, digits, `-` and `/`.")
        return name

    async def _listing(self, tree: str) -> dict[str, Blob]:
        said = await git.must(self.git_dir, "ls-tree", "-r", "-z", "-l", "--full-tree", _hex(tree), env=self._env)
        listing = {}
        for line in said.out.decode(errors="surrogateescape").split("\0")[:-1]:
            head, _, path = line.partition("\t")
            mode, _, oid, size = head.split()
            listing[path] = Blob(mode, oid, 0 if size == "-" else int(size))
        return listing

    async def _texts(self, listing: Mapping[str, Blob], name: str) -> dict[str, str]:
        """The contents of all files of this name."""
        wanted = [path for path in listing if path.rpartition("/")[2] == name and listing[path].mode.startswith("100")]
        asked = "".join(f"{listing[path].oid}\n" for path in wanted).encode()
        rest = (await git.must(self.git_dir, "cat-file", "--batch", stdin=asked)).out if wanted else b""
        texts = {}
        for path in wanted:
            _, _, rest = rest.partition(b"\n")
            size = listing[path].size_bytes
            texts[path], rest = rest[:size].decode(errors="replace"), rest[size + 1 :]
        return texts

    async def _tree(self, base: str, written: list[Written], gone: list[str]) -> str:
        with tempfile.TemporaryDirectory(prefix="moss-index-") as scratch:
            copies = await asyncio.to_thread(_copies, Path(scratch), written)
            env = {**self._env, "GIT_INDEX_FILE": f"{scratch}/index"}
            hashed, _ = await _both(
                git.must(
                    self.git_dir, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=copies, env=self._env
                ),
                git.must(self.git_dir, "read-tree", _hex(base), env=env),
            )
            oids = hashed.text.split()
            lines = [f"0 {'0' * 40}\t{path}\0" for path in gone]
            lines += [f"{file.mode} {oid}\t{file.path}\0" for file, oid in zip(written, oids, strict=True)]
            words = ("update-index", "-z", "--index-info")
            said = await git.ask(self.git_dir, *words, stdin="".join(lines).encode(errors="surrogateescape"), env=env)
            if said.exit_code != 0:
                raise git.failure("Git does not take a file of the change", said, OutOfScope, "choose another name")
            tree = (await git.must(self.git_dir, "write-tree", env=env)).text
            self._trees[tree] = tree
            return tree

    async def _lay(self, tree: str, target: Path, index: Path) -> None:
        """All files of a tree, into a directory that holds none; and the index that says so."""
        env = {"GIT_INDEX_FILE": str(index)}
        await git.must(self.git_dir, "read-tree", "--reset", "-u", tree, work_tree=target, env=env)


def _take_in(objects: Path, into: Path) -> None:
    """An object is named by its content: one that is there already is the same."""
    for path in objects.glob("[0-9a-f][0-9a-f]/*"):
        target = into / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            making = target.with_name(f"tmp_obj_{secrets.token_hex(6)}")
            shutil.copy2(path, making)
            making.rename(target)


async def begin(tree: Path, message: str) -> None:
    """A directory becomes a repository of its own: all that is in it is the first commit on `main`."""
    own = tree / ".git"
    await git.must(own, "init", "--quiet", "--template=", "--initial-branch=main", work_tree=tree)
    await git.must(own, "add", "--all", work_tree=tree)
    words = ("commit", "--quiet", "--no-verify", "--message", message)
    await git.must(own, *words, work_tree=tree, env=_signature("Moss", "moss@localhost", "@0 +0000"))


async def _make(source: str, git_dir: Path) -> None:
    """Beside its place first, so that a half-made clone is never taken for a whole one."""
    partial = git_dir.with_name(f".{git_dir.name}.partial")
    await asyncio.to_thread(clear, partial)
    await asyncio.to_thread(partial.mkdir, 0o700)
    await git.must(partial, "init", "--quiet", "--bare", "--template=")
    await asyncio.to_thread(_attributes, partial)
    await git.must(partial, "config", "remote.origin.url", source)
    try:
        await Clone(partial)._fetch()
    except MossError:
        await asyncio.to_thread(clear, partial)
        raise
    await asyncio.to_thread(partial.rename, git_dir)


@contextlib.asynccontextmanager
async def _alone(git_dir: Path) -> AsyncIterator[None]:
    """One maker or fetcher at a time, over all processes; the system takes the lock from one that dies."""
    await asyncio.to_thread(git_dir.parent.mkdir, parents=True, exist_ok=True)
    lock = os.open(git_dir.with_name(f".{git_dir.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + git.NETWORK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Unavailable(f"Somebody else has been at the clone {git_dir} for too long.") from None
                await asyncio.sleep(0.05)
        yield
    finally:
        os.close(lock)


async def _both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """At the same time. When one fails the other is ended, and only then the failure is told."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _keep(made: Path, target: Path) -> None:
    """Under its own name, unless another was first; and those that were used longest ago go."""
    with contextlib.suppress(OSError):
        made.rename(target)
    there = sorted(target.parent.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in there[_PACKS_KEPT:]:
        clear(old)


def _laid_out(target: Path, tree: str, pack: Path) -> None:
    """An empty directory, and in it what `git init` and a first commit would make: without the programs, and always
    alike."""
    clear(target)
    own = target / ".git"
    who = "Moss <moss@localhost> 0 +0000"
    text = f"tree {tree}\nauthor {who}\ncommitter {who}\n\nbase\n".encode()
    commit = b"commit %d\0%s" % (len(text), text)
    name = hashlib.sha1(commit, usedforsecurity=False).hexdigest()
    files = {
        "HEAD": b"ref: refs/heads/base\n",
        "config": b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
        "refs/heads/base": name.encode() + b"\n",
        f"objects/{name[:2]}/{name[2:]}": zlib.compress(commit),
        "info/attributes": git.RAW.encode(),
    }
    for path, content in files.items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_bytes(content)
    os.utime(pack)
    shutil.copytree(pack, own / "objects" / "pack")


def _attributes(git_dir: Path) -> None:
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text(git.RAW)


def _copies(scratch: Path, written: list[Written]) -> bytes:
    """Git reads copies that nobody else can exchange for something else. Returns their paths, a line each."""
    for n, file in enumerate(written):
        (scratch / str(n)).write_bytes(file.content)
    return "".join(f"{scratch}/{n}\n" for n in range(len(written))).encode()


def _modes_and_lines(out: bytes) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[int, int] | None]]:
    """Path -> mode before and after; and path -> lines added and removed, None for a binary file."""
    modes: dict[str, tuple[str, str]] = {}
    lines: dict[str, tuple[int, int] | None] = {}
    fields = iter(out.decode(errors="surrogateescape").split("\0")[:-1])
    for part in fields:
        if part.startswith(":"):
            before, after, *_ = part[1:].split()
            modes[next(fields)] = (before, after)
        else:
            plus, minus, path = part.split("\t", 2)
            lines[path] = None if plus == "-" else (int(plus), int(minus))
    return modes, lines


def _signature(name: str, email: str, date: str) -> dict[str, str]:
    name, email = (re.sub(r"[<>\s\0]+", " ", text).strip() or "Moss" for text in (name, email))
    env: dict[str, str] = {}
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": name, f"GIT_{who}_EMAIL": email, f"GIT_{who}_DATE": date}
    return env


def _hex(commit: str) -> str:
    if not _HEX.fullmatch(commit):
        raise BadInput(f"{commit!r} is not the id of a commit; give it in hexadecimal digits.")
    return commit
