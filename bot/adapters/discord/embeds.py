"""Cards as Discord shows them: a line, an embed, buttons and a picture, within Discord's limits. Pure.

All text is plain, so markup is escaped; and nothing calls anybody, since every message goes out with `NOBODY`.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import discord

from bot.chat import Action, Card, Section, Style, Tone
from bot.words import harmless, parted

NOBODY = discord.AllowedMentions.none()
TEXT_LIMIT = 2000
PARTS_LIMIT = 5
BODY_LIMIT = 4096
"""Characters of an embed's body; with its title it stays below the 6,000 of a message."""
TITLE_LIMIT = 250
SECTION_LIMIT = 3000
LABEL_LIMIT = 80
CUSTOM_ID_LIMIT = 100
BUTTONS_LIMIT = 25
ALT_LIMIT = 1024
PICTURE = "card.png"
WHOLE = "whole.txt"

_COLOURS = {Tone.calm: 0x5865F2, Tone.asking: 0xE8A317, Tone.good: 0x2E8B57, Tone.bad: 0xC0392B}
_STYLES = {
    Style.plain: discord.ButtonStyle.secondary,
    Style.primary: discord.ButtonStyle.primary,
    Style.danger: discord.ButtonStyle.danger,
}
_CALLS = re.compile(r"<(?=[@#:/a-z])", re.IGNORECASE)
"""How mentions, emoji, commands and times begin."""
_CUSTOM_ID = re.compile(r"moss:(?P<verb>[a-z-]{1,30}):(?P<subject>[A-Za-z0-9-]{1,60})(?P<why>:why)?")


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    embed: discord.Embed | None = None
    actions: tuple[Action, ...] = ()
    picture: bytes = b""
    alt: str = ""
    whole: str = ""
    """All of a text that is too long for a message."""

    def files(self) -> list[discord.File]:
        """Made anew for each message: sending one uses it up."""
        if self.picture:
            return [discord.File(io.BytesIO(self.picture), PICTURE, description=self.alt[:ALT_LIMIT] or None)]
        return [discord.File(io.BytesIO(self.whole.encode()), WHOLE)] if self.whole else []

    def content(self) -> dict[str, Any]:
        """What a new message holds."""
        more: dict[str, Any] = {}
        if self.embed:
            more["embed"] = self.embed
        if view := self.view():
            more["view"] = view
        if files := self.files():
            more["files"] = files
        return {
            "content": self.text,
            "allowed_mentions": NOBODY,
            "suppress_embeds": self.embed is None,
            **more,
        }

    def view(self) -> discord.ui.View | None:
        return buttons(self.actions) if self.actions else None

    @property
    def body(self) -> str:
        return (self.embed.description or "") if self.embed else ""


def render(what: Card | str) -> Rendered:
    return _card(what) if isinstance(what, Card) else _words(what)


def parts(text: str) -> list[str]:
    """What is too long for one message as several; what is too long for those is left whole, and goes into a file."""
    clean = harmless(text).strip()
    found = parted(clean, lambda part: len(escaped(part)) <= TEXT_LIMIT)
    return found if len(found) <= PARTS_LIMIT else [text]


def _words(text: str) -> Rendered:
    clean = harmless(text).strip()
    shown = escaped(clean)
    if len(shown) <= TEXT_LIMIT:
        return Rendered(shown or "\u200b")
    return Rendered(fitted(clean, TEXT_LIMIT, "the whole of it is in the file"), whole=clean)


