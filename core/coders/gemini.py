"""The provider `gemini`: the Gemini CLI. Nothing of the repository configures it, and it has no shell.

It insists on trusting the directory in which it works without a person, and then reads that directory's settings,
`.env` and instructions. So ours are those of the system, which win over a directory's; and every variable through which
a `.env` could lead it astray is set already.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.coders.coder import Api, Brief, Heard, Start, Versions, Way
from core.coders.events import events, no_text, printable, refusal, status_in, tokens, unfinished
from core.model.run import Spend

MEASURED = Versions((0, 61, 0), (0, 61, 0))
ENDPOINT = "https://generativelanguage.googleapis.com"
ATTEMPTS = 3

READING = ["read_file", "glob", "grep_search", "search_file_content", "list_directory"]
EDITING = [*READING, "replace", "write_file"]

NO_FILE = "no file has this name: moss"
"""In place of GEMINI.md. What is read under it would be instructions, so it holds what no repository is likely to."""

_PINNED = (
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"),
    *("NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "GEMINI_SANDBOX", "GEMINI_MODEL", "GEMINI_WRITE_SYSTEM_MD"),
    *("GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GOOGLE_VERTEX_BASE_URL"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "CODE_ASSIST_ENDPOINT"),
    *("GEMINI_CLI_CUSTOM_HEADERS", "GEMINI_API_KEY_AUTH_MECHANISM", "GEMINI_TELEMETRY_OTLP_ENDPOINT"),
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "GEMINI_TELEMETRY_ENABLED", "GEMINI_TELEMETRY_OUTFILE", "DEBUG", "DEBUG_MODE"),
)


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
            *("--include-directories", str(brief.evidence)),
            *("--extensions", "none"),
            *("--allowed-mcp-server-names", "none"),
        )
        url = f"{way.url}/gemini" if way else (self.base_url or ENDPOINT)
        env = {
            **dict.fromkeys(_PINNED, ""),
            "GEMINI_SYSTEM_MD": "false",
            "NO_PROXY": "*",
            "GEMINI_CLI_HOME": str(home),
            "GEMINI_CLI_SYSTEM_SETTINGS_PATH": str(home / "gemini.json"),
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "GOOGLE_GEMINI_BASE_URL": url,
        }
        settings = json.dumps(self._settings(brief), indent=1)
        return Start(arguments, env | ({"GEMINI_API_KEY": way.token} if way else {}), {"gemini.json": settings})

    def _settings(self, brief: Brief) -> Mapping[str, object]:
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
                "fileName": NO_FILE,
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
            "admin": {"mcp": {"enabled": False}, "extensions": {"enabled": False}, "skills": {"enabled": False}},
        }

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        """It exits with 0 when it is killed, so that nothing counts but a result that says success."""
        text, session = "", ""
        last: Mapping[str, Any] = {}
        denied: list[str] = []
        for last in events(said):
            match last.get("type"):
                case "init":
                    session = printable(str(last.get("session_id") or ""))
                case "message" if last.get("role") == "assistant":
                    content = str(last.get("content") or "")
                    text = text + content if last.get("delta") else content
                case "tool_use":
                    text = ""
                case "tool_result" if last.get("status") == "error":
                    denied.append(printable(str(_dict(last.get("error")).get("message") or ""))[:120])
        if last.get("type") != "result":
            return _without_result(exit_code, complaint)
        stats = _dict(last.get("stats"))
        spend = Spend(tokens=tokens(stats.get("total_tokens")))
        if last.get("status") != "success":
            words = str(_dict(last.get("error")).get("message") or "it says no more")
            return Heard("", spend, refusal(status_in(words), words), session, tuple(denied))
        return Heard(text, spend, None, session, tuple(denied)) if text.strip() else no_text(spend, session)


def _without_result(exit_code: int, complaint: str) -> Heard:
    return unfinished(exit_code, complaint)


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
