"""docs/substrate.md says what the code does: every setting with its default, and examples that are true."""

import json
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.model.evidence import FailureKind
from core.model.keypoints import TaskKind
from core.model.replies import Evaluation
from core.model.substrate import ALWAYS_PROTECTED, Health, Replay, Substrate
from core.model.transcript import Message
from core.pipeline import tasks
from core.turn import read, request

PAGE = (Path(__file__).parents[1] / "docs" / "substrate.md").read_text()


def sections() -> dict[str, type[BaseModel]]:
    """`substrate.build` -> Build, for the substrate and each of its parts."""
    found: dict[str, type[BaseModel]] = {"substrate": Substrate}
    for name, field in Substrate.model_fields.items():
        if part := part_of(field):
            found[f"substrate.{name}"] = part
    return found


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    union = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
    for kind in typing.get_args(field.annotation) if union else (field.annotation,):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def rows(section: str) -> dict[str, str]:
    """Name -> default, from the table of a section."""
    body = PAGE.split(f"### `[{section}]`", 1)[1].split("\n### ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", body.replace("| |", "|  |"), re.MULTILINE))


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


@pytest.mark.parametrize(("section", "model"), sections().items(), ids=sections().keys())
def test_every_setting_is_named_with_its_default(section: str, model: type[BaseModel]) -> None:
    plain = {name: field for name, field in model.model_fields.items() if not part_of(field)}
    assert rows(section) == {name: default_of(field) for name, field in plain.items()}


def test_no_section_is_named_that_does_not_exist() -> None:
    assert set(re.findall(r"^### `\[(.+)\]`$", PAGE, re.MULTILINE)) == set(sections())


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_example_of_settings_is_one() -> None:
    assert len(blocks("toml")) >= 7
    for block in blocks("toml"):
        written: dict[str, Any] = tomllib.loads(block)["substrate"]
        whole = {"name": "desk", "repository": "/srv/git/desk", "health": {"http": "/health"}, **written}
        Substrate.model_validate(whole)


def test_every_example_of_tasks_is_one(tmp_path: Path) -> None:
    block = next(block for block in blocks("json") if block.startswith('{"id"'))
    path = tmp_path / "tasks.jsonl"
    path.write_text(block)
    found = tasks.load_tasks([path])
    assert {task.kind for task in found} == {TaskKind.golden, TaskKind.safety, TaskKind.holdout}


def example(*keys: str) -> Any:
    found = [json.loads(block) for block in blocks("json") if not block.startswith('{"id"')]
    return next(one for one in found if set(keys) <= set(one))


def test_the_example_of_a_request_is_what_moss_sends() -> None:
    shown = example("messages", "user")
    so_far = [Message.model_validate(message) for message in shown["messages"][:-1]]
    assert request(Replay(), so_far, shown["messages"][-1]["content"], shown["user"]).body == shown


def test_the_example_of_a_trace_is_read() -> None:
    calls = read(Replay(), json.dumps(example("moss_trace")).encode()).tool_calls
    assert [call.name for call in calls] == ["tickets.search", "sla.check"]


def test_the_examples_of_the_grader_are_what_it_gets_and_gives() -> None:
    assert set(example("task", "transcript", "keypoints")["task"]) == set(tasks.Task.model_fields)
    given = [json.loads(block) for block in blocks("json") if block.startswith('{\n  "keypoints"')]
    assert len(Evaluation.model_validate(given[0]).keypoints) == 2


def test_the_heartbeat_example_has_what_the_probe_wants() -> None:
    assert set(example("beat")) == {"boot_id", "beat"}


def test_lists_on_the_page_are_complete() -> None:
    assert [path for path in ALWAYS_PROTECTED if f"`{path}`" not in PAGE] == []
    assert [kind for kind in FailureKind if f"`{kind}`" not in PAGE] == []
    assert [probe for probe in ("http", "heartbeat", "commands", "canary") if probe not in Health.model_fields] == []
    assert str(tasks._MATCHED_CHARS) in PAGE


def test_every_entry_of_its_contents_leads_to_a_heading() -> None:
    headings = {
        re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
