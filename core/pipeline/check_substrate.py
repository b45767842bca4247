"""`moss substrate check`: whether an agent can be evolved as its owner describes it. Builds it, talks to it on trial,
asks its grader. Makes boxes and an image of its own, removes them, and never touches the live agent."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pathspec import GitIgnoreSpec

from core import agent
from core.coders.coder import Lane, Lanes
from core.containers.host import Host, label, untrusted
from core.model.errors import AgentFailed, BadInput, MossError, Refused
from core.model.keypoints import Keypoint, Level, Task, TaskKind
from core.model.substrate import Grader, Substrate
from core.model.transcript import Message, Transcript
from core.model.value import new_id
from core.pipeline.make import check_image, make_image
from core.pipeline.tasks import grade, load_tasks
from core.pipeline.trial import Bench, equipped
from core.repository import Clone

NONSENSE = "The moon is made of cheese, and that is all there is to say about it."
"""A reply to no question at all: a grader that is content with it is content with everything."""
GRADED_TASKS = 20


class Outcome(StrEnum):
    ok = "ok"
    warning = "warning"
    """Moss works with it, and less well than it could."""
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    level: Outcome
    sentence: str


Tell = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class Checking:
    """What every part of the check needs."""

    substrate: Substrate
    clone: Clone
    bench: Bench
    tell: Tell
    """Called with each finding as it comes: a build may take minutes."""


async def check_substrate(
    host: Host,
    substrate: Substrate,
    clone: Clone,
    *,
    owner: str,
    scratch: Path,
    tell: Tell,
    lanes: Lanes | None = None,
) -> None:
    """Tells its findings in the order in which a run would meet them. `scratch` is a directory that it may fill."""
    name = new_id(f"moss-check-{substrate.name}")
    bench = Bench(host, substrate, name, {label.OWNER: owner, label.RUN: name}, scratch / "files", lanes)
    checking = Checking(substrate, clone, bench, tell)
    tell(_isolation(host, substrate))
    tasks = _tasks(checking)
    if substrate.grader and tasks:
        await _grader(checking, substrate.grader, tasks)
    try:
        commit = await clone.head(substrate.branch)
    except MossError as problem:
        tell(_failed("repository", problem))
        return
    tell(_ok("repository", f"`{substrate.branch}` of {substrate.repository} is at {commit[:12]}."))
    await _scope(checking, commit)
    await _image(checking, commit, tasks)


def _isolation(host: Host, substrate: Substrate) -> Finding:
    if host.isolates:
        return _ok("isolation", "Trials run in containers without a network.")
    if problem := untrusted(host, substrate):
        return _failed("isolation", Refused(problem))
    return _warning("isolation", "Nothing isolates trials from this machine; its owner vouches for every change.")


def _tasks(checking: Checking) -> list[Task]:
    substrate, tell = checking.substrate, checking.tell
    try:
        tasks = load_tasks(map(Path, substrate.tasks), graded=substrate.grader is not None)
    except BadInput as problem:
        tell(_failed("tasks", problem))
        return []
    if not tasks:
        sentence = "There are none: only the flagged conversations say what must not get worse; name files in `tasks`."
        tell(_warning("tasks", sentence))
        return []
    count = {kind: sum(task.kind is kind for task in tasks) for kind in TaskKind}
    tell(_ok("tasks", ", ".join(f"{number} {kind}" for kind, number in count.items() if number) + "."))
    if not count[TaskKind.holdout]:
        sentence = "None is a holdout, so a change that learns the flagged conversations by heart is not noticed."
        tell(_warning("tasks", sentence))
    return tasks


async def _scope(checking: Checking, commit: str) -> None:
    """What a change may touch, as far as the files of today tell."""
    scope, tests = checking.substrate.scope, checking.substrate.tests
    source = checking.bench.scratch / "tree"
    await checking.clone.export(commit, source)
    files = await asyncio.to_thread(_files, source)
    guarded = GitIgnoreSpec.from_lines(checking.substrate.protected())
    editable = GitIgnoreSpec.from_lines(scope.editable).match_files(files)
    open_to_change = [file for file in editable if not guarded.match_file(file)]
    if not open_to_change:
        sentence = f"None of the {len(files)} files may be changed; widen `scope.editable`, or protect less."
        checking.tell(_failed("scope", Refused(sentence)))
        return
    checking.tell(_ok("scope", f"{len(open_to_change)} of {len(files)} files may be changed."))
    named = {"scope.editable": scope.editable, "scope.protected": scope.protected}
    if tests:
        named["tests.paths"] = tests.paths
    for where, globs in named.items():
        for glob in globs:
            if not any(GitIgnoreSpec.from_lines([glob]).match_files(files)):
                checking.tell(_warning("scope", f"No file matches `{glob}` in `{where}`; mend it, or take it out."))


def _files(source: Path) -> list[str]:
    return [str(path.relative_to(source)) for path in source.rglob("*") if path.is_symlink() or path.is_file()]


async def _image(checking: Checking, commit: str, tasks: Sequence[Task]) -> None:
    bench, substrate, tell = checking.bench, checking.substrate, checking.tell
    began, log = time.monotonic(), bench.scratch.with_name("build.log")
    try:
        image = await make_image(bench, checking.clone, commit, commit, log)
    except MossError as problem:
        tell(_failed("build", problem))
        return
    try:
        tell(_ok("build", f"It took {time.monotonic() - began:.1f} s."))
        parts = (
            ("smoke", substrate.smoke, substrate.model_copy(update={"tests": None})),
            ("tests", substrate.tests, substrate.model_copy(update={"smoke": None})),
        )
        for name, given, part in parts:
            if given is None:
                tell(_judged_without(name, substrate))
            else:
                alone = replace(bench, substrate=part)
                tell(await _asked(name, _passed(check_image(alone, checking.clone, image, commit, log))))
        await _on_trial(checking, image, tasks)
    finally:
        await asyncio.shield(bench.host.remove_image(image))


def _judged_without(name: str, substrate: Substrate) -> Finding:
    """Tests say more than a smoke test does, so that nobody misses it beside them."""
    if substrate.tests:
        return _ok(name, f"There is no `{name}`; the tests and the replays judge a change.")
    judges = "the smoke test and replays judge" if substrate.smoke else "replays judge"
    return _warning(name, f"There is no `{name}`, so that only {judges} a change; give one.")


async def _on_trial(checking: Checking, image: str, tasks: Sequence[Task]) -> None:
    """The agent itself, isolated as in every trial."""
    host, substrate, tell = checking.bench.host, checking.substrate, checking.tell
    began = time.monotonic()
    async with equipped(checking.bench, checking.bench.box("agent", image, "check")) as (box, lane):
        try:
            try:
                await host.create(box)
                await host.start(box.name)
                await agent.wait_ready(host, box.name, substrate)
            except MossError as problem:
                tell(_failed("start", problem))
                return
            tell(_ok("start", f"It was ready after {time.monotonic() - began:.1f} s."))
            tell(await _asked("turn", _turn(host, box.name, substrate, tasks)))
            if lane:
                tell(_model(lane))
            tell(await _asked("health", _health(host, box.name, substrate)))
        finally:
            await asyncio.shield(host.remove(box.name))


def _model(lane: Lane) -> Finding:
    if lane.spend.tokens:
        return _ok("model", f"It reached its model through the gateway: {lane.spend.tokens} tokens so far.")
    return _warning("model", "It was shown a way to its model, and asked nothing there; see docs/gateway.md.")


async def _turn(host: Host, box: str, substrate: Substrate, tasks: Sequence[Task]) -> str:
    """A whole conversation as a trial would hold it."""
    hello = Message(role="user", content=substrate.health.canary or "Hello.")
    recorded = tasks[0].transcript if tasks else Transcript(messages=(hello,))
    said = await agent.replay(host, box, substrate.replay, recorded, session="moss-check")
    reply = said.messages[-1]
    if reply.error is not None:
        raise AgentFailed(reply.error)
    traced = len(reply.tool_calls)
    trace = f"tells of {traced} tool calls" if traced else "tells of no tool calls (docs/substrate.md, `moss_trace`)"
    return f"The agent answered with {len(reply.content)} characters, and {trace}."


async def _health(host: Host, box: str, substrate: Substrate) -> str:
    health = substrate.health
    until = time.monotonic() + health.window_s
    while True:
        found = await agent.probe(host, box, health, substrate.replay, boot_id=box, last_beat=None)
        if found.passed:
            await agent.canary(host, box, substrate)
            return "Every probe passed" + (", and so did the canary." if health.canary else ".")
        if time.monotonic() + health.every_s > until:
            raise AgentFailed(f"No probe passed within {health.window_s:g} s: {found.sentence}")
        await asyncio.sleep(health.every_s)


async def _grader(checking: Checking, grader: Grader, tasks: Sequence[Task]) -> None:
    """It must score every task, twice alike, keep to the keypoints that are locked, and see through nonsense."""
    tell, tasks = checking.tell, tasks[:GRADED_TASKS]
    content = []
    for task in tasks:
        first = task.transcript.user_turns()[0]
        senseless = Transcript(messages=(first, Message(role="assistant", content=NONSENSE)))
        try:
            once, again = [await grade(grader, task, task.transcript, ()) for _ in range(2)]
            locked = [Keypoint(id=point.id, text=point.text) for point in once.keypoints]
            levels = [point.level for point in (await grade(grader, task, senseless, locked)).keypoints]
        except MossError as problem:
            tell(_failed("grader", problem))
            return
        if once != again:
            tell(_warning("grader", f"It scores the same reply to {task.id} in two ways; scores will look flaky."))
        if all(level is Level.strong for level in levels):
            content.append(task.id)
    tell(_ok("grader", f"It scored {len(tasks)} tasks."))
    if content:
        tell(_warning("grader", f"It finds nothing wrong with a senseless reply to {', '.join(content)}."))


async def _passed(work: Awaitable[object]) -> str:
    await work
    return "It passed."


async def _asked(name: str, work: Awaitable[str]) -> Finding:
    try:
        return _ok(name, await work)
    except MossError as problem:
        return _failed(name, problem)


def _ok(name: str, sentence: str) -> Finding:
    return Finding(name, Outcome.ok, sentence)


def _warning(name: str, sentence: str) -> Finding:
    return Finding(name, Outcome.warning, sentence)


def _failed(name: str, problem: MossError) -> Finding:
    return Finding(name, Outcome.failed, problem.sentence)
