"""Everything about one run: gathered from a real store and real artefacts, whatever is missing among them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.digest import compose
from bot.report import evidence, gather, listed, median_trial, read_diff, read_logs, read_trials, standing
from core.model.errors import NotFound, Refused
from core.model.keypoints import Keypoint, Level, Row, TaskKind
from core.model.run import RunState, Stage
from core.model.swap import SwapState
from core.store import Store
from flags.raise_flag import withdraw
from tests.support import reports
from tests.support.databases import DATABASES, opened
from tests.support.newsroom import DIFF, Newsroom, newsroom
from tests.support.paper_chat import PAPER


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path) as store:
        yield store


@pytest.fixture
async def room(store: Store, tmp_path: Path) -> AsyncIterator[Newsroom]:
    async with newsroom(store, tmp_path) as room:
        yield room


async def test_a_report_of_an_applied_run_holds_all_that_happened(room: Newsroom) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    swap = await room.swap(asked.id)
    report = await gather(room.store, room.data, run.id)
    assert report.run.state is RunState.applied
    assert report.diagnosis == reports.DIAGNOSIS
    assert report.plan == reports.PLAN
    assert report.matrices
    assert [matrix.total for matrix in report.matrices] == [8, 8, 18]
    assert report.consent
    assert [vote.person for vote in report.consent.votes] == ["ben"]
    assert (report.swap, report.swap and report.swap.outage_ms) == (swap, 2000)
    assert report.version
    assert report.before
    assert (report.version.number, report.before.number) == (1, 0)
    assert report.seconds(Stage.plan) == 0
    assert [chunk.turn for chunk in report.chunks] == ["r0", "r1"]
    assert report.branch == f"moss/{run.id}"
    assert report.under_way is None


async def test_each_flagged_turn_is_quoted_with_the_trial_in_the_middle(room: Newsroom) -> None:
    run = await room.begin()
    await room.offer(run.id)
    report = await gather(room.store, room.data, run.id)
    for exchange, (asked, before, after, _) in zip(report.exchanges, reports.TURNS, strict=True):
        assert (exchange.asked, exchange.before) == (asked, before)
        assert (exchange.after or "").startswith(after)
    # On the second reply the second of three trials is the worst; so of its trials the first stands in the middle.
    assert [(exchange.after or "")[-9:] for exchange in report.exchanges] == ["(trial 2)", "(trial 1)"]


def row(*levels: int) -> Row:
    point = Keypoint(id="k", text="does it")
    return Row(task="t", kind=TaskKind.batch, keypoint=point, levels=tuple(Level(level) for level in levels))


@pytest.mark.parametrize(
    ("rows", "trial"),
    [
        ([row(3)], 1),
        ([row(3, 0)], 2),
        ([row(0, 3)], 1),
        ([row(3, 1, 2)], 3),
        ([row(3, 0, 0), row(0, 3, 3)], 2),
        ([row(3, 2, 1, 0)], 3),
    ],
)
def test_the_trial_that_stands_for_all_is_the_lower_median(rows: list[Row], trial: int) -> None:
    assert median_trial(rows) == trial


async def test_a_run_under_way_says_what_it_is_at(room: Newsroom) -> None:
    run = await room.begin()
    await room.steps(run.id, reports.MEASURED)
    report = await gather(room.store, room.data, run.id)
    assert report.under_way
    assert report.under_way.name == "iter-1/locate"
    assert report.matrices is None
    assert [exchange.after for exchange in report.exchanges] == [None, None]


@pytest.mark.parametrize("spoil", ["gone", "not JSON", "huge"])
async def test_a_trial_that_cannot_be_read_leaves_its_place_empty(room: Newsroom, spoil: str) -> None:
    run = await room.begin()
    await room.offer(run.id)
    for file in room.data.rglob("trials/*.json"):
        match spoil:
            case "gone":
                file.unlink()
            case "not JSON":
                file.write_bytes(b"\xff{")
            case _:
                file.write_bytes(file.read_bytes() + b" " * 5_000_001)
    report = await gather(room.store, room.data, run.id)
    assert [exchange.after for exchange in report.exchanges] == [None, None]
    assert read_trials(report) == []


async def test_the_diff_is_exactly_what_was_offered_or_nothing(room: Newsroom) -> None:
    run = await room.begin()
    await room.offer(run.id)
    report = await gather(room.store, room.data, run.id)
    assert read_diff(report) == DIFF
    (file,) = room.data.rglob("diff.patch")
    file.write_text(DIFF + "+import os\n")
    with pytest.raises(Refused, match="is not the one that was offered"):
        read_diff(report)
    file.unlink()
    with pytest.raises(NotFound, match="is gone"):
        read_diff(report)


async def test_what_a_run_has_not_made_yet_is_said(room: Newsroom) -> None:
    run = await room.begin()
    report = await gather(room.store, room.data, run.id)
    for read in (read_diff, read_trials, read_logs):
        with pytest.raises(NotFound, match="yet"):
            read(report)
    with pytest.raises(NotFound, match="no run run-nothing"):
        await gather(room.store, room.data, "run-nothing")


async def test_a_flag_taken_back_after_the_batch_was_sealed_is_told_and_stays(room: Newsroom) -> None:
    run = await room.begin()
    await withdraw(room.store, "desk", PAPER, "r0", "carl")
    report = await gather(room.store, room.data, run.id)
    assert [(note.person, note.withdrawn) for note in report.notes] == [("carl", True)]
    assert len(report.chunks) == 2


async def test_of_long_logs_the_end_is_read_and_the_rest_is_named(room: Newsroom) -> None:
    run = await room.begin()
    folder = room.data / "runs" / run.id
    (folder / "control").mkdir(parents=True)
    (folder / "control" / "build.log").write_text("x" * 5_000_000 + "\nfailed: here")
    (folder / "probe.log").write_text("short")
    report = await gather(room.store, room.data, run.id)
    found = read_logs(report, 2_000)
    assert found["probe.log"] == "short"
    where = f"{folder}/control/build.log"
    assert found["control/build.log"].startswith(f"… 4,999,013 bytes before this are in {where}\nxxx")
    assert found["control/build.log"].endswith("\nfailed: here")
    assert len(found["control/build.log"]) < 1_200
    assert len(read_logs(report)["control/build.log"]) == 5_000_013


async def test_how_a_substrate_stands(room: Newsroom) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.flag(0, place=PAPER.model_copy(update={"channel": "other"}))
    found = await standing(room.store, "desk")
    assert found.live
    assert (found.live.number, found.open_batches, found.sealed_batches) == (0, 1, 1)
    assert ([one.id for one in found.runs], [one.id for one in found.asked]) == ([run.id], [asked.id])
    await room.decide(asked.id)
    await room.swap(asked.id, SwapState.stuck)
    assert (await standing(room.store, "desk")).needs_adoption


async def test_a_batch_with_its_evidence_and_its_run(room: Newsroom) -> None:
    run = await room.run()
    one = await evidence(room.store, run.batch)
    assert (one.batch.id, len(one.chunks), one.run) == (run.batch, 2, run)
    ((listed_batch,), held) = await listed(room.store, "desk", 5)
    assert (listed_batch.batch, listed_batch.held, listed_batch.run, held) == (one.batch, 2, run, 1)


async def test_a_list_counts_flagged_replies_without_reading_their_transcripts(room: Newsroom) -> None:
    for channel in "abc":
        await room.flag(0, place=PAPER.model_copy(update={"channel": channel}))
    async with room.store.writing() as db:
        await db.execute(text("UPDATE chunks SET transcript = '[]'"))  # whoever reads one fails
    newest, held = await listed(room.store, "desk", 2)
    older, _ = await listed(room.store, "desk", 2, skip=2)
    assert ([one.held for one in newest + older], held) == ([1, 1, 1], 3)
    assert (await standing(room.store, "desk")).open_batches == 3
    until = room.store.now()
    assert "3 flagged replies" in str(await compose(room.store, "desk", until - timedelta(days=1), until))
