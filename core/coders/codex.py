"""The provider `codex`: Codex, whose own sandbox holds every command. Nothing of the repository configures it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

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
from core.coders.program import Variable
from core.model.run import Spend

ENDPOINT = "https://api.openai.com/v1"
RETRIES = 3
MEASURED = Versions((0, 163, 0), (0, 163, 0))
OFF = (
    *("apps", "plugins", "remote_plugin", "hooks", "skill_search", "tool_suggest"),
    *("goals", "multi_agent", "image_generation", "browser_use", "computer_use", "shell_snapshot"),
    # With it a service that cannot be reached is tried for ever.
    "unbounded_connection_retries",
)
"""Features that a stage has no use for, or through which more than the prompt would reach the model."""


@dataclass(frozen=True, slots=True)
class Codex:
    model: str = "gpt-5.5"
    base_url: str | None = None
    key: str = "OPENAI_API_KEY"
    """The variable with the key, where no gateway stands between."""
    api: Api | None = "openai"
    versions: Versions | None = MEASURED

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        settings = {**self._endpoint(way), **self._closed(brief)}
        arguments = (
            "exec",
            *("--json", "--ephemeral", "--skip-git-repo-check"),
            *("--ignore-user-config", "--ignore-rules"),
            *("--cd", str(brief.checkout)),
            *("--model", self.model),
            *("--sandbox", _own_sandbox(brief, way)),
            *(word for name in OFF for word in ("--disable", name)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={_toml(value)}")),
            "-",
        )
        env = {"CODEX_HOME": str(home / "codex")} | ({self.key: way.token} if way else {})
        # Its home must exist. It is none of the directories that a sandboxed command can write to.
        return Start(arguments, env, {"codex/.keep": ""})

    def _endpoint(self, way: Way | None) -> Mapping[str, object]:
        """A provider of ours: OPENAI_BASE_URL alone is ignored, and retries can be bounded here only."""
        url = f"{way.url}/openai/v1" if way else (self.base_url or ENDPOINT)
        ours = {
            "name": "moss",
            "base_url": url,
            "wire_api": "responses",
            "env_key": self.key,
            "request_max_retries": RETRIES,
            "stream_max_retries": RETRIES,
            "supports_websockets": False,
        }
        return {"model_provider": "moss", **{f"model_providers.moss.{name}": value for name, value in ours.items()}}

    def _closed(self, brief: Brief) -> Mapping[str, object]:
        return {
            "approval_policy": "never",
            "developer_instructions": standing_orders(),
            # AGENTS.md, and the repository's skills, which are listed to the model all the same.
            "project_doc_max_bytes": 0,
            "skills.include_instructions": False,
            f"projects.{json.dumps(str(brief.checkout))}.trust_level": "untrusted",
            # Commands may write below TMPDIR, which goes with the home, and not to the /tmp that all share.
            "sandbox_workspace_write.exclude_slash_tmp": True,
            "sandbox_workspace_write.network_access": False,
            # Keys stay out of the environment of commands; what marks a process as ours has to be in it.
            "shell_environment_policy.inherit": "core",
            f"shell_environment_policy.set.{Variable.MOSS_TAG}": brief.tag,
            f"shell_environment_policy.set.{Variable.PYTHONDONTWRITEBYTECODE}": "1",
            "web_search": "disabled",
            "history.persistence": "none",
            "analytics.enabled": False,
            "check_for_update_on_startup": False,
        }

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        text, session, last = "", "", ""
        spend, problem = Spend(), ""
        denied = list(_rejected(complaint))
        for event in events(said):
            last = text_of(event.get("type"))
            match last:
                case "thread.started":
                    session = printable(text_of(event.get("thread_id")))
                case "item.completed":
                    item = dict_of(event.get("item"))
                    if item.get("type") == "agent_message":
                        text = text_of(item.get("text"))
                    if item.get("status") == "declined":
                        denied.append(printable(text_of(item.get("command")) or text_of(item.get("type"))))
                case "turn.completed":
                    used = dict_of(event.get("usage"))
                    spend = Spend(tokens=tokens(used.get("input_tokens"), used.get("output_tokens")))
                case "turn.failed":
                    problem = text_of(dict_of(event.get("error")).get("message"))
        if last == "turn.failed":
            return Heard("", spend, refusal(status_in(problem), problem), session, tuple(denied))
        if last != "turn.completed":
            return unfinished(exit_code, complaint, spend)
        return Heard(text, spend, None, session, tuple(denied)) if text.strip() else no_text(spend, session)


def _own_sandbox(brief: Brief, way: Way | None) -> str:
    """Within a sandbox of ours it can make none, and every command would fail."""
    if way and way.confined:
        return "danger-full-access"
    return "workspace-write" if brief.may_write else "read-only"


def _rejected(complaint: str) -> Iterator[str]:
    """Patches that it did not apply are told on standard error only."""
    for line in complaint.splitlines():
        _, mark, why = line.partition("patch rejected: ")
        if mark:
            yield printable(mark + why)


def _toml(value: object) -> str:
    """JSON's texts, numbers and truths are TOML's as well, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
