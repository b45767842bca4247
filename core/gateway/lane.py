"""One question's way to its model: a token, what may be spent on it, what was spent, what was refused."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import structlog

from core.coders.coder import Account, Api
from core.gateway.apis import No
from core.gateway.prices import Price
from core.gateway.usage import Usage
from core.model.run import Spend

_log = structlog.get_logger(__name__)

CALLS = 8
"""At once, of one question."""
LANE_CONNECTIONS = 32
"""At once, of one question, so that those of others find room."""
TOLD = 20
"""So many refusals are told in a minute, in words; all are counted."""


@dataclass(slots=True)
class Refusals:
    """What was not let through. Whoever floods the gateway does not flood the log."""

    of: dict[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    count: int = 0
    told: list[str] = field(default_factory=list)
    _since: float = -60.0
    _in_a_row: int = 0

    def add(self, status: int, method: str, path: str, why: str) -> None:
        self.count += 1
        now = time.monotonic()
        if now - self._since >= 60:
            self._since, self._in_a_row = now, 0
        self._in_a_row += 1
        if self._in_a_row > TOLD:
            return
        shown, why = self.shown(f"{method[:10]} {path[:150]}"), self.shown(why)
        self.told = [*self.told[-TOLD:], f"{shown}: {why}"]
        _log.warning("gateway refused", status=status, asked=shown, why=why, count=self.count, **self.of)

    def shown(self, said: str) -> str:
        """What a program said, fit for a log."""
        plain = "".join(each if " " <= each < "\x7f" else "?" for each in said)
        return plain.replace(self.secret, "[token]") if self.secret else plain


@dataclass(slots=True)
class Purse:
    """What the questions of one substrate share while they are asked side by side."""

    spent: Spend = field(default_factory=Spend)
    tokens_under_way: int = 0
    money_under_way: float = 0.0
    lanes: "set[GatewayLane]" = field(default_factory=set)


@dataclass(slots=True, eq=False)
class GatewayLane:
    """A Lane."""

    account: Account | None
    apis: tuple[Api, ...]
    purse: Purse
    port: int
    socket: Path
    token: str = field(default_factory=lambda: f"moss-{secrets.token_urlsafe(32)}", repr=False)
    spend: Spend = field(default_factory=Spend)
    calls: int = 0
    """Under way."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Its connections: those at its own socket, and those at the port that have shown its token."""
    refusals: Refusals = field(init=False)
    taken_out: set[str] = field(default_factory=set)
    """Tools of the service that its requests declared."""
    _before: Spend = field(init=False)
    """What the purse had spent when this lane was opened: what it may spend counts from there."""
    _closed: asyncio.Future[str] = field(init=False)

    def __post_init__(self) -> None:
        account = self.account
        of = {"run": account.run, "what": account.what} if account else {}
        self.refusals = Refusals(of, self.token)
        self._before = self.purse.spent
        self._closed = asyncio.get_running_loop().create_future()
        self.purse.lanes.add(self)

    @property
    def is_full(self) -> bool:
        return len(self.tasks) >= LANE_CONNECTIONS

    async def exhausted(self) -> str:
        return await asyncio.shield(self._closed)

    def note_taken_out(self, tools: set[str]) -> None:
        """Each is told once, and no more of them than a log can bear."""
        new = set(islice(tools - self.taken_out, TOLD - len(self.taken_out)))
        if new:
            self.taken_out |= new
            shown = sorted(map(self.refusals.shown, new))
            _log.warning("gateway took tools of the service out", tools=shown, **self.refusals.of)

    def check(self, model: str, usage: Usage, price: Price | None) -> None:
        """Before a call, by what its input is likely to take. Raises No, and closes the lane where a budget would not
        last."""
        left = self.account.left if self.account else None
        if self._closed.done():
            raise No(402, self._closed.result())
        if left is None:
            return
        if left.money_usd is not None and price is None:
            raise No(
                402,
                f"nobody knows what the model {model} costs, and what may be spent is limited in money; write its "
                f'price into [gateway.prices."{model}"] of moss.toml, or limit tokens instead',
            )
        if why := self._too_much(usage.total, price.of(usage) if price else 0.0):
            self._close(f"its next call would have gone over {why}")
            raise No(402, self._closed.result())

    @contextmanager
    def under_way(self, usage: Usage, price: Price | None) -> Iterator[None]:
        """What a call is likely to take counts for the others while it lasts."""
        money = price.of(usage) if price else 0.0
        self.purse.tokens_under_way += usage.total
        self.purse.money_under_way += money
        try:
            yield
        finally:
            self.purse.tokens_under_way -= usage.total
            self.purse.money_under_way -= money

    def overrun(self, usage: Usage, price: Price | None) -> bool:
        """Whether a call that is under way has by itself gone over what was left."""
        left = self.account.left if self.account else None
        if left is None or (left.money_usd is None and left.tokens is None):
            return False
        used_tokens, used_money = self._used()
        money = price.of(usage) if price else 0.0
        return (left.tokens is not None and used_tokens + usage.total > left.tokens) or (
            left.money_usd is not None and used_money + money > left.money_usd
        )

    def add(self, usage: Usage, money: float | None) -> None:
        """After a call. Closes every lane whose budget is spent by it."""
        cost = Spend(money_usd=money or 0.0, tokens=usage.total, unpriced_tokens=usage.total if money is None else 0)
        self.spend = self.spend + cost
        self.purse.spent = self.purse.spent + cost
        for lane in self.purse.lanes:
            lane.look()

    def look(self) -> None:
        left = self.account.left if self.account else None
        if left is None or self._closed.done():
            return
        tokens, money = self._used()
        if left.tokens is not None and tokens >= left.tokens:
            self._close(f"it was stopped, having used up {self._tokens_left()}")
        elif left.money_usd is not None and money >= left.money_usd:
            self._close(f"it was stopped, having used up {self._money_left()}")

    def leave(self) -> None:
        self.purse.lanes.discard(self)
        self._closed.cancel()

    def _used(self) -> tuple[int, float]:
        spent = self.purse.spent
        return spent.tokens - self._before.tokens, spent.money_usd - self._before.money_usd

    def _too_much(self, tokens: int, money: float) -> str | None:
        assert self.account is not None
        left, (used_tokens, used_money) = self.account.left, self._used()
        if left.tokens is not None and used_tokens + self.purse.tokens_under_way + tokens > left.tokens:
            return self._tokens_left()
        if left.money_usd is not None and used_money + self.purse.money_under_way + money > left.money_usd:
            return self._money_left()
        return None

    def _tokens_left(self) -> str:
        assert self.account is not None
        return f"the {self.account.left.tokens:,} tokens that were left of the budget"

    def _money_left(self) -> str:
        assert self.account is not None
        return f"the {self.account.left.money_usd:.2f} USD that were left of the budget"

    def _close(self, why: str) -> None:
        if not self._closed.done():
            self._closed.set_result(why)
