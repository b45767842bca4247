"""Clones, checkouts that a coder spoils, commits and pushes: with real git."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.model.errors import BadInput, NotFound, OutOfScope, Refused, Unavailable
from core.model.substrate import ALWAYS_PROTECTED, Scope
from core.repository import Change, Clone, check_scope, fingerprint, git, tampering
from tests.support.repositories import commit, repository, write
from tests.support.repositories import git as plain_git

FILES = {
    "agent.py": "print('hello')\n",
    "lib/tools.py": "TOOLS = []\n",
    "tests/test_agent.py": "def test(): pass\n",
    ".gitignore": "*.log\nbuild/\n",
    "build/kept.txt": "tracked although ignored\n",
}
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRAILERS = {"Moss-Run": "run-1", "Moss-Iteration": "2"}


class Desk:
    """An owner's repository, Moss's clone of it, and a checkout for a coder."""

    def __init__(self, root: Path) -> None:
        self.owner, self.checkout = root / "owner", root / "work" / "checkout"
        self.base = repository(self.owner, FILES)
        self.git_dir = root / "data" / "agent.git"

    async def open(self) -> "Desk":
        self.clone = await Clone.of(str(self.owner), self.git_dir)
        await self.clone.checkout(self.base, self.checkout)
        return self

    async def snapshot(self) -> Change:
        return await self.clone.snapshot(self.checkout, self.base)

    async def accept(self) -> str:
        """The whole way of an accepted change: snapshot, scope, commit."""
        change = await self.snapshot()
        check_scope(change, Scope(), ALWAYS_PROTECTED)
        return await self.clone.commit(change.tree, self.base, "Greet by name", TRAILERS, at=AT)


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    return await Desk(tmp_path).open()


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- clones


async def test_a_clone_is_made_once_and_reads_the_owners_branch_as_it_is_now(desk: Desk) -> None:
    assert await desk.clone.head("main") == desk.base
    newer = commit(desk.owner, {"agent.py": "print('newer')\n"})
    again = await Clone.of(str(desk.owner), desk.git_dir)
    assert await again.head("main") == newer
    assert await again.contains(desk.base)
    assert not await again.contains("0" * 40)
    assert await again.is_ancestor(desk.base, newer)
    assert await again.is_ancestor(newer, newer)
    assert not await again.is_ancestor(newer, desk.base)
    assert await again.commits_between(desk.base, newer) == [newer]
    assert await again.commits_between(newer, desk.base) == []


async def test_many_makers_at_once_make_one_clone(tmp_path: Path) -> None:
    base = repository(tmp_path / "owner", FILES)
    clones = await asyncio.gather(*(Clone.of(str(tmp_path / "owner"), tmp_path / "d" / "a.git") for _ in range(4)))
    assert {await clone.head("main") for clone in clones} == {base}


async def test_a_half_made_clone_of_a_killed_moss_is_made_anew(tmp_path: Path) -> None:
    base = repository(tmp_path / "owner", FILES)
    write(tmp_path / ".agent.git.partial", {"HEAD": "rubbish", "objects/x": "rubbish"})
    clone = await Clone.of(str(tmp_path / "owner"), tmp_path / "agent.git")
    assert await clone.head("main") == base


async def test_a_clone_shares_nothing_with_its_source(tmp_path: Path) -> None:
    base = repository(tmp_path / "first", FILES)
    plain_git(tmp_path, "clone", "--quiet", "--shared", "first", "second")
    clone = await Clone.of(str(tmp_path / "second"), tmp_path / "agent.git")
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "second")
    await clone.export(base, tmp_path / "out")
    assert below(tmp_path / "out") == set(FILES)


async def test_a_shallow_source_is_fine(tmp_path: Path) -> None:
    repository(tmp_path / "first", FILES)
    tip = commit(tmp_path / "first", {"agent.py": "2\n"})
    plain_git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tmp_path}/first", "second")
    clone = await Clone.of(str(tmp_path / "second"), tmp_path / "agent.git")
    assert await clone.head("main") == tip


async def test_the_clone_follows_a_repository_that_moved(desk: Desk, tmp_path: Path) -> None:
    other = repository(tmp_path / "other", {"x": "y\n"})
    moved = await Clone.of(str(tmp_path / "other"), desk.git_dir)
    assert await moved.head("main") == other


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_repository_of_another_user_is_read_and_pushed_to(tmp_path: Path) -> None:
    base = repository(tmp_path / "owner", FILES)
    for path in [tmp_path / "owner", *(tmp_path / "owner").rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    clone = await Clone.of(str(tmp_path / "owner"), tmp_path / "agent.git")
    assert await clone.head("main") == base
    await clone.set_branch("moss/run-1", base)
    await clone.publish("moss/run-1", str(tmp_path / "owner"))


async def test_what_is_wrong_with_a_source_is_said_in_one_sentence(tmp_path: Path) -> None:
    async def problem(source: str, kind: type[Exception]) -> str:
        with pytest.raises(kind) as raised:
            await Clone.of(source, tmp_path / "x.git")
        assert not (tmp_path / "x.git").exists()
        assert not (tmp_path / ".x.git.partial").exists()
        return str(raised.value)

    (tmp_path / "plain").mkdir()
    assert "does not exist" in await problem(str(tmp_path / "nowhere"), NotFound)
    assert "is not a git repository" in await problem(str(tmp_path / "plain"), BadInput)
    assert "not a repository" in await problem("--upload-pack=touch /tmp/x", BadInput)
    assert "cannot be read" in await problem("ext::sh -c 'touch /tmp/x'", Unavailable)
    said = await problem("http://olga:hunter2@127.0.0.1:1/agent.git", Unavailable)
    assert "http://127.0.0.1:1/agent.git cannot be read" in said
    assert "hunter2" not in said


async def test_a_missing_branch_and_an_empty_repository_are_named(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"has no branch trunk; it has main\."):
        await desk.clone.head("trunk")
    (tmp_path / "empty").mkdir()
    plain_git(tmp_path / "empty", "init", "--quiet")
    clone = await Clone.of(str(tmp_path / "empty"), tmp_path / "empty.git")
    with pytest.raises(NotFound, match="has no commits yet"):
        await clone.head("main")


async def test_a_lock_left_by_a_killed_git_is_waited_for_and_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "_STALE_LOCK_S", 0.3)
    lock = desk.git_dir / "refs" / "heads" / "moss" / "run-1.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    await desk.clone.set_branch("moss/run-1", desk.base)
    assert plain_git(desk.git_dir, "rev-parse", "moss/run-1") == desk.base


async def test_git_is_stopped_when_it_takes_too_long(desk: Desk) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer within"):
        await git.ask(desk.git_dir, "-c", "alias.slow=!sleep 60", "slow", timeout_s=0.5)
    assert time.monotonic() - began < 10


async def test_git_gets_an_environment_from_an_allow_list(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_SECRET_KEY", "hunter2")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/false")
    said = await git.ask(desk.git_dir, "-c", "alias.env=!env", "env")
    assert said.exit_code == 0
    assert "GIT_TERMINAL_PROMPT=0" in said.text
    assert "hunter2" not in said.text
    assert "GIT_EXTERNAL_DIFF" not in said.text


async def test_the_ping_names_the_version() -> None:
    assert (await git.ping()).startswith("git 2.")


def test_a_machine_without_git_can_still_say_so(tmp_path: Path) -> None:
    (tmp_path / "env").symlink_to("/usr/bin/env")
    program = "import asyncio; from core.repository import git; asyncio.run(git.ping())"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(tmp_path)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unavailable: `git` was not found on PATH; install git" in done.stderr


@pytest.mark.parametrize("version", ["git version 2.31.9", "git version 1.9", "something else"])
async def test_a_git_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    write(tmp_path, {"git": f"#!/bin/sh\necho {version}\n"})
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match=r"too old; install git 2\.32 or newer"):
        await git.ping()


# --- exports and checkouts


async def test_an_export_holds_the_bytes_of_the_commit_and_no_git(desk: Desk, tmp_path: Path) -> None:
    odd = commit(
        desk.owner,
        {
            ".gitattributes": "*.txt text eol=crlf export-ignore\n*.x ident working-tree-encoding=UTF-16LE\n",
            "a.txt": "one\ntwo\n",
            "b.x": "$Id$\n".encode("utf-16-le"),
        },
    )
    await desk.clone.fetch()
    await desk.clone.export(odd, tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "out" / "b.x").read_bytes() == b"$Id$\n"
    assert not (tmp_path / "out" / ".git").exists()


async def test_an_export_replaces_what_was_there(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "out", {"left/over.py": "old"})
    await desk.clone.export(desk.base, tmp_path / "out")
    assert below(tmp_path / "out") == set(FILES)


async def test_the_tests_of_a_commit_are_laid_beside_what_is_there(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "out", {"mine.py": "x"})
    await desk.clone.put_tests(desk.base, ("tests/**",), tmp_path / "out")
    assert below(tmp_path / "out") == {"mine.py", "tests/test_agent.py"}


async def test_a_checkout_is_clean_for_the_coders_git_and_knows_nothing_of_the_clone(desk: Desk) -> None:
    assert plain_git(desk.checkout, "status", "--porcelain", "--ignored") == ""
    assert plain_git(desk.checkout, "log", "--format=%an %s") == "Moss base"
    assert plain_git(desk.checkout, "rev-parse", "--show-toplevel") == str(desk.checkout)
    assert str(desk.git_dir) not in (desk.checkout / ".git" / "config").read_text()
    assert not (desk.checkout / ".git" / "objects" / "info" / "alternates").exists()


async def test_several_who_ask_for_the_owners_branch_at_once_all_hear_it(desk: Desk) -> None:
    for n in range(5):
        write(desk.owner, {"agent.py": f"print({n})\n"})
        plain_git(desk.owner, "commit", "--quiet", "--all", "--message", f"Commit {n}")
        tip = plain_git(desk.owner, "rev-parse", "HEAD")
        assert set(await asyncio.gather(*(desk.clone.head("main") for _ in range(6)))) == {tip}


async def test_what_a_coder_does_to_the_objects_of_its_checkout_reaches_no_other(desk: Desk) -> None:
    for file in (desk.checkout / ".git" / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"rubbish")
    await desk.clone.checkout(desk.base, desk.checkout)
    assert plain_git(desk.checkout, "fsck", "--full", "--strict") == ""
    assert plain_git(desk.checkout, "show", "HEAD:agent.py") == (desk.checkout / "agent.py").read_text().strip()


async def test_of_the_packs_for_checkouts_only_the_latest_are_kept(desk: Desk) -> None:
    for n in range(6):
        write(desk.checkout, {"agent.py": f"print({n})\n"})
        await desk.clone.checkout((await desk.snapshot()).tree, desk.checkout)
        await desk.clone.checkout(desk.base, desk.checkout)
    kept = {path.name for path in (desk.git_dir / "moss-packs").iterdir()}
    assert len(kept) == 4
    assert await desk.clone.tree_of(desk.base) in kept, "it was used last"


async def test_a_checkout_of_a_tree_wipes_whatever_a_coder_left(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "changed\n"})
    tree = (await desk.snapshot()).tree
    write(desk.checkout, {"left.py": "x", ".git/hooks/post-checkout": "x"})
    (desk.checkout / "locked").mkdir(mode=0o000)
    await desk.clone.checkout(tree, desk.checkout)
    assert (desk.checkout / "agent.py").read_text() == "changed\n"
    assert not (desk.checkout / "left.py").exists()
    assert not (desk.checkout / "locked").exists()
    assert not (desk.checkout / ".git" / "hooks").exists()


async def test_a_checkout_that_is_cancelled_writes_nothing_afterwards(desk: Desk) -> None:
    for n in range(20):
        checkout = asyncio.create_task(desk.clone.checkout(desk.base, desk.checkout))
        await asyncio.sleep(n / 200)
        checkout.cancel()
        await asyncio.gather(checkout, return_exceptions=True)
        shutil.rmtree(desk.checkout, ignore_errors=True)
        assert not desk.checkout.exists()
    await asyncio.sleep(0.2)
    assert not desk.checkout.exists()


async def test_a_checkout_that_a_coder_turned_into_a_link_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "precious", {"file": "kept"})
    shutil.rmtree(desk.checkout)
    desk.checkout.symlink_to(tmp_path / "precious")
    with pytest.raises(OutOfScope, match="checkout is gone"):
        await desk.snapshot()
    await desk.clone.checkout(desk.base, desk.checkout)
    assert (tmp_path / "precious" / "file").read_text() == "kept"
    assert not desk.checkout.is_symlink()


# --- snapshots


async def test_a_snapshot_is_exactly_what_changed(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "print('hi')\nprint('you')\n", "lib/new.py": "X = 1\n"})
    (desk.checkout / "lib" / "tools.py").unlink()
    change = await desk.snapshot()
    assert change.files == ("agent.py", "lib/new.py", "lib/tools.py")
    assert (change.insertions, change.deletions) == (3, 2)
    assert "+print('you')" in change.diff
    assert plain_git(desk.git_dir, "ls-tree", "-r", "--name-only", change.tree).split() == sorted(
        FILES.keys() - {"lib/tools.py"} | {"lib/new.py"}
    )
    assert await desk.snapshot() == change
    assert await desk.clone.change(desk.base, change.tree) == change
    assert await desk.clone.diff(desk.base, change.tree) == change.diff


async def test_a_snapshot_of_an_untouched_checkout_is_empty(desk: Desk) -> None:
    change = await desk.snapshot()
    assert change.files == ()
    assert change.tree == await desk.clone.tree_of(desk.base)


async def test_a_file_may_become_a_directory_and_back(desk: Desk) -> None:
    (desk.checkout / "agent.py").unlink()
    shutil.rmtree(desk.checkout / "lib")
    write(desk.checkout, {"agent.py/inner.py": "x\n", "lib": "now a file\n"})
    assert (await desk.snapshot()).files == ("agent.py", "agent.py/inner.py", "lib", "lib/tools.py")


async def test_the_ignore_rules_of_the_base_hold_and_those_of_the_coder_do_not(desk: Desk) -> None:
    write(desk.checkout, {"run.log": "x", "build/out.o": "x", "lib/__pycache__/tools.pyc": b"\0", "agent.pyc": b"\0"})
    assert (await desk.snapshot()).files == ()
    hidden = {".gitignore": "*\n", "lib/.gitignore": "*\n", "lib/hidden.py": "x\n", "build/kept.txt": "changed\n"}
    write(desk.checkout, {**hidden, ".git/info/exclude": "*\n"})
    assert (await desk.snapshot()).files == (".gitignore", "build/kept.txt", "lib/.gitignore", "lib/hidden.py")


async def test_the_ignore_rules_of_inner_directories_win(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.base = commit(desk.owner, {"lib/.gitignore": "!kept.log\nlocal.py\n"})
    await desk.open()
    write(desk.checkout, {"lib/kept.log": "x\n", "lib/other.log": "x\n", "lib/local.py": "x\n", "local.py": "x\n"})
    assert (await desk.snapshot()).files == ("lib/kept.log", "local.py")


def fsmonitor(desk: Desk, trap: Path) -> None:
    with (desk.checkout / ".git" / "config").open("a") as config:
        config.write(f'[core]\n\tfsmonitor = "touch {trap}; false"\n\tpager = "touch {trap}"\n')


def hooks(desk: Desk, trap: Path) -> None:
    for hook in ("pre-commit", "post-checkout", "post-index-change", "reference-transaction"):
        write(desk.checkout, {f".git/hooks/{hook}": f"#!/bin/sh\ntouch {trap}\n"})
        (desk.checkout / ".git" / "hooks" / hook).chmod(0o755)


def filters(desk: Desk, trap: Path) -> None:
    write(desk.checkout, {".gitattributes": "* filter=evil diff=evil merge=evil\n"})
    (desk.checkout / ".git" / "info" / "attributes").unlink()
    with (desk.checkout / ".git" / "config").open("a") as config:
        config.write(f'[filter "evil"]\n\tclean = "touch {trap}; cat"\n\tsmudge = "touch {trap}; cat"\n')
        config.write(f'[diff "evil"]\n\ttextconv = "touch {trap}; cat"\n\tcommand = "touch {trap}"\n')


@pytest.mark.parametrize("plant", [fsmonitor, hooks, filters])
async def test_nothing_that_a_coder_plants_is_run(
    desk: Desk, tmp_path: Path, plant: Callable[[Desk, Path], None]
) -> None:
    trap = tmp_path / "trap"
    plant(desk, trap)
    write(desk.checkout, {"agent.py": "print('changed')\n"})
    plain_git(desk.checkout, "add", "--all", check=False)
    plain_git(desk.checkout, "commit", "-m", "x", check=False)
    assert trap.exists(), "the trap does not work, so that this test would prove nothing"
    trap.unlink()
    change = await desk.snapshot()
    assert "agent.py" in change.files
    await desk.clone.checkout(change.tree, desk.checkout)
    done = await desk.clone.commit(change.tree, desk.base, "x", {}, at=AT)
    await desk.clone.export(done, tmp_path / "out")
    assert (tmp_path / "out" / "agent.py").read_text() == "print('changed')\n"
    assert not trap.exists()


async def test_attributes_convert_nothing_in_a_snapshot(desk: Desk) -> None:
    write(desk.checkout, {".gitattributes": "* text eol=crlf ident\n", "agent.py": b"$Id: 1 $\r\n"})
    change = await desk.snapshot()
    assert plain_git(desk.git_dir, "cat-file", "-s", f"{change.tree}:agent.py") == "10"


async def test_a_coder_may_destroy_its_git_directory_and_the_snapshot_still_stands(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "x\n"})
    shutil.rmtree(desk.checkout / ".git")
    assert (await desk.snapshot()).files == ("agent.py",)


async def test_a_repository_within_the_checkout_is_refused(desk: Desk) -> None:
    (desk.checkout / "lib" / "inner").mkdir()
    plain_git(desk.checkout / "lib" / "inner", "init", "--quiet")
    with pytest.raises(OutOfScope, match="lib/inner/ holds a git repository of its own"):
        await desk.snapshot()
    shutil.rmtree(desk.checkout / "lib" / "inner")
    write(desk.checkout, {"lib/.GIT": "gitdir: /elsewhere\n"})
    with pytest.raises(OutOfScope, match="holds a git repository of its own"):
        await desk.snapshot()


async def test_a_bare_repository_within_the_checkout_is_refused(desk: Desk) -> None:
    (desk.checkout / "fixtures").mkdir()
    plain_git(desk.checkout / "fixtures", "init", "--quiet", "--bare")
    with pytest.raises(OutOfScope, match="fixtures/ holds a git repository of its own"):
        await desk.snapshot()


async def test_a_submodule_of_the_owner_stays_and_may_not_be_touched(desk: Desk) -> None:
    plain_git(desk.owner, "update-index", "--add", "--cacheinfo", f"160000,{desk.base},vendor/sub")
    plain_git(desk.owner, "commit", "--quiet", "-m", "submodule")
    desk.base = plain_git(desk.owner, "rev-parse", "HEAD")
    await desk.clone.fetch()
    await desk.clone.checkout(desk.base, desk.checkout)
    write(desk.checkout, {"agent.py": "x\n"})
    assert (await desk.snapshot()).files == ("agent.py",)
    write(desk.checkout, {"vendor/sub/evil.py": "x\n"})
    with pytest.raises(OutOfScope, match="vendor/sub is a submodule"):
        await desk.snapshot()


async def test_a_link_is_kept_as_a_link_and_never_followed(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path, {"secret.txt": "the host's secret\n"})
    (desk.checkout / "escape").symlink_to(tmp_path / "secret.txt")
    (desk.checkout / "folder").symlink_to(tmp_path)
    change = await desk.snapshot()
    assert [(entry.path, entry.new_mode) for entry in change.entries] == [("escape", "120000"), ("folder", "120000")]
    assert "the host's secret" not in change.diff


async def test_a_huge_file_is_refused_before_it_is_read(desk: Desk) -> None:
    with (desk.checkout / "model.bin").open("wb") as file:
        file.truncate(100_000_000)
    with (desk.checkout / "agent.py").open("ab") as file:
        file.truncate(50_000_000_000)
    began = time.monotonic()
    with pytest.raises(OutOfScope, match=r"agent.py has 50000000000 bytes, and at most 10000000"):
        await desk.snapshot()
    assert time.monotonic() - began < 5
    (desk.checkout / "agent.py").unlink()
    with pytest.raises(OutOfScope, match=r"model\.bin has 100000000 bytes"):
        await desk.snapshot()
    with pytest.raises(OutOfScope, match="at most 1000 are allowed"):
        await desk.clone.snapshot(desk.checkout, desk.base, Scope(max_file_bytes=1000))


async def test_a_large_file_of_the_owner_may_stay_and_may_not_change(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.base = commit(desk.owner, {"weights.bin": b"w" * 5000})
    await desk.open()
    write(desk.checkout, {"agent.py": "x\n"})
    scope = Scope(max_file_bytes=1000)
    assert (await desk.clone.snapshot(desk.checkout, desk.base, scope)).files == ("agent.py",)
    write(desk.checkout, {"weights.bin": b"v" * 5000})
    with pytest.raises(OutOfScope, match=r"weights\.bin has 5000 bytes"):
        await desk.clone.snapshot(desk.checkout, desk.base, scope)


async def test_a_flood_of_files_is_refused_on_the_way(desk: Desk) -> None:
    write(desk.checkout, {f"flood/{n}.py": "x\n" for n in range(60)})
    with pytest.raises(OutOfScope, match="touches 41 files, and at most 40"):
        await desk.clone.snapshot(desk.checkout, desk.base, Scope(max_files=40))


async def test_many_large_files_are_refused_before_they_fill_the_memory(desk: Desk) -> None:
    write(desk.checkout, {f"flood/{n}.txt": b"x" * 9_000_000 for n in range(3)})
    with pytest.raises(OutOfScope, match="more than 20000000 bytes"):
        await desk.snapshot()


async def test_a_pipe_does_not_hang_a_snapshot(desk: Desk) -> None:
    os.mkfifo(desk.checkout / "pipe")
    with pytest.raises(OutOfScope, match="pipe is a pipe, a socket or a device"):
        await asyncio.wait_for(desk.snapshot(), 10)


async def test_what_cannot_be_read_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    write(desk.checkout, {"agent.py": "print('closed')\n"})
    really_open = os.open

    def closed(path: Any, *how: Any, **more: Any) -> int:  # a mode alone would not stop root
        if path == "agent.py":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return really_open(path, *how, **more)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(OutOfScope, match=r"agent\.py cannot be read \(Permission denied\)"):
        await desk.snapshot()


async def test_a_name_that_is_not_utf8_is_refused(desk: Desk) -> None:
    (Path(os.fsdecode(os.fsencode(desk.checkout) + b"/caf\xe9.py"))).write_text("x\n")
    with pytest.raises(OutOfScope, match="not UTF-8"):
        await desk.snapshot()


async def test_odd_names_come_through_whole(desk: Desk) -> None:
    names = ("tab\there.py", "new\nline.py", 'quo"te.py', "naïve ☃.py", "-rf.py", ":(top)x.py")
    write(desk.checkout, dict.fromkeys(names, "x\n"))
    assert set((await desk.snapshot()).files) == set(names)


# --- commits, branches, pushes


async def test_the_same_change_gives_the_same_commit_and_carries_its_trailers(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "print('hi')\n"})
    first = await desk.accept()
    assert await desk.accept() == first
    shown = plain_git(desk.git_dir, "show", "-s", "--format=%an <%ae> %aI%n%P%n%B", first)
    assert shown.startswith(f"Moss <moss@localhost> 2026-03-01T12:00:00+00:00\n{desk.base}\nGreet by name")
    assert plain_git(desk.git_dir, "show", "-s", "--format=%(trailers:key=Moss-Iteration,valueonly)", first) == "2"


async def test_a_summary_of_a_coder_cannot_forge_a_trailer_nor_an_author(desk: Desk) -> None:
    tree = await desk.clone.tree_of(desk.base)
    said = "Fix\n\nMoss-Run: forged\0\n"
    trailers = {"Moss-Run": "run-1", "Moss-Evidence": "a\nMoss-Run: forged"}
    made = await desk.clone.commit(
        tree, desk.base, said, trailers, at=AT, author_name="Eve\n<eve@x> 0 +0000\nfoo", author_email="e>\nx"
    )
    values = "--format=%(trailers:key=Moss-Run,valueonly)"
    assert plain_git(desk.git_dir, "show", "-s", values, made) == "run-1"
    assert plain_git(desk.git_dir, "show", "-s", "--format=%aI", made) == "2026-03-01T12:00:00+00:00"


async def test_a_finished_branch_is_pushed_and_may_be_replaced_below_moss(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "1\n"})
    first = await desk.accept()
    await desk.clone.set_branch("moss/run-1", first)
    await desk.clone.publish("moss/run-1", str(desk.owner))
    assert plain_git(desk.owner, "rev-parse", "moss/run-1") == first
    write(desk.checkout, {"agent.py": "2\n"})
    second = await desk.accept()
    await desk.clone.set_branch("moss/run-1", second)
    await desk.clone.publish("moss/run-1", str(desk.owner))
    assert plain_git(desk.owner, "rev-parse", "moss/run-1") == second
    assert (desk.owner / "agent.py").read_text() == FILES["agent.py"]


async def test_commits_of_other_people_are_never_overwritten(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "1\n"})
    ours = await desk.accept()
    plain_git(desk.owner, "checkout", "--quiet", "-b", "release")
    theirs = commit(desk.owner, {"agent.py": "theirs\n"})
    plain_git(desk.owner, "checkout", "--quiet", "main")
    await desk.clone.set_branch("release", ours)
    with pytest.raises(Refused, match="has commits that ours lacks"):
        await desk.clone.publish("release", str(desk.owner))
    assert plain_git(desk.owner, "rev-parse", "release") == theirs


async def test_what_is_wrong_with_a_push_is_said_in_one_sentence(desk: Desk, tmp_path: Path) -> None:
    await desk.clone.set_branch(
        "main", await desk.clone.commit(await desk.clone.tree_of(desk.base), desk.base, "x", {}, at=AT)
    )
    with pytest.raises(Refused, match="is checked out in"):
        await desk.clone.publish("main", str(desk.owner))
    with pytest.raises(NotFound, match="has no branch moss/none"):
        await desk.clone.publish("moss/none", str(desk.owner))
    with pytest.raises(NotFound, match="does not exist"):
        await desk.clone.publish("main", str(tmp_path / "nowhere"))
    (tmp_path / "plain").mkdir()
    with pytest.raises(BadInput, match="is not a git repository"):
        await desk.clone.publish("main", str(tmp_path / "plain"))
    write(desk.owner, {".git/hooks/pre-receive": "#!/bin/sh\necho no thanks >&2\nexit 1\n"})
    (desk.owner / ".git" / "hooks" / "pre-receive").chmod(0o755)
    await desk.clone.set_branch("moss/run-1", desk.base)
    with pytest.raises(Refused, match="pre-receive hook declined"):
        await desk.clone.publish("moss/run-1", str(desk.owner))
    with pytest.raises(BadInput, match="cannot be the name"):
        await desk.clone.set_branch("-x..y", desk.base)
    with pytest.raises(BadInput, match="not the id of a commit"):
        await desk.clone.tree_of("--output=/tmp/x")


async def test_a_tag_does_not_move(desk: Desk) -> None:
    newer = commit(desk.owner, {"agent.py": "2\n"})
    await desk.clone.fetch()
    await desk.clone.tag("moss/v1", desk.base)
    await desk.clone.tag("moss/v1", desk.base)
    with pytest.raises(Refused, match="names commit"):
        await desk.clone.tag("moss/v1", newer)


# --- tampering


def a_commit(desk: Desk) -> None:
    commit(desk.checkout, {"agent.py": "x\n"})


def an_amended_commit(desk: Desk) -> None:
    plain_git(desk.checkout, "commit", "--quiet", "--amend", "--allow-empty", "-m", "amended")


def a_branch(desk: Desk) -> None:
    plain_git(desk.checkout, "checkout", "--quiet", "-b", "feature")


def packed_refs(desk: Desk) -> None:
    a_commit(desk)
    plain_git(desk.checkout, "pack-refs", "--all")


def a_hook(desk: Desk) -> None:
    write(desk.checkout, {".git/hooks/pre-commit": "#!/bin/sh\n"})


def a_setting(desk: Desk) -> None:
    plain_git(desk.checkout, "config", "core.fsmonitor", "/bin/true")


def an_exclude(desk: Desk) -> None:
    write(desk.checkout, {".git/info/exclude": "*\n"})


def alternates(desk: Desk) -> None:
    write(desk.checkout, {".git/objects/info/alternates": "/elsewhere\n"})


def no_git(desk: Desk) -> None:
    shutil.rmtree(desk.checkout / ".git")


def a_linked_git(desk: Desk) -> None:
    (desk.checkout / ".git").rename(desk.checkout.parent / "moved")
    (desk.checkout / ".git").symlink_to(desk.checkout.parent / "moved")


def no_checkout(desk: Desk) -> None:
    shutil.rmtree(desk.checkout)


def a_nested_repository(desk: Desk) -> None:
    (desk.checkout / "lib" / "inner").mkdir()
    plain_git(desk.checkout / "lib" / "inner", "init", "--quiet")


@pytest.mark.parametrize("may_write", [True, False])
@pytest.mark.parametrize(
    ("deed", "sentence"),
    [
        (a_commit, "made commits or branches in its checkout, where only Moss commits"),
        (an_amended_commit, "made commits or branches in its checkout, where only Moss commits"),
        (a_branch, "made commits or branches in its checkout, where only Moss commits"),
        (packed_refs, "made commits or branches in its checkout, where only Moss commits"),
        (a_hook, "planted a git hook in its checkout (hooks/pre-commit)"),
        (a_setting, "changed the git settings of its checkout"),
        (an_exclude, "changed .git/info/exclude in its checkout"),
        (alternates, "changed .git/objects/info/alternates in its checkout"),
        (no_git, "removed the git directory of its checkout"),
        (a_linked_git, "removed the git directory of its checkout"),
        (no_checkout, "removed its checkout"),
        (a_nested_repository, "made a git repository of its own at lib/inner/.git"),
    ],
)
async def test_git_is_for_looking_only_in_every_role(
    desk: Desk, deed: Callable[[Desk], None], sentence: str, may_write: bool
) -> None:
    before = fingerprint(desk.checkout)
    deed(desk)
    assert tampering(before, fingerprint(desk.checkout), may_write=may_write) == sentence


def an_edit(desk: Desk) -> None:
    write(desk.checkout, {"agent.py": "x\n"})


def a_new_file(desk: Desk) -> None:
    write(desk.checkout, {"new.py": "x\n"})


def an_ignored_file(desk: Desk) -> None:
    write(desk.checkout, {"run.log": "x\n"})


def a_mode(desk: Desk) -> None:
    (desk.checkout / "agent.py").chmod(0o755)


def a_deletion(desk: Desk) -> None:
    (desk.checkout / "lib" / "tools.py").unlink()


def a_link(desk: Desk) -> None:
    (desk.checkout / "link").symlink_to("agent.py")


def an_empty_directory(desk: Desk) -> None:
    (desk.checkout / "empty").mkdir()


def an_unreadable_file(desk: Desk) -> None:
    os.mkfifo(desk.checkout / "pipe")


@pytest.mark.parametrize(
    ("deed", "path"),
    [
        (an_edit, "agent.py"),
        (a_new_file, "new.py"),
        (an_ignored_file, "run.log"),
        (a_mode, "agent.py"),
        (a_deletion, "lib"),
        (a_link, "link"),
        (an_empty_directory, "empty"),
        (an_unreadable_file, "pipe"),
    ],
)
async def test_files_are_for_reading_only_unless_the_role_writes(
    desk: Desk, deed: Callable[[Desk], None], path: str
) -> None:
    before = fingerprint(desk.checkout)
    deed(desk)
    after = fingerprint(desk.checkout)
    said = tampering(before, after, may_write=False)
    assert said is not None
    assert said.startswith(f"changed {path}")
    assert said.endswith("though this role may only read")
    assert tampering(before, after, may_write=True) is None


async def test_looking_with_git_is_no_tampering(desk: Desk) -> None:
    before = fingerprint(desk.checkout)
    later = time.time() + 60
    os.utime(desk.checkout / "agent.py", (later, later))
    for words in (("status",), ("diff",), ("log",), ("grep", "hello"), ("ls-files",)):
        plain_git(desk.checkout, *words)
    assert tampering(before, fingerprint(desk.checkout), may_write=False) is None


async def test_a_commit_date_of_another_moment_is_another_commit(desk: Desk) -> None:
    tree = await desk.clone.tree_of(desk.base)
    made = [await desk.clone.commit(tree, desk.base, "x", {}, at=AT + timedelta(seconds=n)) for n in range(2)]
    assert made[0] != made[1]
