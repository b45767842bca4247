"""The card that asks whether an older version may come back, and says what became of the question."""

from bot.cards import parts
from bot.chat import Card, Line, Section, Tone
from bot.words import duration, line, moment
from core.model.consent import Consent, ConsentState
from core.model.swap import Swap, SwapState, Version
from core.model.value import short


def rollback(
    consent: Consent, target: Version | None, live: Version | None, swap: Swap | None = None, link: str = ""
) -> Card:
    """`target` is the version to bring back, `live` what runs at this moment."""
    return Card(
        title=_title(consent, swap),
        tone=_tone(consent, swap),
        lines=tuple(_lines(consent, target, swap)),
        body=(Section(heading=_heading(consent), text=_text(consent, live, swap)),),
        actions=parts.decide(consent) if consent.state is ConsentState.asked else (),
        link=link,
    )


def _title(consent: Consent, swap: Swap | None) -> str:
    name, version = consent.substrate, consent.version
    match consent.state, swap.state if swap else None:
        case ConsentState.asked, _:
            return f"{name}: a rollback to version {version} waits for approval"
        case _, SwapState.live:
            return f"{name}: version {version} is live again"
        case _, SwapState.restored:
            return f"{name}: the rollback to version {version} did not go live"
        case _, SwapState.stuck:
            return f"{name} IS DOWN and needs a person now"
        case _, None if consent.state is ConsentState.granted:
            return f"{name}: the rollback to version {version} is approved and waits for its swap"
        case _, None:
            ended = {"declined": "was declined", "expired": "was not decided in time", "void": "is out of date"}
            return f"{name}: the rollback to version {version} {ended[consent.state]}"
        case _:
            return f"{name}: version {version} is going live again"


def _tone(consent: Consent, swap: Swap | None) -> Tone:
    if consent.state is ConsentState.asked:
        return Tone.asking
    if swap and swap.state in (SwapState.restored, SwapState.stuck):
        return Tone.bad
    return Tone.good if swap and swap.state is SwapState.live else Tone.calm


def _lines(consent: Consent, target: Version | None, swap: Swap | None) -> list[Line]:
    lines = [Line(name="Asked by", text=line(consent.starter, 60))]
    if target:
        lived = f"live from {moment(target.since)} to {moment(target.until) or 'now'} UTC"
        lines.append(Line(name=f"Version {target.number}", text=f"commit {target.commit[:12]}, {lived}"))
    if consent.state in (ConsentState.asked, ConsentState.granted):
        lines += parts.approvals(consent)
    if consent.state is ConsentState.declined:
        lines.append(Line(name="Declined by", text=parts.declined(consent)))
    if swap and swap.outage_ms is not None:
        lines.append(Line(name="Away for", text=duration(swap.outage_ms / 1000)))
    if swap and swap.problem:
        lines.append(Line(name="Problem", text=line(swap.problem, 400)))
    return lines


def _heading(consent: Consent) -> str:
    return "If you approve" if consent.state is ConsentState.asked else "What you can do"


def _text(consent: Consent, live: Version | None, swap: Swap | None) -> str:
    name, version = consent.substrate, consent.version
    if consent.state is ConsentState.asked:
        now = f" in place of version {live.number}" if live else ""
        return (
            f"Version {version} ({short(consent.image)}) goes live again{now}. The memory of {name} is kept. Unless it "
            f"passes its probes, what is live now comes back by itself."
        )
    if swap and swap.state is SwapState.stuck:
        return f"Mend it on the machine it runs on, then run `moss adopt --substrate {name}` there."
    if swap and swap.state is SwapState.live:
        return "`/moss history` shows all versions; a rollback can be undone by another."
    if consent.state is ConsentState.granted and (swap is None or swap.ended_at is None):
        return "Nothing has to be done."
    return f"Nothing was changed. `/moss rollback {version}` asks again."
