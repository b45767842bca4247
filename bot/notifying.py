"""The agent hears of its own evolution: each notice is posted to its webhook, in order, until it took it.

A notice may arrive twice, since Moss may die between the agent's answer and the note of it; its `id` tells that.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import httpx
import structlog

from bot.patience import rest
from core.model.errors import MossError
from core.model.substrate import Substrate, Webhook
from core.store import marks, notices
from core.store.notices import Notice
from core.store.store import Store

log = structlog.get_logger(__name__)

LIMIT_S = 10.0
LOOK_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
KEPT = timedelta(days=1)
"""A notice that nobody took for so long is left out: by then it is no news."""
AT_ONCE = 100

Variable = Callable[[str], str | None]


class Notifier:
    """The notices of one agent."""

    def __init__(self, store: Store, substrate: Substrate, webhook: Webhook, variable: Variable) -> None:
        self._store = store
        self._name = substrate.name
        self._webhook = webhook
        self._variable = variable
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`. What nobody took by then is told after the next start."""
        changes, pause_s = -1, FIRST_PAUSE_S
        async with httpx.AsyncClient(timeout=LIMIT_S, follow_redirects=False, trust_env=False) as client:
            while not self._ending.is_set():
                try:
                    if await self._round(client):
                        pause_s = FIRST_PAUSE_S
                        changes = await self._store.wait_for_change(changes, LOOK_S, self._ending, of=self._name)
                        continue
                except MossError as problem:
                    log.warning("notices wait", substrate=self._name, why=problem.sentence)
                await rest(self._ending, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def stop(self) -> None:
        self._ending.set()

    async def _round(self, client: httpx.AsyncClient) -> bool:
        """Whether all there was is told."""
        async with self._store.reading() as db:
            mark = await marks.get(db, self._mark)
            unread = await notices.since(db, self._name, mark, AT_ONCE) if mark is not None else []
        if mark is None:  # what happened before anybody listened is no news
            async with self._store.writing() as db:
                await marks.put(db, self._store.now(), self._mark, await notices.latest(db, self._name))
            return True
        for notice in unread:
            if not await self._told(client, notice):
                if self._store.now() - notice.at < KEPT:
                    return False
                log.warning("the agent never heard of it", substrate=self._name, notice=notice.id, kind=notice.kind)
            async with self._store.writing() as db:
                await marks.put(db, self._store.now(), self._mark, notice.id)
        return len(unread) < AT_ONCE

    async def _told(self, client: httpx.AsyncClient, notice: Notice) -> bool:
        body = {
            "id": notice.id,
            "substrate": notice.substrate,
            "kind": notice.kind,
            "subject": notice.subject,
            "text": notice.text,
            "at": notice.at.isoformat(),
            "detail": notice.detail,
        }
        headers = {}
        if self._webhook.token_from and (token := self._variable(self._webhook.token_from)):
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with client.stream("POST", self._webhook.url, json=body, headers=headers) as answer:
                if answer.is_success:  # what it says besides is not read
                    return True
                why = f"it answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            why = type(problem).__name__
        log.warning("the agent did not take a notice", substrate=self._name, notice=notice.id, why=why)
        return False

    @property
    def _mark(self) -> str:
        return f"notices:{self._name}"
