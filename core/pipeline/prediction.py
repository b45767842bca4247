"""Whether a plan knew what it would do: its prediction against the scores. Pure; decides nothing, and is shown."""

import re
from collections.abc import Iterable, Mapping

from core.model.keypoints import Matrix, Prediction
from core.model.replies import Plan
from core.pipeline.brief import shown

_NAME = re.compile(r"[\w.-]+/[\w.-]*\w")
_UNKNOWN_CHARS = 120


def hold(plan: Plan, iteration: int, control: Matrix, candidate: Matrix) -> Prediction:
    before = {f"{row.task}/{row.keypoint.id}": row.level for row in shown(control).rows}
    after = {f"{row.task}/{row.keypoint.id}": row.level for row in shown(candidate).rows}
    rose = {name for name in before if name in after and after[name] > before[name]}
    fell = {name for name in before if name not in after or after[name] < before[name]}
    better, unknown_better = _named(plan.expect_better, before)
    worse, unknown_worse = _named(plan.may_hurt, before)

    def of(names: set[str]) -> tuple[str, ...]:
        return tuple(name for name in before if name in names)

    return Prediction(
        iteration=iteration,
        met=of(better & rose),
        missed=of(better - rose),
        hurt=of(worse & fell),
        rose=of(rose - better),
        fell=of(fell - worse),
        unknown=tuple(dict.fromkeys((*unknown_better, *unknown_worse))),
    )


def _named(lines: Iterable[str], known: Mapping[str, object]) -> tuple[set[str], list[str]]:
    """The keypoints that lines of a plan name, whatever words stand around them; and the lines that name none."""
    named, unknown = set(), []
    for line in lines:
        found = [name for name in _NAME.findall(line) if name in known]
        named.update(found[:1])
        if not found:
            unknown.append(" ".join(line.split())[:_UNKNOWN_CHARS])
    return named, unknown
