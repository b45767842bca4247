"""Cards that answer a question: how things stand, which batches there are, what was live when."""

from collections.abc import Iterator, Sequence

from bot.cards import parts
from bot.chat import Card, Line, Section, Tone
from bot.report import Evidence, Listed, Standing
from bot.words import cost, count, cut, duration, line, moment
from core.model.evidence import Chunk
from core.model.run import Run, RunState
from core.model.swap import Version

BATCHES_SHOWN, VERSIONS_SHOWN, CHUNKS_SHOWN = 12, 12, 10
UNDER_WAY = (RunState.queued, RunState.running, RunState.approved, RunState.swapping)


def status(standings: Sequence[Standing]) -> Card:
    wants = any(each.needs_adoption for each in standings)
    waits = any(each.asked for each in standings)
    card = Card(
        title="How things stand",
        tone=Tone.bad if wants else Tone.asking if waits else Tone.calm,
        body=tuple(Section(heading=each.substrate, text="\n".join(_standing(each))) for each in standings),
    )
    return parts.fitted(card, "`moss status` on the command line")


def _standing(one: Standing) -> Iterator[str]:
    live = one.live
    yield (
        f"Version {live.number} is live since {moment(live.since)} UTC ({live.commit[:12]})."
        if live
        else ("Nothing is live.")
    )
    if one.needs_adoption:
        yield f"It needs a person: `moss adopt --substrate {one.substrate}` on the machine it runs on."
    if one.swap:
        yield f"Swap {one.swap.id} is {one.swap.state}."
    if one.held_back:
        yield f"An approved change is not live yet. {one.held_back}"
    for run in one.runs:
        if run.state in UNDER_WAY:
            yield f"Run {run.id} of {run.batch} is {_state(run.state)}."
    for asked in one.asked:
        what = f"The repair of {asked.run}" if asked.run else f"The rollback to version {asked.version}"
        until = f"until {moment(asked.expires_at)} UTC"
        yield f"{what} waits for approval {until}: `/moss approve {asked.run or asked.id}`."
    if one.month.tokens or one.month.money_usd:
        yield f"This month its runs have cost {cost(one.month)}."
    yield f"{count(one.open_batches, 'open batch', 'open batches')}, {one.sealed_batches} sealed."
    ended = next((run for run in one.runs if run.state not in UNDER_WAY and run.ended_at), None)
    if ended:
        yield f"The last run, {ended.id}, is {_state(ended.state)}: {line(ended.sentence, 160)}"


def _state(state: RunState) -> str:
    return state.replace("_", " ")


def all_batches(listed: Sequence[Listed], substrate: str, page: int = 1, held: int = 0) -> Card:
    """Newest first: one page of so many as there are."""
    lines = [_in_short(each) for each in listed]
    more = held - page * BATCHES_SHOWN
    lines += [f"and {more} older: `/moss batches page {page + 1}`"] if more > 0 else []
    empty = "No batches yet: react to a bad reply with an emoji, or use `/moss flag`."
    return Card(title=f"Batches of {substrate}", body=(Section(text="\n".join(lines) or empty),))


def _in_short(one: Listed) -> str:
    run = f"; {one.run.id} is {_state(one.run.state)}" if one.run else ""
    held = count(one.held, "flagged reply", "flagged replies")
    since = one.batch.sealed_at or one.batch.opened_at
    return f"{one.batch.id}, {one.batch.state} since {moment(since)} UTC: {held}{run}"


def batch(one: Evidence) -> Card:
    found, run = one.batch, one.run
    lines = [Line(name="State", text=found.state), Line(name="Opened", text=f"{moment(found.opened_at)} UTC")]
    if found.sealed_at:
        by = line(found.sealed_by or "", 60)
        lines.append(Line(name="Sealed", text=f"{moment(found.sealed_at)} UTC, by {by}"))
    if run:
        lines.append(Line(name="Latest run", text=f"{run.id}, {_state(run.state)}"))
    body = [
        Section(heading=f"Flagged reply {n}: {_flags(chunk)}", text=cut(chunk.flagged.content, 220), look="quote")
        for n, chunk in enumerate(one.chunks[:CHUNKS_SHOWN], start=1)
    ]
    more = len(one.chunks) - CHUNKS_SHOWN
    rest = f"`moss batch {found.id}` on the command line"
    body += [Section(text=f"And {more} more: {rest}.")] if more > 0 else []
    body.append(parts.complaints(one.chunks, rest))
    body.append(parts.people_can(_what_now(found.id, run)))
    card = Card(title=f"Batch {found.id} of {found.substrate}", lines=tuple(lines), body=tuple(body))
    return parts.fitted(card, rest)


def _flags(chunk: Chunk) -> str:
    return f"{count(chunk.weight, 'person', 'people')}, {' and '.join(sorted(chunk.kinds)) or 'no kind named'}"


def _what_now(id: str, run: Run | None) -> str:
    if run and run.state in UNDER_WAY:
        return f"Nothing has to be done: {run.id} works on it."
    if run and run.state is RunState.awaiting_consent:
        return f"`/moss approve {run.id}`, or `/moss decline {run.id}`."
    return f"`/moss evolve {id}` starts a repair."


def history(versions: Sequence[Version], substrate: str, page: int = 1) -> Card:
    """Newest first, from a page on."""
    lines = [_version(version) for version in reversed(versions)][:VERSIONS_SHOWN]
    more = len(versions) - VERSIONS_SHOWN
    lines += [f"and {more} older: `/moss history page {page + 1}`"] if more > 0 else []
    body = [Section(text="\n".join(lines) or "Nothing was ever live here: run `moss adopt` where the agent runs.")]
    body += [parts.people_can("`/moss rollback NUMBER` asks to go back to a version.")] if len(versions) > 1 else []
    return Card(title=f"Versions of {substrate}", body=tuple(body))


def _version(one: Version) -> str:
    until = f"until {moment(one.until)} UTC" if one.until else "live"
    lasted = f" ({duration((one.until - one.since).total_seconds())})" if one.until else ""
    why = f", brings back version {one.restores}" if one.restores is not None else "" if one.swap else ", adopted"
    return f"Version {one.number}: {one.commit[:12]}, since {moment(one.since)} UTC, {until}{lasted}{why}"
