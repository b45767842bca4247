"""Before the first iteration: from which commit, against which image, and with which tasks."""

from collections.abc import Sequence
from pathlib import Path

from core.containers.host import Host, untrusted
from core.model.errors import Refused
from core.model.evidence import Chunk, FailureKind
from core.model.keypoints import Row, Task, TaskKind
from core.model.run import Declined, Prepared, RunState, Undeployed
from core.model.substrate import Substrate
from core.model.swap import Version
from core.pipeline.scene import Scene, Tasks
from core.pipeline.tasks import load_tasks
from core.redact import Redactor
from core.repository import Clone
from core.store import batches, consents, runs, swaps
from core.store.store import Store

TASKS_FILE = "tasks.json"
NAMED_COMMITS = 20
SUBJECT_CHARS = 100
OBJECTIONS = 5
REASON_CHARS = 2000


async def prepare(store: Store, scene: Scene) -> Prepared:
    substrate, run = scene.substrate, scene.run
    live, base = await starting_point(store, scene.host, scene.clone, substrate)
    async with store.reading() as db:
        chunks = await batches.chunks(db, run.batch)
        against = await consents.reasons_against(db, run.batch, OBJECTIONS)
    own = [task_of(chunk) for chunk in chunks]
    given = load_tasks([Path(file) for file in substrate.tasks], graded=substrate.grader is not None)
    earlier, accepted = await corpus(store, substrate.name, without=run.batch)
    tasks = Tasks(tasks=(*own, *given, *earlier), accepted=accepted)
    scene.keep(TASKS_FILE, tasks.to_json())
    undeployed = [] if base == live.commit else await scene.clone.commits_between(live.commit, base)
    words = Redactor(run.id)
    return Prepared(
        base_commit=base,
        live_image=live.image,
        tasks=tasks.digest(),
        substrate=substrate.digest(),
        siblings=siblings(own, given),
        undeployed=await _named(scene.clone, undeployed[::-1][:NAMED_COMMITS], words),
        undeployed_count=len(undeployed),
        declined=tuple(Declined(run=id, reason=words.text(reason)[:REASON_CHARS]) for id, reason in against),
    )


async def _named(clone: Clone, commits: Sequence[str], words: Redactor) -> tuple[Undeployed, ...]:
    subjects = [words.text(" ".join(subject.split())) for subject in await clone.subjects(commits)]
    return tuple(
        Undeployed(commit=commit, subject=subject[:SUBJECT_CHARS])
        for commit, subject in zip(commits, subjects, strict=True)
    )


async def starting_point(store: Store, host: Host, clone: Clone, substrate: Substrate) -> tuple[Version, str]:
    """What is live, and the commit from which a run starts. Raises Refused when there is nothing to start from; who
    asks for a run hears so before its batch is sealed."""
    if problem := untrusted(host, substrate):
        raise Refused(problem)
    async with store.reading() as db:
        live = await swaps.live_version(db, substrate.name)
    if live is None:
        raise Refused(f"Nothing of {substrate.name} is live yet, so there is nothing to improve; run `moss adopt`.")
    if not await host.has_image(live.image):
        raise Refused(f"The live image {live.image} is gone from the host, so nothing can be compared; adopt again.")
    return live, await base_commit(clone, substrate, live)


async def base_commit(clone: Clone, substrate: Substrate, live: Version) -> str:
    """The live commit, as long as the owner's branch holds nothing that is not live."""
    branch, head = substrate.branch, await clone.head(substrate.branch)
    if not await clone.contains(live.commit):
        raise Refused(
            f"The live commit {live.commit[:12]} is not in {substrate.repository}; push it there, or adopt again."
        )
    if await clone.is_ancestor(head, live.commit) or await clone.tree_of(head) == await clone.tree_of(live.commit):
        return live.commit
    ahead = len(await clone.commits_between(live.commit, head))
    said = f"`{branch}` of {substrate.repository} has {ahead} commits that are not live"
    if not await clone.is_ancestor(live.commit, head):
        raise Refused(f"{said}, and does not contain the live commit {live.commit[:12]}; merge `moss/live` into it.")
    if substrate.ahead == "refuse":
        raise Refused(f'{said}; deploy them and adopt again, or set `ahead = "include"` to start from them.')
    return head


def task_of(chunk: Chunk) -> Task:
    return Task(
        id=chunk.id,
        kind=TaskKind.batch,
        transcript=chunk.transcript,
        kinds=chunk.kinds,
        feedback=tuple(flag.reason for flag in chunk.flags if flag.reason and flag.withdrawn_at is None),
        checks=chunk.checks,
        weight=max(chunk.weight, 1),
    )


def siblings(own: list[Task], given: list[Task]) -> tuple[str, ...]:
    """Held-back tasks of a kind of failure that the batch shows. A task that names no kind belongs to every failure,
    and to a failure that nobody has named every task."""
    shown = {kind for task in own for kind in task.kinds}
    unnamed = FailureKind.other in shown or not shown
    held_back = [task for task in given if task.kind is TaskKind.holdout]
    return tuple(task.id for task in held_back if unnamed or not task.kinds or task.kinds & shown)


async def corpus(store: Store, substrate: str, without: str) -> tuple[list[Task], tuple[Row, ...]]:
    """The tasks of all accepted fixes, with their keypoints: they gate every later candidate."""
    tasks: dict[str, Task] = {}
    rows: list[Row] = []
    async with store.reading() as db:
        for run in await runs.listing(db, substrate, limit=None):
            if run.state is not RunState.applied or run.batch == without:
                continue
            for chunk in await batches.chunks(db, run.batch):
                tasks[chunk.id] = task_of(chunk).model_copy(update={"kind": TaskKind.regression})
            for candidate in await runs.candidates(db, run.id):
                own = candidate.matrix.only(TaskKind.batch).rows
                rows += [row.model_copy(update={"kind": TaskKind.regression}) for row in own]
    return list(tasks.values()), tuple(row for row in rows if row.task in tasks)
