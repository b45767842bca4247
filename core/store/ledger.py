"""The ledger: what was spent, line by line. Only added to; every budget, cap and figure is a sum over it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.run import Spend
from core.model.spending import Line
from core.store.store import Store
from core.store.tables import ledger


async def add(store: Store, lines: Sequence[Line]) -> None:
    """All or none, at this moment."""
    async with store.writing() as db:
        now = store.now()
        await db.execute(insert(ledger), [{**line.model_dump(), "at": now} for line in lines])


async def lines(db: AsyncConnection, run: str) -> list[Line]:
    """Of one run, oldest first."""
    rows = await db.execute(select(ledger).where(ledger.c.run == run).order_by(ledger.c.id))
    return [Line.model_validate({name: row._mapping[name] for name in Line.model_fields}) for row in rows]


async def of_run(db: AsyncConnection, run: str) -> Spend:
    return await _sum(db, ledger.c.run == run)


async def of_step(db: AsyncConnection, run: str, n: int) -> Spend:
    """However often it was begun."""
    return await _sum(db, ledger.c.run == run, ledger.c.n == n)


async def of_question(db: AsyncConnection, question: str) -> Spend:
    return await _sum(db, ledger.c.question == question)


async def of_substrate(db: AsyncConnection, substrate: str, since: datetime) -> Spend:
    return await _sum(db, ledger.c.substrate == substrate, ledger.c.at >= since)


async def by_stage(db: AsyncConnection, run: str) -> dict[str, Spend]:
    """In the order in which the stages were begun."""
    query = select(ledger.c.stage, *_SUMS).where(ledger.c.run == run).group_by(ledger.c.stage)
    rows = (await db.execute(query.order_by(func.min(ledger.c.id)))).all()
    return {row.stage: _spend(row) for row in rows}


def month_of(moment: datetime) -> datetime:
    """When the month began, in UTC, as the store tells the time."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


_SUMS = tuple(
    func.coalesce(func.sum(column), 0).label(column.name)
    for column in (ledger.c.money_usd, ledger.c.tokens, ledger.c.unpriced_tokens)
)


async def _sum(db: AsyncConnection, *where: ColumnElement[bool]) -> Spend:
    return _spend((await db.execute(select(*_SUMS).where(*where))).one())


def _spend(row: Row[Any]) -> Spend:
    """Without seconds: how long a run took is the time of its steps."""
    return Spend(
        money_usd=float(row.money_usd), tokens=int(row.tokens), unpriced_tokens=max(int(row.unpriced_tokens), 0)
    )
