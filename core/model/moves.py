"""Moves: each noun declares its states and their edges once; a state without edges is final."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from core.model.errors import IllegalMove

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Moves(Generic[S]):
    noun: str
    edges: Mapping[S, frozenset[S]]

    def allow(self, before: S, after: S) -> bool:
        return after in self.edges.get(before, frozenset())

    def check(self, before: S, after: S, which: str) -> None:
        if not self.allow(before, after):
            raise IllegalMove(self._refusal(before, after, which))

    def _refusal(self, before: S, after: S, which: str) -> str:
        thing = f"{self.noun.capitalize()} {which} is {before}"
        if before is after:
            return f"{thing} already; nothing is left to be done."
        if self.is_final(before):
            return f"{thing}, which is final, so it cannot become {after}; `moss status` shows what goes on now."
        return f"{thing}, so it cannot become {after} yet; `moss status` shows what it waits for."

    def is_final(self, state: S) -> bool:
        return not self.edges.get(state)


def moves(noun: str, edges: Mapping[S, tuple[S, ...]]) -> Moves[S]:
    return Moves(noun, {state: frozenset(targets) for state, targets in edges.items()})
