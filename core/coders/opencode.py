"""The provider `opencode`: OpenCode. Nothing of the repository configures it, and it has no shell."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.coders.coder import Api, Brief, Heard, Start, Versions, Way
from core.coders.events import (
    dict_of,
    events,
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

MEASURED = Versions((1, 18, 33), (1, 18, 33))

OURS = "opencode"
"""Our directory in its home, from which it works."""
MOST_STEPS = 200
"""After a stream that breaks it asks the same again, at once and without end."""
READING = {"*": "deny", "read": "allow", "grep": "allow", "glob": "allow", "list": "allow"}
EDITING = {**READING, "edit": "allow"}
"""Never `ask`: where nobody answers it ends without a word, and with exit code 0."""

_OFF = (
    *("AUTOUPDATE", "MODELS_FETCH", "DEFAULT_PLUGINS", "LSP_DOWNLOAD", "SHARE", "TERMINAL_TITLE", "EMBEDDED_WEB_UI"),
    # opencode.json, AGENTS.md, CLAUDE.md, agents, tools, plugins and skills of the repository.
    *("PROJECT_CONFIG", "CLAUDE_CODE", "CLAUDE_CODE_PROMPT", "CLAUDE_CODE_SKILLS", "EXTERNAL_SKILLS"),
)


@dataclass(frozen=True, slots=True)
class Service:
    """One of the model services that it can speak to."""

    api: Api
    speaks: str
    """The library that it brings along for it."""
    endpoint: str
    below: str
    """What follows the gateway's address."""
    key: str


SERVICES: Mapping[str, Service] = {
    "openai": Service(
        "openai", "@ai-sdk/openai-compatible", "https://api.openai.com/v1", "/openai/v1", "OPENAI_API_KEY"
    ),
    "anthropic": Service(
        "anthropic", "@ai-sdk/anthropic", "https://api.anthropic.com/v1", "/anthropic/v1", "ANTHROPIC_API_KEY"
    ),
}


def service_of(model: str) -> Service:
    """`anthropic/NAME` speaks Anthropic Messages; everything else OpenAI chat completions."""
    return SERVICES["anthropic" if model.startswith("anthropic/") else "openai"]


@dataclass(frozen=True, slots=True)
class OpenCode:
    model: str
    base_url: str | None = None
    key: str = "OPENAI_API_KEY"
    """The variable with the key, where no gateway stands between."""
    versions: Versions | None = MEASURED

    @property
    def api(self) -> Api | None:
        return service_of(self.model).api

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        name = self.model.removeprefix("anthropic/").removeprefix("openai/")
        arguments = (
            "run",
            *("--format", "json"),
            # Not the checkout: its opencode.json and the plugins below .opencode would run, whatever is switched off.
            *("--dir", str(home / OURS)),
            *("--model", f"moss/{name}"),
            *("--agent", "moss"),
            *("--title", "moss"),  # else it asks its model for one
            "--pure",
        )
        env = {
            "OPENCODE_CONFIG_CONTENT": json.dumps(self._config(brief, name, way)),
            **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")},
            **{f"OPENCODE_DISABLE_{what}": "1" for what in _OFF},
        }
        return Start(arguments, env | ({self.key: way.token} if way else {}), {f"{OURS}/.keep": ""})

    def _config(self, brief: Brief, name: str, way: Way | None) -> Mapping[str, object]:
        service = service_of(self.model)
        url = f"{way.url}{service.below}" if way else (self.base_url or service.endpoint)
        seen = (brief.checkout, brief.evidence)
        outside = {"*": "deny", **{f"{place}/{all}": "allow" for place in seen for all in ("*", "**")}}
        may = {**(EDITING if brief.may_write else READING), "external_directory": outside}
        provider = {
            "npm": service.speaks,
            "name": "moss",
            "options": {"baseURL": url, "apiKey": f"{{env:{self.key}}}"},
            "models": {name: {"name": name}},
        }
        agent = {
            "mode": "primary",
            "description": "works for Moss",
            "prompt": f"{standing_orders()}\n\nThe working directory is `{brief.checkout}`: all that you look for lies "
            "there, and what you change has to lie there. Name files by their absolute paths.",
            "permission": may,
            "steps": MOST_STEPS,
        }
        return {
            "autoupdate": False,
            "share": "disabled",
            "snapshot": False,
            "lsp": False,
            "formatter": False,
            "enabled_providers": ["moss"],
            "provider": {"moss": provider},
            "model": f"moss/{name}",
            "small_model": f"moss/{name}",
            "permission": may,
            "agent": {"moss": agent},
        }

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        """It ends with the step that called no tool; an error may stand anywhere."""
        texts: list[str] = []
        session, why, failure = "", "", ""
        status: int | None = None
        counts: list[object] = []
        prices: list[object] = []
        denied: list[str] = []
        for event in events(said):
            session = session or printable(text_of(event.get("sessionID")))
            part = dict_of(event.get("part"))
            match event.get("type"):
                case "step_start":
                    texts, why = [], ""
                case "text":
                    texts.append(text_of(part.get("text")))
                case "step_finish":
                    why = text_of(part.get("reason"))
                    used = dict_of(part.get("tokens"))
                    cache = dict_of(used.get("cache"))
                    counts += [used.get("input"), used.get("output"), used.get("reasoning")]
                    counts += [cache.get("read"), cache.get("write")]
                    prices.append(part.get("cost"))
                case "tool_use" if dict_of(part.get("state")).get("status") == "error":
                    told = text_of(dict_of(part.get("state")).get("error"))
                    denied.append(printable(f"{text_of(part.get('tool'))}: {told}")[:120])
                case "error":
                    error = dict_of(event.get("error"))
                    data = dict_of(error.get("data"))
                    failure = text_of(data.get("message")) or text_of(error.get("name")) or "an error without a name"
                    code = data.get("statusCode")
                    status = code if isinstance(code, int) else None
        spend, deeds = Spend(money_usd=money(*prices), tokens=tokens(*counts)), tuple(denied)
        if failure:
            return Heard("", spend, refusal(status, failure), session, deeds)
        if why != "stop":
            return unfinished(exit_code, complaint, spend)
        text = "".join(texts)
        return Heard(text, spend, None, session, deeds) if text.strip() else no_text(spend, session)
