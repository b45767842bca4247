"""`moss init`: looks at what is here, and writes a moss.toml that says so. It reads, and starts nothing."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bot import dockerfile
from bot.containment import secret
from bot.dockerfile import Dockerfile
from bot.moss_toml import CODERS, DATA, Container, Found, HostName, Wishes
from bot.pitfalls import to_fetch
from bot.words import line
from core.coders.bubblewrap import Bubblewrap
from core.containers.docker_host import DockerHost
from core.containers.host import label
from core.model.errors import BadInput, BuildFailed, MossError, Refused, Unavailable
from core.process import safe_env
from core.repository import git
from core.swap.survey import commit_of

WORKING_DIR = "com.docker.compose.project.working_dir"


async def detect(directory: Path, wishes: Wishes) -> Found:
    problems: list[str] = []
    root = next((each for each in (directory, *directory.parents) if (each / ".git").exists()), None)
    if not directory.is_dir():
        raise BadInput(f"{directory} is not a directory; name a file in your agent's repository with --config.")
    if root is None:
        raise BadInput(
            f"{directory} is not in a git repository; call it where your agent's source is, or `git init` it."
        )
    branch, files = await _look_into(root, problems)
    dockerfiles = [file for file in files if file.rpartition("/")[2] == "Dockerfile"]
    docker = min(dockerfiles, key=lambda file: (file.count("/"), file), default=None)
    text = await _committed(root, docker) if docker else ""
    about = dockerfile.read(text) if docker else Dockerfile()
    engine, no_engine, container = await _ask_engine(root, text, wishes, problems)
    if docker is None and engine:
        problems.append("No Dockerfile is committed, and the engine builds from one; write and commit it.")
    return Found(
        repository=root,
        branch=branch,
        dockerfile=docker,
        about=about,
        engine=engine,
        no_engine=no_engine,
        coders=tuple(name for name in CODERS if shutil.which(name, path=safe_env().get("PATH"))),
        container=container,
        problems=tuple(problems),
        no_sandbox=await _no_sandbox(directory),
    )


async def _no_sandbox(directory: Path) -> str:
    """Why nothing confines coders here, or nothing when something does."""
    try:
        await Bubblewrap(secret(directory / DATA, None)).ping()
    except MossError as problem:
        return problem.sentence
    return ""


def _git_dir(root: Path) -> Path:
    """Of a worktree or a submodule, `.git` is a file that says where."""
    here = root / ".git"
    if here.is_file():
        said = here.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
        return (root / said).resolve()
    return here


async def _look_into(root: Path, problems: list[str]) -> tuple[str | None, set[str]]:
    """The branch that is checked out, and the files of its last commit: what is not committed Moss will not see."""
    said = await git.ask(_git_dir(root), "symbolic-ref", "--short", "HEAD")
    branch = said.text if said.exit_code == 0 else None
    if branch is None:
        problems.append("No branch is checked out; name the one that Moss works on as `branch`.")
    listed = await git.ask(_git_dir(root), "ls-tree", "-r", "-z", "--name-only", "HEAD")
    if listed.exit_code != 0:
        problems.append("Nothing is committed yet, and Moss works on commits; commit the agent's source.")
        return branch, set()
    return branch, set(listed.text.split("\0"))


async def _committed(root: Path, file: str) -> str:
    return (await git.ask(_git_dir(root), "cat-file", "blob", f"HEAD:{file}")).text


async def _ask_engine(
    root: Path, text: str, wishes: Wishes, problems: list[str]
) -> tuple[str | None, str, Container | None]:
    if wishes.host is HostName.process:
        return None, "plain processes, as asked", None
    with tempfile.TemporaryDirectory(prefix="moss-") as scratch:
        host = DockerHost(Path(scratch), "init")
        try:
            engine = await host.ping()
            try:
                problems += await to_fetch(host, text)
            except BuildFailed as problem:
                problems.append(problem.sentence)
            return engine, "", await _running(host, root, problems)
        except MossError as problem:
            if wishes.host is HostName.docker:
                problems.append(problem.sentence)
            return None, problem.sentence, None
        finally:
            await host.close()


async def _running(host: DockerHost, root: Path, problems: list[str]) -> Container | None:
    """The one container that seems to be this agent. Two are none: only its owner knows which."""
    matching: dict[str, tuple[str, str | None]] = {}
    for name, image, labels in await host.running():
        commit = commit_of(labels)
        if label.OWNER in labels:
            continue
        if commit and re.fullmatch(r"[0-9a-f]{40,64}", commit) and await _has(root, commit):
            matching[name] = (f"its image says that it was built from {commit[:12]}", commit)
        elif labels.get(WORKING_DIR) == str(root):
            matching[name] = ("it was started by docker compose from here", None)
        elif image.split("@")[0].rpartition("/")[2].partition(":")[0] == root.name.lower():
            matching[name] = (f"its image is named `{image}`", None)
    if len(matching) > 1:
        problems.append(f"Several containers may be this agent: {', '.join(sorted(matching))}; name one as `run.box`.")
    if len(matching) != 1:
        return None
    ((name, (why, commit)),) = matching.items()
    portrait = await host.portrait(name)
    return Container(portrait, commit, why) if portrait else None


async def _has(root: Path, commit: str) -> bool:
    return (await git.ask(_git_dir(root), "cat-file", "-e", f"{commit}^{{commit}}")).exit_code == 0


# Writing


def write(file: Path, text: str, *, force: bool) -> None:
    """At once or not at all, and never over somebody's work."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        if force:
            new.replace(file)
        else:
            os.link(new, file)
    except FileExistsError:
        raise there_already(file) from None
    except OSError as problem:
        raise Unavailable(f"{file} cannot be written: {problem.strerror}; name another with --config.") from None
    finally:
        new.unlink(missing_ok=True)


def there_already(file: Path) -> Refused:
    return Refused(f"{file} exists; edit it, or write it anew with --force.")


def told(found: Found, file: Path) -> Iterator[str]:
    """For people: what was found, what is missing, what comes next."""
    yield f"{file} is written."
    yield f"  repository  {found.repository}, branch {found.branch or 'not known'}"
    yield f"  image       {found.dockerfile or 'no Dockerfile is committed'}"
    yield f"  host        {line(found.engine or found.no_engine, 200)}"
    none = f"none of {', '.join(CODERS)} is on PATH"
    yield f"  coder       {', '.join(found.coders) or none}"
    if found.container:
        yield f"  running     {found.container.portrait.name}: {line(found.container.why)}"
    for problem in found.problems:
        yield f"  mend        {line(problem, 200)}"
    yield "Read it, then: moss doctor, moss run, moss adopt."
