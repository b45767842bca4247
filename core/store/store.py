"""The store: readings, and changes that hold their substrate's lock and leave facts in its chain."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Row, Table, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from core.clock import Clock
from core.model.errors import Refused, Unavailable
from core.model.events import GENESIS, Fact, Noun
from core.store import schema
from core.store.columns import plain
from core.store.engine import LOCK_WAIT_S, Address, address, connect, for_changes, for_reading, transaction
from core.store.schema import upgrade
from core.store.tables import chains, facts

__all__ = ["NO_SUBSTRATE", "Change", "Store", "insert_once", "upgrade"]

NO_SUBSTRATE = ""
_NO_SUBSTRATE_LOCK = 7_306_081
"""Any number: the advisory lock under which PostgreSQL changes rows that belong to no substrate."""


@dataclass(slots=True)
class Change:
    """One transaction that may change one substrate. It holds the head of the chain, so no second one can fork it."""

    db: AsyncConnection
    substrate: str
    now: datetime
    seq: int
    hash: str

    def check_own(self, substrate: str) -> None:
        """What belongs to another substrate may not be written under this one's lock, nor into its chain."""
        if substrate != self.substrate:
            raise Refused(f"A change of {self.substrate} cannot write for {substrate}; open a change of {substrate}.")

    async def record(
        self,
        who: str,
        noun: Noun,
        id: str,
        what: str,
        *,
        before: str | None = None,
        after: str | None = None,
        **detail: Any,
    ) -> Fact:
        """Add the next link. `what` is in the past tense: opened, flagged, moved."""
        fact = Fact(
            substrate=self.substrate,
            seq=self.seq + 1,
            at=self.now,
            who=plain(who),
            noun=noun,
            id=plain(id),
            what=what,
            before=before,
            after=after,
            detail=detail,
            previous_hash=self.hash,
        ).sealed()
        stored = fact.model_dump(mode="json") | {"at": fact.at}
        await self.db.execute(insert(facts).values(stored))
        await self.db.execute(
            update(chains).where(chains.c.substrate == self.substrate).values(seq=fact.seq, hash=fact.hash)
        )
        self.seq, self.hash = fact.seq, fact.hash
        return fact


class Store:
    def __init__(self, where: Address, engine: AsyncEngine, clock: Clock) -> None:
        self.clock = clock
        self._where = where
        self._engine = engine
        self._reader = for_reading(engine)
        self._writer = for_changes(engine)
        # Changes of this process wait here, in order and without a connection; other processes wait in the database.
        self._turns: dict[str, asyncio.Lock] = {}
        # Of each substrate, and of everything by the name of None.
        self._changes: Counter[str | None] = Counter()
        self._changed: defaultdict[str | None, asyncio.Event] = defaultdict(asyncio.Event)

    @classmethod
    async def open(cls, url: str, clock: Clock) -> "Store":
        """Raises BadInput or Unavailable, with the mend, unless the database is there with exactly this schema."""
        where = address(url)
        if where.path is not None and not where.path.exists():
            raise Unavailable(f"There is no database at {where.shown}; run `moss db upgrade` to make one.")
        engine = connect(where)
        try:
            async with transaction(for_reading(engine), where) as db:
                await schema.check(db, where)
        except BaseException:
            await engine.dispose()
            raise
        return cls(where, engine, clock)

    async def close(self) -> None:
        await self._engine.dispose()

    async def ping(self) -> str:
        """One line: which database, which schema."""
        async with self.reading() as db:
            version = await db.scalar(select(func.sqlite_version() if self._where.path else func.version()))
        name = f"SQLite {version}" if self._where.path else str(version).split(" (")[0]
        return f"{name} at {self._where.shown}, schema {schema.head()}"

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """All statements see one state of the database."""
        async with transaction(self._reader, self._where) as db:
            yield db

    @asynccontextmanager
    async def changing(self, substrate: str) -> AsyncIterator[Change]:
        """One transaction, all or nothing. Changes of a substrate happen one after the other, whoever makes them, so
        nothing slow belongs inside: others wait, and PostgreSQL ends a change that stays idle for a minute."""
        async with self._transaction(substrate) as db:
            seq, last = await _locked_head(db, substrate)
            yield Change(db=db, substrate=substrate, now=self.now(), seq=seq, hash=last)

    async def wait_for_change(
        self, since: int, timeout_s: float, ending: asyncio.Event | None = None, *, of: str | None = None
    ) -> int:
        """How many changes this process has committed, as soon as there are more than `since`: what the last call said,
        and -1 at first. Or after the timeout, or when all ends: look after each call, since other processes tell
        nothing. `of` is a substrate whose changes alone count, or NO_SUBSTRATE."""
        if self._changes[of] <= since:
            events = [self._changed[of], *([ending] if ending else [])]
            waiting = [asyncio.create_task(event.wait()) for event in events]
            try:
                await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
        return self._changes[of]

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """As `changing`, for rows that belong to no substrate: people and leases."""
        async with self._transaction(NO_SUBSTRATE) as db:
            if db.dialect.name == "postgresql":
                await db.execute(select(func.pg_advisory_xact_lock(_NO_SUBSTRATE_LOCK)))
            yield db

    def now(self) -> datetime:
        return self.clock().astimezone(UTC)

    @asynccontextmanager
    async def _transaction(self, substrate: str) -> AsyncIterator[AsyncConnection]:
        # SQLite has one writer for everything.
        turn = self._turns.setdefault(NO_SUBSTRATE if self._where.path else substrate, asyncio.Lock())
        try:
            async with asyncio.timeout(LOCK_WAIT_S):
                await turn.acquire()
        except TimeoutError as error:
            raise Unavailable(
                f"Another change has held {self._where.shown} for {LOCK_WAIT_S:.0f} s; try again later."
            ) from error
        try:
            async with transaction(self._writer, self._where) as db:
                yield db
            for of in (substrate, None):
                self._changes[of] += 1
                self._changed.pop(of, asyncio.Event()).set()
        finally:
            turn.release()


async def _locked_head(db: AsyncConnection, substrate: str) -> tuple[int, str]:
    query = select(chains.c.seq, chains.c.hash).where(chains.c.substrate == substrate).with_for_update()
    head = (await db.execute(query)).one_or_none()
    if head is None:
        await insert_once(db, chains, substrate=substrate, seq=0, hash=GENESIS)
        head = (await db.execute(query)).one()
    return head.seq, head.hash


async def insert_new(
    db: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], key: Sequence[Column[Any]]
) -> Sequence[Row[Any]]:
    """The keys of those rows that are new; a row like one that stands there already is left out."""
    dialect = sqlite if db.dialect.name == "sqlite" else postgresql
    query = dialect.insert(table).values([dict(row) for row in rows]).on_conflict_do_nothing().returning(*key)
    return (await db.execute(query)).all()


async def insert_once(db: AsyncConnection, table: Table, **values: Any) -> Row[Any] | None:
    """The primary key of the new row, or None when a row like it stands there already."""
    dialect = sqlite if db.dialect.name == "sqlite" else postgresql
    query = dialect.insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
    return (await db.execute(query)).one_or_none()
