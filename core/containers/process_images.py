"""Images of a process host: read-only directories named after what is in them and what is said about them."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.containers.content import digest
from core.folders import clear
from core.model.errors import NotFound, Refused

ABOUT = "image.json"
TREE = "tree"
_GONE, _BUILDING = "gone-", "building-"


def directory_of(images: Path, image: str) -> Path:
    kind, _, content = image.partition(":")
    if kind != "sha256" or not content.isalnum():
        raise NotFound(f"`{image}` names no image of this host; give its `sha256:...`.")
    return images / f"sha256-{content}"


def labels_of(images: Path, image: str) -> dict[str, str] | None:
    try:
        about = json.loads((directory_of(images, image) / ABOUT).read_text())
    except (FileNotFoundError, NotFound):
        return None
    return {str(name): str(value) for name, value in about["labels"].items()}


def listed(images: Path) -> list[str]:
    return [path.name.replace("-", ":", 1) for path in sorted(images.glob("sha256-*"))]


@contextlib.contextmanager
def building(images: Path) -> Iterator[Path]:
    """A directory to build in. It is locked, so that what a killed Moss left can be told from what still grows."""
    images.mkdir(parents=True, exist_ok=True)
    sweep(images)
    place = images / f"{_BUILDING}{secrets.token_hex(8)}"
    place.mkdir()
    handle = os.open(place, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield place
    finally:
        clear(place)
        os.close(handle)


def finish(images: Path, place: Path, labels: Mapping[str, str]) -> str:
    """The place where it was built becomes the image, at once or not at all."""
    image = digest(place / TREE, labels)
    (place / ABOUT).write_text(json.dumps({"labels": dict(labels)}))
    for path in (place / TREE, *(place / TREE).rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    target = directory_of(images, image)
    try:
        place.rename(target)
    except OSError:
        if not target.exists():
            raise
    return image


def copy(images: Path, image: str, target: Path) -> None:
    """A copy to be altered at will; refused when somebody altered the image itself."""
    source, labels = directory_of(images, image) / TREE, labels_of(images, image)
    if labels is None:
        raise NotFound(f"The image `{image}` is not on this host; build it again.")
    if digest(source, labels) != image:
        raise Refused(f"The image `{image}` was altered on the disk, and does not run any more; build it again.")
    clear(target)
    shutil.copytree(source, target, symlinks=True)
    _make_writable(target)


def remove(images: Path, image: str) -> None:
    gone = images / f"{_GONE}{secrets.token_hex(8)}"
    with contextlib.suppress(FileNotFoundError):
        directory_of(images, image).rename(gone)
        clear(gone)


def sweep(images: Path) -> None:
    for path in [*images.glob(f"{_GONE}*"), *images.glob(f"{_BUILDING}*")]:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                clear(path)
            finally:
                os.close(handle)


def _make_writable(tree: Path) -> None:
    tree.chmod(0o700)
    for folder, folders, names in os.walk(tree):  # from the top: a closed directory cannot be looked into
        for path in (Path(folder) / name for name in [*folders, *names]):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o200))
