"""The announcer: follows the facts of every substrate and tells people what they mean for them.

One card per run, edited in place; milestones in its thread; everything under a key, so that it is said once. Where the
announcer has read to is written down after it has told what it read: a Moss that dies in between tells the rest later.
Each platform has a follower of its own, so that one that is away holds up no other. A workspace that is away falls
behind: a follower of its own tells what it missed, in order, until it has caught up with the others of its platform.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace

import structlog

from bot import cards
from bot.cards import milestones
from bot.chat import Card, Picture
from bot.patience import Away, rest
from bot.picture import picture, warm
from bot.places import is_direct, news_place
from bot.posting import Chats, find, post_once, show
from bot.report import Report, gather
from bot.settings import Settings
from core.model.batch import BatchState
from core.model.consent import Consent
from core.model.errors import BadInput, MossError, NotFound, Refused, Unavailable
from core.model.events import INSTALLATION, Fact, Noun
from core.model.run import RUN_MOVES, RunState
from core.model.swap import Swap
from core.model.transcript import Place
from core.store import Store, batches, consents, facts, marks, runs, swaps

log = structlog.get_logger(__name__)

EDIT_EVERY_S = 1.0
"""Between two rounds of edits: what happens meanwhile is shown by the next one."""
LOOK_S = 5.0
"""How long a fact that another process wrote may stay unseen."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""While a platform is away: doubled from try to try. It is tried until Moss ends, since the last state must arrive."""
FACTS_AT_ONCE = 200
ABOUT_A_SUBJECT = (Noun.run, Noun.consent, Noun.swap)

Link = Callable[[str], str]
"""Where the page of a run is; empty when there is none."""


class Announcer:
    def __init__(self, store: Store, settings: Settings, chats: Chats, link: Link = lambda run: "") -> None:
        self._ending = asyncio.Event()
        self.followers = [
            Follower(store, settings, chats, link, chain, platform, self._ending)
            for chain in (*(substrate.name for substrate in settings.substrate), INSTALLATION)
            for platform in chats
        ]
        for substrate in settings.substrate:
            if problem := nowhere(settings, substrate.name, chats):
                log.warning("news of what belongs to no conversation is not told", of=substrate.name, why=problem)

    async def run(self) -> None:
        """Until `stop`; what was written down by then is told."""
        async with asyncio.TaskGroup() as group:
            for follower in self.followers:
                group.create_task(follower.follow())

    def stop(self) -> None:
        self._ending.set()


