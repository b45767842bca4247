"""Pages that cannot drift: what they name exists, and what exists is named."""

import re
from pathlib import Path

import pytest
import typer

from bot.cli import app
from bot.configuration_doc import page
from core.model.batch import BatchState
from core.model.consent import ConsentState
from core.model.run import RunState
from core.model.swap import SwapState
from tests.support import previews
from tests.support.tracked import ROOT, tracked


def pages() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md" and path.parent in (ROOT, ROOT / "docs")]


def verbs(group: typer.Typer = app, prefix: str = "moss") -> list[str]:
    found = [f"{prefix} {command.name}" for command in group.registered_commands]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found += verbs(inner.typer_instance, f"{prefix} {inner.name}")
    return found


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == page(), "run `make docs`"


def test_the_page_of_cards_is_what_the_renderers_make() -> None:
    assert (ROOT / "docs/cards.md").read_text() == previews.page(), "run `make docs`"


def test_the_readme_names_every_verb() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [verb for verb in [*verbs(), "moss run"] if not re.search(rf"{verb}\b", readme)]
    assert not missing


def test_the_readme_names_no_verb_that_does_not_exist() -> None:
    first_words = {verb.split()[1] for verb in verbs()}
    named = re.findall(r"(?:^|`|\$ )moss ([a-z][a-z-]*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert named
    assert set(named) <= first_words


def test_the_architecture_names_every_state() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for states in (BatchState, RunState, ConsentState, SwapState):
        missing = [state for state in states if not re.search(rf"\b{state}\b", text)]
        assert not missing, states.__name__


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_make_target_that_a_page_names_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4}|\$ )make ([a-z-]+)", path.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_file_that_a_page_names_exists(path: Path) -> None:
    named = re.findall(r"`((?:bot|core|docs|examples|tests|\.ci)/[\w./-]+)`", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
