"""Killed between any two lines: whatever an event was to do is done once after the next start, and nothing is lost."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bot import inbox
from bot.converse import LOST
from core.model.consent import ConsentState
from core.model.run import RunState
from core.store import Store, batches, consents, facts, outbox, runs, swaps, turns
from tests.support import stored
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import HeldClock, opened
from tests.support.dying import worked_with_a_death
from tests.test_converse import talking, thread

MARY, ANNA = "paper:mary", "paper:anna"
Check = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.01,) * 5)


async def flag(chat: ChatMoss) -> Check:
    """The one that fills a batch, so that raising it again would open the next one."""
    chat.limit(seal_count=2)
    await chat.did(chat.reacted(await chat.reply()))
    reply = await chat.reply()
    await chat.take(chat.reacted(reply, "x"))

    async def check() -> None:
        async with chat.store.reading() as db:
            (batch,) = await batches.listing(db)
            assert [chunk.weight for chunk in await batches.chunks(db, batch.id)] == [1, 1]
        assert len(chat.chat.told()) == 2

    return check


async def withdrawal(chat: ChatMoss) -> Check:
    reply = await chat.reply()
    await chat.take(chat.reacted(reply), chat.reacted(reply, added=False), chat.reacted(reply, "x"))

    async def check() -> None:
        async with chat.store.reading() as db:
            (batch,) = await batches.listing(db)
            (chunk,) = await batches.chunks(db, batch.id)
            told = [fact.what for fact in await facts.chain(db, "little") if fact.what.startswith("flag")]
        assert (chunk.weight, chunk.flags[0].emoji) == (1, "x")
        assert told == ["flagged", "flag_withdrawn", "flagged"]

    return check


async def complaint(chat: ChatMoss) -> Check:
    reply = await chat.reply()
    await chat.take(chat.commanded("flag It is wrong.", person="paper:eve"))

    async def check() -> None:
        async with chat.store.reading() as db:
            (batch,) = await batches.listing(db)
            found = await batches.chunks(db, batch.id)
        assert [(chunk.turn, chunk.weight) for chunk in found] == [(reply, 1)]

    return check


async def evolve(chat: ChatMoss) -> Check:
    await chat.did(chat.reacted(await chat.reply()))
    await chat.take(chat.commanded("evolve", person=MARY))

    async def check() -> None:
        async with chat.store.reading() as db:
            (run,) = await runs.listing(db)
            queued = [fact for fact in await facts.chain(db, "little") if fact.what == "queued"]
            assert [row.subject for row in await outbox.waiting(db) if row.kind == "run"] == [run.id]
        assert len(queued) == 1
        assert run.id in chat.chat.told()[-1]

    return check


async def restart(chat: ChatMoss) -> Check:
    async with chat.store.changing("little") as change:
        stopped = await stored.run_in(change, RunState.running, RunState.failed)
    await chat.take(chat.commanded("restart", person=MARY))

    async def check() -> None:
        async with chat.store.reading() as db:
            found = {run.id: run for run in await runs.listing(db)}
        assert found.pop(stopped.id).archived
        assert [run.state for run in found.values()] == [RunState.queued]
        assert f"in place of {stopped.id}" in chat.chat.told()[-1]

    return check


async def stop(chat: ChatMoss) -> Check:
    async with chat.store.changing("little") as change:
        run = await stored.run_in(change, RunState.running)
    await chat.take(chat.commanded("stop", person=MARY))

    async def check() -> None:
        async with chat.store.reading() as db:
            assert (await runs.get(db, run.id)).state is RunState.stopped
        assert f"{run.id} is stopped" in chat.chat.told()[-1]

    return check


async def approval(chat: ChatMoss) -> Check:
    async with chat.store.changing("little") as change:
        consent = await stored.offered(change)
    await chat.take(chat.pressed("approve", consent.id, person=ANNA))

    async def check() -> None:
        async with chat.store.reading() as db:
            found = await consents.get(db, consent.id)
            assert len([row for row in await outbox.waiting(db) if row.kind == "swap"]) == 1
        assert (found.state, len(found.votes)) == (ConsentState.granted, 1)
        assert "approved this" in chat.chat.told()[-1]

    return check


async def rollback(chat: ChatMoss) -> Check:
    """By a sole approver: it is granted at once, and asked again it would go back one version more."""
    policy = chat.moss.settings.consent.model_copy(
        update={"approvers": frozenset({"anna"}), "allow_sole_approver": True}
    )
    chat.configure(consent=policy)
    async with chat.store.changing("little") as change:
        for number in range(3):
            await swaps.add_version(change, stored.version(number, "little"))
    await chat.take(chat.commanded("rollback", person=ANNA))

    async def check() -> None:
        async with chat.store.reading() as db:
            asked = [fact.detail["version"] for fact in await facts.chain(db, "little") if fact.what == "asked"]
            assert len([row for row in await outbox.waiting(db) if row.kind == "swap"]) == 1
        assert asked == [1]
        assert "approved this" in chat.chat.told()[-1]

    return check


SCENES = (flag, withdrawal, complaint, evolve, restart, stop, approval, rollback)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_an_event_is_done_once_wherever_moss_dies(
    tmp_path: Path, scene: Callable[[ChatMoss], Awaitable[Check]]
) -> None:
    at = 0
    while True:
        at += 1
        async with opened("sqlite", tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
            check = await scene(chat)
            died = await worked_with_a_death(chat, at)
            await check()
            await _nothing_is_left(store)
        if not died:
            break
    assert at > 4, "it died nowhere"


async def _nothing_is_left(store: Store) -> None:
    async with store.reading() as db:
        assert await facts.verify(db, "little") is None


async def test_a_person_sees_one_reply_wherever_moss_dies_and_the_agent_is_never_asked_twice(tmp_path: Path) -> None:
    async with talking(tmp_path, "well") as chat:
        at, lost = 0, []
        while True:
            at += 1
            question = chat.said(f"Question {at}?", message=f"s{at}", addressed=True)
            await chat.take(question)
            died = await worked_with_a_death(chat, at)
            (shown,) = [one for one in chat.chat.shown if one.place == thread(f"s{at}")]
            async with chat.store.reading() as db:
                kept = await turns.conversation(db, thread(f"s{at}"), limit=10)
            assert [(turn.said.role, turn.message) for turn in kept] == [
                ("user", f"s{at}"),
                ("assistant", shown.message),
            ]
            assert shown.what == kept[1].said.content or shown.what == kept[1].said.error == LOST.format("little")
            lost += [at] if kept[1].said.error else []
            if not died:
                break
        heard = await _heard(chat)
        assert all(heard.count(f"Question {n}?") <= 1 for n in range(1, at + 1))
        assert all(heard.count(f"Question {n}?") == 1 for n in range(1, at + 1) if n not in lost)
        assert 0 < len(lost) <= 2, "only a death between the line that says so and the one that keeps the answer"
        assert at > 8


async def _heard(chat: ChatMoss) -> list[str]:
    async with chat.store.reading() as db:
        live = await swaps.live_version(db, "little")
    assert live
    content = await chat.moss.host.read(live.box, "/state/memory.jsonl")
    return [line.strip('"') for line in (content or b"").decode().splitlines()]