def nowhere(settings: Settings, substrate: str, chats: Chats) -> str | None:
    """Why nobody tells news of it: then no follower would ever say so."""
    try:
        place = news_place(settings, substrate)
    except BadInput as problem:
        return problem.sentence
    known = ", ".join(sorted(chats)) or "none"
    return None if place.platform in chats else f"`{place}` is in no chat of this Moss; connected: {known}."


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What has a card of its own: a run, or the question whether an older version may come back."""

    noun: Noun
    id: str

    @property
    def key(self) -> str:
        return f"{self.noun}:{self.id}"


@dataclass(slots=True)
class Follower:
    """The news of one substrate, or of the installation, on one platform: in all its workspaces but those that are
    behind, or in one that is."""

    store: Store
    settings: Settings
    chats: Chats
    link: Link
    substrate: str
    platform: str
    ending: asyncio.Event
    workspace: str | None = None
    """The one that is behind."""
    behind: set[str] = field(default_factory=set)
    """The workspaces where others tell the news of this round."""
    followers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Of those workspaces."""
    reports: dict[str, Report] = field(default_factory=dict)
    """Gathered once in a round."""
    warming: asyncio.Task[None] | None = None
    known: set[str] = field(default_factory=set)
    """Why something was not told: each reason is logged once."""

    async def follow(self) -> None:
        """Until the end; one that was behind, until it has caught up."""
        try:
            await self.go_on()
        finally:
            for task in self.followers.values():
                if not self.ending.is_set():
                    task.cancel()
            await asyncio.gather(*self.followers.values(), return_exceptions=True)

    async def go_on(self) -> None:
        changes, pause_s, begun = -1, FIRST_PAUSE_S, False
        while True:
            last = self.ending.is_set()
            try:
                told = await self.round(everything=not begun)
                if self.workspace is not None and await self.caught_up():
                    return
                self.follow_what_is_behind()
            except Exception as problem:
                if isinstance(problem, MossError):
                    log.warning("news wait", of=self.substrate, on=self.where, why=problem.sentence)
                else:
                    log.exception("news wait", of=self.substrate, on=self.where)
                if last:
                    return
                await rest(self.ending, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if last:
                return
            begun, pause_s = True, FIRST_PAUSE_S
            if told:
                await rest(self.ending, EDIT_EVERY_S)
            else:
                changes = await self.store.wait_for_change(changes, LOOK_S, self.ending, of=self.substrate)

    async def round(self, *, everything: bool = False) -> bool:
        """Tell what nobody was told yet; False when there was nothing. `everything` also looks after the cards of
        what has not ended, whoever left them as they are."""
        async with self.store.reading() as db:
            mark = await marks.get(db, self.mark)
            # What happened before anybody followed is history, not news.
            seq = mark["seq"] if mark else await facts.head(db, self.substrate)
            unread = await facts.since(db, self.substrate, seq, FACTS_AT_ONCE)
            behind = [] if self.workspace is not None else await marks.named(db, f"{self.mark}:")
        if mark is None:
            await self.read_to(self.mark, seq)
        self.behind = {name.removeprefix(f"{self.mark}:") for name in behind}
        known = set(self.behind)
        self.reports.clear()
        stale = await self.unfinished() if everything else set()
        for fact in unread:
            stale |= await self.changed_by(fact)
        for subject in sorted(stale):
            await self.refresh(subject)
        for fact in unread:
            await self.tell(fact)
        left_out = self.behind if unread else self.behind - known
        if unread or left_out:
            await self.read_to(self.mark, unread[-1].seq if unread else seq, left_out, seq)
        return bool(unread)

    async def read_to(self, name: str, seq: int, left_out: Collection[str] = (), since: int = 0) -> None:
        """What was not told in the workspaces that are left out begins after `since`, unless it begins before."""
        async with self.store.writing() as db:
            now = self.store.now()
            for workspace in left_out:
                if await marks.get(db, f"{name}:{workspace}") is None:
                    await marks.put(db, now, f"{name}:{workspace}", {"seq": since})
            mark = await marks.get(db, name)
            if mark is None or mark["seq"] < seq:
                await marks.put(db, now, name, {"seq": seq})

    @property
    def where(self) -> str:
        return self.platform if self.workspace is None else f"{self.platform}:{self.workspace}"

    @property
    def mark(self) -> str:
        return f"news:{self.substrate}:{self.where}"

    async def caught_up(self) -> bool:
        """Whether this workspace has been told all that the others were: from then on it is told with them."""
        async with self.store.writing() as db:
            mine = await marks.get(db, self.mark)
            others = await marks.get(db, f"news:{self.substrate}:{self.platform}")
            if mine and others and mine["seq"] < others["seq"]:
                return False
            await marks.remove(db, self.mark)
        return True

    def follow_what_is_behind(self) -> None:
        for workspace in self.behind:
            task = self.followers.get(workspace)
            if task is None or task.done():
                own = replace(
                    self, workspace=workspace, behind=set(), followers={}, reports={}, warming=None, known=set()
                )
                self.followers[workspace] = asyncio.create_task(own.follow())

    def tells(self, home: Place) -> bool:
        """Whether what belongs to this place is told by this follower."""
        if home.platform != self.platform:
            return False
        return home.workspace not in self.behind if self.workspace is None else home.workspace == self.workspace

    async def reach(self, home: Place, saying: Awaitable[object]) -> None:
        """From the moment that a workspace is away, the others are told without it, and its own follower goes on."""
        try:
            await saying
        except Away as problem:
            if self.workspace is not None:
                raise
            log.warning("news wait", of=self.substrate, on=f"{self.platform}:{home.workspace}", why=problem.sentence)
            self.behind.add(home.workspace)

    async def unfinished(self) -> set[Subject]:
        async with self.store.reading() as db:
            found = await runs.listing(db, self.substrate, limit=None)
            asked = await consents.asked(db, self.substrate)
        going = {Subject(Noun.run, run.id) for run in found if not RUN_MOVES.is_final(run.state)}
        return going | {Subject(Noun.consent, one.id) for one in asked if one.run is None}

    # From a fact to words

    async def changed_by(self, fact: Fact) -> set[Subject]:
        """Whose cards it changes."""
        with contextlib.suppress(NotFound):
            if fact.noun in ABOUT_A_SUBJECT:
                return {await self.subject_of(fact)}
            if fact.what == "version_added":
                return await self.lived_until(fact)
        return set()

    async def tell(self, fact: Fact) -> None:
        """Each audience by itself: a place that refuses costs no other its news."""
        for audience in (self.tell_the_news_place, self.tell_of_batch, self.tell_of_subject, self.tell_flaggers):
            try:
                await audience(fact)
            except Unavailable:
                raise
            except MossError as problem:  # what it is about is gone, or nobody wants to hear it
                self.grumble("news untold", problem, fact=fact.seq, what=fact.what)
            except Exception:  # a fault of ours; the rest of the news goes on
                log.exception("news untold", fact=fact.seq, what=fact.what)

    def grumble(self, event: str, problem: MossError, **more: object) -> None:
        if problem.sentence not in self.known:
            self.known.add(problem.sentence)
            log.warning(event, why=problem.sentence, **more)

    async def tell_the_news_place(self, fact: Fact) -> None:
        if (said := milestones.of_substrate(fact)) and self.tells(self.news_place):
            await self.say(self.news_place, self.news_place, said, f"news:{self.substrate}:{fact.seq}")

    async def tell_of_batch(self, fact: Fact) -> None:
        if fact.noun is not Noun.batch or fact.after != BatchState.sealed:
            return
        async with self.store.reading() as db:
            batch = await batches.get(db, fact.id)
            held = await batches.count(db, batch.id)
        home = self.home(batch.place)
        if self.tells(home):
            await self.say(home, home, milestones.of_batch(fact, batch, held), f"batch:{fact.id}:{fact.seq}")

    async def tell_of_subject(self, fact: Fact) -> None:
        if fact.noun not in ABOUT_A_SUBJECT:
            return
        subject = await self.subject_of(fact)
        if subject.noun is Noun.run:
            report = await self.report(subject.id)
            said, home = milestones.of_run(fact, report), self.home(report.batch.place)
        else:
            consent, swap = await self.rollback(subject.id)
            said, home = milestones.of_rollback(fact, consent, swap), self.news_place
        if said and self.tells(home) and (root := await find(self.store, subject.key)):
            thread = root.place.model_copy(update={"thread": root.message})
            await self.say(home, thread, said, f"{subject.key}:{fact.seq}")

    async def tell_flaggers(self, fact: Fact) -> None:
        if fact.noun is Noun.run and fact.after == RunState.applied and self.settings.announce.receipts:
            report = await self.report(fact.id)
            if self.tells(report.batch.place):
                await self.reach(report.batch.place, self.hand_out_receipts(report))

    async def say(self, home: Place, place: Place, said: Card | str | None, key: str) -> None:
        if said:
            await self.reach(home, post_once(self.store, self.chats, place, said, key))

    async def hand_out_receipts(self, report: Report) -> None:
        """In the thread of each flagged reply, so that whoever flagged it meets the answer there."""
        for exchange in report.exchanges:
            place, swap = exchange.chunk.place, report.swap
            if swap is None or exchange.after is None:
                continue
            thread = place.model_copy(update={"thread": place.thread or exchange.chunk.turn})
            receipt = cards.receipt(report, exchange, self.link(report.run.id))
            with contextlib.suppress(Refused):  # the reply is gone, or was never in a chat of ours
                await post_once(self.store, self.chats, thread, receipt, f"receipt:{swap.id}:{exchange.chunk.id}")

    # Cards

    async def refresh(self, subject: Subject) -> None:
        """Post the card, or bring it up to date."""
        try:
            place, card = await self.card_of(subject)
            if self.tells(place):
                await self.reach(place, self.put(place, card, subject.key))
        except Unavailable:
            raise
        except MossError as problem:
            self.grumble("card not shown", problem, card=subject.key)
        except Exception:
            log.exception("card not shown", card=subject.key)

    async def put(self, place: Place, card: Card, key: str) -> None:
        try:
            await show(self.store, self.chats, place, card, key)
        except Refused as problem:
            if place == self.news_place or self.news_place.platform not in self.chats:
                raise
            self.grumble("card moves", problem, card=key, to=str(self.news_place))
            await show(self.store, self.chats, self.news_place, card, key)

    async def card_of(self, subject: Subject) -> tuple[Place, Card]:
        if subject.noun is Noun.run:
            report = await self.report(subject.id)
            drawn = await self.picture_of(report)
            return self.home(report.batch.place), cards.run(report, drawn, self.link(subject.id))
        consent, swap = await self.rollback(subject.id)
        async with self.store.reading() as db:
            versions = await swaps.versions(db, self.substrate)
        target = next((version for version in versions if version.number == consent.version), None)
        live = next((version for version in versions if version.until is None), None)
        return self.news_place, cards.rollback(consent, target, live, swap)

    async def picture_of(self, report: Report) -> Picture | None:
        """A card without its picture is better than none."""
        try:
            if report.run.state is RunState.running:
                self.warming = self.warming or asyncio.create_task(warm())  # one will be wanted soon
            elif report.matrices:
                return await picture(*report.matrices)
        except Exception:
            log.exception("picture not drawn", run=report.run.id)
        return None

    def home(self, place: Place) -> Place:
        """The conversation that complained; or where other news goes, when Moss is not in it, or when it is a direct
        message, where no approver is."""
        away = place.platform not in self.chats or (is_direct(place) and self.news_place.platform in self.chats)
        return self.news_place if away else place.conversation

    @property
    def news_place(self) -> Place:
        """Of the installation: where news of its first substrate goes."""
        known = self.substrate if self.substrate != INSTALLATION else self.settings.substrate[0].name
        return news_place(self.settings, known)

    # What a fact is about

    async def report(self, run: str) -> Report:
        if run not in self.reports:
            self.reports[run] = await gather(self.store, self.settings.data, run)
        return self.reports[run]

    async def rollback(self, id: str) -> tuple[Consent, Swap | None]:
        async with self.store.reading() as db:
            return await consents.get(db, id), await swaps.of_consent(db, id)

    async def subject_of(self, fact: Fact) -> Subject:
        if fact.noun is Noun.run:
            return Subject(Noun.run, fact.id)
        async with self.store.reading() as db:
            swap = await swaps.get(db, fact.id) if fact.noun is Noun.swap else None
            consent = await consents.get(db, swap.consent if swap else fact.id)
        return Subject(Noun.run, consent.run) if consent.run else Subject(Noun.consent, consent.id)

    async def lived_until(self, fact: Fact) -> set[Subject]:
        """The card that says its version is live, once another one is."""
        async with self.store.reading() as db:
            versions = await swaps.versions(db, self.substrate)
            before = next((one for one in versions if one.number == fact.detail["number"] - 1), None)
            swap = await swaps.get(db, before.swap) if before and before.swap else None
        return {Subject(Noun.run, swap.run)} if swap and swap.run else set()
