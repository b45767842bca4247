"""From a card to Block Kit. Pure. Every text goes out plain: nothing in it is markup, and nothing calls anybody."""

import re
from typing import Any

from bot.adapters.slack.events import ASK, PRESS
from bot.chat import Action, Card, Section, Style, Tone
from bot.words import harmless, parted

HEADER_CHARS = 150
LABEL_CHARS = 75
VALUE_CHARS = 2000
ALT_CHARS = 2000
SECTION_CHARS = 3000
BODY_CHARS = 11_000
"""Slack refuses messages whose blocks hold some 13,000 characters together."""
SUMMARY_CHARS = 700
"""Of the one line that notifications show."""
TEXT_CHARS = 11_000
"""Of a message without blocks."""
PARTS_SHOWN = 20
"""Messages of one answer."""
LINES_SHOWN = 40
ACTIONS_SHOWN = 25

MARKS = {Tone.calm: "", Tone.asking: "🟡 ", Tone.good: "🟢 ", Tone.bad: "🔴 "}
STYLES = {Style.primary: "primary", Style.danger: "danger"}
JOINER = "\u2060"
"""It takes no room, and ends what would be read as a mention."""

_CALLS = re.compile(r"<(?=[!@#])|(?<!\w)@(?=(?:channel|here|everyone)\b)", re.IGNORECASE)


def blocks(card: Card, file: str = "") -> list[dict[str, Any]]:
    """`file` is the id of the card's picture, once Slack has it."""
    made: list[dict[str, Any]] = [_header(card)]
    if body := _body(card):
        made.append({"type": "rich_text", "elements": body})
    if card.picture and file:
        alt = _clipped(card.picture.alt, ALT_CHARS) or "A picture"
        made.append({"type": "image", "slack_file": {"id": file}, "alt_text": alt})
    buttons = [_button(n, action) for n, action in enumerate(card.actions[:ACTIONS_SHOWN])]
    if card.link.startswith(("https://", "http://")) and len(card.link) <= VALUE_CHARS and len(buttons) < ACTIONS_SHOWN:
        label = _plain("Open in browser", LABEL_CHARS)
        buttons.append({"type": "button", "action_id": "link", "text": label, "url": card.link})
    if buttons:
        made.append({"type": "actions", "elements": buttons})
    return made


def summary(card: Card) -> str:
    return escaped(_clipped(card.text, SUMMARY_CHARS))


def escaped(text: str) -> str:
    """For the one field of a message that Slack reads for markup."""
    return quiet(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def quiet(text: str) -> str:
    """What would call somebody is shown as it is, and calls nobody."""
    return _CALLS.sub(lambda found: found[0] + JOINER, harmless(text))


def shortened(text: str, limit: int, rest: str) -> str:
    """Cut, with a word on how much is missing and where it stands; never longer than the limit."""
    whole = harmless(text).strip()
    if len(whole) <= limit:
        return whole
    pointer = f"\n… {len(whole) - limit:,} more characters or so{f': {rest}' if rest else ''}"
    return whole[: max(limit - len(pointer), 0)].rstrip() + pointer


def parts(text: str) -> list[str]:
    """What is too long for one message as several; of what is too long for those, the beginning."""
    found = parted(harmless(text).strip(), lambda part: len(escaped(part)) <= TEXT_CHARS)
    rest = sum(map(len, found[PARTS_SHOWN:]))
    return [*found[:PARTS_SHOWN], f"… {rest:,} more characters or so"] if rest else found


def _header(card: Card) -> dict[str, Any]:
    return {"type": "header", "text": _plain(MARKS[card.tone] + card.title, HEADER_CHARS)}


def _body(card: Card) -> list[dict[str, Any]]:
    elements: list[dict[str, Any]] = []
    room, rest = BODY_CHARS, _rest(card)
    facts: list[dict[str, Any]] = []
    for n, line in enumerate(card.lines[:LINES_SHOWN]):
        name, text = _clipped(line.name, 200), shortened(line.text, min(SECTION_CHARS, room // 2), rest)
        room -= len(name) + len(text)
        facts += [_words(f"{name}: ", bold=True), _words(text + ("\n" if n < len(card.lines) - 1 else ""))]
    if len(card.lines) > LINES_SHOWN:
        facts.append(_words(f"… {len(card.lines) - LINES_SHOWN} more{f': {rest}' if rest else ''}"))
    if facts := [fact for fact in facts if fact["text"]]:
        elements.append({"type": "rich_text_section", "elements": facts})
    for n, section in enumerate(card.body):
        left = len(card.body) - n
        if room < 200:
            more = f"… {left} more part{'s' if left > 1 else ''}{f': {rest}' if rest else ''}"
            elements.append({"type": "rich_text_section", "elements": [_words(more)]})
            break
        limit = min(SECTION_CHARS, room) if left == 1 else min(SECTION_CHARS, room - 100)
        heading, text = _clipped(section.heading, 200), shortened(section.text, limit, rest)
        room -= len(heading) + len(text)
        elements += _section(heading, text, section)
    return elements


def _section(heading: str, text: str, section: Section) -> list[dict[str, Any]]:
    made = []
    if heading:
        made.append({"type": "rich_text_section", "elements": [_words(f"\n{heading}\n", bold=True)]})
    if text:
        kinds = {"text": "rich_text_section", "quote": "rich_text_quote", "code": "rich_text_preformatted"}
        made.append({"type": kinds[section.look], "elements": [_words(text)]})
    return made


def _rest(card: Card) -> str:
    """Where the whole of it stands."""
    report = next((action.label for action in card.actions if action.verb == "report"), "")
    return report or card.link


def _button(n: int, action: Action) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "button",
        "action_id": f"{ASK if action.wants_reason else PRESS}:{n}",
        "text": _plain(action.label or action.verb, LABEL_CHARS),
        "value": f"{action.verb} {action.subject}"[:VALUE_CHARS],
    }
    return made | ({"style": STYLES[action.style]} if action.style in STYLES else {})


def _words(text: str, *, bold: bool = False) -> dict[str, Any]:
    words: dict[str, Any] = {"type": "text", "text": quiet(text)}
    return words | ({"style": {"bold": True}} if bold and words["text"] else {})


def _plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": _clipped(quiet(text), limit) or "Moss", "emoji": False}


def _clipped(text: str, limit: int) -> str:
    whole = harmless(text).strip()
    return whole if len(whole) <= limit else whole[: limit - 1].rstrip() + "…"
