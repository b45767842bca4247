"""Runs that really happen in a store, step by step, and a paper chat in which they become news."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.announcer import Announcer, Follower
from bot.chat import Card
from bot.digest import Digests
from bot.settings import Settings, load
from core import consent as consent_room
from core.model.brief import TRIALS, TrialFile
from core.model.consent import Consent
from core.model.evidence import FailureKind, Flag
from core.model.keypoints import Matrix
from core.model.run import Budget, Dial, Done, Offered, Result, Run, RunState, Scored, Stage, Step
from core.model.swap import Swap, SwapState
from core.model.transcript import Message, Place, Transcript
from core.model.value import new_id, sha256
from core.pipeline import evolve as pipeline
from core.store import Store, batches, consents, runs, swaps
from core.swap import records
from flags.raise_flag import raise_flag
from tests.support import reports, stored
from tests.support.paper_chat import PAPER, PaperChat, Shown
from tests.support.swaps import make_live

DESK = "desk"
AWAY_MS = 2000
CONFIG = """
[moss]
data = "data"
[substrate]
name = "desk"
repository = "/srv/desk"
[substrate.run]
port = 8000
[substrate.health]
http = "/"
[coder]
argv = ["/bin/true"]
[consent]
approvers = ["anna", "ben"]
[announce]
place = "paper/acme/news"
[digest]
cron = "0 9 * * *"
"""
NEWS = PAPER.model_copy(update={"channel": "news"})
DIFF = "--- a/desk/dispatch.py\n+++ b/desk/dispatch.py\n"


@dataclass
class Newsroom:
    store: Store
    settings: Settings
    chat: PaperChat

    @property
    def data(self) -> Path:
        return self.settings.data

    # What people and the pipeline do

    async def flag(self, turn: int = 0, person: str = "carl", place: Place = PAPER, *, kind: str = "incomplete") -> str:
        """The batch that took it."""
        asked, before, _, reason = reports.TURNS[turn % len(reports.TURNS)]
        said = (Message(role="user", content=asked), Message(role="assistant", content=before, id=f"r{turn}"))
        at = self.store.now()
        flag = Flag(id=new_id("flag"), person=person, kind=FailureKind(kind), reason=reason, at=at)
        raised = await raise_flag(self.store, DESK, place, f"r{turn}", Transcript(messages=said), flag)
        return raised.batch.id

    async def run(self, place: Place = PAPER, starter: str = "carl") -> Run:
        """Two replies are flagged, and a run is queued."""
        batch = await self.flag(0, place=place)
        await self.flag(1, "dora", place=place)
        return await pipeline.evolve(self.store, batch, Dial.standard, Budget(), starter)

    async def begin(self, place: Place = PAPER) -> Run:
        run = await self.run(place)
        async with self.store.changing(DESK) as change:
            return await runs.move(change, run.id, RunState.running, "moss")

    async def step(self, run: str, stage: Stage, iteration: int, round_: int, result: Result) -> None:
        async with self.store.changing(DESK) as change:
            n = len(await runs.history(change.db, run))
            step = Step(stage=stage, iteration=iteration, round=round_)
            at = self.store.now()
            await runs.append(change, run, Done(n=n, step=step, result=result, started_at=at, ended_at=at))

    async def steps(self, run: str, told: Sequence[tuple[Stage, int, int, Result]]) -> None:
        for one in told:
            await self.step(run, *one)

    async def offer(self, run: str, *, partial: bool = False) -> Consent:
        """The whole of a run up to the question."""
        scores = await self._scores(run)
        await self.steps(run, scores)
        diff = self.data / "runs" / run / "iter-1" / "implement-1" / "diff.patch"
        diff.parent.mkdir(parents=True, exist_ok=True)
        diff.write_text(DIFF)
        history = await self._history(run)
        matrices = {done.step.stage: done.result.matrix for done in history if isinstance(done.result, Scored)}
        candidate = stored.candidate(
            run,
            iteration=1,
            diff_hash=sha256(DIFF.encode()),
            diff_artefact="iter-1/implement-1/diff.patch",
            baseline=matrices[Stage.baseline],
            control=matrices[Stage.control],
            matrix=matrices[Stage.evaluate],
            partial=partial,
        )
        async with self.store.changing(DESK) as change:
            await runs.add_candidate(change, candidate)
            found = await runs.get(change.db, run)
            policy = self.settings.consent
            asked = await consent_room.ask_for_candidate(change, candidate, found, policy, ("carl", "dora"))
            n, at = len(await runs.history(change.db, run)), change.now
            result = Offered(candidate=candidate.id, consent=asked.id)
            done = Done(n=n, step=Step(stage=Stage.offer, iteration=1), result=result, started_at=at, ended_at=at)
            await runs.append(change, run, done)
            await runs.move(change, run, RunState.awaiting_consent, "moss", "Iteration 1 is offered.")
        return asked

    async def _history(self, run: str) -> list[Done]:
        async with self.store.reading() as db:
            return await runs.history(db, run)

    async def _scores(self, run: str) -> list[tuple[Stage, int, int, Result]]:
        """The sample's history, about the chunks of this run, with the trials it was scored by."""
        async with self.store.reading() as db:
            batch = (await runs.get(db, run)).batch
            chunks = [chunk.id for chunk in await batches.chunks(db, batch)]
        told: list[tuple[Stage, int, int, Result]] = []
        for stage, iteration, round_, result in reports.CONVERGED:
            if isinstance(result, Scored):
                about = result.model_copy(update={"matrix": renamed(result.matrix, chunks)})
                told.append((stage, iteration, round_, about))
            elif stage is not Stage.offer:
                told.append((stage, iteration, round_, result))
        self._keep_trials(run, chunks)
        return told

    def _keep_trials(self, run: str, chunks: Sequence[str]) -> None:
        for chunk, (asked, _, after, _) in zip(chunks, reports.TURNS, strict=False):
            for k in (1, 2, 3):
                said = (Message(role="user", content=asked), Message(role="assistant", content=f"{after} (trial {k})"))
                file = self.data / "runs" / run / "iter-1" / "evaluate" / TRIALS.format(task=chunk, trial=k)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(TrialFile(task=chunk, trial=k, transcript=Transcript(messages=said)).model_dump_json())

    async def decide(self, consent: str, person: str = "ben", approve: bool = True, reason: str | None = None) -> None:
        decision = await consent_room.decide(self.store, consent, person, approve, reason, image_exists=True)
        assert decision.kind in ("granted", "declined", "counted"), decision.sentence

    async def swap(self, consent: str, end: SwapState = SwapState.live) -> Swap:
        """What a granted consent leads to, as the swap writes it down."""
        swap = await records.plan(self.store, consent)
        assert swap
        await records.begin(self.store, swap)
        for state in (SwapState.starting, SwapState.probing):
            await records.move(self.store, swap, state)
        async with self.store.reading() as db:
            swap, live = await swaps.get(db, swap.id), await swaps.live_version(db, DESK)
        assert live
        match end:
            case SwapState.live:
                await records.commit(self.store, swap, AWAY_MS)
            case _:
                await records.give_up(self.store, swap, "The canary got no answer.", "")
                swap = swap.model_copy(update={"problem": "The canary got no answer."})
                if end is SwapState.restored:
                    await records.accept(self.store, swap, live, AWAY_MS, fresh=None)
                else:
                    await records.give_in(self.store, swap, "The port is taken.")
        async with self.store.reading() as db:
            return await swaps.get(db, swap.id)

    async def rollback(self, person: str = "anna") -> Consent:
        async with self.store.reading() as db:
            oldest = (await swaps.versions(db, DESK))[0]
        async with self.store.changing(DESK) as change:
            return await consent_room.ask_for_rollback(change, oldest, self.settings.consent, person)

    async def consent(self, id: str) -> Consent:
        async with self.store.reading() as db:
            return await consents.get(db, id)

    # What becomes of it

    def follower(self, chat: PaperChat | None = None) -> Follower:
        """As a Moss that starts now has it."""
        chats = {"paper": chat or self.chat}
        announcer = Announcer(self.store, self.settings, chats, lambda run: f"https://moss.example/runs/{run}")
        return announcer.followers[0]

    async def told(self, follower: Follower | None = None) -> None:
        """Everything there is to tell is told."""
        follower = follower or self.follower()
        everything = True
        while await follower.round(everything=everything) or everything:
            everything = False

    def digests(self) -> Digests:
        return Digests(self.store, self.settings, {"paper": self.chat})

    def card(self, key: str) -> Card:
        what = self.shown(key).what
        assert isinstance(what, Card)
        return what

    def shown(self, key: str) -> Shown:
        (found,) = [one for one in self.chat.shown if one.key == key]
        return found

    def thread(self, key: str) -> list[str]:
        """What stands in the thread of a card."""
        root = self.shown(key)
        there = root.place.model_copy(update={"thread": root.message})
        return [str(one.what) for one in self.chat.shown if one.place == there]


def renamed(matrix: Matrix, chunks: Sequence[str]) -> Matrix:
    names = {f"chunk-{n}": chunk for n, chunk in enumerate(chunks, start=1)}
    return Matrix(rows=tuple(row.model_copy(update={"task": names.get(row.task, row.task)}) for row in matrix.rows))


@asynccontextmanager
async def newsroom(store: Store, tmp: Path, config: str = "", *, followed: bool = True) -> AsyncIterator[Newsroom]:
    """Something is live; and unless nobody ever followed the facts, that is told."""
    file = tmp / "moss.toml"
    file.write_text(CONFIG + config)
    settings = load(file, {})
    room = Newsroom(store, settings, PaperChat())
    await make_live(store, settings.substrate[0], stored.version(0, since=store.now()))
    if followed:
        await room.told()
    yield room


def text(card: Card) -> str:
    """All that is written on it."""
    return "\n".join([card.text, *(f"{part.heading}\n{part.text}" for part in card.body)])
