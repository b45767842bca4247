"""The card of a digest: what happened in a stretch of time. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.cards.parts import fitted, names
from bot.chat import Card, Line, Section, Tone
from bot.words import count, duration, line, moment, spend
from core.model.consent import Consent
from core.model.events import Fact
from core.model.run import Run, Spend
from core.model.swap import SwapState, Version

SHOWN = 8
"""Of each kind of news."""


@dataclass(frozen=True, slots=True)
class Flags:
    by_kind: dict[str, int]
    people: int

    @property
    def total(self) -> int:
        return sum(self.by_kind.values())


@dataclass(frozen=True, slots=True)
class Lived:
    """A version that was live in this time, and how it was received."""

    version: Version
    flags: int
    replies: int
    """As far as Moss saw them."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    consent: Consent
    link: str


@dataclass(frozen=True, slots=True)
class Summary:
    substrate: str
    since: datetime
    until: datetime
    flags: Flags
    flags_before: Flags
    """In the time of equal length before."""
    opened: int
    sealed: int
    """Batches, in this time."""
    open_batches: int
    collected: int
    """Flagged replies in them."""
    started: int
    ended: tuple[Run, ...]
    waiting: tuple[Waiting, ...]
    failed_swaps: tuple[Fact, ...]
    went_live: tuple[Version, ...]
    lived: tuple[Lived, ...]
    spend: Spend
    needs_adoption: bool

    @property
    def quiet(self) -> bool:
        happened = self.flags.total + self.opened + self.sealed + self.started
        told = (self.ended, self.waiting, self.failed_swaps, self.went_live)
        return not (happened or any(told) or self.needs_adoption)


def digest(told: Summary) -> Card:
    name, since = told.substrate, f"since {moment(told.since)} UTC"
    if told.quiet:
        return Card(title=f"{name}: nothing was flagged, repaired or decided {since}")
    tone = Tone.bad if told.needs_adoption else Tone.asking if told.waiting else Tone.calm
    title = f"{name}: what happened {since}"
    return fitted(Card(title=title, tone=tone, lines=tuple(_lines(told)), body=tuple(_body(told))), "moss digest")


def _lines(told: Summary) -> Iterator[Line]:
    flags, before = told.flags, told.flags_before
    by = f" by {count(flags.people, 'person', 'people')}" if flags.people else ""
    yield Line(name="Flags", text=f"{flags.total}{by}; {before.total} in the same time before")
    held = f" with {count(told.collected, 'flagged reply', 'flagged replies')}" if told.open_batches else ""
    yield Line(name="Batches", text=f"{told.opened} opened, {told.sealed} sealed; {told.open_batches} open now{held}")
    outcomes = Counter(run.state.replace("_", " ") for run in told.ended)
    ended = ", ".join(f"{number} {state}" for state, number in sorted(outcomes.items())) or "none ended"
    yield Line(name="Runs", text=f"{told.started} started; {ended}")
    yield Line(name="Spent", text=spend(told.spend))


def _body(told: Summary) -> Iterator[Section]:
    name = told.substrate
    if told.needs_adoption:
        mend = f"Mend it on the machine it runs on, then run `moss adopt --substrate {name}` there."
        yield Section(heading=f"{name} needs a person", text=mend)
    if told.waiting:
        yield _listed("Waits for approval", [_waits(one) for one in told.waiting])
    if told.went_live or told.failed_swaps:
        yield _listed("Went live", [*map(_went_live, told.went_live), *(_failed(fact) for fact in told.failed_swaps)])
    if told.ended:
        yield _listed("Runs that ended", [_ended(run) for run in told.ended])
    if kinds := sorted(told.flags.by_kind.keys() | told.flags_before.by_kind.keys()):
        yield _listed("Flags by kind", [_kind(told, kind) for kind in kinds])
    if told.lived and any(one.flags or one.replies for one in told.lived):
        yield _listed("Flags by version", [_received(one) for one in told.lived])


def _listed(heading: str, lines: Sequence[str]) -> Section:
    more = len(lines) - SHOWN
    return Section(heading=heading, text="\n".join([*lines[:SHOWN], *([f"and {more} more"] if more > 0 else [])]))


def _waits(one: Waiting) -> str:
    asked = one.consent
    what = f"the repair of {asked.run}" if asked.run else f"the rollback to version {asked.version}"
    until = f"until {moment(asked.expires_at)} UTC"
    may = names(asked.policy.approvers) or "nobody, since no approvers are configured"
    return f"{what}, {until}, for {may}{f': {one.link}' if one.link else ''}"


def _went_live(one: Version) -> str:
    how = f"brings back version {one.restores}" if one.restores is not None else "a repair" if one.swap else "adopted"
    return f"version {one.number} at {moment(one.since)} UTC: {how}, commit {one.commit[:12]}"


def _failed(fact: Fact) -> str:
    problem = line(str(fact.detail.get("problem") or "see `/moss history`"), 160)
    if fact.after == SwapState.stuck:
        return f"a swap at {moment(fact.at)} UTC got stuck: {problem}"
    return f"a swap at {moment(fact.at)} UTC did not hold, and what was live before came back: {problem}"


def _ended(run: Run) -> str:
    return f"{run.id} is {run.state.replace('_', ' ')}: {line(run.sentence, 160)}"


def _kind(told: Summary, kind: str) -> str:
    now, before = told.flags.by_kind.get(kind, 0), told.flags_before.by_kind.get(kind, 0)
    trend = "as many as before" if now == before else f"{'more' if now > before else 'fewer'} than before ({before})"
    return f"{kind}: {now}, {trend}"


def _received(one: Lived) -> str:
    rate = f" to {count(one.replies, 'reply', 'replies')}" if one.replies else ""
    still = "live for" if one.version.until is None else "was live for"
    return f"version {one.version.number}, {still} {duration(one.seconds)}: {count(one.flags, 'flag')}{rate}"
