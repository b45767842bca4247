"""The examples with every name in them changed: customers, engineers, parts, warehouses, ticket numbers.

A tree in which `bot`, `core` and `flags` are the real ones and `examples` is the changed copy, so that a Moss that is
started from it finds those and knows nothing else.
"""

import json
import re
import shutil
from pathlib import Path

from tests.support.world import ROOT

CODE = ("bot", "core", "flags")


def names() -> dict[str, str]:
    """Old name -> new name. Their order in the alphabet stays, since the desk sorts by it."""
    data = json.loads((ROOT / "examples/desk/data/desk.json").read_text())
    renamed = {}
    for sort, kind in (("customers", "Quorl"), ("engineers", "Vex"), ("parts", "zimmet")):
        old = sorted(one["name"] for one in data[sort])
        renamed |= {name: f"{kind} {number:02} {'aeiou'[number % 5] * 3}" for number, name in enumerate(old, start=10)}
    return renamed | {"north": "upstairs", "south": "yonder"}


def renamed_tree(target: Path) -> Path:
    target.mkdir()
    for name in CODE:
        (target / name).symlink_to(ROOT / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples", target / "examples", ignore=ignored)
    changes = names()
    old = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(changes, key=len, reverse=True)))
    for file in (target / "examples").rglob("*"):
        if file.is_file():
            text = old.sub(lambda found: changes[found[0]], file.read_text())
            file.write_text(re.sub(r"\b([Tt])-([01]\d{3})\b", r"\1-8\2", text))
    return target
