"""News in a chat: one card per run, milestones in its thread, everything said once, whatever dies or is away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot import announcer, posting
from bot.announcer import Announcer, Follower
from bot.chat import Card, Tone
from bot.places import is_direct
from bot.sections import Announce
from core.consent import remind_due
from core.model.errors import Refused
from core.model.events import Fact, Noun
from core.model.run import RunState, Stage
from core.model.swap import SwapState
from core.model.transcript import Place
from core.pipeline import evolve as pipeline
from core.store import Store, marks, people, runs, substrates
from flags.seal import seal, seal_old
from tests.support import reports
from tests.support.databases import DATABASES, opened
from tests.support.newsroom import DESK, NEWS, Newsroom, newsroom, text
from tests.support.paper_chat import PAPER, PaperChat, Shown
from tests.support.until import until


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path) as store:
        yield store


@pytest.fixture
async def room(store: Store, tmp_path: Path) -> AsyncIterator[Newsroom]:
    async with newsroom(store, tmp_path) as room:
        yield room


class Died(BaseException):
    """Stands for kill -9: nothing catches it."""


class Lives:
    """Which process this is: each life is another one, and those before are dead."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.life = 0
        patch.setattr(posting, "identity", lambda: f"life {self.life}")
        patch.setattr(posting, "has_ended", lambda who: who.startswith("life ") and who != f"life {self.life}")


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Lives:
    return Lives(monkeypatch)


async def applied(room: Newsroom) -> str:
    """A whole run; its card's key."""
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.swap(asked.id)
    return f"run:{run.id}"


async def test_a_run_has_one_card_that_is_edited_in_place_and_milestones_in_its_thread(room: Newsroom) -> None:
    run = await room.begin()
    key = f"run:{run.id}"
    await room.told()
    assert room.shown(key).place == PAPER
    assert room.card(key).title == "desk: a repair is under way"

    asked = await room.offer(run.id)
    await room.told()
    offered = room.card(key)
    assert offered.tone is Tone.asking
    subjects = {action.verb: action.subject for action in offered.actions}
    assert subjects == {"approve": asked.id, "decline": asked.id, "diff": run.id, "report": run.id}
    assert offered.picture is not None
    assert offered.link == f"https://moss.example/runs/{run.id}"

    await room.decide(asked.id)
    await room.swap(asked.id)
    await room.told()
    assert room.card(key).title == "desk: the repair is live as version 1"
    assert not {"approve", "decline"} & {action.verb for action in room.card(key).actions}
    milestones = (
        "cause was found",
        "plan was accepted",
        "candidate is built",
        "scores 12 of 12 on the flagged replies",
        "waits for approval",
        "Approved by ben",
        "live as version 1",
    )
    said = room.thread(key)
    assert len(said) == len(milestones)
    assert [words for words, told in zip(milestones, said, strict=True) if words not in told] == []
    assert len([one for one in room.chat.shown if one.key == key]) == 1


async def test_approvers_are_reminded_in_the_thread_of_the_card(room: Newsroom) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.told()
    await remind_due(room.store, asked.asked_at + timedelta(seconds=asked.policy.remind_after_s))
    await room.told()
    assert room.thread(f"run:{run.id}")[-1].startswith("This still waits for approval by anna, ben, until ")


async def test_receipts_can_be_switched_off(room: Newsroom) -> None:
    room.settings = room.settings.model_copy(update={"announce": Announce(place="paper/acme/news", receipts=False)})
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.swap(asked.id)
    await room.told()
    assert "live as version 1" in room.thread(f"run:{run.id}")[-1]
    assert not [one for one in room.chat.shown if one.key.startswith("receipt:")]


async def test_whoever_flagged_a_reply_gets_before_and_after_in_its_thread_once_the_repair_is_live(
    room: Newsroom,
) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.told()
    assert not [one for one in room.chat.shown if one.key.startswith("receipt:")]
    await room.swap(asked.id)
    await room.told()
    receipts = [one for one in room.chat.shown if one.key.startswith("receipt:")]
    assert [one.place.thread for one in receipts] == ["r0", "r1"]
    first = receipts[0].what
    assert isinstance(first, Card)
    assert first.title == "The reply you flagged now answers like this"
    assert "1 open ticket" in text(first)
    assert "2 open tickets" in text(first)


