"""Equal values have equal text and equal digests: in every process, and after they were written down and read again."""

import importlib
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator

import core.model
from core.model.evidence import FailureKind
from core.model.keypoints import Task, TaskKind
from core.model.transcript import Message, Transcript
from core.model.value import Value
from tests.support.world import ROOT

DIGEST = """
from core.model.evidence import FailureKind
from core.model.keypoints import Task, TaskKind
from core.model.transcript import Message, Transcript
asked = Transcript(messages=(Message(role="user", content="Refund?"),))
print(Task(id="t", kind=TaskKind.batch, transcript=asked, kinds=frozenset(FailureKind)).digest())
"""


def test_a_digest_is_the_same_in_every_process() -> None:
    found = set()
    for seed in range(6):
        said = subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=ROOT, env={"PYTHONHASHSEED": str(seed)}, capture_output=True, check=True
        )
        found.add(said.stdout)
    assert len(found) == 1


def test_a_set_comes_back_as_it_was_and_in_order() -> None:
    asked = Transcript(messages=(Message(role="user", content="Refund?"),))
    task = Task(id="t", kind=TaskKind.batch, transcript=asked, kinds=frozenset(FailureKind))
    again = Task.model_validate_json(task.to_json())
    assert (again, again.digest()) == (task, task.digest())
    assert task.model_dump(mode="json")["kinds"] == sorted(FailureKind)


def test_no_value_holds_a_set_whose_text_differs_from_process_to_process() -> None:
    for value in values():
        for name, field in value.model_fields.items():
            for inner in parts(field.annotation):
                kept = any(type(mark).__name__ == "PlainSerializer" for mark in field.metadata)
                assert typing.get_origin(inner) not in (set, frozenset) or kept, f"{value.__name__}.{name}"


def values() -> Iterator[type[Value]]:
    for module in pkgutil.iter_modules(core.model.__path__):
        for found in vars(importlib.import_module(f"core.model.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, Value):
                yield found


def parts(annotation: object) -> Iterator[object]:
    yield annotation
    for inner in typing.get_args(annotation):
        yield from parts(inner)
