"""Posting once: claims that outlive their holder, edits that race, places that refuse, platforms that hang."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot import patience, posting
from bot.chat import Card, Picture
from bot.posting import find, link_to, looks, post_once, show
from core.model.errors import MossError, Refused, Unavailable
from core.model.transcript import Place
from core.store import Store, posts
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.paper_chat import PAPER, PaperChat


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        yield store


@pytest.fixture
def chat() -> PaperChat:
    return PaperChat()


def card(title: str, picture: bytes | None = None) -> Card:
    return Card(title=title, picture=Picture(png=picture, alt="a picture") if picture else None)


async def claimed_elsewhere(store: Store, key: str) -> None:
    """By a process of another machine, of which nobody here knows whether it lives."""
    async with store.writing() as db:
        await posts.add(db, store.now(), key, PAPER, message="", shown="claimed by linux.elsewhere.1.2#0")


async def test_a_key_is_posted_once_and_found_again(store: Store, chat: PaperChat) -> None:
    first = await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")
    second = await post_once(store, {"paper": chat}, PAPER, "Hello again.", "k")
    assert (second.message, chat.texts()) == (first.message, ["Hello."])
    assert await link_to(store, {"paper": chat}, "k") == f"https://paper.example/help/{first.message}"
    assert await link_to(store, {}, "k") == ""
    assert await link_to(store, {"paper": chat}, "other") == ""


async def test_what_another_process_is_about_to_post_is_left_to_it_as_long_as_it_may_take(
    store: Store, chat: PaperChat, clock: HeldClock
) -> None:
    await claimed_elsewhere(store, "k")
    clock.advance(posting.CLAIM_S - 1)
    with pytest.raises(Unavailable, match="about to post"):
        await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")
    assert await find(store, "k") is None
    clock.advance(2)
    await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")
    assert chat.texts() == ["Hello."]


async def test_a_clock_that_was_set_back_does_not_keep_a_claim_alive(
    store: Store, chat: PaperChat, clock: HeldClock
) -> None:
    await claimed_elsewhere(store, "k")
    clock.advance(-10_000)
    await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")
    assert chat.texts() == ["Hello."]


async def test_a_platform_that_is_away_leaves_the_key_to_the_next_try(store: Store, chat: PaperChat) -> None:
    chat.away = 1
    with pytest.raises(Unavailable):
        await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")
    await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")
    assert chat.texts() == ["Hello."]


async def test_a_platform_that_hangs_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(PaperChat):
        async def post(self, place, what, key, *, as_agent=""):  # type: ignore[no-untyped-def]
            await asyncio.sleep(60)

    monkeypatch.setattr(patience, "CALL_S", 0.05)
    with pytest.raises(Unavailable, match="paper did not answer within"):
        await post_once(store, {"paper": Hanging()}, PAPER, "Hello.", "k")


async def test_what_a_place_refused_can_be_posted_elsewhere(store: Store, chat: PaperChat) -> None:
    with pytest.raises(Refused, match="in no chat named nowhere"):
        await post_once(store, {"paper": chat}, Place(platform="nowhere", workspace="w", channel="c"), "Hello.", "k")
    assert (await post_once(store, {"paper": chat}, PAPER, "Hello.", "k")).place == PAPER


async def test_a_card_is_edited_only_when_it_would_look_otherwise(store: Store, chat: PaperChat) -> None:
    calls: list[str] = []
    chat.before = calls.append
    for one in (card("a"), card("a"), card("a", b"x"), card("a", b"x"), card("a", b"y"), card("b", b"y")):
        await show(store, {"paper": chat}, PAPER, one, "k")
    assert calls == ["post k", "edit m1", "edit m1", "edit m1"]
    assert len({looks(one) for one in (card("a"), card("a", b"x"), card("a", b"y"), card("b", b"y"))}) == 4


async def test_while_one_edits_no_other_does(store: Store, chat: PaperChat) -> None:
    chats = {"paper": chat}
    await show(store, chats, PAPER, card("queued"), "k")

    class Slow(PaperChat):
        async def edit(self, place: Place, message: str, what: Card) -> None:
            with pytest.raises(Unavailable, match="about to edit k"):
                await show(store, chats, PAPER, card("applied"), "k")
            await chat.edit(place, message, what)

    await show(store, {"paper": Slow()}, PAPER, card("running"), "k")
    assert chat.texts() == ["running"]
    await show(store, chats, PAPER, card("applied"), "k")
    assert chat.texts() == ["applied"]


async def test_whoever_lost_their_claim_while_they_edited_edits_anew(
    store: Store, chat: PaperChat, clock: HeldClock
) -> None:
    """It showed what was true before the other one, and came last."""
    chats = {"paper": chat}
    await show(store, chats, PAPER, card("queued"), "k")

    class Late(PaperChat):
        async def edit(self, place: Place, message: str, what: Card) -> None:
            clock.advance(posting.CLAIM_S)
            await show(store, chats, PAPER, card("applied"), "k")
            await chat.edit(place, message, what)

    with pytest.raises(Unavailable, match="edited k too"):
        await show(store, {"paper": Late()}, PAPER, card("running"), "k")
    assert chat.texts() == ["running"], "which is wrong, and known to be unknown"
    await show(store, chats, PAPER, card("applied"), "k")
    assert chat.texts() == ["applied"]


async def test_whoever_lost_their_claim_while_they_posted_leaves_the_record_to_the_other(
    store: Store, chat: PaperChat, clock: HeldClock
) -> None:
    class Late(PaperChat):
        problem: MossError | None = None

        async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
            clock.advance(posting.CLAIM_S)
            await post_once(store, {"paper": chat}, PAPER, "Hello.", key)
            if self.problem:
                raise self.problem
            return "a second one"

    theirs = await post_once(store, {"paper": Late()}, PAPER, "Hello.", "k")
    assert (theirs.message, await find(store, "k")) == ("m1", theirs)
    for n, kind in enumerate((Refused, Unavailable), start=1):
        late = Late()
        late.problem = kind("Not now.")
        with pytest.raises(kind, match="Not now"):
            await post_once(store, {"paper": late}, PAPER, "Hello.", f"k{n}")
        found = await find(store, f"k{n}")
        assert found is not None
        assert found.message == f"m{n + 1}"


async def test_an_edit_that_failed_holds_up_nobody(store: Store, chat: PaperChat) -> None:
    await show(store, {"paper": chat}, PAPER, card("a"), "k")
    chat.away = 1
    with pytest.raises(Unavailable):
        await show(store, {"paper": chat}, PAPER, card("b"), "k")
    await show(store, {"paper": chat}, PAPER, card("b"), "k")
    assert chat.texts() == ["b"]


async def test_a_card_on_a_platform_that_was_switched_off_goes_on_elsewhere(store: Store, chat: PaperChat) -> None:
    old = PaperChat("old")
    there = Place(platform="old", workspace="w", channel="c")
    await show(store, {"old": old}, there, card("a"), "k")
    await show(store, {"paper": chat}, PAPER, card("b"), "k")
    await show(store, {"paper": chat}, PAPER, card("c"), "k")
    assert (old.texts(), chat.texts()) == (["a"], ["c"])
