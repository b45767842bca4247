"""The demo on plain processes, phase by phase: what a newcomer waits for. The set-up of .venv is not in it."""

from collections import defaultdict

from rich.console import RenderableType

from benchmarks.table import Measured
from bot.demo.screen import Screen
from bot.demo.story import Options, tell

NAME = "demo"
GOAL_S = 40.0

PHASES = {
    "set up": "a repository, `moss run`, the desk adopted",
    "prepare": "run: prepare",
    "baseline": "run: the recorded replies scored",
    "control": "run: trials of the live agent",
    "coder": "run: six roles of the recorded coder",
    "build": "run: image, smoke test, tests",
    "evaluate": "run: trials of the candidate",
    "swap": "swap, with probes",
    "rollback": "rollback, with probes",
    "rest": "talk, cards, figures, ending",
}
CODER = ("locate", "plan", "implement", "code-review", "verdict")


class Stopwatch(Screen):
    """Shows nothing, and keeps how long each thing took."""

    def __init__(self) -> None:
        super().__init__(stderr=True)
        self.taken: dict[str, float] = defaultdict(float)

    def done(self, name: str, text: str, seconds: float, *, good: bool = True, aside: str = "") -> None:
        step = name.rpartition("/")[2]
        self.taken["coder" if step.startswith(CODER) else step if step in PHASES else "rest"] += seconds

    def _print(self, what: RenderableType, *, cut: bool = False) -> None: ...


async def measure() -> Measured:
    watch = Stopwatch()
    options = Options("process", "", "recorded", headless=True, browser=False, keep=False)
    ending = await tell(options, watch)
    assert ending.run_state == "applied", ending
    taken = watch.taken
    taken["rest"] += ending.seconds - sum(taken.values())
    rows = tuple((PHASES[phase], f"{taken[phase]:.1f} s", "") for phase in PHASES)
    return Measured(
        rows=(*rows, ("the whole of it", f"{ending.seconds:.1f} s", f"under {GOAL_S:.0f} s")),
        values={
            "seconds": ending.seconds,
            "outage_ms": ending.outage_ms,
            "phases": {phase: round(taken[phase], 2) for phase in PHASES},
        },
        met=ending.seconds < GOAL_S,
    )
