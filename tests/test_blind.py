"""The judge of a reply cannot tell whose reply it is: the recorded one, the live agent's, or a candidate's."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.model.run import RunState
from tests.support.scripted_coder import calls
from tests.support.theatre import FIXED, WITHOUT_CHECKS, Theatre, agent, theatre

FRESH = ("HOME", "TMPDIR", "MOSS_SCHEMA", "MOSS_TAG", "PWD", "LC_CTYPE")
"""Different at every call, or none of Moss's."""

POINTS = {
    "*": [
        {"id": f"says-{n}", "text": f"Says {words}.", "contains": words}
        for n, words in enumerate(("apple costs 2", "pear costs 3", "apple", "costs"))
    ]
}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as stage:
        yield stage


def shape(call: dict[str, Any]) -> dict[str, Any]:
    """All that the judge was given, without the reply itself."""
    transcript = json.loads(call["evidence"]["transcript.json"])
    said = [message | {"content": "", "tool_calls": []} for message in transcript["messages"]]
    return {
        "environment": {name: value for name, value in call["environment"].items() if name not in FRESH},
        "brief": call["brief"],
        "prompt": call["prompt"],
        "files": sorted(call["evidence"]),
        "task": call["evidence"]["task.json"],
        "messages": said,
        "checkout": call["checkout"],
        "cwd": call["cwd"],
    }


async def test_control_and_candidate_are_judged_alike_and_so_is_the_recording(stage: Theatre) -> None:
    rejected = {"reply": {"verdict": "REJECT_IMPL", "remarks": "Do it again."}}
    scenario = {"patch": agent(FIXED), "keypoints": POINTS, "roles": {"code_review": [rejected, {}]}}
    run = await stage.play(WITHOUT_CHECKS, **scenario)
    assert run.state is RunState.awaiting_consent, run.sentence
    judged = [call for call in calls(stage.scenario) if call["role"] == "evaluate"]
    assert len(judged) == 3, "every answer is judged once: as recorded, live, candidate"
    recorded, live, candidate = map(shape, judged)
    assert candidate == live
    assert live["brief"]["keypoints"]
    assert recorded | {"brief": 0} == live | {"brief": 0}
    assert recorded["brief"] == live["brief"] | {"keypoints": []}
    assert (live["brief"]["iteration"], live["brief"]["setbacks"]) == (0, [])
    for call in judged:
        assert not {"iter-", "evaluate", "control", "baseline"} & set(call["tag"].split("/"))
        assert call["tag"].split("/")[0] == run.id
        told = json.dumps([call["environment"][name] for name in FRESH if name in call["environment"]])
        assert "iter-" not in told
        assert "control" not in told
    kept = [path.parent.name for path in stage.artefact(run, "iter-2").rglob("judge-*/reply.json")]
    assert kept, "people find what was judged where they look for it"
