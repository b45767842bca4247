"""The digest: what happened since the last one, told once per period and place.

What is due is decided from the store, under its lock: a tick that comes twice, late, to two processes or after a crash
finds what was decided before. A period that nobody was there for is told with the next one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from bot.cards.digest import Flags, Lived, Summary, Waiting, digest
from bot.chat import Card
from bot.places import news_place, place_named
from bot.posting import Chats, link_to, post_once
from bot.schedule import latest
from bot.settings import Settings
from core.model.batch import BatchState
from core.model.consent import Consent
from core.model.errors import MossError, Refused
from core.model.events import Fact, Noun
from core.model.evidence import Flag
from core.model.run import RUN_MOVES, RunState
from core.model.swap import SwapState, Version
from core.model.transcript import Place
from core.store import Store, batches, consents, facts, ledger, marks, runs, substrates, swaps, turns
from core.store.posts import Post

log = structlog.get_logger(__name__)

IDS_AT_ONCE = 500
VERSIONS_TOLD = 4
"""The latest, with how each was received."""


# Gathering


async def compose(store: Store, substrate: str, since: datetime, until: datetime, chats: Chats | None = None) -> Card:
    """The digest of any time, as `/moss digest` and `moss digest` show it."""
    async with store.reading() as db:
        window = await facts.between(db, substrate, since, until)
    return digest(await summary(store, substrate, since, until, window, chats=chats or {}))


async def summary(
    store: Store, substrate: str, since: datetime, until: datetime, window: Sequence[Fact], *, chats: Chats
) -> Summary:
    """`window` holds the facts that are told; times alone would lose some when a clock is set."""
    async with store.reading() as db:
        before = await facts.between(db, substrate, since - (until - since), since)
        told = {fact.seq for fact in window}
        before = [fact for fact in before if fact.seq not in told]
        still_open = await batches.listing(db, substrate, states=(BatchState.open,))
        collected = sum([await batches.count(db, batch.id) for batch in still_open])
        ended = [await runs.get(db, fact.id) for fact in window if _ends(fact)]
        versions = await swaps.versions(db, substrate)
        added = {fact.detail["number"] for fact in window if fact.what == "version_added"}
        replies = await turns.replies(db, substrate)
        asked = await consents.asked(db, substrate)
        worked_s = await runs.worked_s(db, substrate, since)
        spent = (await ledger.of_substrate(db, substrate, since)).model_copy(update={"seconds": worked_s})
        live = bool(versions) and versions[-1].until is None  # what was released needs nobody
        needs_adoption = live and await substrates.needs_adoption(db, substrate)
    recent = [one for one in versions if one.until is None or one.until > since][-VERSIONS_TOLD:]
    return Summary(
        substrate=substrate,
        since=since,
        until=until,
        flags=await _flags(store, window),
        flags_before=await _flags(store, before),
        opened=sum(fact.noun is Noun.batch and fact.what == "opened" for fact in window),
        sealed=sum(fact.noun is Noun.batch and fact.after == BatchState.sealed for fact in window),
        open_batches=len(still_open),
        collected=collected,
        started=sum(fact.noun is Noun.run and fact.what == "queued" for fact in window),
        ended=tuple({run.id: run for run in ended}.values()),
        waiting=tuple([Waiting(one, await _link(store, chats, one)) for one in asked]),
        failed_swaps=tuple(fact for fact in window if fact.noun is Noun.swap and fact.after in _FAILED),
        went_live=tuple(one for one in versions if one.number in added),
        lived=tuple([await _lived(store, one, until, replies.get(one.number, 0)) for one in recent]),
        spend=spent,
        needs_adoption=needs_adoption,
    )


_FAILED = (SwapState.restored, SwapState.stuck)


def _ends(fact: Fact) -> bool:
    return fact.noun is Noun.run and fact.after is not None and RUN_MOVES.is_final(RunState(fact.after))


async def _flags(store: Store, window: Sequence[Fact]) -> Flags:
    """What was raised in this time and still stands. A flag to which words were added later counts where it began."""
    told = {fact.seq for fact in window if _raises(fact)}
    raised: set[tuple[str, str]] = set()
    found: list[tuple[str, Flag]] = []
    async with store.reading() as db:
        for batch in {fact.id for fact in window if _raises(fact)}:
            first = {
                _whose(fact): fact.seq for fact in reversed(await facts.about(db, Noun.batch, batch)) if _raises(fact)
            }
            raised |= {whose for whose, seq in first.items() if seq in told}
        ids = sorted({chunk for chunk, _ in raised})
        for n in range(0, len(ids), IDS_AT_ONCE):
            found += await batches.flags_of(db, ids[n : n + IDS_AT_ONCE])
    standing = [flag for chunk, flag in found if (chunk, flag.person) in raised and flag.withdrawn_at is None]
    return Flags(dict(Counter(str(flag.kind) for flag in standing)), len({flag.person for flag in standing}))


def _raises(fact: Fact) -> bool:
    return fact.noun is Noun.batch and fact.what == "flagged"


def _whose(fact: Fact) -> tuple[str, str]:
    return str(fact.detail.get("chunk")), str(fact.detail.get("person"))


async def _lived(store: Store, version: Version, until: datetime, replies: int) -> Lived:
    end = min(version.until or until, until)
    async with store.reading() as db:
        window = await facts.between(db, version.substrate, version.since, end)
    flags = await _flags(store, window)
    return Lived(version, flags.total, replies, max((end - version.since).total_seconds(), 0))


async def _link(store: Store, chats: Chats, consent: Consent) -> str:
    key = f"run:{consent.run}" if consent.run else f"consent:{consent.id}"
    return await link_to(store, chats, key)


# Once per period and place


@dataclass(frozen=True, slots=True)
class Digests:
    store: Store
    settings: Settings
    chats: Chats

    async def tick(self) -> None:
        """Post what is due. Each digest stands alone: one that fails is logged and tried again at the next tick."""
        for substrate in self.settings.substrate:
            for text in dict.fromkeys(self.settings.digest.places or ("",)):
                try:
                    place = place_named(text) if text else news_place(self.settings, substrate.name)
                    await self.due(substrate.name, place)
                except MossError as problem:
                    log.warning("digest waits", substrate=substrate.name, place=text, why=problem.sentence)
                except Exception:
                    log.exception("digest waits", substrate=substrate.name, place=text)

    async def due(self, substrate: str, place: Place) -> Post | None:
        """The digest of the period that ended last, posted now; None when none is due or there is nothing to say."""
        name = f"digest:{substrate}:{place}"
        mark = await self._begun(name, substrate)
        if mark is None:
            return None
        now = mark["open"]
        async with self.store.reading() as db:
            window = [fact for fact in await facts.since(db, substrate, mark["seq"]) if fact.seq <= now["seq"]]
        since, until = (datetime.fromisoformat(each["at"]) for each in (mark, now))
        told = await summary(self.store, substrate, since, until, window, chats=self.chats)
        post = None
        if not (told.quiet and self.settings.digest.nothing == "silence"):
            shown = digest(told)
            what = f"{shown.title}." if told.quiet else shown
            try:
                post = await post_once(self.store, self.chats, place, what, f"{name}:{mark['n']}")
            except Refused as problem:  # the next one tells it too
                log.warning("digest refused", substrate=substrate, place=str(place), why=problem.sentence)
                now = {**now, "seq": mark["seq"], "at": mark["at"]}
        await self._ended(name, mark["n"], now)
        return post

    async def _begun(self, name: str, substrate: str) -> Any:
        """The mark, with the window that is to be told; None when nothing is due. Who comes second gets the same."""
        settings = self.settings.digest
        async with self.store.writing() as db:
            now, head = self.store.now(), await facts.head(db, substrate)
            mark = await marks.get(db, name)
            if mark is None:  # what happened before is history, not news
                fresh = {"n": 0, "due": now.isoformat(), "at": now.isoformat(), "seq": head, "open": None}
                await marks.put(db, now, name, fresh)
                return None
            if mark["open"]:
                return mark
            last = datetime.fromisoformat(mark["due"])
            due = latest(settings.cron, settings.timezone, last, now)
            if due is None and latest(settings.cron, settings.timezone, now, last - timedelta(seconds=1)):
                # The clock was far ahead, and what it said then must not keep us silent until it says so again.
                await marks.put(db, now, name, {**mark, "due": now.isoformat()})
            if due is None:
                return None
            begun = {**mark, "open": {"due": due.isoformat(), "at": now.isoformat(), "seq": head}}
            await marks.put(db, now, name, begun)
            return begun

    async def _ended(self, name: str, n: int, now: dict[str, Any]) -> None:
        async with self.store.writing() as db:
            mark = await marks.get(db, name)
            if mark["n"] == n:
                await marks.put(db, self.store.now(), name, {"n": n + 1, **now, "open": None})
