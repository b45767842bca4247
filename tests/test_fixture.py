"""The fixture of trials: what the owner gives every trial to read, and that nothing of it is shared."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.containers.host import label
from core.model.errors import Refused
from core.model.keypoints import Task, TaskKind
from core.model.substrate import Substrate
from core.model.transcript import Message, Transcript
from core.pipeline.trial import Bench, replay_all
from tests.support.containers import EITHER, OWNER, SLEEP, Stage, docker_image, docker_stage, process_stage, python

__all__ = ["docker_image", "docker_stage", "process_stage"]

ASKED = """
import json, os, sys
there = os.environ.get("MOSS_FIXTURE_DIR")
if there is None:
    print("nothing")
    sys.exit()
said = {"at": there, "words": open(f"{there}/deep/words").read(), "file": os.stat(f"{there}/deep/words").st_ino}
said["run"] = os.access(f"{there}/run", os.X_OK)
said["mounted read-only"] = bool(os.statvfs(there).f_flag & os.ST_RDONLY)
print(json.dumps(said))
"""


@pytest.fixture(params=EITHER)
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    seed = tmp_path / "seed"
    (seed / "deep").mkdir(parents=True)
    (seed / "deep" / "words").write_text("as it was")
    (seed / "deep" / "words").chmod(0o600)
    (seed / "run").write_text("#!/bin/sh\n")
    (seed / "run").chmod(0o700)
    (seed / "gone").symlink_to("/nowhere")
    return seed


async def replayed(stage: Stage, **trials: Any) -> list[str]:
    substrate = Substrate.model_validate(
        {
            "name": "desk",
            "repository": "/srv/desk",
            "trusted": True,
            "run": {"command": SLEEP, "user": "4711" if stage.host.name == "docker" else None},
            "replay": {"kind": "exec", "command": python(ASKED)},
            "health": {"commands": [["true"]]},
            "trials": trials,
        }
    )
    said = Transcript(messages=(Message(role="user", content="What is there?"),))
    labels = {label.OWNER: OWNER, label.SUBSTRATE: "desk"}
    bench = Bench(stage.host, substrate, f"t-{stage.data.name[-12:]}", labels, stage.data / "work" / "laid")
    made = await replay_all(bench, stage.image, [Task(id="t1", kind=TaskKind.batch, transcript=said)], 2)
    replies = [trial.transcript.reply for trial in made]
    assert [reply.error for reply in replies if reply] == [None, None]
    return [reply.content for reply in replies if reply]


async def test_every_trial_reads_a_copy_of_its_own_and_writes_to_none(stage: Stage, seed: Path) -> None:
    told = [json.loads(each) for each in await replayed(stage, fixture=str(seed), fixture_path="/srv/seed")]
    assert [(each["words"], each["run"]) for each in told] == [("as it was", True)] * 2
    assert len({*(each["file"] for each in told), (seed / "deep" / "words").stat().st_ino}) == 3
    if stage.host.name == "docker":
        assert [(each["at"], each["mounted read-only"]) for each in told] == [("/srv/seed", True)] * 2
    assert (seed / "deep" / "words").read_text() == "as it was"
    assert list((stage.data / "work" / "fixtures").iterdir()) == []

    (seed / "deep" / "words").write_text("as it is now")
    again = [json.loads(each) for each in await replayed(stage, fixture=str(seed))]
    assert [each["words"] for each in again] == ["as it was"] * 2, "control and candidate find the same"


async def test_without_a_fixture_nothing_is_told(process_stage: Stage) -> None:
    assert await replayed(process_stage) == ["nothing"] * 2


async def test_a_fixture_that_cannot_be_copied_is_named(process_stage: Stage, seed: Path) -> None:
    with pytest.raises(Refused, match=r"`trials\.fixture` names .*/none, which cannot be copied: No such file"):
        await replayed(process_stage, fixture=str(seed.with_name("none")))
    os.mkfifo(seed / "pipe")
    with pytest.raises(Refused, match=r"which cannot be copied: .* is a named pipe"):
        await replayed(process_stage, fixture=str(seed))
    with pytest.raises(Refused, match=r"`trials\.fixture` names .*, which holds Moss's own data"):
        await replayed(process_stage, fixture=str(process_stage.data.parent))
    assert list((process_stage.data / "work").glob(".fixture-*")) == []
