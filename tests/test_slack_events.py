"""From Slack's payloads to Moss's events, without a network."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.slack import events
from bot.adapters.slack.events import Workspace, plain
from bot.chat import Reacted, Replied, Said
from tests.support.slack_server import BOT, BOT_USER, TEAM, LoopbackSlack, reaction, said

HERE = Workspace(TEAM, BOT_USER, BOT, agent="UAGENT")
NOW = datetime(2026, 1, 5, tzinfo=UTC)
SLACK = LoopbackSlack(url="http://127.0.0.1:1")


def happened(event: dict[str, Any], id: str = "Ev1") -> Any:
    return events.happened(SLACK.envelope(event, id), HERE)


def test_a_reaction_names_the_message_the_emoji_and_its_own_time() -> None:
    event = happened(reaction("1790000000.000100", "-1::skin-tone-4", at="1790000009.000000"))
    assert event == Reacted(
        id="Ev1",
        place=HERE.place("C1"),
        person="slack:T1/U1",
        at=datetime.fromtimestamp(1_790_000_009, UTC),
        message="1790000000.000100",
        emoji="-1::skin-tone-4",
        added=True,
    )
    assert happened(reaction("1790000000.000100", added=False)).added is False


def test_a_reaction_needs_no_word_on_who_wrote_the_message_and_one_on_a_file_is_none() -> None:
    assert happened(reaction("1790000000.000100") | {"item_user": None}) is not None
    assert happened(reaction("1790000000.000100") | {"item": {"type": "file", "file": "F1"}}) is None


def test_the_agent_does_not_flag_itself_and_slackbot_is_nobody() -> None:
    assert happened(reaction("1790000000.000100", user="UAGENT")) is None
    assert happened(said("reminder: <@UMOSS> hello", "1.1", user="USLACKBOT")) is None


def test_moss_does_not_hear_itself() -> None:
    assert happened(reaction("1790000000.000100", user=BOT_USER)) is None
    assert happened(said("hello", "1.1", user=BOT_USER)) is None
    assert happened(said("hello", "1.1", user="U5", bot_id=BOT)) is None


@pytest.mark.parametrize(
    ("more", "addressed"),
    [
        ({}, False),
        ({"channel_type": "im"}, True),
        ({"text": f"well, <@{BOT_USER}>?"}, True),
        ({"text": "<@U9>"}, False),
        ({"text": f"<@{BOT_USER}X> hello"}, False),
        ({"text": f"<@{BOT_USER}|moss> hello"}, True),
    ],
)
def test_a_direct_message_or_a_mention_is_addressed_to_moss(more: dict[str, str], addressed: bool) -> None:
    event = happened(said("hello", "1790000001.000100") | more)
    assert isinstance(event, Said)
    assert event.addressed is addressed


def test_a_thread_is_named_by_its_first_message_which_is_itself_in_none() -> None:
    assert happened(said("a", "2.2", thread_ts="1.1")).place.thread == "1.1"
    assert happened(said("a", "1.1", thread_ts="1.1")).place.thread == ""


@pytest.mark.parametrize("speaker", [{"user": "UAGENT"}, {"user": "U7", "bot_id": "UAGENT"}, {"app_id": "UAGENT"}])
def test_the_agent_that_speaks_under_its_own_name_is_watched(speaker: dict[str, str]) -> None:
    event = happened(said("No refunds.", "2.2") | speaker)
    assert isinstance(event, Replied)
    assert event.text == "No refunds."


def changed(message: dict[str, Any], before: str = "No.") -> dict[str, Any]:
    return {
        "type": "message", "subtype": "message_changed", "channel": "C1", "channel_type": "channel", "ts": "9.9",
        "message": {**message, "edited": {"user": "UAGENT", "ts": "9.9"}},
        "previous_message": {"type": "message", "text": before, "ts": message.get("ts", "")},
    }  # fmt: skip


def test_other_words_of_the_agent_are_its_reply_edited() -> None:
    inner = {"type": "message", "user": "UAGENT", "text": "Within 30 days.", "ts": "2.2", "thread_ts": "1.1"}
    event = happened(changed(inner))
    assert isinstance(event, Replied)
    assert (event.message, event.text, event.edited, event.place.thread) == ("2.2", "Within 30 days.", True, "1.1")
    assert event.at == datetime.fromtimestamp(9.9, UTC)
    assert happened(changed(inner, "Something else.")).id == event.id, "one change, however often it is brought"


@pytest.mark.parametrize("speaker", [{"user": "U1"}, {"user": BOT_USER}, {"user": "U5", "bot_id": BOT}])
def test_other_words_of_anybody_else_and_the_same_words_are_nothing(speaker: dict[str, str]) -> None:
    assert happened(changed({"type": "message", "text": "Hello.", "ts": "2.2", **speaker})) is None
    assert happened(changed({"type": "message", "text": "Hello.", "ts": "2.2", "user": "UAGENT"}, "Hello.")) is None


def test_other_bots_are_nobody() -> None:
    assert happened(said("hello", "2.2", bot_id="BOTHER", subtype="bot_message")) is None


def test_each_delivery_goes_to_the_workspace_it_was_made_for() -> None:
    known = {"T1": HERE, "T2": Workspace("T2", "U2")}
    assert events.workspace_of({"team_id": "T2"}, known) is known["T2"]
    assert events.workspace_of({"team_id": "T9", "authorizations": [{"team_id": "T1"}]}, known) is HERE
    assert events.workspace_of({"team": {"id": "T2"}, "user": {"team_id": "T9"}}, known) is known["T2"]
    assert events.workspace_of({"team_id": "T9"}, known) is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("a &lt;b&gt; &amp;amp;", "a <b> &amp;"),
        ("see <https://x.example/a|the page>", "see the page (https://x.example/a)"),
        ("<https://x.example|x.example>", "https://x.example"),
        ("<@U9|anna> and <@U8> in <#C1|help>", "@anna and @U8 in #help"),
        ("<!channel> <!subteam^S1|@ops>", "@channel @ops"),
        ("<mailto:a@x.example|a@x.example>", "a@x.example"),
        ("<@UMOSS> hello", "hello"),
    ],
)
def test_words_reach_moss_as_people_see_them(sent: str, read: str) -> None:
    assert plain(sent, without=BOT_USER) == read


def test_two_commands_with_the_same_words_are_two() -> None:
    one, two = (events.commanded(SLACK.command("status"), HERE, NOW) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.id != two.id
    assert one.answer_to.startswith("http://127.0.0.1:1/answer/")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
KEYS = ("type", "event", "item", "user", "channel", "ts", "team", "view", "actions", "container", "message", "text")


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=8), ANYTHING)
def test_nonsense_is_no_event_and_no_error(body: dict[str, Any], event: Any) -> None:
    assert events.commanded(body, HERE, NOW) is None
    assert events.submitted(body, HERE, NOW) is None
    assert events.pressed(body, HERE, NOW) is None
    assert events.asked_for_flag(body) is None
    events.happened(body | {"event": event}, HERE)
    events.happened({"event": body | {"type": "message", "subtype": "message_changed"}}, HERE)
    events.workspace_of(body, {"T1": HERE})


@pytest.mark.parametrize("channel", ["../../x", "C1/9", "", "C" * 100])
def test_a_place_is_made_of_names_only(channel: str) -> None:
    assert happened(said("hello", "2.2", channel=channel)) is None
