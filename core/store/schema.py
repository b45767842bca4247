"""The schema's age: bringing a database up to it, and refusing one that is older or newer than this code."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import BadInput, MossError, Unavailable
from core.store.engine import Address, address, connect, for_changes, transaction, unavailable

_UPGRADES = 7_306_080
"""Any number: the advisory lock under which PostgreSQL is upgraded by one process at a time."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "core.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def head() -> str:
    """The revision this code needs."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


def _known() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _too_new(where: Address, revision: str) -> MossError:
    return BadInput(f"{where.shown} has schema {revision}, which this Moss does not know; install a newer Moss.")


async def check(db: AsyncConnection, where: Address) -> None:
    revision = await db.run_sync(_revision)
    if revision == head():
        return
    if revision is not None and revision not in _known():
        raise _too_new(where, revision)
    has = "no tables of Moss yet" if revision is None else f"schema {revision} where {head()} is needed"
    raise Unavailable(f"{where.shown} has {has}; run `moss db upgrade`.")


async def upgrade(url: str) -> str:
    """Bring the database to this code's schema, all or nothing; makes the file of a SQLite database. Its revision."""
    where = address(url)
    if where.path is not None:
        try:
            _make_private(where.path)
        except OSError as error:
            raise unavailable(where, error) from error
    engine = connect(where)
    try:
        async with transaction(for_changes(engine), where) as db:
            if db.dialect.name == "postgresql":
                await db.execute(select(func.pg_advisory_xact_lock(_UPGRADES)))
            await db.run_sync(_upgrade, where)
    finally:
        await engine.dispose()
    return head()


def _make_private(path: Path) -> None:
    """The file holds what people said: nobody but its owner reads it. Its log files take over its mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)


def _upgrade(connection: Connection, where: Address) -> None:
    revision = _revision(connection)
    if revision is not None and revision not in _known():
        raise _too_new(where, revision)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
