"""Text from outside made harmless and cut to size, and how counts, times and costs read on every face."""

import re
from collections.abc import Callable
from datetime import datetime

from core.model.run import Spend

_REGION = r"\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
"""The flag of a country's part, such as Scotland: its letters are of a kind that nobody sees."""
_SPELT = re.compile(
    _REGION + "|"
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    # What joins or varies letters and emoji stays: one of them, behind what can be joined or varied.
    r"|(?<![^\x00-\x7f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff])[\u200b-\u200d]"
    r"|(?<![^\x00-\x22\x24-\x29\x2b-\x2f\x3a-\x7f\ufe00-\ufe0f\U000e0100-\U000e01ef])"
    r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""All of that in ASCII, as most text is, in a fraction of the time: a card looks through whole transcripts."""
_RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u0600\u0620-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_SIDES = "\u061c\u200e\u200f"
"""They say on which side of a line from right to left its commas and brackets stand."""


def harmless(text: str) -> str:
    """What a terminal would obey, what nobody sees and what turns the direction of a line is spelt out: `\\x1b`,
    `\\u202e`. Nothing is left out, so that people read all there is."""
    text = text.replace("\r\n", "\n")
    suspect = _CONTROLS if text.isascii() else _SPELT
    return "\n".join(map(_spelt, text.split("\n"))) if suspect.search(text) else text


def _spelt(line: str) -> str:
    stays = _SIDES if _RIGHT_TO_LEFT.search(line) else ""

    def spell(found: re.Match[str]) -> str:
        if len(found[0]) > 1 or found[0] in stays:
            return found[0]
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return _SPELT.sub(spell, line)


def line(text: str, limit: int = 100) -> str:
    """One harmless line, cut with an ellipsis."""
    flat = " ".join(harmless(text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def clipped(text: str, limit: int) -> str:
    """Harmless lines as they are, up to a limit."""
    whole = harmless(text).strip()
    return whole if len(whole) <= limit else f"{whole[: limit - 1].rstrip()}…"


def cut(text: str, limit: int, rest: str = "") -> str:
    """Harmless lines as they are, up to a limit; then how much is missing and where `rest` says it can be read."""
    whole = harmless(text).strip()
    if len(whole) <= limit:
        return whole
    more = f"… {len(whole) - limit:,} more characters" + (f": {rest}" if rest else "")
    return f"{whole[:limit].rstrip()} {more}"


def parted(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The whole of it in parts that fit, ended at the end of a line or a word where there is one in their second half.
    Of two parts the longer fits less."""
    parts = []
    while text and not fits(text):
        least, most = 1, len(text) - 1
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if fits(text[:middle]) else (least, middle - 1)
        end = max(text.rfind("\n", least // 2, least + 1), 0) or max(text.rfind(" ", least // 2, least + 1), 0) or least
        if text[:end].strip():
            parts.append(text[:end].rstrip())
        text = text[end:].removeprefix("\n") if text[end] == "\n" else text[end:].lstrip(" ")
    return [*parts, text] if text.strip() or not parts else parts


def quoted(text: str, limit: int = 200) -> str:
    """Somebody's words inside a sentence of ours."""
    return f"“{line(text, limit)}”"


def count(number: int, one: str, many: str = "") -> str:
    """`count(2, "reply", "replies")` -> `2 replies`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""


def duration(seconds: float) -> str:
    """As one would say it: `0.4 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def spend(total: Spend) -> str:
    return ", ".join([duration(total.seconds), *_cost(total)])


def cost(total: Spend) -> str:
    """Without the time it took."""
    return ", ".join(_cost(total)) or "nothing"


def _cost(total: Spend) -> list[str]:
    parts = [f"{total.tokens:,} tokens"] if total.tokens else []
    parts += [f"${total.money_usd:.2f}"] if total.money_usd else []
    return parts + ([f"{total.unpriced_tokens:,} of the tokens at an unknown price"] if total.unpriced_tokens else [])
