"""Repositories of the owner: how they are named, read although they are somebody else's, and what goes wrong there."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.model.errors import BadInput, MossError, NotFound, Refused
from core.repository.git import Said, failure


def location(source: str) -> str:
    """An absolute path, or an address as it is."""
    if not source.strip() or source.startswith("-"):
        raise BadInput(f"{source!r} is not a repository; give a path or an address.")
    path = Path(source).expanduser().absolute()
    if not path.exists():
        if "://" in source or re.match(r"[\w.-]+(@[\w.-]+)?:", source):
            return source
        raise NotFound(f"Repository {source} does not exist; correct its path in the settings.")
    return str(path)


def shown(source: str) -> str:
    """Without a password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", source)


@contextlib.contextmanager
def trusting(remote: str) -> Iterator[dict[str, str]]:
    """Git refuses to read a local repository of another user's. The owner named this one in Moss's settings, which
    vouches for exactly this one; only a file of global settings reaches the git at the other end."""
    if not Path(remote).is_dir():
        yield {}
        return
    with tempfile.NamedTemporaryFile("w", prefix="moss-git-", suffix=".config") as file:
        for path in map(str, (Path(remote).resolve(), Path(remote).resolve() / ".git")):
            quoted = path.replace("\\", "\\\\").replace('"', '\\"')
            file.write(f'[safe]\n\tdirectory = "{quoted}"\n')
        file.flush()
        yield {"GIT_CONFIG_GLOBAL": file.name}


def cannot_reach(source: str, said: Said) -> MossError:
    if "does not appear to be a git repository" in said.error and Path(source).exists():
        return BadInput(f"{source} is not a git repository; name the directory that holds `.git`.")
    return failure(f"Repository {shown(source)} cannot be read", said, mend="check its address and access")


def cannot_push(branch: str, remote: str, said: Said) -> MossError:
    where = shown(remote)
    if "does not appear to be a git repository" in said.error:
        return BadInput(f"{where} is not a git repository, so that {branch} was not pushed there.")
    if "non-fast-forward" in said.error or "fetch first" in said.error:
        return Refused(f"Branch {branch} of {where} has commits that ours lacks, and they are not overwritten.")
    if "checked out" in said.error:
        return Refused(f"Branch {branch} is checked out in {where}; switch to another branch there.")
    if "remote rejected" in said.error or "hook declined" in said.error:
        return failure(f"{where} refused branch {branch}", said, Refused, "ask whoever runs it")
    return failure(f"Branch {branch} could not be pushed to {where}", said, mend="check its address and access")
