"""A run that waits for consent, in a store, with every artefact where the pipeline would leave it."""

from pathlib import Path

from core import consent
from core.model.batch import BatchState
from core.model.brief import TRIALS, TrialFile
from core.model.run import Budget, Dial, RunState
from core.model.transcript import Message, Place, Transcript
from core.model.value import sha256
from core.store import Store, batches, runs
from tests.support import reports

DIFF = """\
diff --git a/desk/dispatch.py b/desk/dispatch.py
index 1111111..2222222 100644
--- a/desk/dispatch.py
+++ b/desk/dispatch.py
@@ -10,4 +10,4 @@ def answer(found):
     records = search(found)
-    return first_of(records)
+    return records
 # end
"""


async def told_run(store: Store, data: Path, *, diff: str = DIFF, reply: str = "", place: Place = reports.PLACE) -> str:
    """Its id. Each candidate's answer is the good one, or what the caller says."""
    found = reports.chunks()
    async with store.changing("desk") as change:
        batch = await batches.open_batch(change, place, "carl")
        for each in found:
            await batches.add_chunk(change, each.model_copy(update={"batch": batch.id}), "carl")
        await batches.move(change, batch.id, BatchState.sealed, "carl")
        run = await runs.queue(change, batch.id, Dial.standard, Budget(), "carl")
        await runs.move(change, run.id, RunState.running, "moss")
        for done in reports.told(*reports.CONVERGED):
            await runs.append(change, run.id, done)
        candidate = reports.candidate().model_copy(update={"run": run.id, "diff_hash": sha256(diff.encode())})
        await runs.add_candidate(change, candidate)
        await consent.ask_for_candidate(change, candidate, run, reports.POLICY, ("carl", "dora"))
        await runs.move(change, run.id, RunState.awaiting_consent, "moss", "Iteration 1 is offered.")
    folder = data / "runs" / run.id
    _write(folder / candidate.diff_artefact, diff)
    _write(folder / "iter-1/build/build.log", "Step 1/4\nAll tests passed.\n")
    for each, (asked, _before, after, _reason) in zip(found, reports.TURNS, strict=True):
        for trial in (1, 2, 3):
            said = Transcript(
                messages=(
                    Message(role="user", content=asked),
                    Message(role="assistant", content=reply or after),
                )
            )
            file = TrialFile(task=each.id, trial=trial, transcript=said)
            _write(folder / "iter-1/evaluate" / TRIALS.format(task=each.id, trial=trial), file.to_json())
    return run.id


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