@pytest.mark.parametrize("end", [SwapState.restored, SwapState.stuck])
async def test_a_swap_that_fails_hands_out_no_receipts_and_is_told_loudly(room: Newsroom, end: SwapState) -> None:
    run = await room.begin()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.swap(asked.id, end)
    await room.told()
    assert not [one for one in room.chat.shown if one.key.startswith("receipt:")]
    assert room.card(f"run:{run.id}").tone is Tone.bad
    elsewhere = [str(one.what) for one in room.chat.shown if one.place == NEWS]
    assert [("IS DOWN" in one) for one in elsewhere] == ([True] if end is SwapState.stuck else [])


async def test_a_restart_says_nothing_twice_and_edits_nothing_in_vain(room: Newsroom) -> None:
    run = await room.begin()
    await room.offer(run.id)
    await room.told()
    before = list(room.chat.shown)
    calls: list[str] = []
    room.chat.before = calls.append
    await room.told()
    assert room.chat.shown == before
    assert calls == []


async def test_what_ended_before_anybody_followed_is_no_news_and_what_has_not_ended_gets_its_card(
    store: Store, tmp_path: Path
) -> None:
    async with newsroom(store, tmp_path, followed=False) as room:
        ended = await room.begin()
        await pipeline.stop(store, ended.id, "anna")
        waiting = await room.begin(PAPER.model_copy(update={"channel": "other"}))
        await room.offer(waiting.id)
        await room.told()
        assert [one.key for one in room.chat.shown] == [f"run:{waiting.id}"]


@pytest.mark.parametrize("where", ["before", "after"])
async def test_killed_around_every_message_it_says_the_rest_later_and_nothing_twice(
    room: Newsroom, lives: Lives, where: str
) -> None:
    key, deadly = await applied(room), set()

    def die_the_first_time(what: str) -> None:
        if what not in deadly:
            deadly.add(what)
            raise Died(what)

    setattr(room.chat, where, die_the_first_time)
    while True:
        try:
            await room.told()
            break
        except Died:
            lives.life += 1
    assert len(deadly) == 10, "a card, seven milestones, two receipts"
    keys = [one.key for one in room.chat.shown]
    assert len(keys) == len(set(keys))
    assert room.card(key).title == "desk: the repair is live as version 1"
    assert len(room.thread(key)) == 7
    assert len([each for each in keys if each.startswith("receipt:")]) == 2


