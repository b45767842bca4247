"""What Moss says in Slack, through the real SDK against a loopback Web API: once, in time, or with a reason."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.adapters.sent import Sent
from bot.adapters.slack import chat as slack_chat
from bot.adapters.slack.chat import WORKING, SlackChat, Voice
from bot.adapters.slack.events import PLATFORM, Workspace
from bot.adapters.slack.web import Web
from bot.chat import Card, Picture, Section
from bot.sections import Slack
from core.model.errors import Refused, Unavailable
from core.model.transcript import Place
from core.store import Store
from tests.support.databases import DATABASES, HeldClock, opened
from tests.support.slack_server import BOT, BOT_USER, CHANNEL, TEAM, Fault, LoopbackSlack, loopback_slack, said

HERE = Place(platform="slack", workspace=TEAM, channel=CHANNEL)
CARD = Card(title="Run run-1", body=(Section(text="Going well."),))
PICTURED = CARD.model_copy(update={"picture": Picture(png=b"\x89PNG", alt="A matrix")})


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HeldClock) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path, clock) as store:
        yield store


@pytest.fixture
async def slack() -> AsyncIterator[LoopbackSlack]:
    async with loopback_slack() as slack:
        yield slack


@pytest.fixture
def chat(store: Store, slack: LoopbackSlack) -> SlackChat:
    return made(store, slack)


def made(store: Store, slack: LoopbackSlack) -> SlackChat:
    chat = SlackChat(Sent(store, PLATFORM))
    settings = Slack.model_validate(slack.settings | {"app_token": "xapp-test"})
    here = Workspace(TEAM, BOT_USER, BOT, agent="UAGENT", url="https://acme.slack.com/")
    chat.join(Voice(Web.of(settings), here, history_per_minute=2))
    chat.expects_more = False
    return chat


async def test_a_key_is_posted_once_also_by_another_process(
    chat: SlackChat, store: Store, slack: LoopbackSlack
) -> None:
    first = await chat.post(HERE, CARD, "run:run-1")
    assert await chat.post(HERE, CARD, "run:run-1") == first
    assert await made(store, slack).post(HERE, CARD, "run:run-1") == first
    assert len(slack.messages) == 1


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_message_whose_answer_was_lost_is_found_again_and_not_repeated(
    chat: SlackChat, store: Store, slack: LoopbackSlack, threaded: bool
) -> None:
    root = await chat.post(HERE, "root", "root")
    place = HERE.model_copy(update={"thread": root}) if threaded else HERE
    slack.fail("chat.postMessage", Fault(after=True))
    with pytest.raises(Unavailable):
        await chat.post(place, CARD, "run:run-1")
    message = await made(store, slack).post(place, CARD, "run:run-1")
    assert len(slack.messages) == 2
    assert (CHANNEL, message) in slack.messages


async def test_a_message_that_surely_never_came_is_posted_without_looking_for_it(
    chat: SlackChat, slack: LoopbackSlack
) -> None:
    slack.fail("chat.postMessage", Fault("not_in_channel"))
    with pytest.raises(Refused, match="invite"):
        await chat.post(HERE, CARD, "run:run-1")
    await chat.post(HERE, CARD, "run:run-1")
    assert len(slack.messages) == 1
    assert not slack.called("conversations.history")


async def test_a_storm_of_limits_is_waited_out_on_posts_and_edits(chat: SlackChat, slack: LoopbackSlack) -> None:
    storm = [Fault("ratelimited", 429, retry_after="0.2")] * 2
    slack.fail("chat.postMessage", *storm)
    message = await chat.post(HERE, CARD, "run:run-1")
    slack.fail("chat.update", *storm)
    await chat.edit(HERE, message, Card(title="Run run-1 is live"))
    assert len(slack.messages) == 1
    assert "is live" in slack.texts()[0]


async def test_a_long_pause_is_left_to_whoever_asked_and_slack_is_not_asked_meanwhile(
    chat: SlackChat, slack: LoopbackSlack
) -> None:
    slack.fail("chat.postMessage", Fault("ratelimited", 429, retry_after="60"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await chat.post(HERE, CARD, "run:run-1")
    assert len(slack.called("chat.postMessage")) == 1
    assert slack.messages == {}


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("channel_not_found"), Refused, "invite"),
        (Fault("is_archived"), Refused, "archived"),
        (Fault("thread_not_found"), Refused, "gone"),
        (Fault("some_new_error"), Refused, "some_new_error"),
        (Fault("missing_scope", more={"needed": "chat:write"}), Unavailable, "chat:write"),
        (Fault("token_revoked"), Unavailable, "bot_token"),
        (Fault("internal_error", 500), Unavailable, "again"),
    ],
)
async def test_a_refusal_is_one_sentence_with_its_mend(
    chat: SlackChat, slack: LoopbackSlack, fault: Fault, kind: type[Exception], words: str
) -> None:
    slack.fail("chat.postMessage", fault)
    with pytest.raises(kind, match=words):
        await chat.post(HERE, CARD, "run:run-1")


async def test_an_edit_of_a_deleted_message_is_refused(chat: SlackChat) -> None:
    with pytest.raises(Refused, match="gone"):
        await chat.edit(HERE, "1.1", CARD)


async def test_nothing_is_said_in_a_workspace_that_is_not_ours(chat: SlackChat) -> None:
    elsewhere = HERE.model_copy(update={"workspace": "T9"})
    with pytest.raises(Refused, match=r"moss\.toml"):
        await chat.post(elsewhere, CARD, "run:run-1")
    chat.expects_more = True
    with pytest.raises(Unavailable):
        await chat.post(elsewhere, CARD, "run:run-1")


async def test_a_private_answer_goes_to_the_address_that_came_with_the_question(
    chat: SlackChat, slack: LoopbackSlack
) -> None:
    for _ in range(2):
        await chat.whisper(HERE, "slack:T1/U1", "Thank you.", f"{slack.url}/answer/1", "answer:1")
    (answer,) = slack.answers
    assert (answer["text"], answer["response_type"]) == ("Thank you.", "ephemeral")
    assert slack.whispers == []


async def test_a_private_answer_finds_another_way_when_its_address_is_worthless(
    chat: SlackChat, slack: LoopbackSlack
) -> None:
    slack.answers_gone = True
    await chat.whisper(HERE, "slack:T1/U1", "Thank you.", f"{slack.url}/answer/1", "answer:1")
    assert [(one["channel"], one["user"]) for one in slack.whispers] == [(CHANNEL, "U1")]
    slack.fail("chat.postEphemeral", Fault("not_in_channel"))
    await chat.whisper(HERE, "slack:T1/U1", "Thank you.", "", "answer:2")
    assert slack.texts("U1") == ["Thank you."]


async def test_an_address_that_is_none_of_slacks_is_never_called(chat: SlackChat, slack: LoopbackSlack) -> None:
    async with loopback_slack() as stranger:
        await chat.whisper(HERE, "slack:T1/U1", "Secret.", f"{stranger.url}/answer/1", "answer:1")
        assert stranger.answers == []
    assert len(slack.whispers) == 1


async def test_the_sign_that_an_answer_is_on_its_way_comes_and_goes_and_never_raises(
    chat: SlackChat, slack: LoopbackSlack
) -> None:
    await chat.working(HERE, "1.1", True)
    assert slack.signs == {("1.1", WORKING)}
    await chat.working(HERE, "1.1", False)
    assert slack.signs == set()
    slack.fail("reactions.add", Fault("missing_scope"), Fault("internal_error", 500))
    for _ in range(2):
        await chat.working(HERE, "1.1", True)


async def test_a_picture_is_uploaded_once_for_all_edits(chat: SlackChat, slack: LoopbackSlack) -> None:
    message = await chat.post(HERE, PICTURED, "run:run-1")
    await chat.edit(HERE, message, PICTURED)
    assert len(slack.called("files.getUploadURLExternal")) == 1
    assert slack.messages[CHANNEL, message]["blocks"][-1]["slack_file"]["id"].startswith("F")


async def test_a_picture_that_slack_does_not_take_is_left_out(
    chat: SlackChat, slack: LoopbackSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_chat, "PICTURE_PAUSE_S", 0.01)
    slack.fail("files.getUploadURLExternal", Fault("missing_scope"))
    slack.fail("chat.update", *[Fault("invalid_blocks")] * 3)
    message = await chat.post(HERE, PICTURED, "run:run-1")
    await chat.edit(HERE, message, PICTURED)
    assert all(block["type"] != "image" for block in slack.messages[CHANNEL, message]["blocks"])
    assert len(slack.called("chat.update")) == 4


async def test_history_holds_people_and_the_agent_and_is_read_within_a_budget(
    chat: SlackChat, slack: LoopbackSlack
) -> None:
    slack.messages[CHANNEL, "1.1"] = said("Refund?", "1.1")
    slack.messages[CHANNEL, "1.2"] = said("Never.", "1.2", user="UAGENT")
    slack.messages[CHANNEL, "1.3"] = said("Lunch?", "1.3", user="U4", bot_id="BLUNCH")
    fronted = await chat.post(HERE, "Within 30 days.", "reply:1", as_agent="desk")
    await chat.post(HERE, CARD, "run:run-1")
    told = [(one.role, one.content, one.who) for one in await chat.history(HERE, 10)]
    assert told == [
        ("user", "Refund?", "slack:T1/U1"),
        ("assistant", "Never.", None),
        ("assistant", "Within 30 days.", None),
    ]
    assert (await chat.history(HERE, 2))[-1].id == fronted
    with pytest.raises(Refused, match="enough"):
        await chat.history(HERE, 10)


async def test_words_go_out_plain_and_call_nobody(chat: SlackChat, slack: LoopbackSlack) -> None:
    message = await chat.post(HERE, "<!channel> <@U1> *bold*", "reply:1", as_agent="desk")
    sent = slack.messages[CHANNEL, message]
    assert "<" not in sent["text"]
    assert sent["mrkdwn"] is False
    assert not sent.get("link_names")


async def test_a_link_leads_to_the_message_without_asking_slack(chat: SlackChat, slack: LoopbackSlack) -> None:
    thread = HERE.model_copy(update={"thread": "1.1"})
    assert await chat.link(HERE, "1.2") == "https://acme.slack.com/archives/C1/p12"
    assert await chat.link(thread, "1.2") == "https://acme.slack.com/archives/C1/p12?thread_ts=1.1&cid=C1"
    assert slack.calls == []


async def test_notes_of_what_was_sent_are_forgotten_when_nothing_asks_for_them_any_more(
    store: Store, clock: HeldClock
) -> None:
    sent, other = Sent(store, PLATFORM), Sent(store, "other")
    for one in (sent, other):
        await one.begin("old")
    clock.advance(40 * 86_400)
    await sent.begin("new")
    await sent.prune()
    assert (await sent.begin("old")).since is None
    assert (await sent.begin("new")).since is not None
    assert (await other.begin("old")).since is not None


async def test_who_is_in_a_user_group_is_slacks_word_and_counts_for_a_minute(
    chat: SlackChat, slack: LoopbackSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack.groups["S77"] = ["U1"]
    crew, among = f"slack:{TEAM}/S77", {f"slack:{TEAM}/S77", "slack:T9/S77", f"slack:{TEAM}/U2"}
    assert await chat.groups_of("slack:T1/U1", among) == {crew}
    slack.groups["S77"] = []
    assert await chat.groups_of("slack:T1/U1", among) == {crew}
    assert await chat.groups_of("slack:T9/U1", among) == frozenset()
    assert len(slack.called("usergroups.users.list")) == 1
    monkeypatch.setattr(slack_chat, "GROUP_S", 0.0)
    assert await chat.groups_of("slack:T1/U1", among) == frozenset()


@pytest.mark.parametrize("error", ["missing_scope", "no_such_subteam", "internal_error"])
async def test_a_user_group_that_slack_does_not_show_holds_nobody_and_hides_no_other(
    chat: SlackChat, slack: LoopbackSlack, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    monkeypatch.setattr(slack_chat, "GROUP_S", 0.0)
    slack.groups |= {"S77": ["U1"], "S78": ["U1"]}
    assert await chat.groups_of("slack:T1/U1", {f"slack:{TEAM}/S77"})
    slack.fail("usergroups.users.list", Fault(error))
    with pytest.raises((Refused, Unavailable)):
        await chat.groups_of("slack:T1/U1", {f"slack:{TEAM}/S77"})
    slack.fail("usergroups.users.list", Fault(error))
    assert await chat.groups_of("slack:T1/U1", {f"slack:{TEAM}/S77", f"slack:{TEAM}/S78"})
