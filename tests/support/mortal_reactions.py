"""A process that hears reactions and works on them, and can be killed at any moment.

`python -m tests.support.mortal_reactions ROOT`: all events of ROOT/events.jsonl are delivered from the first one on, as
a platform does that never heard of an acknowledgement; it ends when nothing is left to be done.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from bot.chat import Reacted
from bot.receive import give_up, receive
from core.clock import system_clock
from core.store.store import Store
from tests.support.chat_moss import anew, chat_moss

AT_ONCE = 50
"""Events that are written down in one transaction, as the adapters do it when many come at once."""
LIMIT_S = 1800
"""Ten thousand take four minutes on a quiet machine with two cores; tests share it."""
NO_LIMITS = "[flags]\nseal_count = 100000\nper_hour = 100000\n"


async def main(root: Path) -> None:
    events = [Reacted.model_validate_json(line) for line in (root / "events.jsonl").read_text().splitlines()]
    async with _opened(root) as store, chat_moss(store, root, config=NO_LIMITS) as here:
        moss = here.moss = anew(here.moss)
        working = asyncio.create_task(moss.inbox.work(partial(receive, moss), partial(give_up, moss), ["paper"]))
        for first in range(0, len(events), AT_ONCE):
            async with store.writing() as db:
                for event in events[first : first + AT_ONCE]:
                    await moss.inbox.add(db, event)
            moss.inbox.wake()
        async with asyncio.timeout(LIMIT_S):
            while not await here.is_idle():  # noqa: ASYNC110 - an inbox tells nobody that it is empty
                await asyncio.sleep(0.25)
        await moss.inbox.finish(1)
        await working


@contextlib.asynccontextmanager
async def _opened(root: Path) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite:///{root / 'moss.db'}", system_clock)
    try:
        yield store
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
