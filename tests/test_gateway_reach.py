"""A coder has no network, so neither may its model's service have one for it: tools of the service are taken out,
addresses are refused, and nothing goes on where nobody counts it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from core.coders.coder import Api, Lane
from core.gateway import reach
from core.gateway.apis import No, read, written
from core.gateway.gateway import Gateway
from tests.support.upstream import MESSAGE, Upstream, upstream
from tests.test_gateway import ACCOUNT, CHATS, GENERATE, KEYS, MESSAGES, RESPONSES, Book, ask, client

OUT = "https://elsewhere.example/?stolen=it"
DATA = "data:image/png;base64,AAAA"
FUNCTION = {"type": "function", "name": "run", "parameters": {"properties": {"image_url": {"default": OUT}}}}
DECLARED = {"functionDeclarations": [{"name": "run", "parameters": {"properties": {"fileUri": {"type": "STRING"}}}}]}
MIXED: dict[Api, tuple[list[Any], list[Any]]] = {
    "openai": (
        [
            *({"type": kind} for kind in ("web_search", "web_search_preview", "code_interpreter", "file_search")),
            *({"type": kind} for kind in ("image_generation", "computer_use_preview", "web_search_2025_08_26")),
            {"type": "mcp", "server_label": "x", "server_url": OUT, "require_approval": "never"},
            {"type": "shell", "environment": {"type": "container_auto"}},
            {"type": ["function"]},
            {},
        ],
        [
            FUNCTION,
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
            *({"type": kind} for kind in ("local_shell", "shell", "apply_patch")),
            {"type": "shell", "environment": {"type": "local"}},
        ],
    ),
    "anthropic": (
        [
            *({"type": f"{kind}_20260209", "name": kind} for kind in ("web_search", "web_fetch", "code_execution")),
            {"type": "mcp_toolset", "mcp_server_name": "x"},
            {"type": "bash_code_execution_20250825"},
        ],
        [
            {"name": "Read", "input_schema": {"properties": {"source": {"type": "url"}}}},
            {"type": "custom", "name": "Write", "input_schema": {}},
            *({"type": f"{kind}_20250124", "name": kind} for kind in ("bash", "text_editor", "memory", "computer")),
        ],
    ),
    "gemini": (
        [{name: {}} for name in ("urlContext", "url_context", "googleSearch", "codeExecution", "fileSearch")],
        [DECLARED, {"function_declarations": [{"name": "look"}]}],
    ),
}
WAYS: dict[Api, tuple[str, dict[str, Any]]] = {"openai": RESPONSES, "anthropic": MESSAGES, "gemini": GENERATE}


@pytest.fixture
async def api() -> AsyncIterator[Upstream]:
    async with upstream() as there:
        there.says(MESSAGE)
        yield there


@pytest.fixture
async def open_lane(api: Upstream) -> AsyncIterator[Lane]:
    async with Gateway(api.settings, KEYS, Book()).serving() as serving, serving.open(ACCOUNT, None) as opened:
        yield opened


@pytest.mark.parametrize("who", MIXED)
async def test_tools_that_the_service_runs_are_taken_out_and_told_once(
    open_lane: Lane, api: Upstream, who: Api
) -> None:
    theirs, ours = MIXED[who]
    with capture_logs() as logs:
        for _ in range(2):
            answer = await ask(open_lane, WAYS[who], tools=[*theirs, *ours])
            assert answer.status_code == 200
            assert api.asked[-1].told["tools"] == ours
    (told,) = [each for each in logs if "tools" in each]
    assert told["run"] == "run-1"
    assert len(told["tools"]) >= 4


@pytest.mark.parametrize("who", MIXED)
async def test_where_no_tool_is_left_nothing_is_said_about_tools(open_lane: Lane, api: Upstream, who: Api) -> None:
    more = {"tool_choice": "auto", "toolConfig": {}, "mcp_servers": [{"url": OUT}], "web_search_options": {}}
    left = {
        "gemini": {"mcp_servers", "web_search_options"},
        "openai": {"mcp_servers"},
        "anthropic": {"web_search_options"},
    }
    await ask(open_lane, WAYS[who], tools=MIXED[who][0], **more)
    assert set(api.asked[-1].told) == {*WAYS[who][1], *left[who]}


def test_tools_are_taken_out_wherever_they_are_declared() -> None:
    theirs, ours = MIXED["openai"]
    told = {
        "input": [{"type": "additional_tools", "tools": [*theirs, *ours]}],
        "tools": [{"type": "namespace", "name": "x", "tools": [*theirs, FUNCTION]}],
    }
    assert "mcp" in reach.closed("openai", told)
    assert told["input"][0]["tools"] == ours
    assert told["tools"][0]["tools"] == [FUNCTION]
    nested = {"generateContentRequest": {"tools": [{**DECLARED, "googleSearch": {}}]}}
    assert reach.closed("gemini", nested) == {"googleSearch"}
    assert nested["generateContentRequest"]["tools"] == [DECLARED]


async def test_betas_of_the_services_tools_are_kept_back(open_lane: Lane, api: Upstream) -> None:
    async with client(open_lane) as http:
        for said, passed in (
            ("mcp-client-2025-11-20, effort-2025-11-24,web-fetch-2025-09-10", "effort-2025-11-24"),
            ("code-execution-2025-08-25", None),
        ):
            await http.post(MESSAGES[0], json=MESSAGES[1], headers={"anthropic-beta": said})
            assert api.asked[-1].headers.get("anthropic-beta") == passed


def message(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def addition(tool: Any) -> dict[str, Any]:
    return message({"type": "tool_addition", "tool": tool})


REFUSED: list[tuple[str, tuple[str, dict[str, Any]], dict[str, Any]]] = [
    ("in the background", RESPONSES, {"background": True}),
    ("in the background, somehow", RESPONSES, {"background": "true"}),
    ("a conversation that is kept there", RESPONSES, {"conversation": "conv_1"}),
    ("an answer that is kept there", RESPONSES, {"previous_response_id": "resp_1"}),
    ("a prompt that is kept there", RESPONSES, {"prompt": {"id": "pmpt_1"}}),
    ("a cache that is kept there", GENERATE, {"cachedContent": "cachedContents/1"}),
    ("a model that searches", CHATS, {"model": "gpt-4o-search-preview"}),
    ("a model that researches", RESPONSES, {"model": "o4-mini-deep-research"}),
    ("an image of Responses", RESPONSES, {"input": [{"content": [{"type": "input_image", "image_url": OUT}]}]}),
    ("an image under a false name", RESPONSES, {"type": "tool_use", "input": [{"content": [{"image_url": OUT}]}]}),
    ("a file of Responses", RESPONSES, {"input": [{"content": [{"type": "input_file", "file_url": OUT}]}]}),
    ("a kept file of Responses", RESPONSES, {"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}),
    (
        "an image in an output",
        RESPONSES,
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": OUT}]}]},
    ),
    ("an image of a chat", CHATS, message({"type": "image_url", "image_url": {"url": OUT}})),
    ("an image in odd letters", CHATS, message({"type": "image_url", "Image_URL": {"URL": f" {OUT}"}})),
    ("an image of a message", MESSAGES, message({"type": "image", "source": {"type": "url", "url": OUT}})),
    ("a kept file of a message", MESSAGES, message({"type": "document", "source": {"type": "file", "file_id": "f"}})),
    (
        "an image in a result",
        MESSAGES,
        message({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": OUT}}]}),
    ),
    ("a tool by definition", MESSAGES, addition({"type": "tool_definition", "definition": MIXED["anthropic"][0][1]})),
    ("a tool by itself", MESSAGES, addition(MIXED["anthropic"][0][1])),
    ("a file of Gemini", GENERATE, {"contents": [{"parts": [{"fileData": {"fileUri": OUT}}]}]}),
    ("a file in other letters", GENERATE, {"contents": [{"parts": [{"file_data": {"file_uri": "gs://x"}}]}]}),
    ("tools that are no list", GENERATE, {"tools": {"googleSearch": {}}}),
]


@pytest.mark.parametrize(("way", "more"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
async def test_what_would_lead_out_is_refused_with_a_sentence(
    open_lane: Lane, api: Upstream, way: tuple[str, dict[str, Any]], more: dict[str, Any]
) -> None:
    answer = await ask(open_lane, way, **more)
    assert answer.status_code == 400
    assert len(answer.json()["error"]["message"]) > 20
    assert OUT not in answer.text
    assert api.asked == []


async def test_an_address_is_refused_where_tokens_are_only_counted(open_lane: Lane, api: Upstream) -> None:
    image = {"type": "image", "source": {"type": "url", "url": OUT}}
    assert (await ask(open_lane, (f"{MESSAGES[0]}/count_tokens", message(image)))).status_code == 400
    assert (await ask(open_lane, (f"{MESSAGES[0]}/count_tokens", {"mcp_servers": [{"url": OUT}]}))).is_success
    assert [request.told for request in api.asked] == [{}]


@pytest.mark.parametrize(
    ("way", "more"),
    [
        (RESPONSES, {"background": False, "previous_response_id": None, "store": False}),
        (RESPONSES, {"input": [{"content": [{"type": "input_image", "image_url": DATA, "file_id": None}]}]}),
        (RESPONSES, {"input": [{"type": "web_search_call", "action": {"type": "open_page", "url": OUT}}]}),
        (CHATS, message({"type": "image_url", "image_url": {"url": DATA}}, {"type": "text", "text": OUT})),
        (MESSAGES, message({"type": "image", "source": {"type": "base64", "data": "AAAA"}})),
        (MESSAGES, message({"type": "tool_use", "name": "x", "input": {"image_url": OUT, "source": {"type": "url"}}})),
        (MESSAGES, addition({"type": "tool_reference", "name": "Read"})),
        (MESSAGES, addition({"type": "tool_definition", "definition": {"name": "Read", "input_schema": {}}})),
        (GENERATE, {"contents": [{"parts": [{"functionCall": {"name": "x", "args": {"fileUri": OUT}}}]}]}),
        (GENERATE, {"contents": [{"parts": [{"functionResponse": {"response": {"tools": "x", "fileUri": OUT}}}]}]}),
        (GENERATE, {"generationConfig": {"responseSchema": {"properties": {"image_url": {"type": "STRING"}}}}}),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
async def test_what_program_and_model_say_to_each_other_passes_as_it_is(
    open_lane: Lane, api: Upstream, way: tuple[str, dict[str, Any]], more: dict[str, Any]
) -> None:
    assert (await ask(open_lane, way, **more)).status_code == 200
    assert api.asked[-1].told == {**way[1], **more}


async def test_what_is_said_twice_goes_on_as_it_was_understood(open_lane: Lane, api: Upstream) -> None:
    first, second = '"background":true,"tools":[{"type":"mcp"}]', '"tools":null,"background":false'
    body = f'{{"model":"gpt-5.1",{first},"input":"\u00e4\\ud800",{second}}}'
    async with client(open_lane) as http:
        assert (await http.post(RESPONSES[0], content=body.encode())).status_code == 200
    assert api.asked[-1].body.count(b"background") == api.asked[-1].body.count(b"tools") == 1
    assert written(read('{"a": "\u00e4"}'.encode())) == '{"a":"\u00e4"}'.encode()


def test_a_request_that_is_nested_too_deeply_is_refused() -> None:
    told: dict[str, Any] = {}
    for _ in range(2000):
        told = {"x": told}
    with pytest.raises(No, match="nested too deeply"):
        reach.closed("openai", told)


async def test_what_a_request_calls_things_cannot_write_into_the_log(open_lane: Lane) -> None:
    with capture_logs() as logs:
        await ask(open_lane, RESPONSES, tools=[{"type": f"\x1b[31m{number}"} for number in range(100)])
        await ask(open_lane, RESPONSES, **{f"\x1b{open_lane.token}_url": OUT})
    taken, refused = logs
    assert (len(taken["tools"]), taken["tools"][0][:5]) == (20, "?[31m")
    assert refused["why"].startswith("`?[token]_url` would be fetched")
    assert "\x1b" not in str([*taken["tools"], refused["why"]])
