"""The story: two bad replies are flagged, their cause is repaired, and nothing goes live before somebody approves.

It drives the real product from outside: a `moss run` of its own, the room's HTTP interface as two people with their own
tokens, the control socket's stream of facts, and `moss run show` for figures.
"""

import asyncio
import re
import time
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bot import built_in
from bot.cards.progress import DOING
from bot.control import Client
from bot.demo import script
from bot.demo.person import Message, Person
from bot.demo.screen import Screen
from bot.demo.script import Conversation
from bot.demo.stage import Fix, HostName, Stage, stage
from core.model.candidate import Candidate
from core.model.errors import Refused, Unavailable
from core.model.events import Fact, Noun
from core.model.keypoints import Matrix, TaskKind
from core.model.run import RUN_MOVES, Done, RunState, Scored
from core.model.run import Stage as Step
from core.model.swap import SWAP_MOVES, SwapState

RUN_S, SWAP_S = 900.0, 180.0
REAL_RUN_S = 7200.0
"""With a real coder, which thinks."""
CHANNEL = built_in.DESK

_RUN = re.compile(r"\brun-[a-z0-9]+\b")
_BATCH = re.compile(r"\bbatch-[a-z0-9]+\b")
_ITERATION = re.compile(r"iter-(\d+)/")


@dataclass(frozen=True, slots=True)
class Options:
    host: HostName
    why: str
    """That host."""
    fix: Fix
    headless: bool
    browser: bool
    keep: bool
    coder: script.Coder = "recorded"


@dataclass(slots=True)
class Ending:
    """What came of it: the object that `--json` prints."""

    flags: int = 0
    batch: str | None = None
    run: str | None = None
    run_state: str | None = None
    iterations: int = 0
    score_before: float | None = None
    """Of the flagged conversations, from 0 to 1: as recorded; by the live agent today; by what the run came to, which
    is the live agent where no candidate was good enough to be tried."""
    score_control: float | None = None
    score_after: float | None = None
    reply_before: str | None = None
    reply_after: str | None = None
    commit: str | None = None
    image: str | None = None
    swap_state: str | None = None
    outage_ms: int | None = None
    seconds: float = 0.0


async def tell(options: Options, screen: Screen) -> Ending:
    screen.head("Moss: an agent is repaired by the people who talk to it")
    for sentence in (options.why, *script.honesty(options.coder)):
        screen.note(sentence)
    async with up(options, screen) as play:
        await play.complain()
        if await play.evolve() and await play.decide():
            await play.ask_again()
            await play.roll_back()
        await play.digest()
    ending = play.ending
    ending.seconds = round(screen.seconds, 1)
    left = "Nothing of it is left here."
    if options.keep:
        again = "moss run" if options.host == "process" else f"MOSS_HOST={options.host} moss run"
        left = f"All of it is kept in {play.stage.root}; there, `{again}` takes it up again."
    screen.head(f"{ending.seconds:.0f} seconds. {left}")
    return ending


@asynccontextmanager
async def up(options: Options, screen: Screen) -> AsyncIterator["Play"]:
    """The curtain: `moss run`, the two people, the facts. It falls again whatever happens."""
    async with AsyncExitStack() as stack:
        screen.head("A desk is set up, and people talk to it")
        with screen.act("set up", "a repository of the desk, `moss run`, adopted and probed"):
            here = await stack.enter_async_context(stage(options.host, options.fix, options.coder, keep=options.keep))
        screen.note(f"The room is at {here.url}")
        screen.note(here.sandbox)
        user, operator = [
            await stack.enter_async_context(Person.entered(here.url, name, here.tokens[name], CHANNEL))
            for name in (built_in.USER, built_in.OPERATOR)
        ]
        if options.browser and not await asyncio.to_thread(webbrowser.open, here.way_in(CHANNEL).as_uri()):
            screen.note("No browser could be opened; go to that address yourself.")
        facts = await stack.enter_async_context(aclosing(Client(here.data / "moss.sock").facts(CHANNEL, 0)))
        yield Play(options, screen, here, user, operator, facts)


