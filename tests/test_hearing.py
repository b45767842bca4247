"""What a coding agent printed, read by its provider: whatever it is, it is an answer or a problem in words."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.coders.claude import Claude
from core.coders.coder import Heard, Provider
from core.coders.codex import Codex
from core.coders.command import Command
from core.coders.events import MOST_USD
from core.coders.gemini import Gemini
from core.coders.opencode import OpenCode

SHAPES: Mapping[Provider, Mapping[str, str]] = {
    Claude(): {
        "result": "subtype result session_id permission_denials errors is_error api_error_status terminal_reason "
        "modelUsage total_cost_usd"
    },
    Codex(): {
        "thread.started": "thread_id",
        "item.completed": "item",
        "turn.completed": "usage",
        "turn.failed": "error",
    },
    Gemini(): {
        "init": "session_id",
        "message": "role content delta",
        "tool_result": "status error",
        "result": "stats status error",
    },
    OpenCode("m"): {"text": "part sessionID", "tool_use": "part", "step_finish": "part", "error": "error"},
    Command(): {"": "spend"},
}
"""By provider the events that it reads, and what it reads of them."""
INNER = "type text status command input_tokens message tokens cache read cost reason state error data name statusCode"
WORDS = ("success", "error", "stop", "assistant", "agent_message", "declined", "\ud800", 10**400)

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS)
values = leaves | st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER.split()), inner, max_size=4),
    max_leaves=5,
)


def events_of(provider: Provider) -> st.SearchStrategy[list[dict[str, Any]]]:
    kinds = [
        st.fixed_dictionaries({"type": st.just(kind)}, optional=dict.fromkeys(keys.split(), values))
        for kind, keys in SHAPES[provider].items()
    ]
    return st.lists(st.one_of(*kinds), min_size=1, max_size=4)


@pytest.mark.parametrize("provider", SHAPES, ids=lambda each: type(each).__name__)
@given(data=st.data(), complaint=st.text(), code=st.integers(-64, 255))
def test_nothing_that_is_printed_makes_a_provider_fail(
    provider: Provider, data: st.DataObject, complaint: str, code: int
) -> None:
    heard = provider.hear("\n".join(map(json.dumps, data.draw(events_of(provider)))), complaint, code)
    assert isinstance(heard, Heard)
    assert all(isinstance(word, str) for word in (heard.text, heard.session, *heard.denied))
    assert not heard.problem or heard.problem.encode()


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        (Claude(), '{"type": "result", "permission_denials": 5}'),
        (Claude(), '{"type": "result", "is_error": true, "errors": 5}'),
        (Claude(), '{"type": "result", "session_id": ' + '{"a":' * 900 + "1" + "}" * 901),
    ],
)
def test_what_is_no_list_and_what_is_no_text_is_nothing(provider: Provider, said: str) -> None:
    assert (provider.hear(said, "", 0).problem or "").startswith("it ")


def test_what_an_answer_is_said_to_have_cost_stays_an_amount() -> None:
    step = {"type": "step_finish", "part": {"reason": "stop", "cost": MOST_USD}}
    assert OpenCode("m").hear("\n".join([json.dumps(step)] * 3), "", 0).spend.money_usd == MOST_USD
