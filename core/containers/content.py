"""The digest of a tree of files and of what is said about it."""

import json
import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path


def digest(tree: Path, labels: Mapping[str, str]) -> str:
    """Of everything but times and owners."""
    content = sha256(json.dumps(sorted(labels.items())).encode())
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            entry = [str(path.relative_to(tree)), stat.S_IFMT(mode)]
            if stat.S_ISLNK(mode):
                entry.append(os.readlink(path))
            elif stat.S_ISREG(mode):
                entry += [bool(mode & 0o100), sha256(path.read_bytes()).hexdigest()]
            content.update(json.dumps(entry).encode())
    return f"sha256:{content.hexdigest()}"
