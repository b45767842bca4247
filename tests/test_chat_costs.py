"""What a reaction, a message and a question cost does not grow with what Moss keeps of the year before."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy.event import listen

from core.clock import system_clock
from tests.support.chat_moss import chat_moss
from tests.support.databases import opened
from tests.support.paper_chat import PAPER

GROWING = ("inbox", "turns", "posts", "chunks", "flags", "facts", "marks")


def reads_all(step: str) -> bool:
    """An index of what waits is short; all of a platform is nearly all there is."""
    whole = any(step.startswith(f"SCAN {table}") for table in GROWING) and "INDEX ix_inbox_" not in step
    return whole or step.endswith("(platform=?)")


async def test_no_table_that_grows_is_read_from_end_to_end(tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        asked.setdefault(statement, parameters)

    async with opened("sqlite", tmp_path, system_clock) as store, chat_moss(store, tmp_path) as chat:
        reply = await chat.reply()
        listen(store._engine.sync_engine, "before_cursor_execute", note)
        await chat.did(
            chat.reacted(reply),
            chat.reacted(reply, added=False),
            chat.reacted("of-nobody"),
            chat.said("reason: It is 30 days.", PAPER.model_copy(update={"thread": "t"})),
            chat.said("Good morning."),
        )
        path = store._where.path
        assert path is not None
    scans = []
    with sqlite3.connect(path) as db:
        for statement, parameters in asked.items():
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                scans += [f"{step}: {statement}" for step in plan if reads_all(step)]
    assert len(asked) > 15
    assert scans == []
