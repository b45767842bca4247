"""The kinds of columns: words, times and values, the same on every database."""

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import JSON, DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator


def plain(words: str) -> str:
    """PostgreSQL refuses NUL in a text, and nobody can encode half a surrogate pair; a program's output has both."""
    return words.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def plain_in(value: Any) -> Any:
    """The same for every text in what JSON holds: for what PostgreSQL looks into, and for what comes from outside."""
    match value:
        case str():
            return plain(value)
        case dict():
            return {plain(str(name)): plain_in(each) for name, each in value.items()}
        case list() | tuple():
            return [plain_in(each) for each in value]
        case _:
            return value


class Words(TypeDecorator[str]):
    """A text. Whoever wrote it: an id, a name and an emoji come from outside as well."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else plain(value)


class Utc(TypeDecorator[datetime]):
    """An aware time. SQLite has no time zones: there it is stored as UTC without saying so."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Holds(TypeDecorator[Any]):
    """A pydantic value, or a plain type pydantic knows, as JSON."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return self._adapter.dump_python(value, mode="json")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return self._adapter.validate_python(value)
