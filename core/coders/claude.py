"""The provider `claude`: Claude Code. Nothing of the repository configures it, and it has no shell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.coders.coder import Api, Brief, Heard, Start, Versions, Way
from core.coders.events import (
    dict_of,
    events,
    list_of,
    money,
    no_text,
    printable,
    refusal,
    standing_orders,
    text_of,
    tokens,
    unfinished,
)
from core.model.run import Spend

READING = "Read,Grep,Glob"
EDITING = f"{READING},Edit,Write"
RETRIES = 3
MEASURED = Versions((2, 1, 329), (2, 1, 329))


@dataclass(frozen=True, slots=True)
class Claude:
    model: str = "sonnet"
    base_url: str | None = None
    max_turns: int = 200
    api: Api | None = "anthropic"
    versions: Versions | None = MEASURED

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        """The last words must not be variadic options, and no prompt follows them: it comes on standard input."""
        arguments = (
            "--print",
            *("--output-format", "stream-json", "--verbose"),
            *("--model", self.model),
            *("--max-turns", str(self.max_turns)),
            # Settings, hooks, servers and skills of the repository and of a user: none.
            *("--setting-sources", ""),
            *("--strict-mcp-config", "--disable-slash-commands", "--no-chrome", "--no-session-persistence"),
            # File tools stay in the working directory and in what --add-dir names.
            "--restricted",
            *("--tools", EDITING if brief.may_write else READING),
            *("--permission-mode", "acceptEdits" if brief.may_write else "dontAsk"),
            *("--add-dir", str(brief.evidence)),
            *("--append-system-prompt", standing_orders()),
        )
        return Start(arguments, {**self._quiet(home), **self._access(way)})

    def _quiet(self, home: Path) -> Mapping[str, str]:
        return {
            "CLAUDE_CONFIG_DIR": str(home / "claude"),
            "CLAUDE_CODE_TMPDIR": str(home / "tmp"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
            # A stream that breaks is tried again as a stream, within the retries, and not once more as a whole.
            "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
            "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        }

    def _access(self, way: Way | None) -> Mapping[str, str]:
        if way:
            return {"ANTHROPIC_BASE_URL": f"{way.url}/anthropic", "ANTHROPIC_API_KEY": way.token}
        return {"ANTHROPIC_BASE_URL": self.base_url} if self.base_url else {}

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        last: dict[str, Any] = next(reversed(list(events(said))), {})
        if last.get("type") != "result":
            return unfinished(exit_code, complaint)
        spend, session = _spend(last), printable(text_of(last.get("session_id")))
        denied = tuple(_denied(each) for each in list_of(last.get("permission_denials")))
        problem = self._problem(last)
        if problem:
            return Heard("", spend, problem, session, denied)
        text = text_of(last.get("result"))
        return Heard(text, spend, None, session, denied) if text.strip() else no_text(spend, session)

    def _problem(self, last: Mapping[str, Any]) -> str | None:
        """`subtype` says success when the model's API failed as well."""
        if last.get("terminal_reason") == "max_turns" or last.get("subtype") == "error_max_turns":
            return f"it came to no end within {self.max_turns} turns"
        fine = last.get("is_error") is False and last.get("subtype") == "success"
        if fine and not last.get("api_error_status"):
            return None
        status = last.get("api_error_status")
        words = text_of(last.get("result")) or " ".join(map(text_of, list_of(last.get("errors"))))
        if status or last.get("terminal_reason") == "api_error":
            return refusal(status if isinstance(status, int) else None, words)
        return f"it did not succeed ({printable(words or text_of(last.get('subtype')) or 'it says no more')})"


def _spend(last: Mapping[str, Any]) -> Spend:
    """`usage` leaves out what came to nothing, such as a stream that broke; `modelUsage` has every call."""
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    counts = [dict_of(used).get(name) for used in dict_of(last.get("modelUsage")).values() for name in names]
    return Spend(money_usd=money(last.get("total_cost_usd")), tokens=tokens(*counts))


def _denied(told: object) -> str:
    call = dict_of(told)
    first = next(iter(dict_of(call.get("tool_input")).values()), "")
    return printable(f"{text_of(call.get('tool_name'))} {text_of(first)}")
