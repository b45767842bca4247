"""The shape of the command: help with examples, exit codes, completion, `--json` everywhere, mistakes in a sentence."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from bot.cli import EXAMPLES, app
from bot.exits import EXIT_CODES
from core.model import errors
from core.model.errors import MossError
from tests.support.command import moss
from tests.support.world import ROOT

NO_CONFIG = Path("/nowhere/moss.toml")


def commands(group: TyperGroup, path: str = "") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


ALL = dict(commands(get_command(app)))  # type: ignore[arg-type]


def test_every_verb_is_known_with_an_example() -> None:
    assert EXAMPLES.keys() == {*ALL, "run"}
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_takes_json_and_is_explained_with_its_example(verb: str) -> None:
    assert any("--json" in parameter.opts for parameter in ALL[verb].params)
    said = moss(*verb.split(), "--help", config=NO_CONFIG)
    assert said.code == 0
    assert "Examples:" in said.out
    assert all(f"  {example}" in said.out for example in EXAMPLES[verb])
    assert moss("help", *verb.split(), config=NO_CONFIG).out.split() == said.out.split()


@pytest.mark.parametrize("verb", EXAMPLES)
def test_an_example_could_be_typed_as_it_stands(verb: str) -> None:
    for example in EXAMPLES[verb]:
        words = shlex.split(example.split(" > ")[0].split(" < ")[0])
        path = verb.split()
        assert words[: len(path) + 1] == ["moss", *path]
        if verb == "run":
            continue  # its options are its own, and its words those of `run show`
        ALL[verb].make_context(verb, words[len(path) + 1 :], resilient_parsing=False)


def test_help_lists_every_verb_and_every_exit_code() -> None:
    said = moss("help", config=NO_CONFIG)
    assert said.out == moss("--help", config=NO_CONFIG).out
    assert all(re.search(rf"^  {verb.split()[0]} ", said.out, re.MULTILINE) for verb in EXAMPLES)
    assert all(
        re.search(rf"^ *{code} +{re.escape(about)}$", said.out, re.MULTILINE) for code, about in EXIT_CODES.items()
    )
    data = moss("help", "people", "--json", config=NO_CONFIG).data
    assert data["examples"].keys() == {"people add", "people list", "people remove"}
    assert data["exit_codes"] == {str(code): about for code, about in EXIT_CODES.items()}


def test_every_error_has_an_exit_code_that_is_told() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MossError)]
    assert kinds
    assert {kind.exit_code for kind in kinds} <= EXIT_CODES.keys()


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_a_page_tells_the_exit_codes_as_they_are(page: str) -> None:
    text = re.sub(r"[|\s]+", " ", (ROOT / page).read_text())
    assert [code for code, about in EXIT_CODES.items() if f" {code} {about}" not in text] == []


MISTAKES = {
    "evlove": "There is no verb `moss evlove`; did you mean `evolve`?",
    "xyz": "There is no verb `moss xyz`; `moss help` lists all there are.",
    "people ad": "There is no verb `moss people ad`; did you mean `add`?",
    "run show": "`moss run show` needs `RUN`; `moss run show --help` shows how.",
    "decline run-1": "`moss decline` needs `--reason`; `moss decline --help` shows how.",
    "run show run-1 dif": "`WHAT`: 'dif' is not one of 'diagnosis', 'plan', 'diff', 'trials', 'matrix', 'log'; "
    "`moss run show --help` shows how.",
    "evolve --depth": "`--depth` needs a value; write it behind the option.",
    "rollback first": "`VERSION`: should be a whole number; `moss rollback --help` shows how.",
    "digest --days 0": "`--days`: should be at least 1; `moss digest --help` shows how.",
    "batches --jsn": "`moss batches` has no option `--jsn`; did you mean `--json`?",
    "batches --zzz": "`moss batches` has no option `--zzz`; `moss batches --help` shows how.",
    "batches one two": "`moss batches` has no use for `one two`; `moss batches --help` shows how.",
    "help evlove": "There is no verb `evlove`; `moss help` lists all there are.",
    "help evolve more": "There is no verb `evolve more`; `moss help` lists all there are.",
    "\x1b[31mred": "There is no verb `moss \\x1b[31mred`; `moss help` lists all there are.",
}


@pytest.mark.parametrize(("typed", "sentence"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_typing_mistake_is_one_sentence_with_the_mend(typed: str, sentence: str) -> None:
    said = moss(*typed.split(), config=NO_CONFIG)
    assert (said.code, said.err) == (errors.BadInput.exit_code, f"{sentence}\n")
    with_json = moss(*typed.split(), "--json", config=NO_CONFIG)
    assert "error" in json.loads(with_json.out)


def test_words_alone_show_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = moss("people", config=NO_CONFIG)
    assert "Make a person's token" in said.out + said.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"bash": "COMP_WORDS", "zsh": "_TYPER_COMPLETE_ARGS", "fish": "_TYPER_COMPLETE_ARGS"}[shell]
    monkeypatch.setenv("_MOSS_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv(shown, "moss ev")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert "evolve" in moss(config=NO_CONFIG).out
