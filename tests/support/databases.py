"""Real databases for tests: a SQLite file or a PostgreSQL database that is the test's alone, at the current schema.

@pytest.fixture(params=DATABASES)
async def store(request, tmp_path):
    async with opened(request.param, tmp_path) as store:
        yield store
"""

import asyncio
import atexit
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core.clock import Clock
from core.store import Store, schema, upgrade
from core.store.tables import metadata
from tests.support.needs import POSTGRES_URL

DATABASES = ("sqlite", "postgresql")

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


class HeldClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: datetime = START) -> None:
        self.time = start

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@asynccontextmanager
async def database(kind: str, directory: Path) -> AsyncIterator[str]:
    """The address, as a user would write it, of an upgraded and empty database."""
    if kind == "sqlite":
        path = directory / f"{uuid.uuid4().hex}.db"
        shutil.copyfile(await _sqlite_template(directory), path)
        yield f"sqlite:///{path}"
        return
    name = _spare.pop() if _spare else await _create_upgraded()
    try:
        yield _url(name)
    finally:
        if await _cleaned(name):
            _spare.append(name)
        else:
            await _drop(name)


@asynccontextmanager
async def empty_postgresql() -> AsyncIterator[str]:
    """A PostgreSQL database without tables, dropped afterwards."""
    name = await _create()
    try:
        yield _url(name)
    finally:
        await _drop(name)


@asynccontextmanager
async def opened(kind: str, directory: Path, clock: Clock | None = None) -> AsyncIterator[Store]:
    async with database(kind, directory) as url:
        store = await Store.open(url, clock or HeldClock())
        try:
            yield store
        finally:
            await store.close()


_templates: dict[str, Path] = {}


async def _sqlite_template(directory: Path) -> Path:
    """An upgraded file, made once per session of tests: copying it is much faster than making it again."""
    if "sqlite" not in _templates or not _templates["sqlite"].exists():
        path = directory / "template.db"
        await upgrade(f"sqlite:///{path}")
        _templates["sqlite"] = path
    return _templates["sqlite"]


_spare: list[str] = []
"""Upgraded PostgreSQL databases that no test uses. Emptying one is much faster than making another."""


@atexit.register
def _drop_spares() -> None:
    for name in _spare:
        asyncio.run(_drop(name))


def _url(name: str) -> str:
    return urlsplit(POSTGRES_URL)._replace(path=f"/{name}").geturl()


async def _create() -> str:
    """Skips the test when no server is named, and fails it in CI."""
    if not POSTGRES_URL:
        reason = "MOSS_TEST_POSTGRES names no server, such as postgresql://user@host/db"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    name = f"moss_test_{uuid.uuid4().hex}"
    await _run(POSTGRES_URL, f"CREATE DATABASE {name}")
    return name


async def _create_upgraded() -> str:
    name = await _create()
    await upgrade(_url(name))
    return name


async def _drop(name: str) -> None:
    await _run(POSTGRES_URL, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _cleaned(name: str) -> bool:
    """Whether the database is empty again, and at the current schema."""
    ours = [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
    try:
        version = await _run(
            _url(name),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            "DROP SCHEMA IF EXISTS dbos CASCADE",
            *ours,
            "SELECT version_num FROM alembic_version",
        )
    except Exception:  # whatever a test did to it, the next test gets another
        return False
    return version == schema.head()


async def _run(url: str, *statements: str) -> object:
    """The first value of the last statement."""
    import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415 (an extra: SQLite is tested without it)

    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()
