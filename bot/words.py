"""Text from outside made harmless and cut to size, and how counts, times and costs read on every face."""

import re
from datetime import datetime

from core.model.run import Spend

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor moves
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # titles, links, clipboard writes, with their payload
    r"|\x1b.?",
    re.DOTALL,
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Without anything a terminal would obey: escape sequences, control characters, reversed writing direction."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


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
    parts = [duration(total.seconds)]
    parts += [f"{total.tokens:,} tokens"] if total.tokens else []
    parts += [f"${total.money_usd:.2f}"] if total.money_usd else []
    return ", ".join(parts)
