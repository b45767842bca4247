"""The room's pages about runs, batches and versions: complete, plain text, and only for who may look."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bot.adapters.room.artefacts import diff_lines, matrix_rows
from bot.adapters.room.pages import spans
from bot.adapters.room.records import ARTEFACTS
from core.model.batch import BatchState
from core.model.run import Budget, Dial
from core.model.transcript import Place
from core.store import batches, posts, runs, swaps
from tests.support import reports
from tests.support.rooms import House, a_room
from tests.support.stored import version
from tests.support.told_run import DIFF, told_run

OTHER = Place(platform="room", workspace="room", channel="sales")
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e & \"quoted\" 'words' {{ 7*7 }}"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202e &amp; &#34;quoted&#34; &#39;words&#39; {{ 7*7 }}"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


@pytest.fixture
async def anna(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with await house.client("anna") as client:
        yield client


async def page(client: httpx.AsyncClient, path: str, status: int = 200) -> str:
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


async def test_a_run_shows_everything_it_made(house: House, anna: httpx.AsyncClient) -> None:
    run = await told_run(house.store, house.settings.data)
    overview = await page(anna, f"/runs/{run}")
    assert "a repair waits for approval" in overview
    assert "cause found: incomplete, structural" in overview
    assert "<button" not in overview.split('<div class="page">')[1], "it is decided on its card"
    assert reports.DIAGNOSIS.suspects[0].path in await page(anna, f"/runs/{run}/diagnosis")
    assert reports.PLAN.changes[1].path in await page(anna, f"/runs/{run}/plan")
    diff = await page(anna, f"/runs/{run}/diff")
    assert '<span class="del">-    return first_of(records)</span>' in diff
    assert '<span class="add">+    return records</span>' in diff
    trials = await page(anna, f"/runs/{run}/trials")
    assert trials.count("<summary>chunk-1, trial") == 3
    assert "2 open tickets of Harbor Foods" in trials
    assert "1 open ticket of Harbor Foods" in trials
    matrix = await page(anna, f"/runs/{run}/matrix")
    assert matrix.count(">better</td>") == 4
    assert "adequate to strong" in matrix
    assert "All tests passed." in await page(anna, f"/runs/{run}/log")


async def test_the_overview_leads_to_the_card_where_it_is_decided(house: House, anna: httpx.AsyncClient) -> None:
    run = await told_run(house.store, house.settings.data)
    id = await house.say("the card")
    async with house.store.writing() as db:
        await posts.add(db, house.store.now(), f"run:{run}", reports.PLACE, message=id, shown="")
    assert f'href="/c/desk#m-{id}"' in await page(anna, f"/runs/{run}")


async def test_what_is_missing_is_said_in_a_sentence(house: House, anna: httpx.AsyncClient) -> None:
    async with house.store.changing("desk") as change:
        batch = await batches.open_batch(change, reports.PLACE, "carl")
        await batches.move(change, batch.id, BatchState.sealed, "carl")
        run = await runs.queue(change, batch.id, Dial.standard, Budget(), "carl")
    assert "a repair is queued" in await page(anna, f"/runs/{run.id}")
    for what in ("diagnosis", "plan", "diff", "trials", "matrix"):
        assert f"is queued and has no {what} yet" in await page(anna, f"/runs/{run.id}/{what}", 404)
    assert "has no log" in await page(anna, f"/runs/{run.id}/log", 404)
    assert "A run has no <code>secrets</code>" in await page(anna, f"/runs/{run.id}/secrets", 404)
    assert "There is no run run-none" in await page(anna, "/runs/run-none", 404)
    assert "There is no batch nope" in await page(anna, "/batches/nope", 404)
    assert "nothing at this address" in await page(anna, "/nope", 404)


async def test_a_diff_that_somebody_changed_is_not_shown(house: House, anna: httpx.AsyncClient) -> None:
    run = await told_run(house.store, house.settings.data)
    file = house.settings.data / "runs" / run / reports.candidate().diff_artefact
    file.write_text(DIFF.replace("records", "nothing"))
    assert "is not the one that was offered" in await page(anna, f"/runs/{run}/diff", 403)


async def test_batches_and_versions_are_listed(house: House, anna: httpx.AsyncClient) -> None:
    run = await told_run(house.store, house.settings.data)
    async with house.store.changing("desk") as change:
        await swaps.add_version(change, version(0))
    listed = await page(anna, "/batches")
    assert f'href="/runs/{run}"' in listed
    batch = listed.split('href="/batches/')[1].split('"')[0]
    assert "There are two, it only told me about the first one." in await page(anna, f"/batches/{batch}")
    history = await page(anna, "/history")
    assert "adopted" in history
    assert "Nothing was ever live here" in history, "of sales"


async def test_only_who_may_look_looks(tmp_path: Path) -> None:
    async with a_room(tmp_path, more='[permits]\nstatus = "approvers"\n') as house:
        run = await told_run(house.store, house.settings.data)
        async with await house.client("anna") as approver, await house.client("carl") as other:
            for path in (f"/runs/{run}", f"/runs/{run}/diff", "/batches", "/history"):
                await page(approver, path)
                assert "You may not use <code>status</code>" in await page(other, path, 403)


@pytest.mark.parametrize("place", [Place(platform="slack", workspace="T1", channel="D1"), OTHER])
async def test_what_other_places_said_is_for_maintainers_and_what_the_room_said_for_everybody_in_it(
    house: House, anna: httpx.AsyncClient, place: Place
) -> None:
    run = await told_run(house.store, house.settings.data, place=place)
    async with house.store.reading() as db:
        batch = (await runs.get(db, run)).batch
    paths = [f"/runs/{run}", *(f"/runs/{run}/{what}" for what in ARTEFACTS), f"/batches/{batch}"]
    async with await house.client("carl") as other:
        for path in paths:
            await page(anna, path)
            if place != OTHER:
                assert "look at what belongs to another conversation" in await page(other, path, 403)
            else:
                await page(other, path)
        assert (batch in await page(other, "/batches")) == (place == OTHER)
    assert batch in await page(anna, "/batches")


async def test_words_of_models_and_agents_are_only_words(house: House, anna: httpx.AsyncClient) -> None:
    run = await told_run(house.store, house.settings.data, diff=DIFF + f"+{HOSTILE}\n", reply=HOSTILE)
    for what in ("diff", "trials"):
        shown = await page(anna, f"/runs/{run}/{what}")
        assert ESCAPED in shown
        assert "alert(1)</script>" not in shown
        assert "\x1b" not in shown
        assert "\u202e" not in shown


def test_lines_of_a_diff_are_told_apart_by_what_they_are() -> None:
    lines = list(diff_lines(DIFF + "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a rule\n+++ a rule\n"))
    assert [kind for kind, _ in lines] == [
        *("file", "file", "file", "file", "hunk", "same", "del", "add", "same"),
        *("file", "file", "file", "hunk", "del", "add"),
    ]


def test_a_matrix_says_in_words_what_rose_and_what_fell() -> None:
    changes = [row.change for row in matrix_rows(reports.RECORDED, reports.LIVE, reports.REPAIRED)]
    assert changes == ["better", "better", "better", "", "", "better"]
    fallen = matrix_rows(reports.REPAIRED, reports.LIVE, reports.HALF)
    assert [row.change for row in fallen] == ["", "worse", "worse", "", "", "worse"]
    assert {row.change for row in matrix_rows(reports.LIVE)} == {""}


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("use `moss adopt` now", [(False, "use "), (True, "moss adopt"), (False, " now")]),
        ("`moss`", [(True, "moss")]),
        ("one ` alone", [(False, "one ` alone")]),
        ("", []),
    ],
)
def test_commands_in_sentences_are_set_apart(text: str, pieces: list[tuple[bool, str]]) -> None:
    assert list(spans(text)) == pieces
