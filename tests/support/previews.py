"""Writes docs/cards.md: every card as Slack and Discord get it, drawn from what the real renderers make of it.

`python -m tests.support.previews FILE`; `make docs` does it.
"""

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from bot import cards
from bot.adapters.discord import embeds
from bot.adapters.slack import blocks
from bot.cards import digest
from bot.chat import Card, Picture
from core.model.consent import ConsentState
from core.model.run import RunState, Spend
from core.model.swap import SwapState
from tests.support import reports

HEAD = """\
# The cards

<!-- Written by `make docs` from the renderers of bot/adapters. Not edited by hand. -->

A card says the same everywhere; each platform gets it in its own form and within its own limits. Below is every card
that Moss posts, drawn from the very blocks and embeds that leave for Slack and Discord. The room's are on
[its page](room.md), and a terminal shows them by `moss run show` and the other verbs. What is quoted is plain text
everywhere: no markup, and nobody is called.

A run has one card, edited in place as its state changes, and a private answer is shown to whoever asked.
"""


def all_cards() -> Iterator[tuple[str, Card]]:
    for state in RunState:
        report = reports.report(state)
        picture = None
        if report.candidate and state is RunState.awaiting_consent:
            picture = Picture(png=b"", alt="The score of each keypoint: recorded, live today and of the candidate")
        yield f"A run that is {state.replace('_', ' ')}", cards.run(report, picture)
    yield "A partial repair", cards.run(reports.partial_report())
    granted = reports.rollback_consent(ConsentState.granted)
    for name, consent, swap in (
        ("that waits for approval", reports.rollback_consent(), None),
        ("that is approved", granted, None),
        ("that was declined", reports.rollback_consent(ConsentState.declined), None),
        ("that nobody decided in time", reports.rollback_consent(ConsentState.expired), None),
        ("that nothing is left of", reports.rollback_consent(ConsentState.void), None),
        ("that is being probed", granted, reports.swap(SwapState.probing)),
        ("that is live", granted, reports.swap()),
        ("that failed its probes", granted, reports.swap(SwapState.restored)),
        ("that needs a person", granted, reports.swap(SwapState.stuck)),
    ):
        yield f"A rollback {name}", cards.rollback(consent, reports.version(0), reports.version(1), swap)
    applied = reports.report(RunState.applied)
    yield "The receipt of whoever flagged", cards.receipt(applied, applied.exchanges[0])
    yield "The digest", digest.digest(_week())
    yield "A digest of nothing", digest.digest(_week(nothing=True))
    yield "The answer to `/moss status`", cards.status([reports.standing()])
    yield "The answer to `/moss batches`", cards.all_batches([reports.listed()], "desk", 1, 1)
    yield "The answer to `/moss batch`", cards.batch(reports.evidence())
    yield "The answer to `/moss history`", cards.history([reports.version(0), reports.version(1)], "desk")


def _week(nothing: bool = False) -> digest.Summary:
    none = digest.Flags({}, 0)
    version, until = reports.version(1), reports.AT + timedelta(days=7)
    return digest.Summary(
        substrate="desk",
        since=reports.AT,
        until=until,
        flags=none if nothing else digest.Flags({"incomplete": 5, "hallucination": 1}, 4),
        flags_before=none if nothing else digest.Flags({"incomplete": 9}, 5),
        opened=0 if nothing else 2,
        sealed=0 if nothing else 1,
        open_batches=0 if nothing else 1,
        collected=0 if nothing else 3,
        started=0 if nothing else 2,
        ended=() if nothing else (reports.report(RunState.exhausted).run,),
        waiting=() if nothing else (digest.Waiting(reports.consent(), "https://acme.slack.com/archives/C1/p1"),),
        failed_swaps=(),
        went_live=() if nothing else (version,),
        lived=() if nothing else (digest.Lived(version, flags=2, replies=180, seconds=345_600),),
        spend=Spend() if nothing else Spend(tokens=61_200, money_usd=1.27, seconds=810),
        needs_adoption=False,
    )


def page() -> str:
    parts = [HEAD]
    for name, card in all_cards():
        parts.append(f"## {name}\n\nOn a screen without cards: {_inline(card.text)}\n")
        parts.append(f"Slack:\n\n{_fenced(in_slack(card))}\n")
        parts.append(f"<details><summary>Discord</summary>\n\n{_fenced(in_discord(card))}\n\n</details>\n")
    return "\n".join(parts)


def in_slack(card: Card) -> str:
    return "\n".join(line for block in blocks.blocks(card, "F0") for line in _block(block))


def _block(block: dict[str, Any]) -> Iterator[str]:
    match block["type"]:
        case "header":
            yield from (block["text"]["text"], "")
        case "image":
            yield from ("", f"( picture: {block['alt_text']} )")
        case "actions":
            yield from ("", "  ".join(f"[ {one['text']['text']} ]" for one in block["elements"]))
        case "rich_text":
            for element in block["elements"]:
                text = "".join(one["text"] for one in element["elements"])
                before = {"rich_text_quote": "| ", "rich_text_preformatted": "    "}.get(element["type"], "")
                yield from (f"{before}{line}".rstrip() for line in text.rstrip("\n").split("\n"))
        case kind:
            raise AssertionError(f"how is a block of the type {kind} drawn?")


def in_discord(card: Card) -> str:
    rendered = embeds.render(card)
    lines = [_read(rendered.text), ""]
    lines += [f"  {_read(line)}".rstrip() for line in rendered.body.split("\n")]
    if rendered.picture or card.picture:
        lines += ["", f"  ( picture: {rendered.alt or (card.picture and card.picture.alt)} )"]
    if rendered.actions:
        lines += ["", "  ".join(f"[ {action.label} ]" for action in rendered.actions)]
    return "\n".join(lines)


def _read(text: str) -> str:
    """As Discord shows what it gets: bold is bold, and what was escaped is as it was written."""
    return re.sub(r"\\([^A-Za-z0-9\s])", r"\1", re.sub(r"(?<!\\)\*\*", "", text))


def _fenced(text: str) -> str:
    return f"````text\n{text}\n````"


def _inline(text: str) -> str:
    flat = " ".join(text.split()).replace("`", "'")
    return f"`{flat}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
