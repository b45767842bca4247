"""The data directory: private, with the id of the installation in it, and held by one running Moss at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from core.model.errors import BadInput, Busy
from core.model.value import new_id


def installation(data: Path) -> str | None:
    """The id of the Moss that lives here; it stands on everything it makes."""
    try:
        return (data / "installation").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def prepare(data: Path) -> str:
    """Make the directory where there is none, and the id of the installation. Two at once come to the same id."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # somebody else's, and open to us: `moss doctor` says so
            data.chmod(0o700)
        fresh = data / f"installation-{os.getpid()}"
        fresh.write_text(new_id("moss"), encoding="ascii")
        with contextlib.suppress(FileExistsError):
            os.link(fresh, data / "installation")
        fresh.unlink()
    except OSError as problem:
        raise BadInput(
            f"The data directory {data} cannot be used: {problem.strerror}; name another as `data` in [moss]."
        ) from None
    if owner := installation(data):
        return owner
    raise BadInput(f"{data / 'installation'} is empty or unreadable; remove it.")


@contextlib.contextmanager
def alone(data: Path) -> Iterator[None]:
    """The kernel lets go when the process dies, however it dies."""
    with (data / "moss.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read(20).strip() or "unknown"
            raise Busy(f"A Moss runs on {data} already, process {pid}; end it first, or name another `data`.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
