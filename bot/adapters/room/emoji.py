"""Emoji of the room: a name, as the HTTP interface and flags know it, and the character that people see."""

import re
import unicodedata

from core.model.errors import BadInput
from flags import emoji as flags

CHARACTERS = {name: character for name, (character, _) in flags.FLAGS.items()} | {
    "thumbsup": "👍",
    "heart": "❤️",
    "tada": "🎉",
    "pray": "🙏",
    "white_check_mark": "✅",
    "thinking_face": "🤔",
    "smile": "😄",
    "cry": "😢",
    "eyes": "👀",
    "rocket": "🚀",
}
_NAMES = {character.replace("\ufe0f", ""): name for name, character in CHARACTERS.items()} | {"+1": "thumbsup"}

_NAME = re.compile(r"[a-z0-9][a-z0-9_+-]{0,39}")
_LONGEST = 12
"""Characters of one emoji: a family takes eleven."""
_JOINERS = {"\u200d", "\u20e3", *map(chr, range(0xE0020, 0xE0080))}


def name_of(written: str) -> str:
    """The one name of an emoji, however it was written; the character itself where the room knows no name for it."""
    bare = flags.name_of(written)
    bare = _NAMES.get(bare, bare)
    if _NAME.fullmatch(bare) or (0 < len(bare) <= _LONGEST and _pictorial(bare)):
        return bare
    raise BadInput("That is no emoji; give its name, such as `thumbsdown`, or the character.")


def character_of(name: str) -> str:
    return CHARACTERS.get(name, name if not name.isascii() else f":{name}:")


def _pictorial(text: str) -> bool:
    """Symbols, and what joins them; no letters, digits or spaces, and nothing that turns writing around."""
    symbols = [one for one in text if unicodedata.category(one) in ("So", "Sk", "Sm", "Po") and not one.isascii()]
    return bool(symbols) and all(one in symbols or one in _JOINERS for one in text)
