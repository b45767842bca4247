"""A coding agent that says what one once said about the desk: the example runs without a key, and always alike.

    python3 recorded_coder.py fix.patch

`docs/coder-protocol.md` is what it follows. With `wrong.patch` it makes a change that looks right and is of no use;
with no patch at all it only talks.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CAUSE = (
    "Case.keep holds one record of each kind: of all the rows that a search finds, the first one stays. Every later "
    "tool and the model see that record only, so whatever more was found is left out of the answer."
)
CHANGE = "The case holds every record of a kind, and a tool that needs a record runs once for each of them."
WHERE = "desk/dispatch.py"

REPLIES: dict[str, dict[str, Any]] = {
    "locate": {
        "summary": CAUSE,
        "failure_class": "incomplete",
        "depth": "structural",
        "suspects": [{"path": WHERE, "why": "Case.keep drops rows; Dispatcher._complete passes on one record."}],
        "siblings": ["any question that several tickets, parts or engineers answer"],
    },
    "plan": {
        "summary": CHANGE,
        "changes": [
            {"path": WHERE, "change": "Case.keep and Case.records hold lists; Dispatcher.run goes through them."}
        ],
        "expect_better": [],
        "may_hurt": [],
    },
    "plan_review": {"verdict": "APPROVE", "remarks": "It is the only place where rows are lost."},
    "implement": {
        "summary": "The dispatcher dropped all but the first record it found; now every record is looked into."
    },
    "code_review": {
        "verdict": "APPROVE",
        "remarks": "Does what the plan says; a question about one record is as before.",
    },
    "verdict": {"verdict": "CONVERGED", "reason": "Every record that belongs into an answer is named."},
    "scan": {"segments": []},
}


def main() -> int:
    sys.stdin.read()
    role = os.environ["MOSS_ROLE"]
    reply = REPLIES.get(role)
    if reply is None:
        print(f"nothing was recorded for the role {role}", file=sys.stderr)
        return 3
    if role == "plan":
        reply = {**reply, "expect_better": keypoints()}
    if role == "implement" and sys.argv[1:]:
        subprocess.run(["git", "apply", "--whitespace=nowarn", sys.argv[1]], check=True)
    print(json.dumps(reply))
    return 0


def keypoints() -> list[str]:
    """What every list must do better once it is complete."""
    brief = json.loads((Path(os.environ["MOSS_EVIDENCE"]) / "brief.json").read_text(encoding="utf-8"))
    low = [point for point in brief["keypoints"] if point.get("baseline") is not None and point["baseline"] < 2]
    return [f"{point['task']}/{point['id']}" for point in low]


if __name__ == "__main__":
    sys.exit(main())
