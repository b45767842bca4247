"""What people did while nobody listened is found by comparing: in its own workspace, reply by reply, and no further."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.adapters.missed import Look, Seen, Standing, missed
from bot.chat import Reacted
from bot.inbox import lane
from core.model.errors import Unavailable
from core.model.transcript import Place
from core.store.turns import Turn
from tests.support.chat_moss import ChatMoss, chat_moss
from tests.support.databases import HeldClock, opened
from tests.support.paper_chat import PAPER


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[ChatMoss]:
    async with opened("sqlite", tmp_path, HeldClock()) as store, chat_moss(store, tmp_path) as chat:
        yield chat


def see(seen: dict[str, list[Seen]], *, whole: bool = True) -> Look:
    async def look(turn: Turn) -> Standing | None:
        return Standing(seen.get(turn.message, []), whole)

    return look


async def found(chat: ChatMoss, look: Look, place: Place = PAPER, limit: int = 10) -> list[Reacted]:
    store, settings = chat.store, chat.moss.settings
    return [
        event
        async for some in missed(store, settings, "paper", {place.workspace}, look, session="s", limit=limit)
        for event in some
    ]


async def test_replies_of_other_workspaces_take_no_room_from_those_that_are_looked_at(chat: ChatMoss) -> None:
    mine = await chat.reply()
    for _ in range(5):
        await chat.reply(place=PAPER.model_copy(update={"workspace": "busy"}))
    (event,) = await found(chat, see({mine: [Seen("paper:eve", "thumbsdown")]}), limit=2)
    assert (event.message, event.person, event.added) == (mine, "paper:eve", True)


async def test_what_a_person_took_back_lies_in_the_lane_of_what_they_did(chat: ChatMoss) -> None:
    reply = await chat.reply()
    added = chat.reacted(reply, person="paper:ben")
    await chat.did(added)
    (gone,) = await found(chat, see({}))
    assert (gone.person, gone.added) == ("paper:ben", False)
    assert lane(gone) == lane(added)
    await chat.did(gone)
    assert await found(chat, see({})) == []


async def test_of_several_accounts_of_a_person_the_one_of_this_workspace_took_it_back(chat: ChatMoss) -> None:
    chat.configure(people={"ben": ("slack:T1/U1", "paper:other/U2", "paper:acme/U3")})
    await chat.did(chat.reacted(await chat.reply(), person="paper:acme/U3"))
    (gone,) = await found(chat, see({}))
    assert gone.person == "paper:acme/U3"


async def test_whoever_a_platform_does_not_name_took_nothing_back(chat: ChatMoss) -> None:
    reply = await chat.reply()
    await chat.did(chat.reacted(reply, person="paper:eve"))
    seen = {reply: [Seen("paper:carl", "x")]}
    assert [(one.person, one.added) for one in await found(chat, see(seen, whole=False))] == [("paper:carl", True)]
    assert {(one.person, one.added) for one in await found(chat, see(seen))} == {
        ("paper:carl", True),
        ("paper:eve", False),
    }


async def test_what_was_found_before_the_platform_went_away_is_handed_over(chat: ChatMoss) -> None:
    replies = [await chat.reply() for _ in range(3)]
    looked: list[str] = []

    async def look(turn: Turn) -> Standing | None:
        looked.append(turn.message)
        if len(looked) == 3:
            raise Unavailable("It is away.")
        return Standing([Seen("paper:eve", "thumbsdown")], whole=True)

    handed = missed(chat.store, chat.moss.settings, "paper", {"acme"}, look, session="s", limit=10)
    for reply in (replies[2], replies[1]):
        assert [one.message for one in await anext(handed)] == [reply]
    with pytest.raises(Unavailable):
        await anext(handed)


async def test_a_removal_that_was_found_late_takes_nothing_back_that_was_put_there_again(chat: ChatMoss) -> None:
    reply = await chat.reply()
    await chat.did(chat.reacted(reply, "👎", person="paper:ben"))
    (gone,) = await found(chat, see({}))
    later = gone.at.replace(microsecond=1)
    await chat.did(chat.reacted(reply, "👎", person="paper:ben", at=later), gone)
    assert [one.added for one in await found(chat, see({}))] == [False], "the flag stands"


async def test_what_was_taken_off_a_sealed_flag_is_found_once_and_told_once(chat: ChatMoss) -> None:
    chat.limit(seal_count=1)
    reply = await chat.reply()
    await chat.did(chat.reacted(reply), chat.reacted(reply, "x"))
    told = len(chat.chat.told())
    seen = {reply: [Seen("paper:eve", "x")]}
    (one,) = await found(chat, see(seen))
    await chat.did(one)
    assert await found(chat, see(seen)) == []
    assert len(chat.chat.told()) == told, "the other reaction stands for the flag"
    (other,) = await found(chat, see({}))
    await chat.did(other)
    assert chat.chat.told()[told:] == ["It is noted that you took your flag back; its batch is sealed and keeps it."]
    assert await found(chat, see({})) == []
    (again,) = await found(chat, see(seen))
    assert (again.emoji, again.added) == ("x", True)
