"""Opening, upgrading and losing a database: every failure is one sentence with its mend."""

import asyncio
import os
import sqlite3
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from core.clock import system_clock
from core.model.errors import BadInput, MossError, Unavailable
from core.store import Store, facts, people, schema, upgrade
from core.store import inbox as letters
from core.store.engine import address, connect, for_changes, transaction
from core.store.tables import metadata
from tests.support.databases import DATABASES, HeldClock, database, empty_postgresql, opened
from tests.support.stored import DESK, with_substrate


async def refusal(url: str) -> MossError:
    with pytest.raises(MossError) as caught:
        await Store.open(url, system_clock)
    sentence = caught.value.sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "secret" not in sentence
    return caught.value


@pytest.mark.parametrize("kind", DATABASES)
async def test_the_revisions_lead_to_exactly_the_tables_of_the_code(kind: str, tmp_path: Path) -> None:
    def difference(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async with opened(kind, tmp_path) as store, store.reading() as db:
        assert await db.run_sync(difference) == []


async def test_the_revisions_lead_to_exactly_the_partial_indexes_of_the_code(tmp_path: Path) -> None:
    """Their conditions name states, and Alembic does not compare them."""

    def indexes(path: Path) -> set[str]:
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
            return {row[0] for row in rows}

    made, upgraded = tmp_path / "made.db", tmp_path / "upgraded.db"
    engine = connect(address(f"sqlite:///{made}"))
    async with engine.begin() as db:
        await db.run_sync(metadata.create_all)
    await engine.dispose()
    await upgrade(f"sqlite:///{upgraded}")
    assert indexes(made) == indexes(upgraded)
    assert sum("WHERE" in index for index in indexes(made)) == 8


@pytest.mark.parametrize("kind", DATABASES)
async def test_an_upgrade_may_be_repeated_and_keeps_what_is_there(kind: str, tmp_path: Path) -> None:
    async with database(kind, tmp_path) as url:
        store = await Store.open(url, HeldClock())
        await with_substrate(store)
        await store.close()
        assert await upgrade(url) == schema.head()
        store = await Store.open(url, HeldClock())
        async with store.reading() as db:
            assert len(await facts.chain(db, DESK)) == 1
        assert schema.head() in await store.ping()
        await store.close()


@pytest.mark.parametrize("kind", DATABASES)
async def test_what_waits_in_the_inbox_of_an_older_moss_waits_after_the_upgrade(kind: str, tmp_path: Path) -> None:
    def to_0002(connection: Connection) -> None:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")

    sqlite = nullcontext(f"sqlite:///{tmp_path}/old.db")
    async with empty_postgresql() if kind == "postgresql" else sqlite as url:
        where = address(url)
        engine = connect(where)
        async with transaction(for_changes(engine), where) as db:
            await db.run_sync(to_0002)
            row = "'paper', 'acme', 'e1', 'act x', '{\"kind\": \"reacted\"}', '2026-01-05 09:00:00'"
            await db.exec_driver_sql(f"INSERT INTO inbox (platform, workspace, event, lane, body, at) VALUES ({row})")
        await engine.dispose()
        assert await upgrade(url) == schema.head()
        store = await Store.open(url, HeldClock())
        async with store.reading() as db:
            assert await letters.waiting(db, "act ", 9) == 1
            assert not await letters.overtaken_by(db, 9, "act x", store.now())
        await store.close()


async def test_upgrades_that_start_together_all_succeed(tmp_path: Path) -> None:
    for n in range(10):  # the moment in which a new file switches its mode is short
        urls = [f"sqlite:///{tmp_path}/{n}.db"] * 3
        assert await asyncio.gather(*map(upgrade, urls)) == [schema.head()] * 3


async def test_postgresql_upgrades_that_start_together_all_succeed() -> None:
    async with empty_postgresql() as url:
        assert await asyncio.gather(*map(upgrade, [url] * 3)) == [schema.head()] * 3


async def test_a_missing_database_says_how_to_make_one_and_is_not_made_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "none" / "moss.db"
    assert "run `moss db upgrade`" in str(await refusal(f"sqlite:///{path}"))
    assert not path.parent.exists()
    await upgrade(f"sqlite:///{path}")
    await (await Store.open(f"sqlite:///{path}", system_clock)).close()


async def test_the_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "data" / "moss.db"
    old = os.umask(0)
    try:
        await upgrade(f"sqlite:///{path}")
        store = await Store.open(f"sqlite:///{path}", HeldClock())
        await with_substrate(store)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(old)
    assert modes == {"moss.db": 0o600, "moss.db-wal": 0o600, "moss.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Buy milk.\n" * 200)
    assert isinstance(await refusal(f"sqlite:///{path}"), BadInput)
    with pytest.raises(BadInput, match="not a SQLite database"):
        await upgrade(f"sqlite:///{path}")
    assert path.read_text() == "Buy milk.\n" * 200


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize(
    ("revision", "mend"), [(None, "moss db upgrade"), ("0000", "newer Moss"), ("9999", "newer Moss")]
)
async def test_a_schema_that_is_not_this_codes_is_refused(
    kind: str, revision: str | None, mend: str, tmp_path: Path
) -> None:
    async with database(kind, tmp_path) as url:
        where = address(url)
        engine = connect(where)
        async with transaction(for_changes(engine), where) as db:
            await db.execute(text("DELETE FROM alembic_version"))
            if revision:
                await db.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
        await engine.dispose()
        assert mend in str(await refusal(url))
        if revision:
            with pytest.raises(BadInput, match=revision):
                await upgrade(url)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("", BadInput),
        ("moss.db", BadInput),
        ("sqlite://", BadInput),
        ("sqlite:///:memory:", BadInput),
        ("mysql://moss:secret@127.0.0.1/moss", BadInput),
        ("postgresql://moss:secret@127.0.0.1", BadInput),
        ("postgresql://moss:secret@127.0.0.1:five/moss", BadInput),
        ("postgresql://moss:secret@127.0.0.1:1/moss", Unavailable),
        ("postgres://moss:secret@127.0.0.1:1/moss?sslmode=never", Unavailable),
        ("sqlite:////dev/null", Unavailable),
    ],
)
async def test_an_address_that_leads_nowhere_is_one_sentence_without_the_password(
    url: str, kind: type[MossError]
) -> None:
    assert isinstance(await refusal(url), kind)


