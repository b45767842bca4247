"""The depth dial: one setting scales iterations, rounds, trials and the plateau window together."""

from dataclasses import dataclass

from core.model.run import Dial


@dataclass(frozen=True, slots=True)
class Tier:
    iterations: int
    plan_rounds: int
    code_rounds: int
    trials: int
    plateau_window: int


TIERS = {
    Dial.shallow: Tier(iterations=3, plan_rounds=2, code_rounds=1, trials=2, plateau_window=1),
    Dial.standard: Tier(iterations=5, plan_rounds=3, code_rounds=2, trials=3, plateau_window=2),
    Dial.deep: Tier(iterations=8, plan_rounds=4, code_rounds=3, trials=5, plateau_window=3),
}
