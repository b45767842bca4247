"""The verb: a sealed batch becomes a candidate. Each durable job takes one step and asks for the next."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from core import consent
from core.clock import Clock
from core.coders.ask import clean_outputs, end_leftovers
from core.coders.catalogue import Coders
from core.coders.coder import Account, Lanes
from core.containers.host import Host
from core.folders import clear, lay
from core.model.batch import BatchState
from core.model.candidate import Candidate
from core.model.consent import ConsentState, Policy
from core.model.errors import (
    BuildFailed,
    IllegalMove,
    Misconduct,
    MossError,
    OutOfScope,
    OverBudget,
    Refused,
    Unavailable,
)
from core.model.run import (
    RESTARTABLE,
    Budget,
    Cap,
    Dial,
    Done,
    Failed,
    Offered,
    Outcome,
    Prepared,
    Result,
    Run,
    RunState,
    Spend,
    Stage,
    Step,
    Trouble,
)
from core.model.spending import Line, LineKind
from core.model.substrate import Substrate
from core.model.value import new_id
from core.pipeline import history as past
from core.pipeline.depth import TIERS
from core.pipeline.next_step import Terms, month_is_spent, next_step, what_is_left
from core.pipeline.prepare import TASKS_FILE, prepare, starting_point
from core.pipeline.scene import Scene, Tasks
from core.pipeline.stages import STAGES
from core.redact import Redactor
from core.repository import Clone
from core.store import batches, consents, ledger, notices, runs, substrates
from core.store.store import Store

_log = structlog.get_logger(__name__)

JOB = "run"
CHECK_S = 20.0
"""How long somebody who asks for a run is kept waiting."""


@dataclass(frozen=True, slots=True)
class Evolution:
    store: Store
    host: Host
    coders: Coders
    policy: Policy
    owner: str
    """The id of this Moss installation, on everything it makes."""
    data: Path
    clock: Clock
    submit: Callable[[str, str, int], Awaitable[None]]
    person: Callable[[str], str]
    """Who is behind a name: the same people flag in chat and approve elsewhere."""
    month: Cap = field(default_factory=Cap)
    """What the runs of one substrate may spend together in a month."""
    lanes: Lanes | None = None
    """How agents on trial reach their models."""
    _histories: dict[str, list[Done]] = field(default_factory=dict, repr=False)
    """As far as they were read: a long one takes longer to read than many a step takes."""
    _clones: dict[tuple[str, str], Clone] = field(default_factory=dict, repr=False)
    """Those that were looked at since Moss started, by substrate and address."""

    async def perform(self, run_id: str, n: int) -> None:
        """Take step n and ask for the next one. A repeated job finds what was done and goes on from there."""
        run, history = await self._begin(run_id)
        if run.state is not RunState.running:
            return
        if len(history) > n:
            await self.submit(JOB, run_id, n + 1)
            return
        terms = await self._terms(run, n)
        decision = next_step(history, terms)
        if isinstance(decision, Outcome):
            await self._end(run, decision)
        elif decision.stage is Stage.offer:
            await self._try_to_offer(run, history, decision, n)
        elif await self._append(run, await self._take(run, history, decision, n, terms)):
            await self.submit(JOB, run_id, n + 1)

    async def _terms(self, run: Run, n: int) -> Terms:
        async with self.store.reading() as db:
            begun = await ledger.of_step(db, run.id, n)
            this_month = await ledger.of_substrate(db, run.substrate, ledger.month_of(self.store.now()))
        return Terms(TIERS[run.dial], run.budget, self.month, this_month, begun)

    async def _book(self, account: Account, coder: str, spend: Spend) -> None:
        """Calls stand in the ledger already; what the program told beyond them is added."""
        async with self.store.reading() as db:
            metered = await ledger.of_question(db, account.question)
        line = Line(
            kind=LineKind.question,
            substrate=account.substrate,
            run=account.run,
            n=account.n,
            stage=account.stage,
            what=account.what,
            question=account.question,
            provider=coder,
            tokens=max(spend.tokens - metered.tokens, 0),
            money_usd=max(spend.money_usd - metered.money_usd, 0.0),
            unpriced_tokens=spend.unpriced_tokens - metered.unpriced_tokens,
            seconds=spend.seconds,
        )
        await ledger.add(self.store, [line])

    async def _try_to_offer(self, run: Run, history: list[Done], step: Step, n: int) -> None:
        """An offer that cannot be made ends the run: nobody would ever take it up again."""
        try:
            await self._offer(await self._scene(run, history, step, n, Cap()))
        except (Unavailable, IllegalMove):
            raise
        except MossError as error:
            why = self._words(run.id).text(error.sentence)
            await self._end(run, Outcome(state=RunState.failed, sentence=f"The offer failed: {why}"))

    async def _append(self, run: Run, done: Done) -> bool:
        try:
            async with self.store.changing(run.substrate) as change:
                await runs.append(change, run.id, done)
        except IllegalMove:  # stopped meanwhile: what was done stays among the artefacts and counts for nothing
            _log.info("step dropped", run=run.id, step=done.step.name)
            return False
        return True

    async def _begin(self, run_id: str) -> tuple[Run, list[Done]]:
        known = self._histories.get(run_id)
        if known is None:  # what a Moss that was killed left: a coder that still writes into the checkout
            await end_leftovers(f"{run_id}/")
            await self._clean_outputs(run_id)
            known = []
        async with self.store.reading() as db:
            run, history = await runs.get(db, run_id), [*known, *await runs.history(db, run_id, len(known))]
        self._histories[run_id] = history
        if run.state is RunState.queued:
            async with self.store.changing(run.substrate) as change:
                run = await runs.move(change, run_id, RunState.running, "moss")
        return run, history

    async def _scene(self, run: Run, history: list[Done], step: Step, n: int, left: Cap) -> Scene:
        async with self.store.reading() as db:
            substrate = await substrates.get(db, run.substrate)
        scene = Scene(
            run=run,
            substrate=substrate,
            history=history,
            step=step,
            n=n,
            clone=await self.clone(substrate),
            host=self.host,
            coders=self.coders,
            owner=self.owner,
            runs=self.data / "runs" / run.id,
            work=self.work(run.id),
            tasks=Tasks(tasks=(), accepted=()),
            book=self._book,
            left=left,
            lanes=self.lanes,
        )
        if fixed := past.last(history, Prepared):
            if fixed.substrate != substrate.digest():
                raise Refused(f"The settings of {substrate.name} were changed while the run went on; restart the run.")
            scene = replace(scene, tasks=_tasks(scene))
        return scene

    async def _take(self, run: Run, history: list[Done], step: Step, n: int, terms: Terms) -> Done:
        """Whatever goes wrong here is a result, and `next_step` decides what it means."""
        started_at, began, prompt = self.clock(), time.monotonic(), None
        result: Result
        try:
            scene = await self._scene(run, history, step, n, what_is_left(history, terms))
            try:
                result = await self._stage(scene)
            finally:
                prompt = scene.prompt
        except MossError as error:
            if isinstance(error, Unavailable):
                await self.host.ping()  # an engine that is away is waited for; only what fails beside it is a failure
            result = Failed(trouble=_trouble(error), sentence=self._words(run.id).text(error.sentence))
        except Exception as error:
            _log.exception("step failed", run=run.id, step=step.name)
            result = Failed(
                trouble=Trouble.broken,
                sentence=f"Moss itself failed with {type(error).__name__}; please report the traceback in its log.",
            )
        async with self.store.reading() as db:  # with what an earlier try at this step cost, that was cut short
            spend = (await ledger.of_step(db, run.id, n)).model_copy(update={"seconds": time.monotonic() - began})
        ended_at = self.clock()
        return Done(n=n, step=step, result=result, spend=spend, prompt=prompt, started_at=started_at, ended_at=ended_at)

    async def _stage(self, scene: Scene) -> Result:
        await asyncio.to_thread(lay, scene.folder, {})  # a crash may have left half of its artefacts
        if scene.step.stage is Stage.prepare:
            return await prepare(self.store, scene)
        return await STAGES[scene.step.stage](scene)

    async def _offer(self, scene: Scene) -> None:
        """The candidate, the question to people, the end of the running and the notice: all in one transaction."""
        candidate = _candidate(scene)
        branch = f"moss/{scene.run.id}"
        await scene.clone.set_branch(branch, candidate.commit)
        sentence = f"Iteration {candidate.iteration} is offered" + (" as a partial gain." if candidate.partial else ".")
        fixed = past.prepared(scene.history)
        if fixed.undeployed_count:
            sentence += f" With it goes what the owner has not deployed: {_commits(fixed.undeployed_count)}."
        if scene.substrate.publish:
            sentence += await self._publish(scene, branch)
        now = self.clock()
        async with self.store.changing(scene.run.substrate) as change:
            flags = [flag for chunk in await batches.chunks(change.db, scene.run.batch) for flag in chunk.flags]
            flaggers = frozenset(self.person(flag.person) for flag in flags if flag.withdrawn_at is None)
            await runs.add_candidate(change, candidate)
            asked = await consent.ask_for_candidate(change, candidate, scene.run, self.policy, flaggers)
            result = Offered(candidate=candidate.id, consent=asked.id)
            done = Done(n=scene.n, step=scene.step, result=result, started_at=now, ended_at=now)
            await runs.append(change, scene.run.id, done)
            await runs.move(change, scene.run.id, RunState.awaiting_consent, "moss", sentence)
            undeployed = [commit.model_dump() for commit in fixed.undeployed]
            await notices.add(
                change,
                "evolution-converged",
                scene.run.id,
                sentence,
                partial=candidate.partial,
                undeployed=undeployed,
                undeployed_count=fixed.undeployed_count,
            )
        await self.clear_away(scene.run.id)

    async def _publish(self, scene: Scene, branch: str) -> str:
        """The owner gets the branch to read; that it cannot be pushed is said, and does not spoil the candidate."""
        try:
            await scene.clone.publish(branch, scene.substrate.repository)
        except MossError as error:
            return f" Its branch {branch} could not be pushed: {error.sentence}"
        return f" Its branch is {branch}."

    async def _end(self, run: Run, outcome: Outcome) -> None:
        async with self.store.changing(run.substrate) as change:
            await runs.move(change, run.id, outcome.state, "moss", outcome.sentence)
            await notices.add(change, "evolution-failed", run.id, outcome.sentence)
        await self.clear_away(run.id)

    async def check(self, substrate: Substrate) -> None:
        """Raises Refused for what would end a run at its first step. A repository that takes too long is the run's to
        wait for."""
        async with self.store.reading() as db:
            spent = await ledger.of_substrate(db, substrate.name, ledger.month_of(self.store.now()))
        if why := month_is_spent(self.month, spent):
            raise Refused(
                f"No run of {substrate.name} can begin: {why}. Wait for the next, or raise `month` in [evolve]."
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await starting_point(self.store, self.host, await self.clone(substrate), substrate)

    async def clone(self, substrate: Substrate) -> Clone:
        """One clone per substrate, owned by Moss; no coder ever sees its git directory."""
        which = (substrate.name, substrate.repository)
        known = self._clones.get(which)
        if known is None or not known.git_dir.exists():
            known = await Clone.of(substrate.repository, self.data / "repos" / f"{substrate.name}.git")
            self._clones[which] = known
        return known

    def _words(self, run_id: str) -> Redactor:
        return Redactor(run_id, self.coders.secrets)

    def work(self, run_id: str) -> Path:
        return self.data / "work" / run_id

    async def clear_away(self, run_id: str) -> None:
        known = self._histories.pop(run_id, None)
        await end_leftovers(f"{run_id}/")
        if known is None:  # as above; what this Moss has asked it has cleaned
            await self._clean_outputs(run_id)
        try:
            await asyncio.to_thread(clear, self.work(run_id))
        except OSError as error:  # the next tick tries again
            _log.warning("scratch cannot be removed", run=run_id, why=error.strerror)

    async def _clean_outputs(self, run_id: str) -> None:
        """A coder's home needs no such care: it lies among the temporary files, which are emptied when Moss starts."""
        await asyncio.to_thread(clean_outputs, self.data / "runs" / run_id, self._words(run_id))

    async def sweep_all(self) -> None:
        """The scratch of runs that are over, which a crash may have left."""
        root = self.data / "work"
        if not root.exists():
            return
        async with self.store.reading() as db:
            running = {run.id for run in await runs.listing(db, limit=None) if run.state is RunState.running}
        for left in root.iterdir():
            if left.name not in running:
                await self.clear_away(left.name)


