"""Verbs for whoever runs Moss: start it, check it, and keep its people and its database."""

import json
import os
import shlex
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bot import VERSION, models, render
from bot import doctor as diagnosis
from bot import init as beginning
from bot.containment import containment
from bot.control import user_name
from bot.data import prepare
from bot.exits import WARNED
from bot.moss_toml import HostName, Wishes, moss_toml
from bot.settings import Settings, variable
from bot.terminal import AsJson, Which, load_settings, opened_store, settings_file, show, verb
from bot.words import moment
from core.coders import catalogue
from core.coders.check import check
from core.model.errors import BadInput, Unavailable
from core.model.replies import Role, schema
from core.pipeline.check_substrate import Finding, Outcome
from core.store import people
from core.store.store import upgrade

if TYPE_CHECKING:
    from bot.verbs import Moss

Name = Annotated[str, typer.Argument(metavar="NAME")]


def run(context: typer.Context, as_json: AsJson = False) -> None:
    """Start the Moss that works; it stays in the foreground until it is told to end."""
    if context.invoked_subcommand is None:
        start(as_json)


@verb
async def start(as_json: bool) -> None:
    from bot import first_start, greeting, wiring  # noqa: PLC0415 (half a second of imports that no other verb needs)

    async def ready(moss: "Moss") -> None:
        welcome = await first_start.welcome(moss) if moss.settings.built_in else None
        began = await greeting.started(moss, welcome, may_show=_is_read(as_json))
        if as_json:
            show(began, "", as_json)
        elif sys.stdout.isatty():
            render.console().print(greeting.greeting(began))
        elif began.tokens_file:
            render.console().print(greeting.tokens_wait(began), soft_wrap=True)
        sys.stdout.flush()
        if began.tokens:
            first_start.shown(moss.settings.data)
        if sys.stdout.isatty() and not as_json:
            await greeting.narrate(moss, render.console())

    await wiring.run(load_settings(beginning=True), ready)


def _is_read(as_json: bool) -> bool:
    """Whether somebody reads along who may see tokens: a terminal, or the program at the other end of a pipe that asked
    for JSON. What goes into a file or a journal stays there, and others read it."""
    return sys.stdout.isatty() or (as_json and stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode))


