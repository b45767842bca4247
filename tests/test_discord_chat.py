"""Speaking at Discord: each thing once, in its thread, to the right person, with what goes wrong told apart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.adapters.discord import chat as speaking
from bot.adapters.discord.chat import DiscordChat
from bot.adapters.discord.places import DIRECT
from bot.chat import Action, Card, Picture, Section
from core.model.errors import Refused, Unavailable
from core.model.transcript import Place
from core.store import posts
from tests.support.discord_house import ANNA, EVE, HELP, DiscordHouse, discord_house, loopback
from tests.support.discord_server import CHANNEL, DiscordServer
from tests.support.until import until

CARD = Card(
    title="run-1 waits",
    body=(Section(text="Look <@1> @everyone"),),
    picture=Picture(png=b"a png", alt="a matrix"),
    actions=(Action(label="Approve", verb="approve", subject="consent-1"),),
)


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: DiscordServer) -> AsyncIterator[DiscordHouse]:
    async with discord_house(tmp_path, server) as house:
        yield house


@pytest.fixture
def chat(house: DiscordHouse) -> DiscordChat:
    return house.at.chat


def inside(thread: int) -> Place:
    return HELP.model_copy(update={"thread": str(thread)})


def shown(house: DiscordHouse, channel: int = CHANNEL) -> list[dict[str, Any]]:
    return house.server.messages.get(channel, [])


async def test_a_card_goes_out_with_its_picture_and_buttons_and_calls_nobody(
    house: DiscordHouse, chat: DiscordChat
) -> None:
    id = await chat.post(HELP, CARD, "run:1")
    (one,) = shown(house)
    assert one["id"] == id
    assert one["allowed_mentions"] == {"parse": []}
    assert r"\<@1>" in one["embeds"][0]["description"]
    assert one["embeds"][0]["image"]["url"] == "attachment://card.png"
    assert list(one["files"].values()) == [b"a png"]
    assert one["components"][0]["components"][0]["custom_id"] == "moss:approve:consent-1"


async def test_the_same_key_is_posted_once(house: DiscordHouse, chat: DiscordChat) -> None:
    first = await chat.post(HELP, "Done.", "k-1")
    assert await chat.post(HELP, "Done.", "k-1") == first
    assert await chat.post(HELP, "Done.", "k-2") != first
    assert len(shown(house)) == 2


@pytest.mark.parametrize("what", [CARD, "Done."])
async def test_what_a_process_posted_and_did_not_write_down_is_found_by_the_next(
    house: DiscordHouse, chat: DiscordChat, what: Card | str
) -> None:
    house.server.drop_answer = 1
    with pytest.raises(Unavailable):
        await chat.post(HELP, what, "k-1")
    house.server.nonces.clear()  # that was longer ago than Discord remembers
    other = DiscordChat(house.store)
    other.client = chat.client
    (lost,) = shown(house)
    assert await other.post(HELP, what, "k-1") == lost["id"]
    assert len(shown(house)) == 1


async def test_an_older_message_that_reads_the_same_is_not_taken_for_a_lost_one(
    house: DiscordHouse, chat: DiscordChat
) -> None:
    known = await chat.post(HELP, "Done.", "k-1")
    async with house.store.writing() as db:
        await posts.add(db, house.store.now(), "k-1", HELP, message=known, shown="")
    house.server.broken["/messages"] = 503
    with pytest.raises(Unavailable):
        await chat.post(HELP, "Done.", "k-2")
    house.server.broken.clear()
    assert await chat.post(HELP, "Done.", "k-2") != known
    assert len(shown(house)) == 2


async def test_a_storm_of_limits_delays_a_message_and_loses_none(house: DiscordHouse, chat: DiscordChat) -> None:
    house.server.limited = 3
    ids = await asyncio.gather(*(chat.post(HELP, f"Message {n}.", f"k-{n}") for n in range(4)))
    assert len(set(ids)) == len(shown(house)) == 4


@pytest.mark.parametrize(("status", "error"), [(403, Refused), (400, Refused), (404, Refused), (401, Unavailable)])
async def test_what_goes_wrong_is_worth_another_try_or_not(
    house: DiscordHouse, chat: DiscordChat, status: int, error: type[Exception]
) -> None:
    house.server.broken["/messages"] = status
    with pytest.raises(error):
        await chat.post(HELP, "Done.", "k")
    with pytest.raises(error):
        await chat.edit(HELP, "123", CARD)


async def test_before_the_login_and_without_a_network_discord_is_away(house: DiscordHouse) -> None:
    with pytest.raises(Unavailable, match="not logged in"):
        await DiscordChat(house.store).post(HELP, "Done.", "k")
    await house.at.chat.working(HELP, "1", True)


async def test_a_card_is_edited_in_place_with_its_new_picture(house: DiscordHouse, chat: DiscordChat) -> None:
    id = await chat.post(HELP, CARD, "run:1")
    await chat.edit(HELP, id, CARD.model_copy(update={"title": "run-1 is live", "actions": (), "picture": None}))
    (one,) = shown(house)
    assert (one["content"], one["components"], one["files"]) == ("run-1 is live", [], {})
    with pytest.raises(Refused, match="deleted"):
        await chat.edit(HELP, "999", CARD)


async def test_a_thread_is_begun_at_its_message_and_then_used(house: DiscordHouse, chat: DiscordChat) -> None:
    root = int(await chat.post(HELP, "Root.", "k-0"))
    first = await chat.post(inside(root), "First.", "k-1")
    await chat.post(inside(root), "Second.", "k-2")
    assert [one["content"] for one in shown(house, root)] == ["First.", "Second."]
    assert house.server.threads[root]["parent_id"] == str(CHANNEL)
    assert sum(path.endswith("/threads") for _, path in house.server.calls) == 1
    await chat.edit(inside(root), first, CARD)
    assert shown(house, root)[0]["content"] == "run-1 waits"
    assert (await chat.link(inside(root), first)).endswith(f"/{root}/{first}")
    assert (await chat.link(inside(root), str(root))).endswith(f"/{CHANNEL}/{root}")


async def test_a_thread_that_is_there_already_is_used(house: DiscordHouse) -> None:
    root = int(await house.at.chat.post(HELP, "Root.", "k-0"))
    await house.at.chat.post(inside(root), "First.", "k-1")
    other = DiscordChat(house.store)
    other.client = house.at.chat.client
    await other.post(inside(root), "Second.", "k-2")
    assert [one["content"] for one in shown(house, root)] == ["First.", "Second."]


async def test_below_a_deleted_message_nothing_can_be_said(chat: DiscordChat) -> None:
    with pytest.raises(Refused, match="deleted"):
        await chat.post(inside(4711), "Too late.", "k-1")


async def test_a_private_word_is_a_direct_message(house: DiscordHouse, chat: DiscordChat) -> None:
    for _ in range(2):
        await chat.whisper(HELP, f"discord:{ANNA}", "Only for you.", "", "w-1")
    assert [one["content"] for one in shown(house, ANNA + 1_000_000)] == ["Only for you."]
    assert shown(house) == []


async def test_who_takes_no_direct_messages_is_told_so_once_where_they_asked(
    house: DiscordHouse, chat: DiscordChat
) -> None:
    house.server.closed_doors.add(EVE)
    await chat.whisper(HELP, f"discord:{EVE}", "A secret.", "", "w-1")
    with pytest.raises(Refused):
        await chat.whisper(HELP, f"discord:{EVE}", "Another secret.", "", "w-2")
    (one,) = shown(house)
    assert "may not send you direct messages" in one["content"]
    assert "secret" not in one["content"]
    assert one["allowed_mentions"] == {"parse": []}


async def test_an_answer_whose_token_is_dead_comes_as_a_direct_message(house: DiscordHouse, chat: DiscordChat) -> None:
    fresh, old = house.server.id(), 1 << 22
    for key, answer_to in (
        ("w-1", f"{fresh}:dead"),
        ("w-2", f"{old}:token"),
        ("w-3", "nonsense"),
        ("w-4", f"{fresh}:expired"),
    ):
        await chat.whisper(HELP, f"discord:{ANNA}", f"Answer {key}.", answer_to, key)
    assert len(shown(house, ANNA + 1_000_000)) == 4
    assert house.server.answers == {}


async def test_typing_is_shown_until_the_answer_is_there(
    house: DiscordHouse, chat: DiscordChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaking, "TYPING_S", 0.05)
    await chat.working(HELP, "1", True)
    await until(lambda: len(house.server.typing) >= 2)
    await chat.working(HELP, "1", False)
    seen = len(house.server.typing)
    await asyncio.sleep(0.3)
    assert len(house.server.typing) <= seen + 1
    house.server.broken["/typing"] = 403
    await chat.working(HELP, "1", True)
    await chat.working(HELP, "1", False)


async def test_what_was_said_is_read_back_without_what_moss_itself_says(house: DiscordHouse, chat: DiscordChat) -> None:
    root = await house.server.says(EVE, "Refund?")
    answer = await chat.post(inside(root), "Refunded.", "reply:1")
    async with house.store.writing() as db:
        await posts.add(db, house.store.now(), "reply:1", inside(root), message=answer, shown="")
    await chat.post(inside(root), "A repair is live.", "run:1:3")
    said = await chat.history(inside(root), 10)
    assert [(one.role, one.content, one.id, one.who) for one in said] == [
        ("user", "Refund?", str(root), f"discord:{EVE}"),
        ("assistant", "Refunded.", answer, None),
    ]


async def test_a_direct_message_is_answered_in_one_conversation(house: DiscordHouse, chat: DiscordChat) -> None:
    direct = EVE + 1_000_000
    place = Place(platform="discord", workspace=DIRECT, channel=str(direct), thread=str(direct))
    await chat.post(place, "Hello.", "k-1")
    await chat.post(place.model_copy(update={"thread": "77"}), "News.", "k-2")
    assert [one["content"] for one in shown(house, direct)] == ["Hello.", "News."]
    assert await chat.link(place, "5") == f"https://discord.com/channels/@me/{direct}/5"
