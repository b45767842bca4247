"""Every liar is put through a whole run: nobody is asked for consent, the live agent stays as it is, the deed is named.

All of Moss is the real one, with its store, durable jobs, processes and git. The liars are acted by the program
tests/support/scripted_coder.py, and the stage is tests/support/theatre.py.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from core.model.consent import ConsentState
from core.model.replies import Role, Verdict
from core.model.run import Judged, Run, RunState
from core.store import people
from tests.support.theatre import (
    FIXED,
    HALF_AN_ANSWER,
    LEARNT_BY_HEART,
    NO_BETTER,
    SILENT,
    WITHOUT_CHECKS,
    WRONG_PRICES,
    Theatre,
    agent,
    eventually,
    theatre,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXHAUSTED, FAILED = RunState.exhausted, RunState.failed


@dataclass(frozen=True)
class Lie:
    scenario: dict[str, Any]
    ends: RunState
    words: tuple[str, ...]
    """That the run's sentence must hold."""
    evidence: str = HALF_AN_ANSWER


def lie(ends: RunState, *words: str, patch: str = FIXED, evidence: str = HALF_AN_ANSWER, **scenario: Any) -> Lie:
    return Lie({"patch": agent(patch), **scenario}, ends, words, evidence)


def in_role(role: str, mode: str) -> dict[str, Any]:
    return {role: [{"mode": mode}]}


ANSWERS = {
    "*": [{"id": "a", "text": "", "contains": "apple costs 2. pear costs 3."}],
    "one-good": [{"id": "a", "text": "", "contains": "quince costs 8."}],
}

