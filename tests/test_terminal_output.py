"""What a terminal shows while Moss works: the start, the log, the progress of a run. Nothing from outside steers it."""

import io
from dataclasses import replace

from rich.console import Console, RenderableType

from bot import render
from bot.chat import Card, Line, Section, Tone
from bot.greeting import Start, greeting
from bot.logs import for_people

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\nsecond \u202egnp.exe"
SPELT = r"\x1b]0;owned\x07\x1b[31mred\x1b[0m" + "\n" + r"second \u202egnp.exe"


def text(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=200, markup=False, highlight=False, emoji=False).print(what)
    return out.getvalue()


def start(**changes: object) -> Start:
    values: dict[str, object] = {
        "version": "1.0",
        "pid": 7,
        "data": "/srv/moss-data",
        "socket": "/srv/moss-data/moss.sock",
        "host": "Docker Engine 28 answers.",
        "isolates": True,
        "sandbox": "Bubblewrap: coders see nothing.",
        "sandbox_works": True,
        "room": "http://127.0.0.1:8090",
        "live": {"desk": 3},
        "approvers": ("anna", "ben"),
        "without_token": (),
        "tokens": {},
        "tokens_file": None,
        "problem": None,
    }
    return Start(**{**values, **changes})  # type: ignore[arg-type]


def test_a_start_says_where_everything_is_and_what_to_do_next() -> None:
    said = text(greeting(start()))
    for part in (
        "process 7",
        "/srv/moss-data",
        "Docker Engine 28",
        "Bubblewrap: coders see nothing",
        "http://127.0.0.1:8090",
        "version 3 is live",
        "anna, ben",
    ):
        assert part in said
    assert "moss adopt" not in said
    assert "moss evolve --wait" in said


def test_a_start_says_what_is_missing_and_how_to_get_it() -> None:
    missing = start(live={"desk": None, "shop": None}, without_token=("ben",), room=None, isolates=False)
    said = text(greeting(replace(missing, sandbox="Nothing confines coders here; mend it.", sandbox_works=False)))
    assert "No repair can be made: Nothing confines coders here; mend it." in said
    assert "moss adopt --substrate desk" in said
    assert "moss adopt --substrate shop" in said
    assert "moss people add ben" in said
    assert "Nothing isolates agents" in said
    assert "name some in [consent]" in text(greeting(start(approvers=())))


def test_a_line_of_the_log_reads_well_and_obeys_nobody() -> None:
    entry = {
        "timestamp": "2026-01-05T09:00:12Z",
        "level": "warning",
        "event": "a job waits",
        "subject": "run-1",
        "why": HOSTILE,
    }
    said = for_people(None, "", dict(entry))
    assert said == "09:00:12  warning: a job waits; subject run-1; why " + SPELT.replace("\n", " ")
    assert for_people(None, "", {"event": "running", "level": "info", "data": "/x"}) == "  running; data /x"


def test_a_trace_is_shown_below_its_line_and_obeys_nobody() -> None:
    said = for_people(None, "", {"event": "verb failed", "level": "error", "exception": f"Traceback\n  {HOSTILE}"})
    assert said.splitlines() == ["  error: verb failed", "Traceback", *f"  {SPELT}".splitlines()]


def test_a_card_reads_well_on_a_terminal_and_obeys_nobody() -> None:
    card = Card(
        title=HOSTILE.replace("\n", " "),
        tone=Tone.asking,
        lines=(Line(name="Score", text="4 -> 11"), Line(name="Cost", text=HOSTILE)),
        body=(Section(heading="Why", text=HOSTILE), Section(text="+ [bold]more[/bold]", look="code")),
        link="http://127.0.0.1:8090/runs/run-1",
    )
    said = text(render.card(card))
    assert "  Score  4 -> 11" in said
    assert "+ [bold]more[/bold]" in said
    assert said.endswith("http://127.0.0.1:8090/runs/run-1\n")
    assert not set("\x1b\x07\u202e") & set(said)