async def test_while_the_platform_is_away_nothing_is_lost_and_its_return_shows_the_last_state(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(announcer, "EDIT_EVERY_S", 0.01)
    room.chat.away = 5
    news = Announcer(room.store, room.settings, {"paper": room.chat})
    following = asyncio.create_task(news.run())
    key = await applied(room)
    await until(lambda: any(one.key == key and "live as" in str(one.what) for one in room.chat.shown))
    await until(lambda: len(room.thread(key)) == 7)
    news.stop()
    await asyncio.wait_for(following, 30)
    assert len({one.key for one in room.chat.shown}) == len(room.chat.shown)


async def test_a_platform_that_is_away_holds_up_no_other(store: Store, tmp_path: Path) -> None:
    async with newsroom(store, tmp_path) as room:
        dead = PaperChat("dead", away=10**9)
        news = Announcer(store, room.settings, {"dead": dead, "paper": room.chat})
        following = asyncio.create_task(news.run())
        lost = await room.begin(Place(platform="dead", workspace="w", channel="c"))
        await pipeline.stop(store, lost.id, "anna")
        run = await room.begin()
        await until(lambda: [one for one in room.chat.shown if one.key == f"run:{run.id}"])
        news.stop()
        await asyncio.wait_for(following, 30)
        assert dead.shown == []


class Halved(PaperChat):
    """Some of its workspaces are away."""

    gone: frozenset[str] = frozenset()

    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        self._check(place)
        return await super().post(place, what, key, as_agent=as_agent)

    async def edit(self, place: Place, message: str, card: Card) -> None:
        self._check(place)
        await super().edit(place, message, card)

    def _check(self, place: Place) -> None:
        if place.workspace in self.gone:
            raise announcer.Unavailable(f"The token of {place.workspace} is revoked.")


async def behind(room: Newsroom) -> list[str]:
    async with room.store.reading() as db:
        return await marks.named(db, "news:desk:paper:")


@pytest.mark.parametrize("restart", [False, True])
async def test_a_workspace_that_is_away_holds_up_no_other_and_is_told_all_of_it_once_it_is_back(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    monkeypatch.setattr(announcer, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(announcer, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(announcer, "EDIT_EVERY_S", 0.01)
    chat = room.chat = Halved()
    chat.gone = frozenset({"w"})
    news = Announcer(room.store, room.settings, {"paper": chat})
    following = asyncio.create_task(news.run())
    lost = await room.begin(PAPER.model_copy(update={"workspace": "w"}))
    await pipeline.stop(room.store, lost.id, "anna")
    key = await applied(room)
    await until(lambda: any(one.key == key and "live as" in str(one.what) for one in chat.shown))
    await until(lambda: len(room.thread(key)) == 7)
    assert not [one for one in chat.shown if one.place.workspace == "w"]
    assert await behind(room) == ["news:desk:paper:w"]
    if restart:
        news.stop()
        await asyncio.wait_for(following, 30)
        news = Announcer(room.store, room.settings, {"paper": chat})
        following = asyncio.create_task(news.run())
    chat.gone = frozenset()

    async def caught_up() -> bool:
        return not await behind(room)

    await until(caught_up)
    assert room.card(f"run:{lost.id}").title == "desk: the run was stopped"
    assert room.thread(f"run:{lost.id}") == ["The run is stopped: Stopped by anna."]
    again = await room.begin(PAPER.model_copy(update={"workspace": "w"}))
    await until(lambda: [one for one in chat.shown if one.key == f"run:{again.id}"])
    news.stop()
    await asyncio.wait_for(following, 30)
    assert len({one.key for one in chat.shown}) == len(chat.shown)


async def test_a_workspace_that_catches_up_while_the_others_are_told_misses_nothing_of_that(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = room.chat = Halved()
    chat.gone = frozenset({"w"})
    main = room.follower(chat)
    lost = await room.begin(PAPER.model_copy(update={"workspace": "w"}))
    await main.round()
    assert await behind(room) == ["news:desk:paper:w"]
    chat.gone = frozenset()
    own = replace(main, workspace="w", behind=set())
    await own.round()
    await pipeline.stop(room.store, lost.id, "anna")
    tell = Follower.tell

    async def meanwhile(self: Follower, fact: Fact) -> None:
        if self is main and await behind(room):
            assert await own.caught_up()
        await tell(self, fact)

    monkeypatch.setattr(Follower, "tell", meanwhile)
    await main.round()
    assert await behind(room) == ["news:desk:paper:w"]
    assert room.thread(f"run:{lost.id}") == []
    await own.round()
    assert await own.caught_up()
    assert room.thread(f"run:{lost.id}") == ["The run is stopped: Stopped by anna."]


async def test_the_card_of_a_direct_message_is_where_approvers_are_and_its_receipts_stay_there(
    store: Store, tmp_path: Path
) -> None:
    async with newsroom(store, tmp_path, followed=False) as room:
        alone = Place(platform="slack", workspace="T1", channel="D1")
        slack = PaperChat("slack")
        followers = Announcer(store, room.settings, {"paper": room.chat, "slack": slack}).followers
        for follower in followers:
            await follower.round(everything=True)
        run = await room.begin(alone)
        asked = await room.offer(run.id)
        await room.decide(asked.id)
        await room.swap(asked.id)
        for follower in followers:
            await room.told(follower)
        assert room.shown(f"run:{run.id}").place == NEWS
        assert len(room.thread(f"run:{run.id}")) == 7
        assert {one.key.partition(":")[0] for one in slack.shown} == {"receipt"}
        assert {one.place.conversation for one in slack.shown} == {alone}


@pytest.mark.parametrize(
    ("place", "direct"),
    [
        (Place(platform="slack", workspace="T1", channel="D024BE91L"), True),
        (Place(platform="slack", workspace="T1", channel="C024BE91L"), False),
        (Place(platform="discord", workspace="@me", channel="1", thread="1"), True),
        (Place(platform="discord", workspace="1000", channel="1"), False),
        (Place(platform="room", workspace="room", channel="Desk"), False),
    ],
)
def test_which_places_are_direct(place: Place, direct: bool) -> None:
    assert is_direct(place) == direct


async def test_what_happens_between_two_rounds_is_one_edit_and_the_end_does_not_wait_for_the_next(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "EDIT_EVERY_S", 3600)
    edits: list[str] = []
    room.chat.before = lambda what: edits.append(what) if what.startswith("edit") else None
    run = await room.begin()
    key = f"run:{run.id}"
    news = Announcer(room.store, room.settings, {"paper": room.chat})
    following = asyncio.create_task(news.run())
    await until(lambda: [one for one in room.chat.shown if one.key == key])
    for n in range(25):
        await room.step(run.id, Stage.implement, 1, n, reports.CHANGE)
    news.stop()
    await asyncio.wait_for(following, 30)
    assert "(round 24)" in text(room.card(key))
    assert len(edits) == 1


async def test_a_card_that_was_deleted_is_posted_again_once(room: Newsroom) -> None:
    run = await room.begin()
    await room.told()
    key = f"run:{run.id}"
    _delete(room.chat, room.shown(key))
    asked = await room.offer(run.id)
    await room.told()
    again = room.card(f"{key}:again")
    assert again.tone is Tone.asking
    assert room.thread(f"{key}:again")[-1].startswith("A candidate waits")

    _delete(room.chat, room.shown(f"{key}:again"))
    await room.decide(asked.id, approve=False, reason="No.")
    await room.told()
    assert not [one for one in room.chat.shown if isinstance(one.what, Card)], "somebody does not want it"


async def test_killed_while_a_deleted_card_is_posted_again_it_stands_once(room: Newsroom, lives: Lives) -> None:
    run = await room.begin()
    await room.told()
    key = f"run:{run.id}"
    _delete(room.chat, room.shown(key))
    await room.offer(run.id)

    def die(what: str) -> None:
        if what.endswith(":again"):
            room.chat.after = lambda what: None
            raise Died(what)

    room.chat.after = die
    with pytest.raises(Died):
        await room.told()
    lives.life += 1
    await room.told()
    assert [one.key for one in room.chat.shown if isinstance(one.what, Card)] == [f"{key}:again"]
    assert room.card(f"{key}:again").tone is Tone.asking


def _delete(chat: PaperChat, one: Shown) -> None:
    chat.shown[chat.shown.index(one)] = replace(one, key=f"deleted {one.message}", message="gone", what="")


async def test_a_conversation_that_takes_no_card_gets_it_where_news_goes(room: Newsroom) -> None:
    def closed(what: str) -> None:
        if what.startswith("post run:"):
            room.chat.before = lambda what: None
            raise Refused("Moss is not in that channel.")

    room.chat.before = closed
    run = await room.begin()
    await room.told()
    assert room.shown(f"run:{run.id}").place == NEWS
    await pipeline.stop(room.store, run.id, "anna")
    await room.told()
    assert room.card(f"run:{run.id}").title == "desk: the run was stopped"
    assert room.thread(f"run:{run.id}") == ["The run is stopped: Stopped by anna."]


async def test_a_place_that_refuses_costs_nobody_else_their_news_and_is_logged_once(room: Newsroom) -> None:
    def closed(what: str) -> None:
        if what.startswith(("post news:", f"post run:{run.id}:")):
            raise Refused("There is no channel news.")

    run = await room.begin()
    await room.told()
    asked = await room.offer(run.id)
    await room.decide(asked.id)
    await room.swap(asked.id)
    room.chat.before = closed
    with capture_logs() as logs:
        await room.told()
    assert [one.key for one in room.chat.shown if one.key.startswith("receipt:")], "flaggers hear of it all the same"
    assert [log["why"] for log in logs if log["event"] == "news untold"] == ["There is no channel news."]


async def test_news_that_lead_nowhere_are_named_at_the_start(room: Newsroom) -> None:
    for place, why in (("slack/T1/C1", "is in no chat of this Moss; connected: paper."), ("C1", "names no place")):
        lost = room.settings.model_copy(update={"announce": Announce(place=place)})
        with capture_logs() as logs:
            announcer.Announcer(room.store, lost, {"paper": room.chat})
        (log,) = logs
        assert why in log["why"]


async def test_a_run_on_imported_evidence_is_told_where_news_goes(room: Newsroom) -> None:
    run = await room.begin(Place(platform="slack", workspace="cooling", channel="service-desk", thread="1.2"))
    await room.told()
    assert room.shown(f"run:{run.id}").place == NEWS


async def test_a_thread_belongs_to_the_conversation_of_its_channel(room: Newsroom) -> None:
    run = await room.begin(PAPER.model_copy(update={"thread": "m77"}))
    await room.told()
    assert room.shown(f"run:{run.id}").place == PAPER


async def test_a_rollback_has_a_card_of_its_own_and_the_older_repair_says_that_it_was_live(room: Newsroom) -> None:
    key = await applied(room)
    asked = await room.rollback()
    await room.told()
    card = room.card(f"consent:{asked.id}")
    assert room.shown(f"consent:{asked.id}").place == NEWS
    assert card.title == "desk: a rollback to version 0 waits for approval"
    assert [action.subject for action in card.actions] == [asked.id, asked.id]
    await room.decide(asked.id)
    await room.swap(asked.id)
    await room.told()
    assert room.card(f"consent:{asked.id}").title == "desk: version 0 is live again"
    assert [one.partition(",")[0] for one in room.thread(f"consent:{asked.id}")] == [
        "anna asks to bring version 0 of desk back; the card above has the buttons.",
        "Approved by ben; version 0 comes back as soon as it may.",
        "Version 0 of desk is live again",
    ]
    assert room.card(key).title == "desk: the repair was live as version 1"


async def test_an_approval_that_is_not_the_last_is_told_with_how_many_are_needed(store: Store, tmp_path: Path) -> None:
    async with newsroom(store, tmp_path) as room:
        consent = room.settings.consent.model_copy(update={"quorum": 2})
        room.settings = room.settings.model_copy(update={"consent": consent})
        run = await room.begin()
        asked = await room.offer(run.id)
        await room.decide(asked.id, "anna")
        await room.told()
        assert room.thread(f"run:{run.id}")[-1] == "anna approved; 2 approvals are needed."
        lines = {line.name: line.text for line in room.card(f"run:{run.id}").lines}
        assert (lines["Approvals"], lines["May approve"]) == ("1 of 2, by anna", "ben")


async def test_a_batch_that_sealed_itself_is_told_and_one_that_a_person_sealed_is_not(room: Newsroom) -> None:
    by_hand = await room.flag(0)
    await seal(room.store, by_hand, "anna")
    old = await room.flag(1, "dora")
    await seal_old(room.store, -1.0)
    await room.told()
    (said,) = room.chat.texts()
    assert f"`/moss evolve {old}`" in said


async def test_who_was_given_a_token_is_news(room: Newsroom) -> None:
    follower = next(
        one for one in Announcer(room.store, room.settings, {"paper": room.chat}).followers if one.substrate != DESK
    )
    await room.told(follower)
    await people.add(room.store, "mallory", "cli:root")
    await room.told(follower)
    await people.add(room.store, "operator")  # as Moss does at its first start
    await room.told(follower)
    (said,) = [one for one in room.chat.shown if one.place == NEWS]
    assert said.what == "cli:root made a token for mallory."


async def test_an_adoption_is_news_when_it_is_done_and_not_while_it_is_under_way(room: Newsroom) -> None:
    async with room.store.changing(DESK) as change:
        await substrates.set_needs_adoption(change, True, "moss", "an adoption is under way")
    await room.told()
    assert room.chat.shown == []
    async with room.store.changing(DESK) as change:
        await substrates.set_needs_adoption(change, False, "anna", "version 1 was adopted")
        await change.record("anna", Noun.substrate, DESK, "adopted", version=1)
    await room.told()
    assert room.chat.texts() == ["desk is adopted as version 1 by anna; repairs may go live."]


async def test_two_processes_say_everything_once(room: Newsroom) -> None:
    """The paper chat of this test tells no key from another, as platforms do."""
    chat = Forgetful()
    room.chat = chat
    key = await applied(room)
    both = [room.follower(chat), room.follower(chat)]

    async def told(one: announcer.Follower) -> None:
        for _ in range(60):
            try:
                if not await one.round(everything=True):
                    return
            except announcer.Unavailable:
                await asyncio.sleep(0.01)

    await asyncio.gather(*(told(one) for one in both))
    keys = [one.key for one in chat.shown]
    assert len(keys) == len(set(keys))
    assert len(room.thread(key)) == 7
    assert room.card(key).title == "desk: the repair is live as version 1"


class Forgetful(PaperChat):
    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        await asyncio.sleep(0.002)
        self.shown.append(Shown(place, what, key, "moss", f"m{len(self.shown) + 1}"))
        return self.shown[-1].message


async def test_a_fact_that_nobody_can_tell_does_not_stop_the_news(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = announcer.milestones.of_run

    def faulty(fact, report):  # type: ignore[no-untyped-def]
        if fact.what == "stepped":
            raise ZeroDivisionError
        return real(fact, report)

    monkeypatch.setattr(announcer.milestones, "of_run", faulty)
    run = await room.begin()
    await room.offer(run.id)
    with capture_logs() as logs:
        await room.told()
    assert {one["event"] for one in logs} == {"news untold"}
    assert room.card(f"run:{run.id}").tone is Tone.asking
    assert [one[:11] for one in room.thread(f"run:{run.id}")] == ["A candidate"]


async def test_a_picture_that_cannot_be_drawn_costs_the_card_its_picture_and_nothing_else(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(announcer, "picture", broken)
    run = await room.begin()
    await room.offer(run.id)
    with capture_logs() as logs:
        await room.told()
    assert {one["event"] for one in logs} == {"picture not drawn"}
    assert room.card(f"run:{run.id}").picture is None
    assert room.card(f"run:{run.id}").tone is Tone.asking


@pytest.mark.parametrize("state", [RunState.exhausted, RunState.failed, RunState.over_budget])
async def test_a_run_that_ends_without_an_offer_says_why_in_its_thread(room: Newsroom, state: RunState) -> None:
    run = await room.begin()
    async with room.store.changing(DESK) as change:
        await runs.move(change, run.id, state, "moss", "It was <b>hopeless</b> @everyone \x1b[31m.")
    await room.told()
    said = f"The run is {state.replace('_', ' ')}: It was <b>hopeless</b> @everyone \\x1b[31m."
    assert room.thread(f"run:{run.id}") == [said]
    assert f"`/moss restart {run.id}`" in text(room.card(f"run:{run.id}"))


async def test_of_two_processes_the_slower_one_does_not_set_the_mark_back(room: Newsroom) -> None:
    name = "news:desk:paper"
    await room.begin()
    await room.told()
    async with room.store.reading() as db:
        before = await marks.get(db, name)
    await room.follower().read_to(name, 3)
    async with room.store.reading() as db:
        assert await marks.get(db, name) == before
