"""Real git repositories for tests, made by the plain git program as their owner would."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Olga Owner",
    "GIT_AUTHOR_EMAIL": "olga@example.org",
    "GIT_COMMITTER_NAME": "Olga Owner",
    "GIT_COMMITTER_EMAIL": "olga@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T09:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T09:00:00Z",
}


def git(where: Path, *words: str, check: bool = True) -> str:
    done = subprocess.run(["git", *words], cwd=where, env=ENV, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def repository(path: Path, files: Mapping[str, str | bytes], branch: str = "main") -> str:
    """An owner's repository with one commit; returns the commit."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "-b", branch)
    return commit(path, files)


def commit(path: Path, files: Mapping[str, str | bytes], message: str = "work") -> str:
    write(path, files)
    git(path, "add", "--all", "--force")
    git(path, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")