def _card(card: Card) -> Rendered:
    pointer = "more is where the link leads" if card.link else "`/moss run` shows the rest"
    link = f"\n\n{escaped(harmless(card.link))}" if card.link and len(card.link) <= TITLE_LIMIT else ""
    room = BODY_LIMIT - len(link)
    parts = ["\n".join(f"**{escaped(flat(line.name))}** {escaped(flat(line.text))}" for line in card.lines)]
    if len(parts[0]) > room // 2:
        parts = [fitted("\n".join(f"{flat(line.name)}: {flat(line.text)}" for line in card.lines), room // 2, pointer)]
    left = room - len(parts[0])
    for section in card.body:
        if left < 80:
            parts.append("…")
            break
        parts.append(_section(section, min(SECTION_LIMIT, left - 10), pointer))
        left -= len(parts[-1]) + 2
    body = "\n\n".join(part for part in parts if part)
    embed = discord.Embed(description=f"{body}{link}".strip() or None, colour=_COLOURS[card.tone])
    made = Rendered(fitted(flat(card.title), TITLE_LIMIT, ""), embed, pressable(card.actions))
    if card.picture is None:
        return made
    embed.set_image(url=f"attachment://{PICTURE}")
    return replace(made, picture=card.picture.png, alt=harmless(card.picture.alt))


def _section(section: Section, limit: int, pointer: str) -> str:
    heading = f"**{fitted(flat(section.heading), 100, '')}**\n" if section.heading else ""
    text, left = harmless(section.text).strip(), limit - len(heading)
    match section.look:
        case "code":
            fence = len("```diff\n\n```")
            inside = text.replace("```", "`\u200b``")
            rest = f"\n… {pointer}"
            kept = inside if len(inside) <= left - fence else inside[: max(0, left - fence - len(rest))] + rest
            return f"{heading}```diff\n{kept}\n```"
        case "quote":
            lines = fitted(text, left - 2 * (text.count("\n") + 1), pointer).splitlines()
            return heading + "\n".join(f"> {line}" for line in lines)
        case "text":
            return heading + fitted(text, left, pointer)


def escaped(text: str) -> str:
    """What looks like markup or a mention is shown as it is."""
    return _CALLS.sub(r"\\<", discord.utils.escape_markdown(text, ignore_links=False))


def flat(text: str) -> str:
    return " ".join(harmless(text).split())


def named(shown: str) -> str:
    """What was escaped, for the name of a thread: names know no markup."""
    return flat(re.sub(r"\\([^A-Za-z0-9\s])", r"\1", shown))


def fitted(text: str, limit: int, pointer: str) -> str:
    """Escaped, and never longer than the limit; what is cut says where the rest is."""
    shown = escaped(text)
    if len(shown) <= limit:
        return shown
    end = f"… {pointer}" if pointer else "…"
    keep = max(0, limit - len(end))
    while keep and len(shown := escaped(text[:keep]).rstrip()) > limit - len(end):
        keep -= max(1, len(shown) - (limit - len(end))) if keep > 1 else 1
        keep = max(0, keep)
    return (shown if keep else "") + end


# Buttons. All that a press means stands in its id, so that a button works after any restart.


def custom_id(action: Action) -> str:
    return f"moss:{action.verb}:{action.subject}" + (":why" if action.wants_reason else "")


def pressable(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Those whose id Discord takes, and that are understood when they come back."""
    return tuple(action for action in actions if _CUSTOM_ID.fullmatch(custom_id(action)))[:BUTTONS_LIMIT]


def action_of(id: str) -> Action | None:
    """What a button or a form of ours is about; None for any other."""
    found = _CUSTOM_ID.fullmatch(id) if len(id) <= CUSTOM_ID_LIMIT else None
    if found is None:
        return None
    return Action(label="", verb=found["verb"], subject=found["subject"], wants_reason=bool(found["why"]))


def buttons(actions: Sequence[Action]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for action in actions:
        label = flat(action.label)[:LABEL_LIMIT] or action.verb
        view.add_item(discord.ui.Button(label=label, style=_STYLES[action.style], custom_id=custom_id(action)))
    view.stop()  # presses are read from their id, so nothing about this message has to be remembered
    return view


def form(title: str, id: str, question: str, *, required: bool) -> discord.ui.Modal:
    """A window that asks for a few words."""
    modal = discord.ui.Modal(title=title[:45], custom_id=id)
    modal.add_item(
        discord.ui.TextInput(
            label=question[:45],
            custom_id="reason",
            style=discord.TextStyle.paragraph,
            required=required,
            max_length=1500,
        )
    )
    modal.stop()
    return modal
