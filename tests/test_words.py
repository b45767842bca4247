"""Text from outside: what hides or commands is spelt out, and what people normally write stays as it is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.room.artefacts import diff_lines
from bot.words import clipped, harmless, line, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("done\rUNDONE", r"done\x0dUNDONE"),
        ("a\x00b\x0cc\x7fd\x9be", r"a\x00b\x0cc\x7fd\x9be"),
        ("if user != '\u202e\u2066admin\u2069':", r"if user != '\u202e\u2066admin\u2069':"),
        ("is\u200badmin\ufeff \u2060\u00ad", r"is\u200badmin\ufeff \u2060\xad"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("ignore\U000e0069\U000e0067", r"ignore\U000e0069\U000e0067"),
        ("😀\ufe0f\ufe01\ufe02", "😀\ufe0f" + r"\ufe01\ufe02"),
        ("x\ufe0f\U000e0101", r"x\ufe0f\U000e0101"),
        ("left\u200fright", r"left\u200fright"),
        ("half a pair \udc80", r"half a pair \udc80"),
        ("é\u200d\u200d\u200d", "é\u200d" + r"\u200d\u200d"),
    ],
)
def test_what_hides_or_commands_is_spelt_out(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "two\n\tlines, and a caf\u00e9 with e\u0301",
        "👩\u200d❤\ufe0f\u200d👨 👩🏽\u200d🚀 1\ufe0f\u20e3 ☎\ufe0e",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "می\u200cخواهم",
        "שלום!\u200f (abc)\u200e",
        "ශ්\u200dරී ลา\u200bก่อน",
        "葛\U000e0100飾区",
        "non\u00a0breaking, “quoted” — and so on…",
    ],
)
def test_what_people_normally_write_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left_and_nothing_is_left_out(text: str) -> None:
    shown = harmless(text)
    assert all(letter in "\n\t" or unicodedata.category(letter) not in {"Cc", "Cs", "Zl", "Zp"} for letter in shown)
    assert len(shown) >= len(text.replace("\r\n", "\n"))
    assert harmless(shown) == shown


def test_a_context_line_of_a_diff_hides_nothing() -> None:
    text = "@@ -1,2 +1,2 @@\n allowed = user == 'root\u202e' \x1b[8m or True\n+b = 1\x0c+c = 2\n"
    assert list(diff_lines(text)) == [
        ("hunk", "@@ -1,2 +1,2 @@"),
        ("same", r" allowed = user == 'root\u202e' \x1b[8m or True"),
        ("add", r"+b = 1\x0c+c = 2"),
    ]


def test_quotations_show_it_too_and_are_cut_afterwards() -> None:
    assert quoted("No\u202e!") == r"“No\u202e!”"
    assert line("a\nb\r\n\tc\u2028d", 100) == r"a b c\u2028d"
    assert clipped("\x1b" * 100, 10) == r"\x1b\x1b\…"
