"""Databases as users name them: addresses, connections, and what a failure of theirs means in one sentence."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from core.model.errors import BadInput, MossError, Unavailable

LOCK_WAIT_S = 15.0
"""How long a change waits for the one before it; each takes milliseconds."""
CONNECT_S = 10.0
STATEMENT_S = 60.0
_DATA = "22"
"""How PostgreSQL's codes begin when it is there, and minds a value."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is. `shown` carries no password."""

    url: str
    shown: str
    path: Path | None
    """The file, for SQLite; None for PostgreSQL."""


def address(url: str) -> Address:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadInput(
            "The database address cannot be read; write sqlite:///path or postgresql://user@host/name."
        ) from error
    match parsed.drivername:
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:" or parsed.query:
                raise BadInput(f"The database address {url} names no file; write sqlite:///path/to/moss.db.")
            return Address(url, f"`{parsed.database}`", Path(parsed.database))
        case "postgresql" | "postgres":
            if not parsed.database:
                raise BadInput("The database address names no database; write postgresql://user@host/name.")
            where = f"{parsed.host or 'localhost'}:{parsed.port or 5432}/{parsed.database}"
            return Address(url, f"PostgreSQL `{where}`", None)
        case other:
            raise BadInput(
                f"`{other}` is no database Moss speaks; write sqlite:///path or postgresql://user@host/name."
            )


def connect(where: Address) -> AsyncEngine:
    return _sqlite(where.path) if where.path is not None else _postgresql(where.url)


def for_changes(engine: AsyncEngine) -> AsyncEngine:
    return engine.execution_options(moss_begin="BEGIN IMMEDIATE")


def for_reading(engine: AsyncEngine) -> AsyncEngine:
    """Several statements of one reading see one state. A deferred SQLite transaction gives that in any case."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _sqlite(path: Path) -> AsyncEngine:
    url = URL.create("sqlite+aiosqlite", database=str(path))
    engine = create_async_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S, "async_creator_fn": OnceStopped},
        pool_timeout=LOCK_WAIT_S,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine, "invalidate", _let_go_sqlite)
    return engine


class OnceStopped(aiosqlite.Connection):
    """When a statement is cancelled, and its clean-up too, SQLAlchemy ends the connection twice at once. Its thread
    hears only the first; the library would wait for an answer to the second for ever, and Moss with it."""

    def __init__(self, *where: Any, **how: Any) -> None:
        super().__init__(partial(sqlite3.connect, *where, **how), iter_chunk_size=64)
        self._thread.daemon = True
        self._stopped = False

    def stop(self) -> asyncio.Future[Any] | None:
        if self._stopped:
            return None
        self._stopped = True
        return super().stop()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Left to itself the driver begins a transaction only before a write, and never an immediate one. Without an
    # isolation level it begins nothing, and `_begin_sqlite` says what is really meant.
    connection.isolation_level = None
    cursor = connection.cursor()
    # The file remembers this mode. Only the first switch needs the file alone and does not wait for that; whoever
    # comes too early works without, and the next connection switches.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL may lose the last commits with the power. A lost vote or a lost move of a swap whose container has
    # already moved cannot be won back, so every commit waits for the disk.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("moss_begin", "BEGIN"))


def _let_go_sqlite(connection: Any, _record: object, _problem: object) -> None:
    """A change that is cancelled within a statement: the statement lives on in the traceback, and the closed connection
    with it, so that the file would stay locked until Python collects its garbage."""
    with suppress(Exception):  # it is closed next, whatever comes of this
        connection.rollback()


def _postgresql(url: str) -> AsyncEngine:
    try:
        import asyncpg  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 (an extra: needed here only)
    except ImportError as error:
        raise Unavailable("PostgreSQL needs a driver; install `moss-bot[postgres]`.") from error
    # asyncpg reads the address itself, since SQLAlchemy does not know every part of it (`sslmode`, say).
    creator = partial(
        asyncpg.connect,
        url,
        timeout=CONNECT_S,
        command_timeout=STATEMENT_S + CONNECT_S,  # for a network that died; a slow statement ends earlier, by itself
        server_settings={
            "application_name": "moss",
            "statement_timeout": f"{STATEMENT_S:.0f}s",
            "lock_timeout": f"{LOCK_WAIT_S * 1000:.0f}ms",
            "idle_in_transaction_session_timeout": f"{STATEMENT_S:.0f}s",
        },
    )
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        pool_pre_ping=True,
        pool_timeout=LOCK_WAIT_S,
        hide_parameters=True,  # they hold what people said, and an error goes into the log
    )


@asynccontextmanager
async def transaction(engine: AsyncEngine, where: Address) -> AsyncIterator[AsyncConnection]:
    """Commits at its end, or changes nothing. Failures of the database become sentences, on the way in and later."""
    async with AsyncExitStack() as stack:
        try:
            db = await stack.enter_async_context(engine.connect())
        except NoFreeConnection as error:
            raise Unavailable(f"{where.shown} has no free connection; try again when Moss is less busy.") from error
        except Exception as error:  # drivers raise many kinds here, and nothing but connecting has happened yet
            raise unavailable(where, error) from error
        try:
            async with db.begin():
                yield db
        except (IntegrityError, ProgrammingError, DataError):
            raise  # broken constraints and wrong statements are our own faults
        except DBAPIError as error:
            if str(getattr(error.orig, "sqlstate", "")).startswith(_DATA):
                sentence = f"{where.shown} cannot keep what was to be written; leave out what is no text."
                raise BadInput(sentence) from error
            raise unavailable(where, error) from error


def unavailable(where: Address, error: Exception) -> MossError:
    """The sentence for a failure of the database itself."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
    if "file is not a database" in said:
        return BadInput(f"{where.shown} is not a SQLite database; name another file, or move this one away.")
    if "malformed" in said:
        return Unavailable(f"{where.shown} is damaged ({said}); restore it from a copy.")
    if "database is locked" in said or getattr(cause, "sqlstate", None) == "55P03":
        return Unavailable(
            f"{where.shown} has been locked for {LOCK_WAIT_S:.0f} s; end the process that holds it, and try again."
        )
    if where.path is not None:
        return Unavailable(f"{where.shown} cannot be used ({said}); check its path, permissions and free space.")
    return Unavailable(f"{where.shown} cannot be used ({said}); check the address, and that the server runs.")
