"""A Moss that dies between two lines, within one process: from that moment on nothing it does reaches the store or the
chat, as after SIGKILL. What it had in memory is to be thrown away by whoever lets it live again."""

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from core.store import Store
from tests.support.chat_moss import ChatMoss


class Killed(BaseException):
    pass


@dataclass
class Death:
    at: int
    """At which moment: just before or just after something becomes durable, or is seen by people. 0 is never."""
    moments: int = 0
    dead: bool = False

    def moment(self, _what: str = "") -> None:
        self.check()
        self.moments += 1
        if self.moments == self.at:
            self.dead = True
            raise Killed

    def check(self) -> None:
        if self.dead:
            raise Killed


@contextmanager
def dying(chat: ChatMoss, at: int) -> Iterator[Death]:
    death = Death(at)
    transaction, reading = Store._transaction, Store.reading

    @asynccontextmanager
    async def transacting(self: Store, substrate: str) -> AsyncIterator[Any]:
        death.check()
        async with transaction(self, substrate) as db:
            yield db
            death.moment()
        death.moment()

    @asynccontextmanager
    async def looking(self: Store) -> AsyncIterator[Any]:
        death.check()
        async with reading(self) as db:
            yield db

    Store._transaction, Store.reading = transacting, looking  # type: ignore[method-assign,assignment]
    chat.chat.before = chat.chat.after = death.moment
    try:
        yield death
    finally:
        Store._transaction, Store.reading = transaction, reading  # type: ignore[method-assign]
        chat.chat.before = chat.chat.after = lambda what: None


async def worked_with_a_death(chat: ChatMoss, at: int) -> bool:
    """Work until nothing is left, dying once on the way; whether it came to that."""
    with dying(chat, at) as death, suppress(Killed):
        await chat.work()
    if death.dead:
        gc.collect()  # what the dead one left must not be tidied up in the middle of something else
        chat.restart()
        await chat.work()
    return death.dead
