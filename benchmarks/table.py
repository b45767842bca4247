"""What a benchmark found, for people and for programs; and on which machine."""

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Measured:
    rows: tuple[tuple[str, str, str], ...]
    """What, how much, and the goal where there is one."""
    values: dict[str, Any]
    met: bool
    """Whether every goal was reached."""


def show(name: str, found: Measured) -> None:
    wide = max(len(row[0]) for row in found.rows)
    print(f"\n{name}")
    for what, much, goal in found.rows:
        print(f"  {what:<{wide}}  {much:>10}  {goal}".rstrip())


def as_json(found: dict[str, Measured]) -> str:
    results = {name: {**one.values, "goals_met": one.met} for name, one in found.items()}
    return json.dumps({"machine": machine(), **results}, sort_keys=True)


def machine() -> str:
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} cores, {system}, load {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