@verb
async def init(
    *,
    name: Annotated[str | None, typer.Option(help="What to call the agent; otherwise as its directory.")] = None,
    approver: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who may approve; repeatable.")] = None,
    coder: Annotated[str | None, typer.Option(metavar="COMMAND", help="Your own coding agent, with its words.")] = None,
    host: Annotated[HostName, typer.Option(help="Where agents run.")] = HostName.auto,
    trusted: Annotated[bool, typer.Option("--trusted", help="Vouch for the agent where nothing isolates it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a moss.toml that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at what is here, and write a commented moss.toml that says so. Starts nothing."""
    file = settings_file()
    try:
        words = tuple(shlex.split(coder or ""))
    except ValueError:
        raise BadInput(f"`--coder {coder}` has a quote without its end; close it.") from None
    wishes = Wishes(name, tuple(approver or ()), words, host, trusted)
    if not force and os.path.lexists(file):
        raise beginning.there_already(file)
    found = await beginning.detect(file.parent, wishes)
    beginning.write(file, moss_toml(found, wishes, file.parent), force=force)
    data = {
        "file": file,
        "repository": found.repository,
        "branch": found.branch,
        "dockerfile": found.dockerfile,
        "engine": found.engine,
        "coders": found.coders,
        "container": found.container.portrait.name if found.container else None,
        "problems": found.problems,
    }
    show(data, "\n".join(beginning.told(found, file)), as_json)


@verb
async def doctor(
    strict: Annotated[bool, typer.Option("--strict", help=f"End with {WARNED} when there are warnings only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything Moss needs, one line each, with the mend."""
    findings = await diagnosis.examine(load_settings)
    show(findings, lambda: diagnosis.report(findings), as_json)
    _fail_if_failed(findings)
    if strict and any(finding.level is Outcome.warning for finding in findings):
        raise typer.Exit(WARNED)


def _fail_if_failed(findings: Sequence[Finding]) -> None:
    if any(finding.level is Outcome.failed for finding in findings):
        raise typer.Exit(1)


@verb
async def add_person(name: Name, as_json: AsJson = False) -> None:
    """Make a person's token for approving. It is shown once."""
    if not name.strip() or not name.isprintable():
        raise BadInput("A person's name is empty or cannot be printed; write it as in `consent.approvers`.")
    settings = load_settings()
    async with opened_store(settings) as store:
        token = await people.add(store, name, _asker(settings))
    note = "" if name in settings.consent.approvers else f" {name} is not among consent.approvers yet."
    show({"name": name, "token": token}, f"{token}\nKeep it: it is shown this once.{note}", as_json)


@verb
async def list_people(as_json: AsJson = False) -> None:
    """List who has a token, and who may approve."""
    settings = load_settings()
    async with opened_store(settings) as store, store.reading() as db:
        known = {person.name: person.added_at for person in await people.listing(db)}
    data = [
        {"name": name, "approver": name in settings.consent.approvers, "token_since": known.get(name)}
        for name in sorted(known.keys() | settings.consent.approvers)
    ]
    cells = [
        (name, "approver" if name in settings.consent.approvers else "", moment(known.get(name)) or "no token")
        for name in sorted(known.keys() | settings.consent.approvers)
    ]
    show(data, lambda: render.rows(("name", "", "token since"), cells, "Nobody yet: `moss people add NAME`."), as_json)


@verb
async def remove_person(name: Name, as_json: AsJson = False) -> None:
    """Make a person's token worthless."""
    settings = load_settings()
    async with opened_store(settings) as store:
        await people.remove(store, name, _asker(settings))
    show({"removed": name}, f"{name} has no token any more.", as_json)


def _asker(settings: Settings) -> str:
    """Whoever runs this process: what they do to people's tokens stands in the chain of the installation."""
    return settings.person(f"cli:{user_name(os.getuid())}")


def coder_schema(role: Annotated[Role, typer.Argument(metavar="ROLE")], as_json: AsJson = False) -> None:
    """Print the JSON Schema of what a coder must reply in a role; with --json on one line."""
    show(schema(role), json.dumps(schema(role), indent=2), as_json)


@verb
async def coder_check(as_json: AsJson = False) -> None:
    """Try the coding-agent program in every role, on a tiny agent and without a run."""
    settings = load_settings()
    contained = await containment(settings, prepare(settings.data))
    if not contained.works:
        raise Unavailable(contained.sentence)
    _tell(Finding("sandbox", Outcome.ok, contained.sentence), as_json)
    where = settings.data / "coder-check"
    findings = []
    async with models.gateway(settings).serving() as gateway:
        async for each in check(catalogue.coders(settings.coder, contained.sandbox, gateway), where):
            findings.append(each)
            _tell(Finding(each.role, Outcome.ok if each.passed else Outcome.failed, each.sentence), as_json)
    usable = all(each.passed for each in findings)
    kept = f"What it was told and what it printed is kept in {where}."
    show(findings, "It can be used in every role." if usable else kept, as_json)
    if not usable:
        raise typer.Exit(1)


@verb
async def substrate_check(substrate: Which = None, as_json: AsJson = False) -> None:
    """Build the agent, talk to it on trial, ask its grader: whether it can be evolved as the settings say."""
    settings = load_settings()
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        _tell(finding, as_json)

    await diagnosis.check_thoroughly(settings, settings.substrate_named(substrate), tell)
    good = not any(finding.level is Outcome.failed for finding in findings)
    show(findings, "It can be evolved." if good else "It cannot be evolved yet.", as_json)
    _fail_if_failed(findings)


def _tell(finding: Finding, as_json: bool) -> None:
    if not as_json:
        show(finding, diagnosis.row(finding), as_json)


@verb
async def db_upgrade(as_json: AsJson = False) -> None:
    """Bring the database to the schema that this version of Moss needs."""
    revision = await upgrade(load_settings().database_url)
    show({"revision": revision}, f"The database has schema {revision}.", as_json)


def version(as_json: AsJson = False) -> None:
    """Print the version of Moss, and the commit it was built from where that is known."""
    commit = variable("MOSS_COMMIT")
    show({"version": VERSION, "commit": commit}, f"moss {VERSION}" + (f" ({commit[:12]})" if commit else ""), as_json)
