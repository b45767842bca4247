"""Durable jobs: what was submitted is performed, whatever dies in between. The only file that knows DBOS.

A job is one DBOS workflow without steps, named `kind:subject:n`. It carries ids and returns nothing: what it is about
stands in the store, and may be performed twice, so performs key their effects by subject and n.

DBOS writes down which executor runs a job. An executor here is the holder of one lease, made for it and never used
again, so a running job whose executor holds no lease is nobody's, and every Moss resumes what it finds so. A Moss that
lost its lease lets go of its jobs and begins anew under another; what closes lets go too, and the next start resumes.
"""

import asyncio
import contextlib
import contextvars
import logging
import secrets
import sqlite3
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from core.clock import Clock
from core.model.errors import Busy, MossError, Unavailable
from core.process_table import has_ended, identity
from core.store import leases
from core.store.engine import address
from core.store.store import Store

Perform = Callable[[str, int], Awaitable[None]]

_PROTOCOL = "moss-jobs-1"
"""DBOS resumes jobs of its own version only, by default a hash of the code. Ours says how jobs are written down."""
_TICK_S = 0.5
"""How soon a cancellation in another process, a lost lease and another's death are seen."""
_QUEUE_POLL_S = 0.1
_PATIENCE_S = 20.0
"""How long a caller waits for an engine that begins anew, or for its database."""
_END_S = 10.0
"""How long a perform that was cancelled is waited for; it may have programs to end."""
_OVER = ["SUCCESS", "ERROR", "CANCELLED"]
_AT_ONCE = 500
_LOOKS = 3
"""So often in a row a job is ours and performed by nobody until it is started again."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    perform: Perform
    at_once: int | None


class _Failed(Exception):
    """Ends a job. Says what kind of failure and where, not more: DBOS writes it down."""


class Durable:
    """One per process, since DBOS is one per process."""

    def __init__(self, url: str, store: Store, *, clock: Clock, lease_ttl_s: float = 15.0) -> None:
        self._url = url
        self._store = store
        self._clock = clock
        self._ttl_s = lease_ttl_s
        self._kinds: dict[str, _Kind] = {}
        self._holder = self._slot = ""
        self._renewed = 0.0
        self._seen: dict[str, tuple[datetime, float]] = {}
        """How each lease was seen to end, and since when it was seen so."""
        self._open = asyncio.Event()
        self._closing = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Task[Any]] = set()
        self._workflows: dict[asyncio.Task[Any], str] = {}
        self._performing: dict[str, asyncio.Task[None]] = {}
        self._let_go: set[asyncio.Task[None]] = set()
        self._idle: Counter[str] = Counter()

    def job(self, kind: str, perform: Perform, *, at_once: int | None = None) -> None:
        """Before `start`. `at_once` counts over all processes on PostgreSQL; on SQLite, where DBOS counts without a
        lock, over one. Without it a job starts where it was submitted."""
        assert self._tending is None, "the start resumes what was interrupted, and must know how"
        assert ":" not in kind, "the first word of a job's name"
        self._kinds[kind] = _Kind(perform, at_once)

    @property
    def holder(self) -> str:
        """Who this process is, by the lease that it holds at this moment. What is held without a lease is nobody's."""
        return self._holder

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clean = contextvars.copy_context()
        await self._begin()
        self._tending = asyncio.create_task(self._tend())

    async def close(self, grace_s: float) -> None:
        """Let go of what runs: it is not ended, and is resumed by the next start, or by another process at once."""
        self._closing.set()
        if self._tending is None:
            return
        if (await asyncio.wait({self._tending}, timeout=self._ttl_s))[1]:
            self._tending.cancel()
        if await self._halt(grace_s):  # else the lease expires by itself, once this process and its performs are gone
            with contextlib.suppress(Unavailable):
                await leases.release(self._store, self._slot, self._holder)

    async def submit(self, kind: str, subject: str, n: int = 0) -> None:
        """When this returns the job will be performed, by this process or by a later one; and once, however often it
        is submitted."""
        at_once = self._kinds[kind].at_once

        async def submitted() -> None:
            with SetWorkflowID(f"{kind}:{subject}:{n}"):
                if at_once is None:
                    await DBOS.start_workflow_async(self._workflow, kind, subject, n)
                else:
                    await DBOS.enqueue_workflow_async(kind, self._workflow, kind, subject, n)

        await self._ask(submitted)

    async def cancel(self, kind: str, subject: str) -> None:
        """Every job of the subject, for good. Performs in this process are told at once and are given time to end, so
        that the caller can tidy up after them; others are told within a second."""
        prefix = f"{kind}:{subject}:"
        ending: set[asyncio.Task[None]] = set()

        async def cancelled() -> None:
            found = await DBOS.list_workflows_async(
                workflow_id_prefix=prefix, status=["PENDING", "ENQUEUED"], load_input=False, load_output=False
            )
            jobs = [each.workflow_id for each in found if each.workflow_id.rpartition(":")[0] + ":" == prefix]
            if jobs:
                await DBOS.cancel_workflows_async(jobs)
            ending.update(self._performing[job] for job in jobs if job in self._performing)
            for job in jobs:
                self._drop(job)

        await self._ask(cancelled)
        if ending:
            await asyncio.wait(ending, timeout=_END_S)

    async def forget(self, before: datetime) -> int:
        """Drop what DBOS keeps of jobs that were submitted before this moment and are over, some at a time: how many.
        One that is submitted again after that is performed again."""
        found: list[str] = []

        async def forgotten() -> None:
            over = await DBOS.list_workflows_async(
                status=_OVER, end_time=before.isoformat(), limit=_AT_ONCE, load_input=False, load_output=False
            )
            found.extend(each.workflow_id for each in over)
            if found:
                await DBOS.delete_workflows_async(found)

        await self._ask(forgotten)
        return len(found)

    async def _ask(self, question: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Carried through even when the caller is cancelled: half a submit is a job that nobody performs."""
        if self._closing.is_set():
            raise Unavailable("Moss is closing; try again when it runs.")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._open.wait()
                # Asked by a perform, it would otherwise be a part of that job to DBOS.
                asked = self._loop.create_task(question(), context=self._clean.copy())
                self._asked.add(asked)
                asked.add_done_callback(self._asked.discard)
                await asyncio.shield(asked)
        except Exception as problem:
            raise Unavailable(
                f"Durable jobs do not answer ({type(problem).__name__}); try again, and see the log of `moss run`."
            ) from problem

    async def _begin(self) -> None:
        """Claim a lease and start DBOS under its name."""
        holder = f"{identity()}.{secrets.token_hex(4)}"
        self._renewed = time.monotonic()
        self._slot = await leases.claim(self._store, holder, self._ttl_s)
        self._holder = holder
        self._idle.clear()
        _route_log()
        try:
            DBOS(config=self._config())
            # No limit of attempts: a job ends by its own rules, never because it was interrupted often.
            self._workflow = DBOS.workflow(name="job", max_recovery_attempts=None)(self._job())
            self._open.set()
            DBOS.launch()  # here, inside the loop, so that what it resumes runs in this loop
            for kind, known in self._kinds.items():
                if known.at_once is not None:
                    await DBOS.register_queue_async(
                        kind,
                        global_concurrency=known.at_once,
                        polling_interval_sec=_QUEUE_POLL_S,
                        on_conflict="always_update",
                    )
        except Exception as problem:
            await self._halt(grace_s=1.0)
            await leases.release(self._store, self._slot, holder)
            raise Unavailable(
                f"Durable jobs cannot start ({type(problem).__name__}); Moss needs the right to create tables beside "
                "its own."
            ) from problem

    async def _halt(self, grace_s: float) -> bool:
        """Let go of every job and stop DBOS. True when no perform is left."""
        self._open.clear()
        if self._asked:
            await asyncio.wait(self._asked, timeout=1.0)
        for job in list(self._performing):
            self._drop(job)
        left = (await asyncio.wait(set(self._workflows), timeout=grace_s))[1] if self._workflows else set()
        # It has put its own threads under every `asyncio.to_thread` of the process, and what tidies up now needs some.
        own = ThreadPoolExecutor(thread_name_prefix="moss")
        self._loop.set_default_executor(own)
        # DBOS waits for its threads, which may wait for this loop, so it is stopped from outside of it.
        aside = ThreadPoolExecutor(1)
        await self._loop.run_in_executor(aside, lambda: DBOS.destroy(destroy_registry=True))
        aside.shutdown(wait=False)
        self._loop.set_default_executor(own)  # once more: a call that was under way may have changed it
        return not left

    def _job(self) -> Callable[[str, str, int], Coroutine[Any, Any, None]]:
        async def job(kind: str, subject: str, n: int) -> None:
            await self._perform(kind, subject, n)

        return job

    async def _perform(self, kind: str, subject: str, n: int) -> None:
        workflow = asyncio.current_task()
        assert workflow is not None
        assert asyncio.get_running_loop() is self._loop, "performs share engines and clients with all of Moss"
        if not self._open.is_set():
            raise asyncio.CancelledError
        job = f"{kind}:{subject}:{n}"
        self._workflows[workflow] = job
        workflow.add_done_callback(lambda done: self._workflows.pop(done, None))
        performing = self._loop.create_task(self._call(kind, subject, n))
        self._performing[job] = performing
        try:
            await performing
        except asyncio.CancelledError:
            if performing in self._let_go or workflow.cancelling():  # the latter when the whole loop ends
                raise  # not an Exception: DBOS writes nothing, and the job stands in the database as it stood
            _log.error("a job cancelled itself", job=job)
            raise _Failed("cancelled itself") from None
        except Exception as problem:
            if performing in self._let_go:
                raise asyncio.CancelledError from problem
            failed = _Failed(f"{type(problem).__name__} at {_where(problem)}")
            sentence = problem.sentence if isinstance(problem, MossError) else None
            _log.error("a job failed", job=job, error=str(failed), sentence=sentence)
            raise failed from None
        finally:
            self._let_go.discard(performing)
            if self._performing.get(job) is performing:
                del self._performing[job]

    async def _call(self, kind: str, subject: str, n: int) -> None:
        await self._kinds[kind].perform(subject, n)

    def _drop(self, job: str) -> None:
        performing = self._performing.get(job)
        if performing is not None:
            self._let_go.add(performing)
            performing.cancel()

    async def _tend(self) -> None:
        while not self._closing.is_set():
            pause_s = _TICK_S
            try:
                await self._keep_the_lease()
                async with asyncio.timeout(self._ttl_s / 3):
                    await self._look_around()
            except Exception as problem:
                pause_s = 4 * _TICK_S
                _log.warning("durable jobs are not tended", error=f"{type(problem).__name__} at {_where(problem)}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_s)

    async def _keep_the_lease(self) -> None:
        if not self._open.is_set():
            await self._begin()
        began = time.monotonic()
        age_s = began - self._renewed
        if age_s < self._ttl_s / 3:
            return
        try:
            async with asyncio.timeout(max(1.0, self._ttl_s - age_s)):
                await leases.renew(self._store, self._slot, self._holder, self._ttl_s)
            self._renewed = began
        except (Busy, Unavailable, TimeoutError) as problem:
            if isinstance(problem, Busy) or time.monotonic() - self._renewed > self._ttl_s:
                _log.warning("the lease is lost; letting go of every job", jobs=sorted(self._performing))
                await self._halt(grace_s=self._ttl_s)
                await self._begin()

    async def _look_around(self) -> None:
        """Let go of what is not ours any more, and resume what is nobody's."""
        before = set(self._performing)
        found = await DBOS.list_workflows_async(
            status="PENDING", app_version=_PROTOCOL, load_input=False, load_output=False
        )
        executors = {each.workflow_id: each.executor_id or "" for each in found}
        for job in before:
            if executors.get(job) != self._holder:
                self._drop(job)
        # The leases are read after the jobs: whoever runs one of these had a lease before it.
        holders = await self._holders()
        nobodys = set(executors.values()) - holders
        if nobodys:
            await asyncio.to_thread(DBOS._recover_pending_workflows, sorted(nobodys))
        # A job can be ours and lie idle, when its outcome could not be written or its start was cut short.
        ours = {job for job, executor in executors.items() if executor == self._holder}
        self._idle = Counter({job: self._idle[job] + 1 for job in ours - set(self._workflows.values())})
        for job in [job for job, looks in self._idle.items() if looks >= _LOOKS]:
            _log.warning("an idle job is started again", job=job)
            kind = job.partition(":")[0]
            limited = kind in self._kinds and self._kinds[kind].at_once is not None
            await DBOS.resume_workflow_async(job, queue_name=kind if limited else None)

    async def _holders(self) -> set[str]:
        """Who holds a lease, after the dead have lost theirs."""
        async with self._store.reading() as db:
            held = await leases.holders(db)
            ends = await leases.ends(db)
            late = set(await leases.dead(db, self._clock()))
        silent = self._silent(ends) & late - {self._slot}
        for slot, holder in list(held.items()):
            if has_ended(holder.rpartition(".")[0]):
                await leases.release(self._store, slot, holder)
                del held[slot]
            elif slot in silent and await leases.take_over(self._store, slot, self._holder, self._ttl_s):
                await leases.release(self._store, slot, self._holder)
                del held[slot]
        return set(held.values())

    def _silent(self, ends: Mapping[str, datetime]) -> set[str]:
        """Leases that were not renewed while we looked on. A clock that jumps ends none: whoever lives renews three
        times as often as it must."""
        now_s = time.monotonic()
        before, self._seen = self._seen, {}
        for slot, end in ends.items():
            seen_end, since_s = before.get(slot, (None, now_s))
            self._seen[slot] = (end, since_s if seen_end == end else now_s)
        return {slot for slot, (_, since_s) in self._seen.items() if now_s - since_s > self._ttl_s / 2}

    def _config(self) -> DBOSConfig:
        config = DBOSConfig(
            name="moss",
            system_database_url=self._url,
            executor_id=self._holder,
            application_version=_PROTOCOL,
            serializer=DBOSPortableJSONSerializer(),
            enable_otlp=False,
            log_level="WARNING",
            sys_db_pool_size=8,
            db_engine_kwargs={"hide_parameters": True},
            use_listen_notify=False,
            notification_listener_polling_interval_sec=0.1,
            max_executor_threads=32,
        )
        ours = address(self._url).path
        if ours is not None:
            config["system_database_url"] = f"sqlite:///{_prepared(ours.with_name(f'{ours.stem}-jobs{ours.suffix}'))}"
        return config


def _prepared(file: Path) -> Path:
    """DBOS's own file beside ours: readable by its owner only, and WAL, which stays with the file."""
    file.touch(mode=0o600)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return file


def _where(problem: BaseException) -> str:
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


class _OneLine(logging.Handler):
    """What DBOS logs, as one line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        problem = record.exc_info[1] if record.exc_info else None
        said = record.getMessage().partition("\n")[0]
        if isinstance(problem, _Failed) or said.startswith("Asyncio task cancelled"):
            return  # the one is logged already, the other is how a job is let go
        _log.warning("dbos", said=said, error=type(problem).__name__ if problem else None)


def _route_log() -> None:
    """DBOS adds its own handler only where there is none."""
    logger = logging.getLogger("dbos")
    logger.propagate = False
    if not any(isinstance(handler, _OneLine) for handler in logger.handlers):
        logger.addHandler(_OneLine())