async def evolve(  # noqa: PLR0917 - what is run, how far, at what cost, for whom
    store: Store, batch_id: str, dial: Dial, budget: Budget, starter: str, id: str | None = None
) -> Run:
    """Queue a run; an open batch is sealed by it. The outbox row that starts it is written in the same transaction.

    Whoever may ask twice, as after a crash, gives the id of the run: the second time finds it."""
    async with store.reading() as db:
        batch = await batches.get(db, batch_id)
    async with store.changing(batch.substrate) as change:
        if id is not None and (begun := await runs.find(change.db, id)):
            return begun
        batch = await batches.get(change.db, batch_id)
        latest = await runs.latest_of(change.db, batch_id)
        if latest and latest.state is RunState.awaiting_consent:
            raise Refused(f"Run {latest.id} of this batch waits for approval; approve or decline it first.")
        if not await batches.chunks(change.db, batch_id):
            raise Refused(f"Batch {batch_id} holds no flagged turn and so teaches nothing; flag a reply first.")
        if batch.state is BatchState.open:
            await batches.move(change, batch_id, BatchState.sealed, starter)
        return await runs.queue(change, batch_id, dial, budget, starter, id)


async def stop(store: Store, run_id: str, who: str) -> Run:
    """End a run; its artefacts stay. The job that still works for it is cancelled by whoever called this."""
    async with store.reading() as db:
        run = await runs.get(db, run_id)
    async with store.changing(run.substrate) as change:
        stopped = await runs.move(change, run_id, RunState.stopped, who, f"Stopped by {who}.")
        asked = await consents.of_run(change.db, run_id)
        if asked and asked.state in (ConsentState.asked, ConsentState.granted):
            await consent.void(change, asked, f"Run {run_id} was stopped.", who)
    return stopped


