"""Real discord.py against a loopback Discord: what is heard is counted once, and what is missed is made up for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.adapters.discord import adapter
from core.store import turns
from tests.support.discord_house import ANNA, BEN, EVE, HELP, DiscordHouse, discord_house, loopback
from tests.support.discord_server import BOT, CHANNEL, GUILD, DiscordServer
from tests.support.until import until


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


async def test_a_reaction_flags_a_reply_and_its_removal_takes_the_flag_back(house: DiscordHouse) -> None:
    reply = await house.reply()
    await house.server.reacts(ANNA, reply)
    await house.server.reacts(EVE, reply, "🎉")
    await until(lambda: house.flags(reply))
    await house.idle()
    (flag,) = await house.flags(reply)
    assert (flag.person, flag.emoji) == ("anna", "thumbsdown")
    await house.server.reacts(ANNA, reply, added=False)
    await until(lambda: _none(house, reply))


async def _none(house: DiscordHouse, reply: int) -> bool:
    return not await house.standing(reply)


async def test_the_same_delivery_twice_is_one_event(house: DiscordHouse) -> None:
    reply = await house.reply()
    first = await house.server.reacts(ANNA, reply)
    gone = await house.server.reacts(ANNA, reply, added=False)
    await until(lambda: house.flags(reply))
    await until(lambda: _none(house, reply))
    await house.server.again(first)
    await house.server.again(gone)
    await house.server.reacts(BEN, reply)
    await until(lambda: house.standing(reply))
    await house.idle()
    assert await house.standing(reply) == ["ben"], "a repeated reaction does not come back to life"


async def test_after_op_7_the_session_is_resumed_and_what_was_missed_arrives(house: DiscordHouse) -> None:
    reply = await house.reply()
    await house.server.op7()
    await house.server.connected()
    assert (house.server.resumed, len(house.server.identified)) == (1, 1)
    await house.server.reacts(ANNA, reply)
    await until(lambda: house.standing(reply))


async def test_after_op_9_the_reactions_that_were_missed_are_made_up_for(house: DiscordHouse) -> None:
    kept, taken_back, calm = [await house.reply(text) for text in ("One.", "Two.", "Three.")]
    await house.server.reacts(ANNA, taken_back)
    await until(lambda: house.standing(taken_back))
    await house.server.reacts(BEN, kept, told=False)
    await house.server.reacts(EVE, kept, told=False)
    await house.server.reacts(ANNA, taken_back, added=False, told=False)
    await house.server.reacts(BEN, calm, "🎉", told=False)
    await house.server.op9()
    await until(lambda: len(house.server.identified) == 2)

    async def made_up_for() -> bool:
        return await house.standing(kept) == ["ben", f"discord:{EVE}"] and not await house.standing(taken_back)

    await until(made_up_for)
    await house.idle()
    assert await house.flags(calm) == []
    (_, chunk), *rest = await house.held(kept)
    assert (len(chunk.flags), rest) == (2, [])


async def test_a_super_reaction_counts_like_another_and_is_not_missed_after_a_new_session(house: DiscordHouse) -> None:
    reply, other = await house.reply("One."), await house.reply("Two.")
    await house.server.reacts(ANNA, reply, burst=True)
    await until(lambda: house.standing(reply))
    await house.server.reacts(BEN, other, told=False)
    await house.server.op9()
    await until(lambda: house.standing(other))
    await house.idle()
    assert await house.standing(reply) == ["anna"]


async def test_what_people_did_while_moss_was_down_is_found_after_the_start(house: DiscordHouse) -> None:
    reply = await house.reply()
    await house.die()
    await house.server.reacts(ANNA, reply, told=False)
    await house.begin()
    await until(lambda: house.standing(reply))
    assert await house.standing(reply) == ["anna"]


async def test_a_first_handshake_that_fails_is_tried_again(tmp_path: Path, server: DiscordServer) -> None:
    server.refused_handshakes = 3
    async with discord_house(tmp_path, server) as house:
        assert (server.refused_handshakes, len(server.identified)) == (0, 1)
        assert house.at.health[0].connected


async def test_a_connection_that_is_reset_comes_back_and_misses_nothing(house: DiscordHouse) -> None:
    reply = await house.reply()
    await house.server.abort()
    await house.server.connected(20)
    await house.server.reacts(ANNA, reply)
    await until(lambda: house.standing(reply))
    assert len(house.server.identified) == 1, "the session was resumed"


async def test_a_deaf_gateway_is_left_and_called_again(tmp_path: Path, server: DiscordServer) -> None:
    server.heartbeat_ms = 200
    async with discord_house(tmp_path, server, heartbeat_timeout_s=1.0) as house:
        reply = await house.reply()
        server.silent = True
        server._ready.clear()
        await server.reacts(ANNA, reply)
        assert house.at.health[0].connected, "it only looks alive"
        await until(lambda: server.resumed, 15)
        await until(lambda: house.standing(reply))


async def test_commands_are_registered_once_for_all_starts_and_sessions(house: DiscordHouse) -> None:
    await house.server.op9()
    await house.server.connected()
    await house.die()
    await house.begin()
    await until(lambda: len(house.server.identified) == 3)
    assert house.server.registered == 1
    assert [one["name"] for one in house.server.registered_commands] == ["moss", "Flag for Moss"]


async def test_another_server_that_invited_the_bot_is_not_listened_to(house: DiscordHouse) -> None:
    reply = await house.reply()
    data = {"user_id": str(ANNA), "channel_id": str(CHANNEL), "message_id": str(reply), "type": 0, "burst": False}
    await house.server.tell("MESSAGE_REACTION_ADD", data | {"guild_id": "9999", "emoji": {"id": None, "name": "👎"}})
    await house.server.reacts(BEN, reply)
    await until(lambda: house.standing(reply))
    assert await house.standing(reply) == ["ben"]


async def test_health_says_since_when_it_is_connected_and_when_it_last_heard_something(house: DiscordHouse) -> None:
    await house.server.says(EVE, "hello", guild=GUILD)
    await until(lambda: house.at.health[0].last_event_at)
    await house.server.abort()
    await until(lambda: house.at.health[0].reconnects == 1, 20)
    assert house.at.health[0].connected


async def test_what_the_agent_says_under_its_own_name_is_kept(tmp_path: Path, server: DiscordServer) -> None:
    async with discord_house(tmp_path, server, agent_user="99") as house:
        asked = await server.says(EVE, "Refund?")
        said = await server.says(99, "Never.", author={"id": "99", "username": "desk", "bot": True, "avatar": None,
                                                       "discriminator": "0", "global_name": None})  # fmt: skip
        await house.idle()
        await server.reacts(ANNA, said)
        await until(lambda: house.standing(said))
        assert asked != BOT
        assert (await house.held(said))[0][1].place == HELP


async def test_what_the_agent_changes_in_a_message_is_what_it_says(tmp_path: Path, server: DiscordServer) -> None:
    desk = {"id": "99", "username": "desk", "bot": True, "avatar": None, "discriminator": "0", "global_name": None}
    async with discord_house(tmp_path, server, agent_user="99") as house:
        await server.says(EVE, "Refund?")
        said = await server.says(99, "Let me see", author=desk)
        one = server.messages[CHANNEL][-1] | {"guild_id": str(GUILD)}
        await server.tell("MESSAGE_UPDATE", one | {"embeds": [{"type": "link"}], "content": "A preview."})
        edit = {"content": "Within 30 days.", "edited_timestamp": "2099-01-01T00:00:00+00:00"}
        for _ in range(2):
            await server.tell("MESSAGE_UPDATE", one | edit)
        await server.tell("MESSAGE_UPDATE", one | edit | {"author": one["author"] | {"id": "98"}, "content": "Never."})
        await house.becomes(lambda: heard(house, 3))
        await house.idle()
        async with house.store.reading() as db:
            turn = await turns.of_message(db, HELP, str(said))
        assert turn is not None
        assert turn.said.content == "Within 30 days."


async def heard(house: DiscordHouse, events: int) -> bool:
    async with house.store.reading() as db:
        rows = await db.exec_driver_sql("select count(*) from inbox")
        return bool(rows.scalar_one() == events)


async def test_two_hundred_reactions_at_once_are_all_counted_in_order(house: DiscordHouse) -> None:
    replies = [await house.reply(f"Reply {n}.") for n in range(5)]
    house.chat.limit(seal_count=500, per_hour=1000)
    for who in range(100, 120):
        for reply in replies:
            await house.server.reacts(who, reply)
            await house.server.reacts(who, reply, added=who % 2 == 0)
    expected = sorted(f"discord:{who}" for who in range(100, 120) if who % 2 == 0)
    # one that stays is said twice, which is no second event
    await house.becomes(lambda: worked_on(house, 20 * 5 + 10 * 5), 240)
    assert [await house.standing(reply) for reply in replies] == [expected] * 5


async def worked_on(house: DiscordHouse, reactions: int) -> bool:
    async with house.store.reading() as db:
        rows = await db.exec_driver_sql("select count(done_at), count(*) from inbox where emoji is not null")
        done, heard = rows.one()
    assert heard <= reactions
    return bool(done == reactions)
