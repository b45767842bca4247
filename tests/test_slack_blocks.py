"""Cards as Block Kit: within Slack's limits, plain, and calling nobody."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.slack.blocks import blocks, escaped, shortened, summary
from bot.chat import Action, Card, Line, Picture, Section, Style, Tone

WORDS = st.text(max_size=4000)
CARDS = st.builds(
    Card,
    title=WORDS,
    tone=st.sampled_from(Tone),
    lines=st.lists(st.builds(Line, name=WORDS, text=WORDS), max_size=60).map(tuple),
    body=st.lists(
        st.builds(Section, heading=WORDS, text=WORDS, look=st.sampled_from(["text", "quote", "code"])), max_size=60
    ).map(tuple),
    actions=st.lists(
        st.builds(Action, label=WORDS, verb=st.just("approve"), subject=WORDS, style=st.sampled_from(Style)),
        max_size=30,
    ).map(tuple),
    link=st.sampled_from(["", "https://moss.example/run", "javascript:alert(1)"]),
)


def texts(value: Any) -> list[str]:
    """Every text that people would see."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for inner in value.values() for text in texts(inner)]
    return [text for inner in value for text in texts(inner)] if isinstance(value, list) else []


@given(CARDS)
def test_any_card_stays_within_the_limits_of_slack(card: Card) -> None:
    made = blocks(card, "F1")
    assert 1 <= len(made) <= 50
    assert all(made_text for made_text in texts(made)), "Slack refuses empty texts"
    assert sum(map(len, texts(made))) < 13_000
    assert len(made[0]["text"]["text"]) <= 150
    for block in made:
        assert len(block.get("elements", [])) <= (25 if block["type"] == "actions" else 1000)
        if block["type"] == "actions":
            assert len({button["action_id"] for button in block["elements"]}) == len(block["elements"])
            assert all(len(button["text"]["text"]) <= 75 for button in block["elements"])
            assert all(len(button.get("value", "")) <= 2000 for button in block["elements"])
    assert len(summary(card)) <= 4000


@given(CARDS)
def test_no_text_of_a_card_is_read_as_markup(card: Card) -> None:
    assert '"mrkdwn"' not in json.dumps(blocks(card))


HOSTILE = "<!channel> <@U123> <!here|x> <#C1> @channel @here @everyone <https://evil.example|click>"


def test_what_would_call_somebody_calls_nobody() -> None:
    card = Card(
        title=HOSTILE,
        lines=(Line(name=HOSTILE, text=HOSTILE),),
        body=(Section(heading=HOSTILE, text=HOSTILE, look="quote"), Section(text=HOSTILE, look="code")),
        actions=(Action(label=HOSTILE, verb="diff", subject="run-1"),),
        picture=Picture(png=b"p", alt=HOSTILE),
    )
    for text in [*texts(blocks(card, "F1")), summary(card), escaped(HOSTILE)]:
        for call in ("<!", "<@", "<#", "@channel", "@here", "@everyone"):
            assert call not in text
    assert "<" not in escaped(HOSTILE)


def test_an_address_of_a_person_is_left_alone() -> None:
    assert escaped("write to me@here.example") == "write to me@here.example"


def test_what_is_cut_says_where_the_rest_stands() -> None:
    report = Action(label="Show report", verb="report", subject="run-1")
    body = tuple(Section(heading=f"Part {n}", text="word " * 900) for n in range(9))
    shown = texts(blocks(Card(title="Long", body=body, actions=(report,))))
    assert any("more characters" in text and "Show report" in text for text in shown)
    assert any("more parts: Show report" in text for text in shown)


@pytest.mark.parametrize("limit", [200, 3000])
def test_a_shortened_text_is_no_longer_than_its_limit(limit: int) -> None:
    assert len(shortened("x" * 10_000, limit, "Show report")) <= limit
    assert shortened("short", limit, "") == "short"


def test_a_press_carries_the_verb_and_the_id_and_a_reason_is_asked_for_where_it_is_wanted() -> None:
    actions = (
        Action(label="Approve", verb="approve", subject="consent-1", style=Style.primary),
        Action(label="Decline", verb="decline", subject="consent-1", style=Style.danger, wants_reason=True),
    )
    approve, decline = blocks(Card(title="Run", actions=actions))[-1]["elements"]
    assert (approve["action_id"], approve["value"], approve["style"]) == ("press:0", "approve consent-1", "primary")
    assert (decline["action_id"], decline["value"], decline["style"]) == ("ask:1", "decline consent-1", "danger")


def test_a_picture_is_shown_with_its_words_and_left_out_when_slack_does_not_have_it() -> None:
    card = Card(title="Run", picture=Picture(png=b"p", alt="A matrix"))
    assert {"type": "image", "slack_file": {"id": "F1"}, "alt_text": "A matrix"} in blocks(card, "F1")
    assert [block["type"] for block in blocks(card)] == ["header"]


def test_a_link_is_a_button_only_when_a_browser_may_open_it() -> None:
    assert (
        blocks(Card(title="x", link="https://moss.example/run"))[-1]["elements"][0]["url"] == "https://moss.example/run"
    )
    assert [block["type"] for block in blocks(Card(title="x", link="javascript:alert(1)"))] == ["header"]
