"""What goes wrong at Discord: limits, missing permissions, deleted cards, two processes, interactions that expired."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot import announcer
from bot.adapters.discord import adapter
from bot.adapters.discord.client import OTHER_COMMANDS
from bot.announcer import Announcer, Follower
from bot.patience import in_time
from bot.sections import Who
from core.model.consent import ConsentState
from core.model.errors import Refused, Unavailable
from core.store import consents
from tests.support import stored
from tests.support.discord_house import ANNA, BEN, EVE, HELP, DiscordHouse, beside, discord_house, loopback
from tests.support.discord_server import BOT, CHANNEL, GUILD, DiscordServer, thread
from tests.support.newsroom import Newsroom, newsroom
from tests.support.until import until

MISSING_ACCESS, MISSING_PERMISSIONS, UNKNOWN_INTERACTION = (403, 50001), (403, 50013), (404, 10062)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "FIRST_PAUSE_S", 0.05)


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: DiscordServer) -> AsyncIterator[DiscordHouse]:
    async with discord_house(tmp_path, server) as house:
        yield house


def private(house: DiscordHouse, who: int) -> list[str]:
    return [one["content"] for one in house.server.messages.get(who + 1_000_000, [])]


# Two processes


async def test_two_processes_at_once_count_and_thank_and_answer_once(house: DiscordHouse) -> None:
    reply = await house.reply()
    async with beside(house) as other:
        await until(lambda: not any(one.at._missed.is_set() for one in (house, other)))
        for who, added in ((ANNA, True), (BEN, True), (BEN, False)):
            told = await house.server.reacts(who, reply, added=added)
            await until(lambda told=told: house.at._number == other.at._number == told["s"])
        token = await house.server.commands(EVE, "help")
        await house.server.answer(token)
        await house.becomes(lambda: _heard(house, 4))
        await house.idle()
        await until(lambda: private(house, ANNA))
        assert await house.standing(reply) == ["anna"]
        await other.idle()
    assert len(private(house, ANNA)) == 1
    assert len([path for method, path in house.server.calls if method == "PATCH"]) == 1


async def _heard(house: DiscordHouse, events: int) -> bool:
    async with house.store.reading() as db:
        found = (await db.exec_driver_sql("select event from inbox where platform = 'discord'")).scalars().all()
    assert len(found) <= events, found
    return len(found) == events


async def test_a_reaction_put_on_again_is_a_new_event_and_the_same_one_told_again_is_none(house: DiscordHouse) -> None:
    reply = await house.reply()
    for added in (True, False, True):
        await house.server.reacts(ANNA, reply, added=added)
    await house.becomes(lambda: _heard(house, 3))
    await house.idle()
    assert await house.standing(reply) == ["anna"]


async def test_a_moderator_who_clears_reactions_takes_flags_back(house: DiscordHouse) -> None:
    reply = await house.reply()
    await house.server.reacts(ANNA, reply)
    await house.becomes(lambda: house.standing(reply))
    house.server.reactions.clear()
    data = {"channel_id": str(CHANNEL), "message_id": str(reply), "guild_id": HELP.workspace}
    await house.server.tell("MESSAGE_REACTION_REMOVE_ALL", data)

    async def gone() -> bool:
        return not await house.standing(reply)

    await house.becomes(gone)


ODD: list[tuple[str, Any]] = [
    ("INTERACTION_CREATE", {"id": "forged"}),
    ("MESSAGE_UPDATE", {"id": "12", "channel_id": str(CHANNEL), "guild_id": str(GUILD), "embeds": []}),
    ("MESSAGE_CREATE", {"id": "no number", "channel_id": str(CHANNEL)}),
    ("MESSAGE_CREATE", None),
    ("MESSAGE_REACTION_ADD", {"emoji": None}),
    ("MESSAGE_REACTION_REMOVE", []),
    ("THREAD_CREATE", {"guild_id": str(GUILD)}),
    ("GUILD_CREATE", {"id": str(GUILD)}),
    ("NEVER_HEARD_OF", {"new": [1, 2]}),
]


async def test_an_event_that_nobody_can_read_costs_nothing_else(house: DiscordHouse) -> None:
    reply = await house.reply()
    for kind, data in ODD:
        await house.server.tell(kind, data)
    await house.server.reacts(ANNA, reply)
    await house.becomes(lambda: house.standing(reply))
    assert len(house.server.identified) == 1


@pytest.mark.parametrize("frame", ["no json", "[]", "7", '"op"', b"\x00\xff\x00\x00\xff\xff"])
async def test_a_frame_that_nobody_can_read_costs_a_connection_and_nothing_else(
    house: DiscordHouse, frame: str | bytes
) -> None:
    reply = await house.reply()
    await house.server.sends(frame)
    await house.server.reacts(ANNA, reply, told=False)

    await house.becomes(lambda: house.standing(reply))
    assert len([one for one in house.server._sessions if not one.socket.closed]) == 1


# Limits and permissions


@pytest.fixture
async def room(house: DiscordHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Newsroom]:
    monkeypatch.setattr(announcer, "EDIT_EVERY_S", 0.05)
    (tmp_path / "news").mkdir()
    async with newsroom(house.store, tmp_path / "news", followed=False) as room:
        yield room


def follower(room: Newsroom, house: DiscordHouse) -> Follower:
    announce = room.settings.announce.model_copy(update={"place": f"{HELP.platform}/{HELP.workspace}/9999"})
    settings = room.settings.model_copy(update={"announce": announce})
    return Announcer(room.store, settings, {"discord": house.at.chat}).followers[0]


def cards(house: DiscordHouse) -> list[dict[str, Any]]:
    return [one for one in house.server.messages.get(CHANNEL, []) if one["embeds"]]


async def test_through_storms_of_limits_the_last_state_of_a_card_arrives_and_it_stands_once(
    room: Newsroom, house: DiscordHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "FIRST_PAUSE_S", 0.05)
    following = follower(room, house)
    await room.told(following)
    task = asyncio.create_task(following.follow())
    house.server.limited, house.server.limit_s = 7, 0.02  # discord.py gives one call up after five
    run = await room.begin(HELP)
    await until(lambda: cards(house))
    house.server.limited = 12
    await room.offer(run.id)
    await until(lambda: "waits for approval" in cards(house)[0]["content"])
    following.ending.set()
    await task
    (card,) = cards(house)
    assert [one["label"] for one in card["components"][0]["components"]][:2] == ["Approve", "Decline"]
    assert house.server.limited == 0


async def test_a_card_that_was_deleted_is_posted_anew_with_all_it_shows(room: Newsroom, house: DiscordHouse) -> None:
    following = follower(room, house)
    await room.told(following)
    run = await room.begin(HELP)
    await room.told(following)
    (card,) = cards(house)
    house.server.messages[CHANNEL].remove(card)
    await room.offer(run.id)
    await room.told(following)
    (fresh,) = cards(house)
    assert fresh["id"] != card["id"]
    assert "waits for approval" in fresh["content"]
    assert len(fresh["components"][0]["components"]) > 1


@pytest.mark.parametrize("how", [MISSING_ACCESS, MISSING_PERMISSIONS], ids=["50001", "50013"])
async def test_where_moss_may_not_write_its_card_goes_where_news_go(
    room: Newsroom, house: DiscordHouse, how: tuple[int, int]
) -> None:
    house.server.threads[9999] = thread(9999, CHANNEL)
    house.server.broken[f"POST /channels/{CHANNEL}/messages"] = how
    following = follower(room, house)
    await room.told(following)
    await room.begin(HELP)
    await room.told(following)
    assert cards(house) == []
    assert any(one["embeds"] for one in house.server.messages[9999])


@pytest.mark.parametrize("how", [MISSING_ACCESS, MISSING_PERMISSIONS], ids=["50001", "50013"])
async def test_a_thread_that_moss_may_not_begin_is_refused_in_a_sentence(
    house: DiscordHouse, how: tuple[int, int]
) -> None:
    root = await house.server.says(EVE, "Refund?")
    house.server.broken["/threads"] = how
    with pytest.raises(Refused, match=r"docs/discord\.md lists what Moss may do"):
        await house.at.chat.post(HELP.model_copy(update={"thread": str(root)}), "Yes.", "k-1")


async def test_a_limit_on_everything_ends_though_a_call_was_given_up_in_it(
    house: DiscordHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = house.at.chat
    house.server.limited, house.server.limit_s, house.server.limit_all = 1, 30.0, True
    monkeypatch.setattr("bot.patience.CALL_S", 0.2)
    with pytest.raises(Unavailable):
        await in_time(chat, chat.post(HELP, "One.", "k-1"))
    async with asyncio.timeout(5):
        await chat.post(HELP, "Two.", "k-2")


async def test_threads_are_named_as_people_write(house: DiscordHouse) -> None:
    root = int(await house.at.chat.post(HELP, "Root.", "k-0"))
    await house.at.chat.post(HELP.model_copy(update={"thread": str(root)}), "*Yes*, a_b <@1>.", "k-1")
    assert house.server.threads[root]["name"] == "*Yes*, a_b <@1>."


# Interactions


async def test_a_command_is_acknowledged_within_a_second_while_the_store_is_busy(house: DiscordHouse) -> None:
    async with house.store.writing():
        token = await house.server.commands(EVE, "help")
        assert (await house.server.callback(token, within_s=1))["type"] == 5
    await house.server.answer(token)


async def test_what_was_asked_too_late_to_be_acknowledged_is_answered_by_a_direct_message(house: DiscordHouse) -> None:
    house.server.broken["/callback"] = UNKNOWN_INTERACTION
    await house.server.commands(EVE, "help")
    await until(lambda: private(house, EVE))
    assert len(private(house, EVE)) == 1


async def test_a_form_that_comes_too_late_decides_nothing_and_can_be_asked_for_again(house: DiscordHouse) -> None:
    async with house.store.changing("little") as change:
        consent = await stored.offered(change)
    card = await house.reply("a card")
    house.server.broken["/callback"] = UNKNOWN_INTERACTION
    await house.server.presses(ANNA, f"moss:decline:{consent.id}:why", card)
    await house.server.opens_menu(ANNA, card)
    await until(lambda: sum("/callback" in path for _, path in house.server.calls) >= 2)
    house.server.broken.clear()
    token = await house.server.presses(ANNA, f"moss:decline:{consent.id}:why", card)
    assert (await house.server.callback(token))["type"] == 9
    async with house.store.reading() as db:
        assert (await consents.get(db, consent.id)).state is ConsentState.asked


async def test_a_command_that_moss_does_not_have_any_more_is_answered(house: DiscordHouse) -> None:
    callback = await house.server.callback(await house.server.commands(EVE, "dance"))
    assert callback["data"]["content"] == OTHER_COMMANDS
    assert callback["data"]["flags"] == 64


async def test_a_menu_offers_nothing_while_the_store_is_away(
    house: DiscordHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> list[str]:
        raise Unavailable("The database is away.")

    monkeypatch.setattr("bot.adapters.discord.asking.offered", away)
    assert await house.server.types(EVE, "evolve", "batch", "") == []


async def test_commands_that_could_not_be_registered_are_registered_later(
    tmp_path: Path, server: DiscordServer
) -> None:
    server.broken["PUT /applications"] = 503
    async with discord_house(tmp_path, server) as house:
        reply = await house.reply()
        await server.reacts(ANNA, reply)  # nothing waits for them
        await house.becomes(lambda: house.standing(reply))
        server.broken.clear()
        await until(lambda: server.registered == 1)


# Threads and roles


async def test_what_happens_in_an_unknown_thread_waits_until_discord_says_where_it_is(house: DiscordHouse) -> None:
    house.server.threads[2900] = thread(2900, CHANNEL)
    house.server.broken["GET /channels/2900"] = 503
    await house.server.says(EVE, f"<@{BOT}> Refund?", channel=2900)
    await until(lambda: ("GET", "/channels/2900") in house.server.calls)
    house.server.broken.clear()

    async def kept() -> list[str]:
        async with house.store.reading() as db:
            lanes = (await db.exec_driver_sql("select lane from inbox")).scalars().all()
        return list(lanes)

    await house.becomes(kept)
    assert [one.endswith(f"/{CHANNEL}/2900") for one in await kept()] == [True], await kept()


async def test_a_role_is_what_discord_says_it_is_at_that_moment(house: DiscordHouse) -> None:
    chat, role, other = house.at.chat, "discord:1000/3000", "discord:1000/3001"
    names = {role, other, "discord:1000/S1", "slack:T1/S1", "discord:"}
    house.server.roles[EVE] = ["3000", "3002"]
    assert await chat.groups_of(f"discord:{EVE}", names) == {role}
    house.server.roles[EVE] = []
    assert await chat.groups_of(f"discord:{EVE}", names) == frozenset()
    assert await chat.groups_of(f"discord:{ANNA}", names) == frozenset(), "no member"
    with pytest.raises(Refused):
        await chat.groups_of(f"discord:{EVE}", {"discord:7/3000"})
    house.server.broken["/members/"] = 503
    with pytest.raises(Unavailable):
        await chat.groups_of(f"discord:{EVE}", names)


async def test_a_role_may_evolve_and_never_approve(house: DiscordHouse) -> None:
    async with house.store.changing("little") as change:
        consent = await stored.offered(change)
    house.chat.permit(maintainers=frozenset({"discord:1000/3000"}), status=Who.maintainers)
    await house.die()
    await house.begin()
    await until(lambda: len(house.server.identified) == 2)
    await house.server.connected()
    house.server.roles[EVE] = ["3000"]
    assert await house.server.types(EVE, "approve", "run", "") == [consent.run]
    assert await house.server.types(EVE + 1, "approve", "run", "") == []
    for who, verb, words in ((EVE, "evolve", "No batch"), (EVE, "approve", "not one of the approvers"),
                             (EVE + 1, "evolve", "You may not use `evolve`")):  # fmt: skip
        answer = await house.server.answer(await house.server.commands(who, verb))
        assert words in answer["content"].replace("\\", ""), answer["content"]
    async with house.store.reading() as db:
        assert (await consents.get(db, consent.id)).state is ConsentState.asked
