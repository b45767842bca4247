"""What a request may not ask of a service: to reach out on its behalf. Pure.

A program in a sandbox has no network, and a tool that the service runs, or an address that it fetches, would be one.
"""

import re
from collections.abc import Mapping
from typing import Any

from core.coders.coder import Api
from core.gateway.apis import Headers, No

_OURS: Mapping[Api, re.Pattern[str]] = {
    "anthropic": re.compile(r"(custom|(bash|text_editor|memory|computer)_\d{8})?"),
    "openai": re.compile(r"function|custom|local_shell|shell|apply_patch|namespace"),
}
"""Types of tools that the program runs itself."""
_LEFT_OUT: Mapping[Api, frozenset[str]] = {
    "anthropic": frozenset({"mcpservers", "container"}),
    "openai": frozenset({"websearchoptions", "plugins"}),
    "gemini": frozenset(),
}
"""What belongs to tools of the service, and goes with them. All names here are in `_plain` letters."""
_KEPT_THERE: Mapping[Api, frozenset[str]] = {
    "anthropic": frozenset(),
    "openai": frozenset({"conversation", "previousresponseid", "prompt"}),
    "gemini": frozenset({"cachedcontent"}),
}
_ABOUT_TOOLS = frozenset({"tools", "toolchoice", "paralleltoolcalls", "toolconfig"})
"""Refused by a service where no tool is declared."""
_FREE = frozenset({
    "args", "arguments", "inputexamples", "inputschema", "jsonschema", "metadata", "parameters", "parametersjsonschema",
    "response", "responsejsonschema", "responseschema", "schema",
})  # fmt: skip
"""Below these stands what the program and its model made up, and no service reads an address out of it."""
_INLINE = frozenset({"base64", "content", "text"})
_SEARCHING = re.compile(r"-search\b|deep-research|:online$")
_BETAS = (b"code-execution-", b"files-api-", b"mcp-", b"skills-", b"web-fetch-", b"web-search-")
_SHOWN = 60


def closed(api: Api, told: dict[str, Any]) -> set[str]:
    """Takes tools of the service out of a request, so that a program that declares one still gets its answer without
    it; what they were. Raises No for what else would lead out."""
    found: set[str] = set()
    for name in list(told):
        if _plain(name) in _LEFT_OUT[api]:
            found.add(name[:_SHOWN])
            del told[name]
        elif _plain(name) in _KEPT_THERE[api] and told[name] is not None:
            raise No(400, f"`{name[:_SHOWN]}` names what the service keeps; send all that is meant with the request")
        elif api == "openai" and _plain(name) == "background" and told[name] not in (None, False):
            raise No(400, "`background` asks for work that goes on when nobody counts it; leave it out")
    try:
        _close(api, told, found)
    except RecursionError:
        raise No(400, "the request is nested too deeply") from None
    if any(_plain(name) == "tools" and value == [] for name, value in told.items()):
        for name in [each for each in told if _plain(each) in _ABOUT_TOOLS]:
            del told[name]
    return found


def check_model(api: Api, model: str) -> None:
    """Raises No for one that looks things up by itself."""
    if api == "openai" and _SEARCHING.search(model):
        raise No(400, "this model searches the web by itself, and a coder has no network; name another")


def headers(said: Headers) -> Headers:
    """Without what switches on tools of the service."""
    kept = [(name, _betas(value) if name == b"anthropic-beta" else value) for name, value in said]
    return [(name, value) for name, value in kept if value]


def _betas(value: bytes) -> bytes:
    return b",".join(each.strip() for each in value.split(b",") if not each.strip().startswith(_BETAS))


def _close(api: Api, value: Any, found: set[str]) -> None:
    if isinstance(value, list):
        for each in value:
            if isinstance(each, dict | list):
                _close(api, each, found)
    if not isinstance(value, dict):
        return
    kind = value.get("type")
    if kind == "tool_addition":
        _check_addition(value)
    for name, inner in value.items():
        plain = _plain(name)
        if plain in _FREE or (api == "anthropic" and plain == "input" and str(kind).endswith("tool_use")):
            continue
        _check_address(api, name, inner)
        if plain == "tools" and inner is not None:
            value[name] = _ours(api, inner, found)
        _close(api, value[name], found)


def _ours(api: Api, tools: Any, found: set[str]) -> list[Mapping[str, Any]]:
    if not isinstance(tools, list) or not all(isinstance(each, dict) for each in tools):
        raise No(400, "`tools` is not a list of tools")
    if api == "gemini":
        found.update(name[:_SHOWN] for tool in tools for name in tool if not _declares(name))
        own = [{name: value for name, value in tool.items() if _declares(name)} for tool in tools]
        return [tool for tool in own if tool]
    found.update(str(tool.get("type"))[:_SHOWN] for tool in tools if not _is_ours(api, tool))
    return [tool for tool in tools if _is_ours(api, tool)]


def _declares(name: str) -> bool:
    """What Gemini calls a list of tools that the program runs itself."""
    return _plain(name) == "functiondeclarations"


def _is_ours(api: Api, tool: Mapping[str, Any]) -> bool:
    where = tool.get("environment")  # of OpenAI's shell: the program's own, or a container of the service
    local = where is None or (isinstance(where, dict) and where.get("type") == "local")
    return bool(_OURS[api].fullmatch(str(tool.get("type") or ""))) and local


def _check_addition(addition: Mapping[str, Any]) -> None:
    """In the middle of a conversation Anthropic takes further tools, by name or with their definition."""
    tool = addition.get("tool")
    if isinstance(tool, dict) and tool.get("type") == "tool_definition":
        tool = tool.get("definition")
    elif isinstance(tool, dict) and tool.get("type") == "tool_reference":
        return
    if not isinstance(tool, dict) or not _is_ours("anthropic", tool):
        raise No(400, "a tool that the service would run cannot be added; a coder has no network")


def _check_address(api: Api, name: str, value: Any) -> None:
    plain = _plain(name)
    if plain == "fileid" and value is not None:
        raise No(400, f"`{name[:_SHOWN]}` names a file that the service keeps; send the file itself")
    if api == "anthropic" and plain == "source" and isinstance(value, dict) and value.get("type") not in _INLINE:
        raise No(400, "a `source` would be fetched by the service; send what is meant as base64")
    if not plain.endswith(("url", "uri")) or plain in ("url", "uri"):
        return
    said = [each for key, each in value.items() if _plain(key) == "url"] if isinstance(value, dict) else [value]
    if any(isinstance(each, str) and not each.strip().lower().startswith("data:") for each in said):
        raise No(400, f"`{name[:_SHOWN]}` would be fetched by the service; send what is meant as a `data:` URL")


def _plain(name: str) -> str:
    """Services differ in whether they write `file_data` or `fileData`, and some take either."""
    return name.replace("_", "").lower()
