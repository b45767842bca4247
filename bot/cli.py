"""The `moss` command: every verb on one screen. What a verb does is in the three files of commands."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException

from bot import commands_act as act
from bot import commands_read as read
from bot import commands_setup as setup
from bot import usage
from bot.demo.command import demo
from bot.exits import DONE, EXIT_CODES, INTERRUPTED
from bot.terminal import AsJson, choose_settings, complain, show
from core.model.errors import BadInput, MossError

EXAMPLES: dict[str, tuple[str, ...]] = {}
"""Verb -> what one could type."""

WIDTH = 100
PAGE = {"max_content_width": WIDTH}


def _below(about: str, *lines: str) -> str:
    return "\n".join(["\b", f"{about}:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=PAGE,
    epilog=_below("Exit codes", *(f"{code:<4} {about}" for code, about in EXIT_CODES.items())),
)


@app.callback()
def moss(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The settings; otherwise MOSS_CONFIG or ./moss.toml."),
    ] = None,
) -> None:
    """A deployed LLM agent repairs its own source code, with consent."""
    choose_settings(config)


def verb(name: str, run: Callable[..., Any], *examples: str, group: typer.Typer = app, of: str = "") -> None:
    EXAMPLES[f"{of} {name}".strip()] = examples
    group.command(name, epilog=_below("Examples", *examples), context_settings=PAGE)(run)


def group(name: str, about: str) -> typer.Typer:
    made = typer.Typer(no_args_is_help=True, help=about, context_settings=PAGE)
    app.add_typer(made, name=name)
    return made


verb("init", setup.init, "moss init --approver anna --approver ben", "moss init --coder './my-coder --quiet'")
verb("demo", demo, "moss demo", "moss demo --open", "moss demo --headless --json --fix wrong")
verb("doctor", setup.doctor, "moss doctor", "moss doctor --strict --json")
run = typer.Typer(context_settings=PAGE)
RUN_EXAMPLES = ("moss run", "moss run --json", "moss run show run-7k3f9q2m")
run.callback(invoke_without_command=True, epilog=_below("Examples", *RUN_EXAMPLES))(setup.run)
app.add_typer(run, name="run")
EXAMPLES["run"] = RUN_EXAMPLES
verb("adopt", act.adopt, "moss adopt", "moss adopt --substrate desk --commit 3f1c…")
verb("release", act.release, "moss release", "moss release --stop --token-file anna.token")
verb("status", read.status, "moss status", "moss status --json")
verb(
    "flag",
    act.flag,
    "moss flag 'two tickets, one answer'",
    "moss flag --place room/room/desk --message m-17 --kind incomplete",
)
verb("import", act.import_evidence, "moss import batch.jsonl", "moss import - < batch.jsonl")
verb("export", read.export, "moss export batch-7k3f9q2m > batch.jsonl", "moss export --json")
verb("batches", read.list_batches, "moss batches", "moss batches --substrate desk --json")
verb("batch", read.show_batch, "moss batch batch-7k3f9q2m")
verb("evolve", act.evolve, "moss evolve --wait", "moss evolve batch-7k3f9q2m --depth deep")
SHOWN = ("moss run show run-7k3f9q2m", "moss run show run-7k3f9q2m diff")
verb("show", read.show_run, *SHOWN, group=run, of="run")
verb("stop", act.stop, "moss stop run-7k3f9q2m")
verb("restart", act.restart, "moss restart run-7k3f9q2m")
verb("approve", act.approve, "moss approve run-7k3f9q2m", "moss approve run-7k3f9q2m --token-file anna.token")
verb("apply", act.approve, "moss apply run-7k3f9q2m")
verb("decline", act.decline, "moss decline run-7k3f9q2m --reason 'too large a change'")
verb("rollback", act.rollback, "moss rollback", "moss rollback 3 --token-file anna.token")
verb("history", read.history, "moss history", "moss history --json")
verb("digest", read.digest, "moss digest", "moss digest --days 30 --json")

people = group("people", "Who has a token for approving and for the room.")
verb("add", setup.add_person, "moss people add anna", group=people, of="people")
verb("list", setup.list_people, "moss people list", group=people, of="people")
verb("remove", setup.remove_person, "moss people remove anna", group=people, of="people")

coder = group("coder", "The coding-agent programs.")
verb("schema", setup.coder_schema, "moss coder schema locate", group=coder, of="coder")
verb("check", setup.coder_check, "moss coder check", group=coder, of="coder")

substrate = group("substrate", "The agent under evolution.")
verb("check", setup.substrate_check, "moss substrate check", group=substrate, of="substrate")

db = group("db", "The database.")
verb("upgrade", setup.db_upgrade, "moss db upgrade", group=db, of="db")
verb("verify", read.verify_chain, "moss db verify --json", group=db, of="db")


def help_(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="VERB", help="Without it: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a verb does, with an example."""
    here = context.find_root()
    for word in words or ():
        found = here.command.get_command(here, word) if isinstance(here.command, TyperGroup) else None
        if found is None:
            raise BadInput(f"There is no verb `{' '.join(words or ())}`; `moss help` lists all there are.")
        here = typer.Context(found, info_name=word, parent=here, max_content_width=WIDTH)
    shown = here.get_help()
    path = " ".join(words or ())
    verbs = {name: lines for name, lines in EXAMPLES.items() if not path or f"{name} ".startswith(f"{path} ")}
    show({"help": shown, "examples": verbs, "exit_codes": EXIT_CODES}, shown, as_json)


verb("help", help_, "moss help", "moss help evolve")
verb("version", setup.version, "moss version")


def not_text(word: str) -> bool:
    """Bytes that are no text become lone surrogates, which no database takes."""
    return any("\ud800" <= letter <= "\udfff" for letter in word)


def main(argv: list[str] | None = None) -> None:
    """Errors become one sentence and an exit code from bot/exits.py; nobody's typing mistake is a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows few letters is no reason to fall
    try:
        if any(map(not_text, arguments)):
            raise BadInput("What was typed is not text in UTF-8; type it again, in a terminal that speaks that.")
        code = app(arguments, prog_name="moss", standalone_mode=False)
    except MossError as problem:
        complain(problem.sentence, as_json)
        code = problem.exit_code
    except TyperException as problem:
        complain(usage.sentence(problem), as_json)
        code = BadInput.exit_code
    except (Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # `moss export | head`
        sys.stderr.close()
        code = DONE
    sys.exit(code if isinstance(code, int) else DONE)
