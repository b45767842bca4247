"""What the people of the demo say: taken from what the desk's owner keeps, so that no word of the story stands here."""

import json
from dataclasses import dataclass
from typing import Literal

from bot import built_in
from core.model.evidence import FailureKind
from core.model.keypoints import TaskKind
from core.model.run import Stage
from flags.emoji import FLAGS

CONVERSATIONS = 2

Coder = Literal["recorded", "claude", "codex", "gemini", "opencode"]
PEOPLE_SAY: dict[Coder, str] = {
    "claude": "Claude Code",
    "codex": "Codex",
    "gemini": "the Gemini CLI",
    "opencode": "OpenCode",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """One that somebody has complained about once, with the complaint."""

    said: tuple[str, ...]
    """By the person, turn by turn."""
    kind: FailureKind
    emoji: str
    reason: str


def conversations() -> list[Conversation]:
    """Every other of the recorded ones: neighbours are much alike."""
    lines = (built_in.examples() / built_in.OWNERS / "batch.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines[::2][:CONVERSATIONS]:
        recorded = json.loads(line)
        said = tuple(message["content"] for message in recorded["messages"] if message["role"] == "user")
        complaint = recorded["feedback"][0]
        kind = FailureKind(complaint["kind"])
        emoji = next(name for name, (_, meaning) in FLAGS.items() if meaning is kind)
        found.append(Conversation(said, kind, emoji, complaint.get("reason") or ""))
    return found


def character(emoji: str) -> str:
    return FLAGS[emoji][0]


ASKED = frozenset({Stage.locate, Stage.plan, Stage.plan_review, Stage.implement, Stage.code_review, Stage.verdict})
"""A coder is asked in these; what the stand-in says was recorded, and everything else happens."""

DOES: dict[Stage, str] = {
    Stage.prepare: "the commit, the image and the tasks of this run are fixed",
    Stage.baseline: "the flagged replies are scored, and their keypoints locked",
    Stage.control: "the live agent answers every task anew, in trial workers",
    Stage.locate: "where in the code it comes from",
    Stage.plan: "the smallest change that removes the cause",
    Stage.plan_review: "somebody else reads the plan",
    Stage.implement: "the change, in a clean checkout",
    Stage.code_review: "somebody else reads the change; Moss commits it",
    Stage.build: "the image; smoke test; the tests of the commit before it",
    Stage.evaluate: "the candidate answers every task, in trial workers",
    Stage.verdict: "good enough? code refuses what fell",
    Stage.offer: "a question to those who may approve",
}

KINDS = {
    TaskKind.golden: "tasks of the owner that must not get worse",
    TaskKind.safety: "about safety, likewise",
    TaskKind.holdout: "that no coder ever sees, of the same kind of failure",
}
"""What is tried beside the flagged conversations."""

RECORDING = (
    "Diagnosis, plan and diff are a recording: a stand-in for a coding agent replays them, so that this needs no key."
)
GRADED = (
    "The levels are not: the owner's grader, which is code, works them out from the transcripts of the trials that run "
    "here and now."
)


def honesty(coder: Coder) -> tuple[str, ...]:
    """What is real of what is shown."""
    if coder == "recorded":
        return RECORDING, GRADED
    asked = (
        f"Diagnosis, plan and diff are no recording: {PEOPLE_SAY[coder]} is asked for them here and now. That takes "
        "minutes and costs what its model costs; nobody knows what it will come to."
    )
    return asked, f"Nor are the levels: {GRADED.partition(': ')[2]}"
