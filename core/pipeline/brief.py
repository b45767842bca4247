"""What a coder is told in each role: a prompt that says where the files lie, and the files. Pure."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template

from core.model.brief import BRIEF, BriefFile, Setback, Standing
from core.model.keypoints import Keypoint, Matrix, Task, TaskKind
from core.model.replies import REPLIES, Role
from core.model.run import Run, Scored, Stage, Step
from core.model.substrate import Substrate
from core.model.value import sha256
from core.pipeline.history import History, last, predictions, prepared, scored, setbacks

MAY_WRITE = frozenset({Role.implement})


def prompt(role: Role, substrate: str, evidence: str) -> str:
    return _page("frame").substitute(
        task=page(role).strip(), substrate=substrate, evidence=evidence, schema=_schema(role)
    )


@cache
def page(role: Role) -> str:
    """What is particular to a role. What no change may be stands once, for those who make one and who review it."""
    return _page(role).safe_substitute(refused=_page("refused").template.rstrip())


@cache
def prompt_version(role: Role) -> str:
    """A digest of all that a prompt is made of, besides the name of the agent and where the evidence lies."""
    return sha256(prompt(role, "", "").encode())


@cache
def _schema(role: Role) -> str:
    return json.dumps(REPLIES[role].model_json_schema(), indent=1)


@cache
def _page(name: str) -> Template:
    return Template(resources.files("core.pipeline").joinpath("prompts", f"{name}.md").read_text("utf-8"))


def brief_file(
    *,
    run: Run,
    substrate: Substrate,
    history: History,
    step: Step,
    role: Role,
    tasks: Sequence[Task],
    keypoints: Sequence[Standing],
    files: Mapping[str, str],
) -> BriefFile:
    blind = role is Role.evaluate  # a judge that knows whose reply it reads may be kind to it
    return BriefFile(
        run=run.id,
        role=role,
        iteration=0 if blind else step.iteration,
        round=0 if blind else step.round,
        substrate=substrate.name,
        base_commit=prepared(history).base_commit,
        failure_kinds=tuple(sorted({kind for task in tasks if task.kind is TaskKind.batch for kind in task.kinds})),
        keypoints=tuple(keypoints),
        editable=substrate.scope.editable,
        protected=substrate.protected(),
        max_files=substrate.scope.max_files,
        max_lines=substrate.scope.max_lines,
        setbacks=() if blind else tuple(Setback(where=where, why=why) for where, why in setbacks(history)),
        predictions=() if blind else tuple(predictions(history)),
        files=tuple(sorted(name for name in files if name != BRIEF)),
    )


def standings(history: History) -> list[Standing]:
    """Every keypoint that a coder may see, and how it has fared so far."""
    locked, control = last(history, Scored, Stage.baseline), last(history, Scored, Stage.control)
    if locked is None:
        return []
    before = locked.matrix.levels()
    live = control.matrix.levels() if control else {}
    tried = [matrix.levels() for _, matrix in scored(history)]
    return [
        Standing(
            task=row.task,
            id=row.keypoint.id,
            text=row.keypoint.text,
            baseline=before.get(row.key),
            control=live.get(row.key),
            iterations=tuple(levels.get(row.key) for levels in tried),
        )
        for row in shown(locked.matrix).rows
    ]


def to_score(task: str, keypoints: Sequence[Keypoint]) -> list[Standing]:
    """For the judge: what to score, without a level that could sway it."""
    return [Standing(task=task, id=keypoint.id, text=keypoint.text) for keypoint in keypoints]


def shown(matrix: Matrix) -> Matrix:
    return matrix.only(*(kind for kind in TaskKind if kind is not TaskKind.holdout))
