"""Writes docs/configuration.md from the settings' own classes: `python -m bot.configuration_doc FILE`."""

import ast
import inspect
import json
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from bot.sections import Installation
from bot.settings import Settings

HEAD = """\
# Configuration

<!-- Written by `make docs` from the classes in bot/settings.py and core/model. Not edited by hand. -->

Moss reads one file, `moss.toml`, in the directory where it is called; `moss --config FILE` or the variable
`MOSS_CONFIG` names another. Every mistake in it is reported at once, and a name that is not on this page is one.

Relative paths start at the directory of `moss.toml`, wherever Moss is called. Names that end in `_s` are seconds,
`_mb` and `_bytes` are sizes.

The environment wins over the file. `MOSS_` and the path of the setting, with two underscores between its parts, such as
`MOSS_EVOLVE__BUDGET__MONEY_USD=5`; lists and tables are written as JSON. The settings of `[moss]` need no section:
{short}. Keep the database's password there and not in the file.

Where no file is named and none is there, `moss run` works with settings of its own, and so do the other verbs in that
directory afterwards: the room, SQLite, plain processes (`MOSS_HOST=docker` for containers) and the agent of
`examples/desk`, which is copied into `moss-data/desk`, a git repository of its own. One person there may approve, the
`operator`, and another may start repairs, the `user`. Their tokens are made at the first start and shown once, on a
terminal; without one they wait in `moss-data/first-tokens.json`, which only its owner can read, and Moss says where:
remove the file when you have them. The desk rests when that Moss ends, unless a swap is under way. The coding agent is
a recording: put a real one into a `moss.toml`, or call `moss demo --coder claude`, to see a real search.

`docs/substrate.md` explains what stands below `[substrate]`, `docs/coders.md` which coding agents there are, and
`docs/coder-protocol.md` what one of your own must do.

A small file:

```toml
[substrate]
name = "desk"
repository = "/srv/desk"

[substrate.run]
port = 8080

[substrate.health]
http = "/health"

[coder]
provider = "claude"

[consent]
approvers = ["anna", "ben"]
```
"""


def page() -> str:
    short = ", ".join(f"`MOSS_{key.upper()}`" for key in Installation.model_fields)
    parts = [HEAD.format(short=short)]
    for key, field in Settings.model_fields.items():
        parts += _section(key, field, sentences(Settings).get(key, ""))
    return "\n".join(parts) + "\n"


def _section(path: str, field: FieldInfo, sentence: str) -> Iterator[str]:
    models = list(_models(field.annotation))
    if not models:
        yield f"## `[{path}]`\n\n{sentence}\n"
        return
    for model in models:
        yield from _table(path, model, sentence)


def _table(path: str, model: type[BaseModel], sentence: str) -> Iterator[str]:
    heading = "#" * min(2 + path.count("."), 4)
    about = sentence if sentence.removeprefix("Optional.") else f"{sentence} {_own_doc(model)}".strip()
    yield f"{heading} `[{path}]`\n"
    if about:
        yield f"{about}\n"
    plain: list[tuple[str, FieldInfo, list[type[BaseModel]]]] = []
    nested: list[tuple[str, FieldInfo, list[type[BaseModel]]]] = []
    for key, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        (nested if inner else plain).append((key, field, inner))
    if plain:
        yield "| name | kind | default | |\n|---|---|---|---|"
        for key, field, _ in plain:
            said = sentences(model).get(key, "").replace("|", "\\|")
            yield f"| `{key}` | {_kind(field.annotation)} | {_default(field)} | {said} |"
        yield ""
    for key, field, inner in nested:
        below = f"{path}.{key}.NAME" if typing.get_origin(field.annotation) is dict else f"{path}.{key}"
        optional = "Optional." if type(None) in typing.get_args(field.annotation) else ""
        for each in inner:
            yield from _table(below, each, " ".join(filter(None, [optional, sentences(model).get(key, "")])))


def _own_doc(model: type[BaseModel]) -> str:
    doc = model.__dict__.get("__doc__") or ""
    return " ".join(doc.split()) if not doc.startswith(("Usage docs", "!!!")) else ""


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in typing.get_args(annotation):
            yield from _models(inner)


NAMES: dict[object, str] = {
    str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", SecretStr: "secret text",
    type(None): "nothing", object: "anything",
}  # fmt: skip


def _kind(annotation: object) -> str:
    if annotation in NAMES:
        return NAMES[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(member.value) for member in annotation)
    if origin in (tuple, list, frozenset, set):
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"table of {_kind(inner[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(each) for each in inner if each is not type(None))
    if origin is typing.Annotated:
        return _kind(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return str(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, frozenset | tuple):
        return f"`{json.dumps(sorted(map(str, value)))}`"
    if isinstance(value, Enum):
        value = value.value
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


@cache
def sentences(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field, and a `description` where there is one."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base.__module__.startswith(("bot.", "core."))):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[field.target.id] = " ".join(below.value.value.split())
    for key, info in model.model_fields.items():
        if info.description:
            found.setdefault(key, info.description)
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
