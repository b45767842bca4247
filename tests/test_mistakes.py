"""Mistakes that pydantic finds, told in our words: each kind that a field of ours can meet."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from core.model.mistakes import in_words

SECRET = "a-very-secret-value"


class Level(StrEnum):
    low = "low"
    high = "high"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Everything(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = Field(default="a", min_length=1, max_length=3, pattern="^[a-z]+$")
    count: int = Field(default=1, ge=1, le=9)
    share: float = Field(default=0.5, gt=0, lt=1, allow_inf_nan=False)
    on: bool = True
    level: Level = Level.low
    path: Path = Path(".")
    names: tuple[str, ...] = Field(default=("a",), min_length=1, max_length=2)
    people: frozenset[str] = frozenset()
    table: dict[str, str] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    at: AwareDatetime | None = None
    own: str = ""

    @field_validator("own")
    @classmethod
    def _own(cls, value: str) -> str:
        if value:
            raise ValueError("is taken already; choose another.")
        return value


CASES: list[tuple[str, Any, str]] = [
    ("text", 3, "should be a text in quotes"),
    ("text", "", "is empty; fill it in"),
    ("text", "abcd", "is too long; 3 is the most"),
    ("text", "A", "should match `^[a-z]+$`"),
    ("count", SECRET, "should be a whole number"),
    ("count", 1.5, "should be a whole number"),
    ("count", [], "should be a whole number"),
    ("count", "9" * 5000, "should be a smaller whole number"),
    ("count", 0, "should be at least 1"),
    ("count", 10, "should be at most 9"),
    ("share", SECRET, "should be a number"),
    ("share", 0, "should be greater than 0"),
    ("share", 1, "should be less than 1"),
    ("share", float("nan"), "should be a finite number"),
    ("on", SECRET, "should be true or false"),
    ("level", SECRET, "should be 'low' or 'high'"),
    ("path", 3, "should be a path in quotes"),
    ("names", SECRET, "should be a list"),
    ("names", [], "is empty; fill it in"),
    ("names", ["a", "b", "c"], "is too long; 2 is the most"),
    ("people", SECRET, "should be a list"),
    ("table", SECRET, "should be a table of names and values"),
    ("pet", SECRET, "should be a table of names and values"),
    ("pet", {"kind": SECRET}, "should be of the kind 'cat', 'dog'"),
    ("at", "2026-01-05T09:00:00", "should be a time with its zone, such as 2026-01-05T09:00:00Z"),
    ("at", SECRET, "should be a time, such as 2026-01-05T09:00:00Z"),
    ("own", SECRET, "is taken already; choose another"),
    ("unknown", SECRET, "is not known here; remove it, or correct its name"),
]


@pytest.mark.parametrize(("field", "value", "words"), CASES, ids=[f"{field}-{words}" for field, _, words in CASES])
def test_a_mistake_is_told_with_its_mend_and_never_with_the_value(field: str, value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as problem:
        Everything.model_validate({field: value})
    told = [in_words(error) for error in problem.value.errors()]
    assert told[-1] == words
    assert SECRET not in " ".join(told)


def test_what_is_missing_and_what_is_no_json_is_told() -> None:
    with pytest.raises(ValidationError) as problem:
        Cat.model_validate({})
    assert in_words(problem.value.errors()[0]) == "is missing; add it"
    with pytest.raises(ValidationError) as problem:
        Cat.model_validate_json("{")
    assert in_words(problem.value.errors()[0]).startswith("is not JSON: ")
