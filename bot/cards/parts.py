"""What cards are put together from: buttons, lines about a decision, quotations that fit."""

from collections.abc import Collection, Sequence

from bot.chat import Action, Card, Line, Section, Style
from bot.words import count, cut, line, moment, quoted
from core.consent import may_approve
from core.model.consent import Consent, ConsentState
from core.model.evidence import Chunk
from core.model.keypoints import Matrix, TaskKind

NAMES_SHOWN = 8
WORDS_SHOWN = 8
"""How many flaggers are quoted."""
WORDS_CHARS = 900
"""Of all of them together."""
CARD_CHARS = 5_200
"""Of a whole card. The narrowest platform takes 6,000 characters in one message."""
REPORT = "Show report"
"""Where the rest of a cut text stands: behind the button of this name."""
_POINTER_CHARS = 35
"""Of what says how much was cut, besides where it stands."""


def fitted(card: Card, rest: str = REPORT) -> Card:
    """A card that any platform takes: the longest parts of its body are cut until all of it fits."""
    parts = [len(part.text) for part in card.body]
    room = CARD_CHARS - len(card.text) - sum(len(part.heading) for part in card.body)
    if sum(parts) <= room:
        return card
    limit = max(_level(parts, room) - _POINTER_CHARS - len(rest), 0)
    body = (part.model_copy(update={"text": cut(part.text, limit, rest)}) for part in card.body)
    return card.model_copy(update={"body": tuple(body)})


def _level(lengths: Sequence[int], room: int) -> int:
    """As high as water stands when `room` is poured over vessels of these heights."""
    left = sorted(lengths)
    while left and left[0] * len(left) <= room:
        room -= left.pop(0)
    return room // len(left) if left else max(lengths, default=0)


def decide(consent: Consent) -> tuple[Action, ...]:
    """Both carry the consent's id and nothing else: what it allows was fixed when it was asked."""
    return (
        Action(label="Approve", verb="approve", subject=consent.id, style=Style.primary),
        Action(label="Decline", verb="decline", subject=consent.id, style=Style.danger, wants_reason=True),
    )


def look(run: str, *, diff: bool) -> tuple[Action, ...]:
    shown = (Action(label="Show diff", verb="diff", subject=run),) if diff else ()
    return (*shown, Action(label=REPORT, verb="report", subject=run))


def names(people: Collection[str]) -> str:
    listed = sorted(people)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(line(name, 60) for name in listed[:NAMES_SHOWN]) + more


def approvals(consent: Consent) -> list[Line]:
    """Who may decide, how far it is, until when."""
    approved = {vote.person for vote in consent.votes if vote.approve}
    needed = f"{len(approved)} of {consent.policy.quorum}"
    lines = [Line(name="Approvals", text=needed + (f", by {names(approved)}" if approved else ""))]
    if consent.state is ConsentState.asked:
        lines.append(Line(name="May approve", text=_who_may(consent, approved)))
        lines.append(Line(name="Until", text=f"{moment(consent.expires_at)} UTC"))
    return lines


def _who_may(consent: Consent, approved: Collection[str]) -> str:
    if not consent.policy.approvers:
        return "nobody: no approvers are configured; name some in [consent] of moss.toml, and ask again"
    may = may_approve(consent)
    if len(may) < consent.policy.quorum:
        excluded = consent.policy.approvers - may
        why = f" ({names(excluded)} may not approve what they started or alone complained about)" if excluded else ""
        some = f"only {names(may)}, which is too few" if may else "nobody"
        return f"{some}{why}; name more approvers in [consent] of moss.toml, and ask again"
    if _sole(consent):
        return f"{names(may)}, alone: whoever starts a run may approve it here (`allow_sole_approver`)"
    return names(may - set(approved)) or "nobody else is needed"


def _sole(consent: Consent) -> bool:
    return consent.policy.allow_sole_approver and len(consent.policy.approvers) == 1


def declined(consent: Consent) -> str:
    """Who said no, with their reason."""
    for vote in consent.votes:
        if not vote.approve:
            return line(vote.person, 60) + (f": {quoted(vote.reason)}" if vote.reason else "")
    return ""


def complaints(chunks: Sequence[Chunk], rest: str = REPORT) -> Section:
    """What was wrong, in the words of those who flagged it."""
    raised = [flag for chunk in chunks for flag in chunk.flags if flag.withdrawn_at is None]
    said = [flag for flag in raised if flag.reason]
    people = count(len({flag.person for flag in raised}), "person", "people")
    kinds = sorted({flag.kind for flag in raised})
    if not said:
        flagged = f"Nobody gave words; {people} flagged it as {', '.join(kinds)}." if raised else "Nobody flagged it."
        return Section(heading="What was wrong", text=flagged)
    each = WORDS_CHARS // min(len(said), WORDS_SHOWN)
    quotes = [f"{quoted(flag.reason or '', each)} ({flag.kind})" for flag in said[:WORDS_SHOWN]]
    more = len(said) - WORDS_SHOWN
    quotes += [f"and {more} more: {rest}"] if more > 0 else []
    heading = f"What was wrong, in the words of those who flagged it ({people})"
    return Section(heading=heading, text="\n".join(quotes), look="quote")


def evidence(chunks: Sequence[Chunk]) -> str:
    raised = [flag for chunk in chunks for flag in chunk.flags if flag.withdrawn_at is None]
    people, kinds = {flag.person for flag in raised}, sorted({flag.kind for flag in raised})
    return ", ".join(
        [
            count(len(chunks), "flagged reply", "flagged replies"),
            *([f"by {count(len(people), 'person', 'people')} as {' and '.join(kinds)}"] if raised else []),
        ]
    )


def score(baseline: Matrix, control: Matrix, matrix: Matrix | None) -> str:
    possible = len(baseline.rows) * 3
    now = f", candidate {matrix.total}" if matrix else ""
    return f"recorded {baseline.total}, live today {control.total}{now}, of {possible}"


def flagged_score(baseline: Matrix, matrix: Matrix) -> str:
    """Of the flagged conversations alone: `4 -> 11 of 12`."""
    before, after = baseline.only(TaskKind.batch), matrix.only(TaskKind.batch)
    return f"{before.total} → {after.total} of {len(after.rows) * 3}"


def people_can(what: str) -> Section:
    return Section(heading="What you can do", text=what)
