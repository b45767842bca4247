"""The `moss` command: every verb on one screen. What a verb does is in the three files of commands."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from bot import commands_act as act
from bot import commands_read as read
from bot import commands_setup as setup
from bot.terminal import choose_settings, complain
from core.model.errors import BadInput, MossError

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def moss(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The settings; otherwise MOSS_CONFIG or ./moss.toml."),
    ] = None,
) -> None:
    """A deployed LLM agent repairs its own source code, with consent."""
    choose_settings(config)


app.command("status")(read.status)
app.command("batches")(read.list_batches)
app.command("batch")(read.show_batch)
app.command("import")(act.import_evidence)
app.command("export")(read.export)
app.command("evolve")(act.evolve)
app.command("stop")(act.stop)
app.command("restart")(act.restart)
app.command("approve")(act.approve)
app.command("decline")(act.decline)
app.command("adopt")(act.adopt)
app.command("rollback")(act.rollback)
app.command("history")(read.history)
app.command("doctor")(setup.doctor)
app.command("version")(setup.version)


def _group(name: str, about: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=about)
    app.add_typer(group, name=name)
    return group


run = typer.Typer()
run.callback(invoke_without_command=True)(setup.run)
run.command("show")(read.show_run)
app.add_typer(run, name="run")

people = _group("people", "Who has a token for approving.")
people.command("add")(setup.add_person)
people.command("list")(setup.list_people)
people.command("remove")(setup.remove_person)

coder = _group("coder", "The coding-agent programs.")
coder.command("schema")(setup.coder_schema)
coder.command("check")(setup.coder_check)

substrate = _group("substrate", "The agent under evolution.")
substrate.command("check")(setup.substrate_check)

db = _group("db", "The database.")
db.command("upgrade")(setup.db_upgrade)
db.command("verify")(read.verify_chain)


def main(argv: list[str] | None = None) -> None:
    """Errors become one sentence and an exit code from core/model/errors.py; nobody's typing mistake is a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    try:
        code = app(arguments, prog_name="moss", standalone_mode=False)
    except MossError as problem:
        complain(problem.sentence, as_json)
        code = problem.exit_code
    except TyperException as problem:
        complain(problem.format_message(), as_json)
        code = BadInput.exit_code
    except (Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # `moss export | head`
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
