"""Commands, menus, buttons and forms at Discord: written down, acknowledged in time, answered privately, once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.adapters.discord import asking
from bot.chat import AnyEvent
from bot.commands import VERBS
from core.model.consent import ConsentState
from core.model.errors import Unavailable
from core.model.transcript import Place
from core.store import consents
from tests.support import stored
from tests.support.discord_house import ANNA, BEN, EVE, HELP, MARY, DiscordHouse, discord_house, loopback
from tests.support.discord_server import CHANNEL, DiscordServer, thread
from tests.support.until import until

DEFERRED = {"type": 5, "data": {"flags": 64}}
"""`is thinking`, for this person alone."""


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: DiscordServer) -> AsyncIterator[DiscordHouse]:
    async with discord_house(tmp_path, server) as house:
        yield house


async def said(house: DiscordHouse, token: str) -> str:
    answer = await house.server.answer(token)
    body = answer["embeds"][0].get("description", "") if answer.get("embeds") else ""
    return f"{answer['content']}\n{body}".strip().replace("\\", "")


async def offered(house: DiscordHouse, place: Place = HELP) -> Any:
    async with house.store.changing("little") as change:
        return await stored.offered(change, place=place)


async def state(house: DiscordHouse, id: str) -> ConsentState:
    async with house.store.reading() as db:
        return (await consents.get(db, id)).state


async def test_every_verb_is_in_the_menu(house: DiscordHouse) -> None:
    await until(lambda: house.server.registered_commands)
    moss = next(one for one in house.server.registered_commands if one["name"] == "moss")
    assert {one["name"] for one in moss["options"]} == set(VERBS)
    menu = next(one for one in house.server.registered_commands if one["name"] == "Flag for Moss")
    assert menu["type"] == 3


async def test_a_command_is_deferred_for_the_person_alone_and_answered_there(house: DiscordHouse) -> None:
    token = await house.server.commands(EVE, "help")
    assert await house.server.callback(token) == DEFERRED
    assert "/moss evolve" in await said(house, token)
    assert (await house.server.answer(token))["allowed_mentions"] == {"parse": []}
    assert house.server.messages.get(CHANNEL, []) == []


async def test_what_is_chosen_in_the_menus_reads_as_if_it_had_been_typed(house: DiscordHouse) -> None:
    token = await house.server.commands(EVE, "evolve", batch="batch-7k3f9q2m", depth="deep")
    refused = f"You may not use `evolve`; ask anna, ben, mary; Moss knows you as `discord:{EVE}`."
    assert refused in await said(house, token)
    token = await house.server.commands(MARY, "evolve", batch="batch-7k3f9q2m", depth="deep")
    assert "batch-7k3f9q2m" in await said(house, token)
    token = await house.server.commands(MARY, "batches", page=2)
    assert await said(house, token)


async def test_the_menu_offers_batches_runs_questions_and_versions_to_whoever_may_look(house: DiscordHouse) -> None:
    consent = await offered(house)
    assert await house.server.types(EVE, "approve", "run", "") == [consent.run]
    assert await house.server.types(EVE, "run", "run", consent.run[:6]) == [consent.run]
    (batch,) = await house.server.types(EVE, "evolve", "batch", "batch")
    assert batch.startswith("batch-")
    assert await house.server.types(EVE, "batch", "batch", "nothing like it") == []
    assert await house.server.types(EVE, "rollback", "version", "") == []
    elsewhere = await offered(house, HELP.model_copy(update={"platform": "slack"}))
    for verb, option in (("run", "run"), ("batch", "batch")):
        assert len(await house.server.types(EVE, verb, option, "")) == 1
        assert len(await house.server.types(MARY, verb, option, "")) == 2
    assert elsewhere.run not in await house.server.types(EVE, "approve", "run", "")
    house.chat.permit(status="approvers")
    await house.die()
    await house.begin()
    await until(lambda: len(house.server.identified) == 2)
    await house.server.connected()
    assert await house.server.types(EVE, "approve", "run", "") == []


async def test_a_reason_is_asked_for_in_a_form_and_becomes_part_of_the_flag(house: DiscordHouse) -> None:
    reply = await house.reply()
    form = await house.server.callback(await house.server.opens_menu(EVE, reply))
    assert (form["type"], form["data"]["custom_id"]) == (9, f"moss:flag:{reply}")
    token = await house.server.fills_in(EVE, form["data"]["custom_id"], "It promised a refund.")
    assert await house.server.callback(token) == DEFERRED
    assert "Thank you, that is flagged" in await said(house, token)
    (flag,) = await house.flags(reply)
    assert (flag.person, flag.reason) == (f"discord:{EVE}", "It promised a refund.")


async def test_a_flag_on_a_persons_message_gets_a_private_friendly_answer(house: DiscordHouse) -> None:
    message = await house.server.says(EVE, "I only talk.")
    token = await house.server.fills_in(EVE, f"moss:flag:{message}", "Bad.")
    assert "only those can be flagged" in await said(house, token)


async def test_buttons_work_after_a_restart_and_count_once(house: DiscordHouse) -> None:
    consent = await offered(house)
    card = await house.reply("a card")
    await house.die()
    await house.begin()
    await until(lambda: len(house.server.identified) == 2)
    await house.server.connected()
    tokens = [await house.server.presses(ANNA, f"moss:approve:{consent.id}", card) for _ in range(3)]
    for token in tokens:
        assert await house.server.callback(token) == DEFERRED
        assert await said(house, token)
    assert await state(house, consent.id) is ConsentState.granted


async def test_declining_asks_for_a_reason_first(house: DiscordHouse) -> None:
    consent = await offered(house)
    card = await house.reply("a card")
    form = await house.server.callback(await house.server.presses(ANNA, f"moss:decline:{consent.id}:why", card))
    assert form["type"] == 9
    assert form["data"]["components"][0]["components"][0]["required"] is True
    assert await state(house, consent.id) is ConsentState.asked
    found = house.server.messages[CHANNEL][0]
    token = await house.server.fills_in(ANNA, form["data"]["custom_id"], "Too broad.", message=found)
    assert await said(house, token)
    assert await state(house, consent.id) is ConsentState.declined
    async with house.store.reading() as db:
        assert [vote.reason for vote in (await consents.get(db, consent.id)).votes] == ["Too broad."]


async def test_who_may_not_approve_is_told_so_in_private_and_nothing_happens(house: DiscordHouse) -> None:
    consent = await offered(house)
    card = await house.reply("a card")
    for who in (EVE, MARY):
        token = await house.server.presses(who, f"moss:approve:{consent.id}", card)
        assert "approve" in await said(house, token)
    assert await state(house, consent.id) is ConsentState.asked


@pytest.mark.parametrize("id", ["moss:approve:run-1", "moss:erase:everything", "moss:diff:run-unknown1"])
async def test_a_forged_button_does_nothing(house: DiscordHouse, id: str) -> None:
    consent = await offered(house)
    card = await house.reply("a card")
    assert await said(house, await house.server.presses(ANNA, id, card))
    assert await state(house, consent.id) is ConsentState.asked


async def test_a_button_of_another_version_says_so(house: DiscordHouse) -> None:
    card = await house.reply("a card")
    callback = await house.server.callback(await house.server.presses(ANNA, "moss-2/approve", card))
    assert (callback["type"], callback["data"]["flags"]) == (4, 64)
    assert "another version" in callback["data"]["content"]


async def test_a_command_on_another_server_is_refused_at_once(house: DiscordHouse) -> None:
    data = house.server._slash("status", {})
    callback = await house.server.callback(await house.server._interaction(EVE, 2, data, CHANNEL, guild=9999))
    assert "does not listen" in callback["data"]["content"]


async def test_a_busy_store_does_not_delay_the_acknowledgement(
    house: DiscordHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ACK_S", 0.2)
    async with house.store.writing():
        token = await house.server.commands(EVE, "help")
        assert await house.server.callback(token, within_s=2) == DEFERRED
        assert token not in house.server.answers
    assert await said(house, token)


async def test_what_could_not_be_written_down_is_told(house: DiscordHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(event: AnyEvent) -> bool:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(house.moss.inbox, "take", away)
    token = await house.server.commands(EVE, "help")
    assert await said(house, token) == "The database is away. Nothing was done; please ask again."


async def test_the_same_interaction_twice_is_answered_once(house: DiscordHouse) -> None:
    consent = await offered(house)
    await house.server.commands(ANNA, "approve", run=consent.run)
    event = house.server._session.told[-1]  # type: ignore[union-attr]
    await house.server.again(event)
    await until(lambda: house.server.answers)
    await house.idle()
    assert await state(house, consent.id) is ConsentState.granted
    answers = [path for method, path in house.server.calls if method == "PATCH"]
    assert len(answers) == 1


async def test_a_command_whose_process_died_is_answered_after_the_next_start(house: DiscordHouse) -> None:
    house.tasks[1].cancel()
    await asyncio.wait({house.tasks[1]})
    token = await house.server.commands(EVE, "help")
    await house.server.callback(token)
    assert token not in house.server.answers
    await house.die()
    await house.begin()
    assert "/moss evolve" in await said(house, token)


async def test_a_command_in_a_thread_is_about_that_thread(house: DiscordHouse) -> None:
    house.server.threads[2900] = thread(2900, CHANNEL)
    token = await house.server.commands(EVE, "flag", channel=2900, reason="Bad.")
    assert "said nothing here yet" in await said(house, token)
    await house.reply()
    token = await house.server.commands(EVE, "flag", reason="Bad.")
    assert "Thank you, that is flagged" in await said(house, token)


async def test_approval_by_two_people_at_once_is_one_decision(house: DiscordHouse) -> None:
    consent = await offered(house)
    card = await house.reply("a card")
    tokens = await asyncio.gather(
        *(house.server.presses(who, f"moss:approve:{consent.id}", card) for who in (ANNA, BEN))
    )
    for token in tokens:
        assert await said(house, token)
    assert await state(house, consent.id) is ConsentState.granted


async def test_no_token_and_no_answer_address_is_kept_once_it_is_done(house: DiscordHouse) -> None:
    token = await house.server.commands(EVE, "help")
    await said(house, token)
    await house.idle()
    async with house.store.reading() as db:
        rows = (await db.exec_driver_sql("select body from inbox")).scalars().all()
    assert rows
    assert token not in json.dumps([str(row) for row in rows])
