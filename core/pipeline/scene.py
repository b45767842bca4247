"""One step of one run, with all that its stage may use; and how a stage asks a coder."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from core.coders.ask import Objection, ask
from core.coders.catalogue import Coders
from core.coders.coder import Account, Brief, Lanes
from core.containers.host import Host, label
from core.folders import lay
from core.model.brief import BRIEF, DIAGNOSIS, LOG, PLAN, TASKS, Standing, TaskFile
from core.model.errors import CoderFailed, Misconduct
from core.model.keypoints import Row, Task, TaskKind
from core.model.replies import Reply, Role
from core.model.run import Cap, Failed, Run, Spend, Stage, Step
from core.model.substrate import Substrate
from core.model.value import Value, new_id
from core.pipeline import history as past
from core.pipeline.brief import MAY_WRITE, brief_file, prompt, prompt_version, standings
from core.pipeline.trial import Bench
from core.redact import Redactor
from core.repository import Clone

R = TypeVar("R", bound=Reply)

BUILD_LOG, CHECKS_LOG = "build.log", "checks.log"
LOG_BYTES = 60_000


Book = Callable[[Account, str, Spend], Awaitable[None]]
"""Writes down what a question has cost in all, and which coder says so."""


class Tasks(Value):
    """`prepare/tasks.json`: what this run replays and scores."""

    tasks: tuple[Task, ...]
    accepted: tuple[Row, ...]
    """Keypoints of earlier fixes, at the levels with which they were accepted."""


@dataclass(slots=True)
class Scene:
    run: Run
    substrate: Substrate
    history: past.History
    step: Step
    n: int
    clone: Clone
    host: Host
    coders: Coders
    owner: str
    runs: Path
    """Artefacts, kept: `runs/<run>/<step>/...`."""
    work: Path
    """Scratch of this run, removed when it ends."""
    tasks: Tasks
    book: Book
    left: Cap = field(default_factory=Cap)
    """What this step may spend. Shrinks with every answer of a coder, also with those that turn out useless."""
    lanes: Lanes | None = None
    prompt: str | None = None
    """The version of what a coder was last asked with."""

    @property
    def folder(self) -> Path:
        return self.runs / self.step.name

    @property
    def checkout(self) -> Path:
        return self.work / "checkout"

    @property
    def tag(self) -> str:
        return f"{self.run.id}/{self.step.name}"

    @property
    def bench(self) -> Bench:
        labels = {
            label.OWNER: self.owner,
            label.RUN: self.run.id,
            label.ITERATION: str(self.step.iteration),
            label.STEP: str(self.n),
        }
        prefix = f"moss-{self.run.id}-{self.n}"
        account = self._account(f"{self.step.name}/trials")
        return Bench(self.host, self.substrate, prefix, labels, self.work / "laid", self.lanes, account, self._paid)

    @property
    def base_commit(self) -> str:
        return past.prepared(self.history).base_commit

    @property
    def so_far(self) -> past.Work:
        return past.work(self.history, self.step.iteration)

    def keep(self, name: str, text: str) -> None:
        """Write an artefact of this step."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    async def ask(
        self,
        kind: type[R],
        files: Mapping[str, str],
        keypoints: list[Standing] | None = None,
        part: str = "",
        objection: Objection | None = None,
    ) -> R:
        """Lay out brief and evidence, ask the coder of the role, and return its checked reply.

        The checkout must stand already. `part` tells several questions of one step apart.
        """
        role = kind.role
        files = {**files, **self._failed_build(role)}
        self.prompt = prompt_version(role)
        points = standings(self.history) if keypoints is None else keypoints
        brief = brief_file(
            run=self.run,
            substrate=self.substrate,
            history=self.history,
            step=self.step,
            role=role,
            tasks=self.tasks.tasks,
            keypoints=points,
            files=files,
        )
        evidence = self.work / "evidence"
        lay(evidence, {**files, BRIEF: brief.model_dump_json(indent=1)})
        account = self._account(f"{self.step.name}/{part}" if part else self.step.name)
        told = Brief(
            role=role,
            tag=self._tag(role, part),
            prompt=prompt(role, self.substrate.name, str(evidence)),
            checkout=self.checkout,
            evidence=evidence,
            artefacts=self.folder / part if part else self.folder,
            may_write=role in MAY_WRITE,
            timeout_s=self.coders.timeout_s(role),
            account=account,
        )
        coder = self.coders.of(role)
        try:
            reply, spend = await ask(coder, told, objection=objection)
        except (CoderFailed, Misconduct) as failed:
            await self._settle(account, coder.name, failed.spend or Spend())
            raise
        await self._settle(account, coder.name, spend)
        assert isinstance(reply, kind)
        return reply

    def _account(self, what: str) -> Account:
        return Account(
            substrate=self.substrate.name,
            run=self.run.id,
            n=self.n,
            what=what,
            left=self.left,
            stage=self.step.stage,
            question=new_id("question"),
        )

    def _paid(self, spend: Spend) -> None:
        self.left = self.left.without(spend)

    async def _settle(self, account: Account, coder: str, spend: Spend) -> None:
        self._paid(spend)
        await self.book(account, coder, spend)

    def _tag(self, role: Role, part: str) -> str:
        """The coder can read it. It tells the judge of a reply nothing about the step, and so not whose reply it is."""
        where = self.run.id if role is Role.evaluate else self.tag
        return f"{where}/{part}" if part else where

    def visible_tasks(self) -> dict[str, str]:
        """The files of all tasks that a coder may see."""
        return {
            TASKS.format(task=task.id): self.task_file(task)
            for task in self.tasks.tasks
            if task.kind is not TaskKind.holdout
        }

    def task_file(self, task: Task) -> str:
        """The owner's own tasks are replayed as they were written, and shown redacted."""
        words = Redactor(self.run.id)
        shown = {
            "transcript": words.transcript(task.transcript),
            "feedback": tuple(words.text(said) for said in task.feedback),
        }
        return TaskFile.of(task.model_copy(update=shown)).model_dump_json(indent=1)

    def reasoning(self) -> dict[str, str]:
        """Diagnosis and plan of this iteration, as far as there are any."""
        files = {}
        if self.so_far.diagnosis:
            files[DIAGNOSIS] = self.so_far.diagnosis.diagnosis.model_dump_json(indent=1)
        if self.so_far.plan:
            files[PLAN] = self.so_far.plan.plan.model_dump_json(indent=1)
        return files

    def _failed_build(self, role: Role) -> dict[str, str]:
        """What the latest build that failed said, tests included, for whoever must do better."""
        if role not in (Role.locate, Role.plan, Role.implement):
            return {}
        for done in reversed(self.history):
            if done.step.stage is Stage.build and isinstance(done.result, Failed):
                logs = [self.runs / done.step.name / name for name in (BUILD_LOG, CHECKS_LOG)]
                text = b"".join(log.read_bytes()[-LOG_BYTES:] for log in logs if log.exists())
                return {LOG: Redactor().text(text[-LOG_BYTES:].decode("utf-8", "replace"))} if text else {}
        return {}