@dataclass(slots=True)
class Play:
    options: Options
    screen: Screen
    stage: Stage
    user: Person
    operator: Person
    facts: AsyncIterator[dict[str, Any]]
    ending: Ending = field(default_factory=Ending)
    asked: list[Conversation] = field(default_factory=list)
    latest: Fact | None = None
    """The last one that was read."""

    # 1. People talk, and complain

    async def complain(self) -> None:
        for conversation in script.conversations():
            reply = await self.converse(conversation)
            self.ending.reply_before = self.ending.reply_before or reply["text"]
            self.asked.append(conversation)
            told = await self.user.react(reply["id"], conversation.emoji)
            if conversation.reason and self.ending.flags == 0:
                told = await self.user.complain(reply["id"], conversation.kind, conversation.reason)
                self.screen.said(self.user.name, f"{script.character(conversation.emoji)}  “{conversation.reason}”")
            else:
                self.screen.said(self.user.name, script.character(conversation.emoji))
            if not _BATCH.search(told["text"]):
                raise Refused(told["text"])
            self.ending.flags += 1

    async def converse(self, conversation: Conversation) -> Message:
        """The agent's last reply."""
        thread, reply = None, None
        for text in conversation.said:
            self.screen.said(self.user.name, text)
            with self.screen.waiting("the desk answers"):
                reply = await self.user.ask(text, thread)
            thread = reply["thread"]
            self.screen.said(CHANNEL, reply["text"])
        assert reply is not None
        return reply

    # 2. The cause is looked for, and repaired

    async def evolve(self) -> bool:
        """Whether something is offered."""
        self.screen.head("The user types /moss evolve")
        answer = (await self.user.command("evolve"))["text"]
        self.screen.said("moss", answer)
        run, batch = _RUN.search(answer), _BATCH.search(answer)
        if run is None or batch is None:
            raise Refused(answer)
        self.ending.run, self.ending.batch = run[0], batch[0]
        with self.screen.waiting(DOING[Step.prepare]) as doing:
            ended = await self.until(self.is_over, self.run_s, lambda fact: self.show_step(fact, doing))
        self.ending.run_state = ended.after
        await self.look()
        offered = ended.after == RunState.awaiting_consent
        if not offered:
            self.screen.failed(f"The run is {ended.after}. {ended.detail.get('sentence', '')}")
            self.screen.note("No card asks anybody for anything, and nothing was swapped.")
        return offered

    def is_over(self, fact: Fact) -> bool:
        return self.is_run(fact) and fact.after not in (None, RunState.queued, RunState.running)

    def is_run(self, fact: Fact) -> bool:
        return fact.noun is Noun.run and fact.id == self.ending.run

    def show_step(self, fact: Fact, doing: Callable[[str], None]) -> None:
        if not self.is_run(fact) or fact.what != "stepped":
            return
        name, result = fact.detail["step"], fact.detail["result"]
        what = Step(re.sub(r"-try-\d+$|-\d+$", "", name.rpartition("/")[2]).replace("-", "_"))
        if found := _ITERATION.search(name):
            self.ending.iterations = max(self.ending.iterations, int(found[1]))
        failed = result["kind"] == "failed"
        text = result["sentence"] if failed else script.DOES[what]
        verdict = f": {result['verdict']}" if result.get("verdict") else ""
        aside = self.options.coder if what in script.ASKED and not failed else ""
        took = (fact.at - self.before).total_seconds()
        self.screen.done(name, f"{text}{verdict}", took, good=not failed, aside=aside)
        stages = list(Step)
        doing(DOING[stages[(stages.index(what) + 1) % len(stages)]])  # unless what was done has to be done again

    @property
    def run_s(self) -> float:
        return RUN_S if self.options.coder == "recorded" else REAL_RUN_S

    @property
    def before(self) -> datetime:
        assert self.latest is not None, "the run was queued before it took a step"
        return self.latest.at

    async def look(self) -> None:
        """Figures, from the run as `moss run show` has it."""
        assert self.ending.run
        shown = await self.stage.ask("run", "show", self.ending.run)
        steps = [Done.model_validate(step) for step in shown["steps"]]
        matrices = [_scored(steps, stage) for stage in (Step.baseline, Step.control, Step.evaluate)]
        if shown["candidate"]:
            candidate = Candidate.model_validate(shown["candidate"])
            self.ending.commit, self.ending.image = candidate.commit, candidate.image
            matrices[2] = candidate.matrix
        before, control, after = matrices
        self.ending.score_before, self.ending.score_control = _score(before), _score(control)
        self.ending.score_after = _score(after or control)
        if before and control and after:
            self.screen.matrix(before, control, after)
            for kind, what in script.KINDS.items():
                totals = [matrix.only(kind).total for matrix in (before, control, after)]
                tasks = len({row.task for row in after.only(kind).rows})
                self.screen.note(f"{tasks} {what}: {totals[0]} as recorded, {totals[1]} live, {totals[2]} candidate")

    # 3. People see what it would be, and one of them allows it

    async def decide(self) -> bool:
        """Whether it went live."""
        self.screen.head("The card in the channel asks the operator")
        card = await self.operator.until(lambda seen: _offers(seen, self.ending.run), "the card that asks for approval")
        self.show_card(card)
        await self.show_diff(card)
        await self.approve(card)
        began = time.monotonic()
        with self.screen.waiting("the desk is swapped"):
            ended = await self.until(self.is_settled, SWAP_S, self.see_swap)
        self.ending.run_state = ended.after
        live = ended.after == RunState.applied
        what = "the old desk stopped, the tried image started and probed, committed" if live else f"it is {ended.after}"
        self.screen.done("swap", what, time.monotonic() - began, good=live)
        if self.ending.outage_ms is not None:
            self.screen.note(f"Nobody could talk to the desk for {self.ending.outage_ms / 1000:.1f} s.")
        return live

    def is_settled(self, fact: Fact) -> bool:
        return self.is_run(fact) and fact.after is not None and RUN_MOVES.is_final(RunState(fact.after))

    def see_swap(self, fact: Fact) -> None:
        if fact.noun is Noun.swap and fact.after:
            self.ending.swap_state = fact.after
            self.ending.outage_ms = fact.detail.get("outage_ms", self.ending.outage_ms)

    def show_card(self, card: Message) -> None:
        shown = card["card"]
        lines = [(line["name"], line["text"]) for line in shown["lines"]]
        parts = [part for part in shown["body"] if part["heading"].startswith(("Cause", "Flagged turn"))]
        text = "\n\n".join(f"{part['heading']}\n{part['text']}" for part in parts)
        self.screen.card(shown["title"], lines, f"\n{text}" if text else "")

    async def show_diff(self, card: Message) -> None:
        assert self.ending.run
        answer = await self.operator.press_and_hear(card["id"], "diff", self.ending.run)
        for part in (answer["card"] or {"body": []})["body"]:
            if part["look"] == "code":
                self.screen.diff(part["text"])

    async def approve(self, card: Message) -> None:
        """By Enter on a terminal, by itself elsewhere; or by whoever presses the button in the room."""
        consent = next(action["subject"] for action in card["card"]["actions"] if action["verb"] == "approve")
        if self.options.headless or not self.screen.asks:
            self.screen.said(self.operator.name, "presses Approve", "bold")
            await self.operator.press(card["id"], "approve", consent)
            return
        pressed = asyncio.create_task(self.screen.enter("Press Enter to approve it as the operator."))
        elsewhere = asyncio.create_task(self.operator.until(lambda m: m["id"] == card["id"] and not _asks(m), "", 1e9))
        try:
            await asyncio.wait({pressed, elsewhere}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pressed.cancel()
            elsewhere.cancel()
        if pressed.done() and not pressed.cancelled():
            if not pressed.result():
                raise Unavailable("Nobody is at this terminal any more, so nothing was approved; start the demo again.")
            with suppress(Refused):  # somebody was faster, in the room
                await self.operator.press(card["id"], "approve", consent)

    # 4. The better answer, the way back, the summary

    async def ask_again(self) -> None:
        self.screen.head("The same question again")
        reply = await self.converse(self.asked[0])
        self.ending.reply_after = reply["text"]

    async def roll_back(self) -> None:
        self.screen.head("The user types /moss rollback; the operator approves that too")
        answer = await self.user.command("rollback")
        self.screen.said("moss", answer["text"])
        card = await self.operator.until(lambda seen: _offers(seen, None), "the card that asks for the rollback")
        consent = next(action["subject"] for action in card["card"]["actions"] if action["verb"] == "approve")
        with self.screen.act("rollback", "the version before is live again, with its memory"):
            await self.operator.press(card["id"], "approve", consent)
            await self.until(_ends_a_swap, SWAP_S)

    async def digest(self) -> None:
        self.screen.head("The operator types /moss digest")
        answer = await self.operator.command("digest")
        card = answer["card"] or {"title": "Digest", "lines": [], "body": [{"heading": "", "text": answer["text"]}]}
        text = "\n".join(filter(None, (f"{part['heading']}\n{part['text']}".strip() for part in card["body"])))
        self.screen.card(card["title"], [(line["name"], line["text"]) for line in card["lines"]], text)

    # Facts, as they are written down

    async def until(
        self, wanted: Callable[[Fact], bool], limit_s: float, tell: Callable[[Fact], None] = lambda fact: None
    ) -> Fact:
        try:
            async with asyncio.timeout(limit_s):
                async for one in self.facts:
                    fact = Fact.model_validate(one)
                    tell(fact)
                    self.latest = fact
                    if wanted(fact):
                        return fact
        except TimeoutError:
            raise Unavailable(f"It is not over after {limit_s:.0f} s; Moss's log says what it is doing.") from None
        raise Unavailable("Moss ended in the middle of the story; its log says why.")


def _scored(steps: list[Done], stage: Step) -> Matrix | None:
    found = [done.result.matrix for done in steps if done.step.stage is stage and isinstance(done.result, Scored)]
    return found[-1] if found else None


def _score(matrix: Matrix | None) -> float | None:
    return round(matrix.only(TaskKind.batch).score, 3) if matrix else None


def _ends_a_swap(fact: Fact) -> bool:
    return fact.noun is Noun.swap and fact.after is not None and SWAP_MOVES.is_final(SwapState(fact.after))


def _asks(message: Message) -> bool:
    return any(action["verb"] == "approve" for action in (message["card"] or {"actions": []})["actions"])


def _offers(message: Message, run: str | None) -> bool:
    """The question about this run; or, without one, about a rollback."""
    if not _asks(message) or message["private"]:
        return False
    shown = {action["subject"] for action in message["card"]["actions"]}
    return run in shown if run else not any(subject.startswith("run-") for subject in shown)