async def test_a_server_that_refuses_us_is_one_sentence() -> None:
    async with empty_postgresql() as url:
        assert "moss db upgrade" in str(await refusal(url))
        gone = url.rsplit("/", 1)[0] + "/moss_test_gone"
        assert "does not exist" in str(await refusal(gone))


async def test_a_server_that_ends_our_connection_is_one_sentence_and_the_next_change_works(tmp_path: Path) -> None:
    async with opened("postgresql", tmp_path) as store:
        await with_substrate(store)
        with pytest.raises(Unavailable, match="cannot be used"):
            await _change_whose_connection_dies(store)
        await with_substrate(store, "lab")


async def _change_whose_connection_dies(store: Store) -> None:
    async with store.changing(DESK) as change, store.reading() as other:
        pid = await change.db.scalar(text("SELECT pg_backend_pid()"))
        await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        await change.db.execute(text("SELECT 1"))


async def test_a_sqlite_file_that_another_process_has_locked_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.store.engine.LOCK_WAIT_S", 0.2)
    async with database("sqlite", tmp_path) as url:
        store = await Store.open(url, HeldClock())
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await people.add(store, "anna")
        async with store.reading() as db:
            assert await people.listing(db) == []
        other.execute("ROLLBACK")
        await people.add(store, "anna")
        other.close()
        await store.close()


async def test_a_postgresql_row_that_another_process_has_locked_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.store.engine.LOCK_WAIT_S", 0.2)
    async with database("postgresql", tmp_path) as url:
        stores = [await Store.open(url, HeldClock()) for _ in range(2)]
        await with_substrate(stores[0])
        async with stores[0].changing(DESK):
            with pytest.raises(Unavailable, match="locked"):
                await with_substrate(stores[1])
        for store in stores:
            await store.close()


async def test_a_sqlite_change_takes_the_write_lock_before_it_reads(tmp_path: Path) -> None:
    """With a deferred transaction two changes read the same head, and one is lost or fails at its first write."""
    async with database("sqlite", tmp_path) as url:
        store = await Store.open(url, HeldClock())
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)
        async with store.writing():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        async with store.reading() as db:
            assert await people.listing(db) == []
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        other.close()
        await store.close()


async def test_sqlite_waits_for_the_disk_and_minds_its_foreign_keys(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as store, store.reading() as db:
        settings = {
            name: await db.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15_000}
