"""How much of what must go is taken out of chat and found in code, and how much of what is harmless is left alone.

Beside Moss's own rules stand those of detect-secrets, alone and both together, where it is installed:
`.venv/bin/pip install detect-secrets`. Moss does not need it; docs/redaction.md says why.
"""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.planted import Planted, look_alikes, look_alikes_in_code, secrets_in_chat, secrets_in_code
from benchmarks.table import Measured
from core.redact import Redactor, secrets_in

NAME = "redaction"
SEEDS = (1, 2, 3)
RECALL, PRECISION = 0.95, 0.98
PIECE_CHARS = 8
"""So much of a secret in one piece, and it is not gone. The prefix that its maker gave it may stay."""

_PERSON = re.compile(r"person-\w{4}@redacted\.example")


@dataclass(frozen=True, slots=True)
class Score:
    found: int
    missed: tuple[Planted, ...]
    wrong: tuple[Planted, ...]
    """Harmless, and altered all the same."""

    @property
    def recall(self) -> float:
        return self.found / (self.found + len(self.missed))

    @property
    def precision(self) -> float:
        return self.found / (self.found + len(self.wrong))


Clean = Callable[[str], str]


def in_chat(clean: Clean, seed: int) -> Score:
    planted, harmless = secrets_in_chat(seed), look_alikes(seed)
    missed = tuple(each for each in planted if remains(each.secret, clean(each.text)))
    wrong = tuple(each for each in harmless if clean(each.text) != each.text)
    return Score(len(planted) - len(missed), missed, wrong)


def in_code(suspects: Callable[[str], bool], seed: int) -> Score:
    planted, harmless = secrets_in_code(seed), look_alikes_in_code(seed)
    missed = tuple(each for each in planted if not suspects(each.text))
    wrong = tuple(each for each in harmless if suspects(each.text))
    return Score(len(planted) - len(missed), missed, wrong)


def remains(secret: str, text: str) -> bool:
    text = _PERSON.sub("", text)
    size = min(PIECE_CHARS, len(secret))
    return any(secret[at : at + size] in text for at in range(len(secret) - size + 1))


async def measure() -> Measured:
    ways: dict[str, tuple[Clean, Callable[[str], bool]]] = {"Moss": (_ours, lambda text: bool(secrets_in(text)))}
    if find_spec("detect_secrets"):
        ways["detect-secrets"] = (_theirs, lambda text: bool(_detected(text)))
        ways["both"] = (lambda text: _theirs(_ours(text)), lambda text: bool(secrets_in(text) or _detected(text)))
    rows: list[tuple[str, str, str]] = []
    values: dict[str, float] = {}
    met = True
    for name, (clean, suspects) in ways.items():
        for where, scores in (
            ("chat", [in_chat(clean, seed) for seed in SEEDS]),
            ("code", [in_code(suspects, seed) for seed in SEEDS]),
        ):
            recall, precision = together(scores)
            own = name == "Moss"
            met = met and (not own or (recall >= RECALL and precision >= PRECISION))
            for what, figure, goal in (("recall", recall, RECALL), ("precision", precision, PRECISION)):
                rows.append((f"{name}, {where}: {what}", f"{figure:.1%}", f"at least {goal:.0%}" if own else ""))
                values[f"{name}_{where}_{what}"] = round(figure, 4)
    texts = [each.text for each in (*secrets_in_chat(), *look_alikes())]
    began = time.perf_counter()
    for text in texts:
        _ours(text)
    ms = 1000 * (time.perf_counter() - began) / len(texts)
    rows.append(("Moss, a message of chat", f"{ms:.2f} ms", ""))
    return Measured(tuple(rows), values | {"message_ms": round(ms, 3)}, met)


def together(scores: Sequence[Score]) -> tuple[float, float]:
    """Recall and precision over all of them."""
    found, missed = sum(each.found for each in scores), sum(len(each.missed) for each in scores)
    wrong = sum(len(each.wrong) for each in scores)
    return found / (found + missed), found / (found + wrong)


def _ours(text: str) -> str:
    return Redactor().text(text)


def _theirs(text: str) -> str:
    for value in sorted(_detected(text), key=len, reverse=True):
        text = text.replace(value, "")
    return text


def _detected(text: str) -> set[str]:
    """By detect-secrets as it comes, on a file with this text."""
    from detect_secrets.core.scan import scan_file  # noqa: PLC0415 - it is not among Moss's own dependencies
    from detect_secrets.settings import default_settings  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, default_settings():
        file = Path(folder) / "text.txt"
        file.write_text(text, encoding="utf-8")
        return {found.secret_value for found in scan_file(str(file)) if found.secret_value}
