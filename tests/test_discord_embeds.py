"""Cards as Discord shows them: whatever they hold, they fit, call nobody and show markup as it was written."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.discord.embeds import (
    BODY_LIMIT,
    BUTTONS_LIMIT,
    CUSTOM_ID_LIMIT,
    NOBODY,
    TEXT_LIMIT,
    TITLE_LIMIT,
    action_of,
    custom_id,
    escaped,
    fitted,
    pressable,
    render,
)
from bot.chat import Action, Card, Line, Picture, Section, Style, Tone

HOSTILE = (
    "@everyone <@123> <@&5> <#7> </moss:1> <t:0:R> <:x:1> **bold** `code` [a](https://x) # head\n> quote ||spoiler||"
)
nasty = st.text(alphabet=st.sampled_from("a\n`*_<@>#~|[](): \\\u202e\x1bé🚩"), max_size=3000)


@settings(max_examples=60, deadline=None)
@given(
    title=nasty,
    lines=st.lists(st.tuples(nasty, nasty), max_size=4),
    body=st.lists(st.tuples(nasty, nasty, st.sampled_from(["text", "quote", "code"])), max_size=4),
    link=st.sampled_from(["", "http://127.0.0.1:8090/runs/run-1", "https://x/" + "y" * 400]),
)
def test_every_card_fits(title: str, lines: list[tuple[str, str]], body: list[tuple[str, str, str]], link: str) -> None:
    card = Card(
        title=title,
        lines=tuple(Line(name=name, text=text) for name, text in lines),
        body=tuple(Section.model_validate({"heading": h, "text": t, "look": look}) for h, t, look in body),
        link=link,
    )
    made = render(card)
    assert made.embed is not None
    assert len(made.text) <= TITLE_LIMIT
    assert len(made.body) <= BODY_LIMIT


@settings(max_examples=60, deadline=None)
@given(text=nasty, limit=st.integers(40, 500))
def test_what_is_cut_fits_and_says_so(text: str, limit: int) -> None:
    shown = fitted(text, limit, "look there")
    assert len(shown) <= limit
    assert shown == escaped(text) or shown.endswith("… look there")


def test_markup_and_mentions_are_shown_as_they_are() -> None:
    shown = render(HOSTILE).text
    assert not re.search(r"(?<!\\)<[@#:/t]", shown)
    assert r"\*\*bold\*\*" in shown
    assert r"\`code\`" in shown
    assert r"\[a](https://x)" in shown
    assert r"\> quote" in shown
    assert NOBODY.to_dict() == {"parse": []}


def test_code_does_not_leave_its_fence() -> None:
    card = Card(title="Diff", body=(Section(text="+ a\n```\n<@1> **out**", look="code"),))
    assert render(card).body.count("```") == 2


def test_a_long_answer_comes_whole_in_a_file() -> None:
    made = render("word " * 2000)
    assert len(made.text) <= TEXT_LIMIT
    assert made.text.endswith("the whole of it is in the file")
    (file,) = made.files()
    assert file.fp.read().decode() == ("word " * 2000).strip()


async def test_a_card_has_its_lines_buttons_link_and_picture() -> None:
    card = Card(
        title="run-1 waits",
        tone=Tone.asking,
        lines=(Line(name="Score", text="4 -> 11 of 12"),),
        body=(Section(heading="Flagged", text="No refunds.", look="quote"),),
        picture=Picture(png=b"png", alt="a matrix"),
        actions=(
            Action(label="Approve", verb="approve", subject="consent-1", style=Style.primary),
            Action(label="Decline", verb="decline", subject="consent-1", style=Style.danger, wants_reason=True),
        ),
        link="http://127.0.0.1:8090/runs/run-1",
    )
    made = render(card)
    assert made.text == "run-1 waits"
    assert made.body.splitlines()[0] == "**Score** 4 -\\> 11 of 12" or "**Score** 4 -> 11 of 12" in made.body
    assert "**Flagged**\n> No refunds." in made.body
    assert made.body.endswith("http://127.0.0.1:8090/runs/run-1")
    (file,) = made.files()
    assert (file.filename, file.description) == ("card.png", "a matrix")
    view = made.view()
    assert view is not None
    assert view.is_finished(), "nothing is remembered about it"
    assert [item["custom_id"] for item in view.to_components()[0]["components"]] == [
        "moss:approve:consent-1",
        "moss:decline:consent-1:why",
    ]


@pytest.mark.parametrize("subject", ["consent-7k3f9q2m", "run-1", "a" * 60])
@pytest.mark.parametrize("why", [True, False])
def test_a_button_says_in_its_id_all_that_a_press_means(subject: str, why: bool) -> None:
    action = Action(label="x", verb="approve", subject=subject, wants_reason=why)
    id = custom_id(action)
    assert len(id) <= CUSTOM_ID_LIMIT
    found = action_of(id)
    assert found is not None
    assert (found.verb, found.subject, found.wants_reason) == ("approve", subject, why)


@pytest.mark.parametrize("id", ["", "moss:", "moss:approve", "other:approve:consent-1", "moss:approve:a b", "x" * 200])
def test_an_id_that_is_not_ours_means_nothing(id: str) -> None:
    assert action_of(id) is None


def test_a_button_that_discord_would_not_take_is_left_out() -> None:
    good = Action(label="x", verb="diff", subject="run-1")
    assert pressable([good, Action(label="x", verb="diff", subject="y" * 90)]) == (good,)
    assert len(pressable([good] * 40)) == BUTTONS_LIMIT