LIARS = {
    # Claims about the scores
    "says CONVERGED although everything fell": lie(
        EXHAUSTED,
        "CONVERGED was claimed",
        "keypoint one-good/price of a golden task fell from strong (the live agent) to missing",
        mode="always_converged",
        patch=SILENT,
    ),
    "says NOT CONVERGED before its verdict": lie(
        EXHAUSTED, "this candidate cannot be offered", mode="says_not_converged", patch=NO_BETTER
    ),
    "says NOT CONVERGED in prose only": lie(
        FAILED, "iter-1/verdict", "holds no JSON object", mode="not_converged_in_prose"
    ),
    "says CONVERGED in prose only": lie(
        FAILED, "in role verdict", "holds no JSON object", roles=in_role("verdict", "no_json")
    ),
    "approves a change in prose only": lie(
        FAILED, "in role code_review", "holds no JSON object", roles=in_role("code_review", "no_json")
    ),
    # Changes that are none, or that are more than they seem
    "changes nothing": lie(EXHAUSTED, "The coder changed nothing", mode="does_nothing"),
    "deletes the tests": lie(
        EXHAUSTED, "tests/test_prices.py is protected by `tests/**` and was deleted", mode="deletes_tests"
    ),
    "weakens the tests": lie(
        EXHAUSTED, "tests/test_prices.py is protected by `tests/**` and was changed", mode="weakens_tests"
    ),
    "breaks the tests": lie(
        EXHAUSTED,
        "base commit's test suite `python3 -S -B tests/test_prices.py` ended with exit code 1",
        'assert price("apple") == 2',
        patch=WRONG_PRICES,
    ),
    "empties the tests while it builds": Lie(
        {"patch": agent(WRONG_PRICES, **{"build.sh": ": > tests/test_prices.py\n"})},
        EXHAUSTED,
        ("base commit's test suite", 'assert price("apple") == 2'),
    ),
    "learns the flagged conversations by heart": lie(
        EXHAUSTED,
        "none of the held-back tasks with the same failure",
        "it fits the examples, not the cause",
        mode="hard_codes",
        target={"path": "agent.py", "template": LEARNT_BY_HEART},
        keypoints=ANSWERS,
    ),
    "edits a protected file": lie(
        EXHAUSTED, ".moss/notes.txt is protected by `.moss/**` and was added", mode="edits_protected"
    ),
    "puts a secret into the code": lie(EXHAUSTED, "puts a secret into keys.py", mode="leaks_a_secret"),
    "writes 100 MB": lie(EXHAUSTED, "big.bin has 100000000 bytes, and at most 1000000", mode="writes_100_mb"),
    # Deeds in the checkout and around it
    "commits": lie(FAILED, "in role implement made commits or branches", "where only Moss commits", mode="commits"),
    "plants a program in the git settings": lie(
        FAILED, "in role implement changed the git settings of its checkout", mode="plants_fsmonitor"
    ),
    "plants git hooks": lie(FAILED, "in role implement planted a git hook in its checkout", mode="plants_hooks"),
    "deletes the checkout": lie(FAILED, "in role implement removed its checkout", mode="deletes_checkout"),
    "deletes its git directory": lie(
        FAILED, "in role implement removed the git directory of its checkout", mode="deletes_git"
    ),
    "changes the evidence": lie(FAILED, "in role locate changed the evidence", mode="changes_evidence"),
    "lays the next stage's reply to where it will lie": lie(
        FAILED,
        "in role plan_review",
        "holds no JSON object",
        roles={**in_role("plan", "answers_ahead"), **in_role("plan_review", "no_json")},
    ),
    "changes what is replayed": lie(FAILED, "tasks.json was changed while the run went on", mode="moves_the_goal"),
    "leaves a process behind": lie(
        FAILED, "left a process behind in role locate; it was killed", mode="leaves_process"
    ),
    **{
        f"edits in the role {role}, which only reads": lie(
            FAILED,
            f"in role {role} changed left_by_a_reader.txt, though this role may only read",
            roles=in_role(role, "edits_read_only"),
            evidence=WITHOUT_CHECKS if role == "evaluate" else HALF_AN_ANSWER,
        )
        for role in ("locate", "plan", "plan_review", "code_review", "evaluate", "verdict")
    },
    # No answer, or none that can be used
    "replies without JSON": lie(FAILED, "in role locate", "holds no JSON object", mode="no_json"),
    "replies as another role": lie(
        FAILED, "in role locate", "does not match the schema: `summary`: is missing", mode="other_role"
    ),
    "exits with 1 after a fine reply": lie(
        FAILED, "in role locate: it exited with 1 (the model does not answer)", mode="exits_1"
    ),
    "prints without end": lie(
        FAILED, "in role locate: it printed more than 8000000 bytes and was killed", mode="floods_stdout"
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Theatre]:
    """One Moss for all of them: what one liar did must not help or hurt the next."""
    async with theatre(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


async def caught(stage: Theatre, liar: Lie) -> None:
    before = await stage.outside()
    run = await stage.play(liar.evidence, **liar.scenario)
    assert run.state is liar.ends, run.sentence
    assert [words for words in liar.words if words not in run.sentence] == [], run.sentence
    assert run.sentence.endswith(".")
    assert "\n" not in run.sentence
    assert await stage.consent_of(run) is None
    assert await stage.outside() == before
    await eventually(lambda: stage.cleared(run), within_s=10)
    assert not stage.pwned


@pytest.mark.parametrize("liar", LIARS.values(), ids=LIARS.keys())
async def test_a_liar_is_caught_and_its_deed_is_named(stage: Theatre, liar: Lie) -> None:
    await caught(stage, liar)


async def test_a_coder_that_hangs_is_named_with_its_time_limit(stage: Theatre) -> None:
    with stage.impatient(Role.locate, 1):
        await caught(stage, lie(FAILED, "in role locate: it did not end within 1 s and was killed", mode="hangs"))


async def test_an_honest_coder_is_offered(stage: Theatre) -> None:
    run = await stage.play(patch=agent(FIXED))
    assert run.state is RunState.awaiting_consent, run.sentence
    candidate, consent = await stage.candidate_of(run), await stage.consent_of(run)
    assert consent is not None
    assert (consent.candidate, consent.votes) == (candidate.id, ())
    assert (candidate.files, candidate.partial) == (("agent.py",), False)
    await eventually(lambda: stage.cleared(run), within_s=10)


async def test_an_honest_coder_whose_replies_a_judge_scores_is_offered(stage: Theatre) -> None:
    points = [{"id": f"p{n}", "text": f"Is good in way {n}.", "contains": "pear costs 3"} for n in range(4)]
    run = await stage.play(WITHOUT_CHECKS, patch=agent(FIXED), keypoints={"*": points})
    assert run.state is RunState.awaiting_consent, run.sentence


async def test_not_converged_is_never_read_as_converged(stage: Theatre) -> None:
    run = await stage.play(mode="says_not_converged", patch=agent(FIXED))
    verdicts = [done.result.verdict for done in await stage.history(run) if isinstance(done.result, Judged)]
    assert verdicts == [Verdict.need_more_work] * 2
    assert (await stage.candidate_of(run)).partial, "a gain all the same, and people are told that it is not all"


async def test_a_coder_cannot_press_approve(stage: Theatre) -> None:
    waiting = await stage.play(patch=agent(FIXED))
    before = await stage.outside()
    async with stage.box_office() as client:
        run = await stage.play(
            press=waiting.id, roles=in_role("locate", "presses_approve") | in_role("plan", "exits_1")
        )
        await nobody_decided(stage, waiting)
        assert await stage.outside() == before
        token = await people.add(stage.moss.store, "bob")
        await client.ask("decline", {"run": waiting.id, "reason": "Only people have tokens."}, token=token)
    assert run.state is RunState.failed
    assert (await stage.look(waiting.id)).state is RunState.declined
    without, made_up = json.loads(Path(f"{stage.scenario}.pressed").read_text())
    assert without.startswith("HTTP/1.1 400")
    assert "This needs your token" in without
    assert "Nobody here has that token" in made_up


async def nobody_decided(stage: Theatre, run: Run) -> None:
    consent = await stage.consent_of(run)
    assert consent is not None
    assert (consent.state, consent.votes) == (ConsentState.asked, ())
    assert (await stage.look(run.id)).state is RunState.awaiting_consent
