"""The provider `gemini`: the Gemini CLI. Nothing of the repository configures it, and it has no shell.

It works without a person only where it trusts the directory it was started in, and then that directory's settings,
hooks and `.env` win over ours. So it works from a directory of ours, and the checkout is one that it may look into.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.coders.coder import Api, Brief, Heard, Start, Versions, Way
from core.coders.events import (
    dict_of,
    events,
    no_text,
    printable,
    refusal,
    standing_orders,
    status_in,
    text_of,
    tokens,
    unfinished,
)
from core.model.run import Spend

MEASURED = Versions((0, 61, 0), (0, 61, 0))
ENDPOINT = "https://generativelanguage.googleapis.com"
ATTEMPTS = 3

READING = ["read_file", "glob", "grep_search", "search_file_content", "list_directory"]
EDITING = [*READING, "replace", "write_file"]

OURS = "gemini"
"""Our directory in its home, from which it works."""

PRELUDE = """\
const files = require("node:fs/promises"), path = require("node:path")
const access = files.access
files.access = async (file, ...mode) => {
  if (path.basename(String(file)) === "GEMINI.md") throw Object.assign(new Error("not here"), { code: "ENOENT" })
  return access(file, ...mode)
}
require("node:module").syncBuiltinESMExports()
for (const output of [process.stdout, process.stderr]) output._handle?.setBlocking?.(true)
process.chdir(path.join(__dirname, "gemini"))
"""
"""Runs before it does. A setting can add names to that of GEMINI.md and not take it away, so the question whether there
is such a file, by which it finds its instructions, is answered with no. It can still be read as any other file. And it
ends without waiting until all that it said has been written: with a long prompt the end was lost."""


@dataclass(frozen=True, slots=True)
class Gemini:
    model: str = "gemini-2.5-pro"
    base_url: str | None = None
    api: Api | None = "gemini"
    versions: Versions | None = MEASURED

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        arguments = (
            "--skip-trust",
            *("--output-format", "stream-json"),
            *("--model", self.model),
            *("--approval-mode", "auto_edit" if brief.may_write else "default"),
            *("--include-directories", str(brief.checkout)),
            *("--include-directories", str(brief.evidence)),
            *("--extensions", "none"),
            *("--allowed-mcp-server-names", "none"),
        )
        env = {
            "NODE_OPTIONS": f"--require={home / 'gemini.cjs'}",
            "GEMINI_CLI_HOME": str(home),
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "GOOGLE_GEMINI_BASE_URL": f"{way.url}/gemini" if way else (self.base_url or ENDPOINT),
        }
        # The file of instructions that it insists on, under a name that nobody can guess: it looks for it everywhere.
        orders = f"{hashlib.sha256(str(home).encode()).hexdigest()[:24]}.md"
        files = {
            "gemini.cjs": PRELUDE,
            f"{OURS}/.gemini/.env": "",  # the first one it finds on the way up is the one it reads
            ".gemini/settings.json": json.dumps(self._settings(brief, orders), indent=1),
            f".gemini/{orders}": f"{standing_orders()}\n\nThe working directory is `{brief.checkout}`: all that you "
            "look for lies there, and what you change has to lie there. Name files by their absolute paths.\n",
        }
        return Start(arguments, env | ({"GEMINI_API_KEY": way.token} if way else {}), files)

    def _settings(self, brief: Brief, orders: str) -> Mapping[str, object]:
        return {
            "general": {
                "disableAutoUpdate": True,
                "enableAutoUpdate": False,
                "enableAutoUpdateNotification": False,
                "maxAttempts": ATTEMPTS,
                "retryFetchErrors": False,
            },
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "context": {
                "fileName": orders,
                "discoveryMaxDirs": 1,
                "includeDirectoryTree": False,
                "loadMemoryFromIncludeDirectories": False,
            },
            "tools": {
                "core": EDITING if brief.may_write else READING,
                "discoveryCommand": "",
                "callCommand": "",
                "sandbox": False,
            },
            "mcp": {"allowed": ["none"]},
            "hooksConfig": {"enabled": False},
            "skills": {"enabled": False},
            "experimental": {"enableAgents": False},
            "advanced": {"ignoreLocalEnv": True},
        }

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        """It exits with 0 when it is killed, so that nothing counts but a result that says success."""
        text, session = "", ""
        last: Mapping[str, Any] = {}
        denied: list[str] = []
        for last in events(said):
            match last.get("type"):
                case "init":
                    session = printable(text_of(last.get("session_id")))
                case "message" if last.get("role") == "assistant":
                    content = text_of(last.get("content"))
                    text = text + content if last.get("delta") else content
                case "tool_use":
                    text = ""
                case "tool_result" if last.get("status") == "error":
                    denied.append(printable(text_of(dict_of(last.get("error")).get("message")))[:120])
        if last.get("type") != "result":
            return unfinished(exit_code, complaint)
        stats = dict_of(last.get("stats"))
        spend = Spend(tokens=tokens(stats.get("total_tokens")))
        if last.get("status") != "success":
            words = text_of(dict_of(last.get("error")).get("message")) or "it says no more"
            return Heard("", spend, refusal(status_in(words), words), session, tuple(denied))
        return Heard(text, spend, None, session, tuple(denied)) if text.strip() else no_text(spend, session)