async def restart(store: Store, run_id: str, who: str, id: str | None = None) -> Run:
    """Archive a run that ended without a candidate, and start anew on the same batch. The id is as in `evolve`."""
    async with store.reading() as db:
        if id is not None and (begun := await runs.find(db, id)):
            return begun
        run = await runs.get(db, run_id)
    if run.state not in RESTARTABLE:
        raise IllegalMove(f"Run {run_id} is {run.state}; only a run that is {_or(RESTARTABLE)} can be restarted.")
    async with store.changing(run.substrate) as change:
        await runs.archive(change, run_id, who)
        return await runs.queue(change, run.batch, run.dial, run.budget, who, id)


def _commits(count: int) -> str:
    return "1 commit" if count == 1 else f"{count} commits"


def _or(states: tuple[RunState, ...]) -> str:
    return f"{', '.join(states[:-1])} or {states[-1]}"


def _trouble(error: MossError) -> Trouble:
    match error:
        case Misconduct():
            return Trouble.misconduct
        case OverBudget():
            return Trouble.spent
        case OutOfScope() | BuildFailed() | Refused():
            return Trouble.rejected
        case _:
            return Trouble.broken


def _tasks(scene: Scene) -> Tasks:
    """What `prepare` fixed, unless somebody changed it since."""
    wanted = past.prepared(scene.history).tasks
    done = next(d for d in scene.history if d.step.stage is Stage.prepare and not isinstance(d.result, Failed))
    path = scene.runs / done.step.name / TASKS_FILE
    tasks = Tasks.model_validate_json(path.read_bytes())
    if tasks.digest() != wanted:
        raise Refused(f"{path} was changed while the run went on; restart the run.")
    return tasks


def _candidate(scene: Scene) -> Candidate:
    iteration, history = scene.step.iteration, scene.history
    found = next(t for t in past.tries(history) if t.iteration == iteration)
    work = past.work(history, iteration)
    assert work.diagnosis and work.change, "offered before it was made"  # noqa: PT018
    assert work.commit and work.image, "offered before it was built"  # noqa: PT018
    written = next(d for d in reversed(history) if d.result == work.change)
    return Candidate(
        id=new_id("candidate"),
        run=scene.run.id,
        iteration=iteration,
        base_commit=scene.base_commit,
        commit=work.commit,
        tree=work.change.tree,
        image=work.image,
        diff_hash=work.change.diff_hash,
        files=work.change.files,
        insertions=work.change.insertions,
        deletions=work.change.deletions,
        baseline=past.baseline(history),
        control=past.control(history),
        matrix=found.matrix,
        partial=not found.converged,
        summary=f"{work.diagnosis.diagnosis.summary} {work.change.summary}",
        diff_artefact=f"{written.step.name}/diff.patch",
    )
