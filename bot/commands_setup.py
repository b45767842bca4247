"""Verbs for whoever runs Moss: start it, check it, and keep its people and its database."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bot import VERSION, render
from bot import doctor as diagnosis
from bot.data import prepare
from bot.settings import variable
from bot.terminal import AsJson, Which, load_settings, opened_store, show, verb
from core.coders import catalogue
from core.coders.check import check
from core.model.errors import BadInput
from core.model.replies import Role, schema
from core.pipeline.check_substrate import Finding, Outcome
from core.store import people
from core.store.store import upgrade

Name = Annotated[str, typer.Argument(metavar="NAME")]


def run(context: typer.Context) -> None:
    """Start the Moss that works; it stays in the foreground until it is told to end."""
    if context.invoked_subcommand is None:
        start()


@verb
async def start() -> None:
    from bot import wiring  # noqa: PLC0415 (half a second of imports that no other verb needs)

    await wiring.run(load_settings())


@verb
async def doctor(as_json: AsJson = False) -> None:
    """Check everything Moss needs, one line each, with the mend."""
    findings = await diagnosis.examine(load_settings)
    show(findings, lambda: diagnosis.report(findings), as_json)
    _fail_if_failed(findings)


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
        token = await people.add(store, name)
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
        (name, "approver" if name in settings.consent.approvers else "", render.moment(known.get(name)) or "no token")
        for name in sorted(known.keys() | settings.consent.approvers)
    ]
    show(data, lambda: render.rows(("name", "", "token since"), cells, "Nobody yet: `moss people add NAME`."), as_json)


@verb
async def remove_person(name: Name, as_json: AsJson = False) -> None:
    """Make a person's token worthless."""
    async with opened_store(load_settings()) as store:
        await people.remove(store, name)
    show({"removed": name}, f"{name} has no token any more.", as_json)


def coder_schema(role: Annotated[Role, typer.Argument(metavar="ROLE")]) -> None:
    """Print the JSON Schema of what a coder must reply in a role."""
    show(schema(role), "", as_json=True)


@verb
async def coder_check(as_json: AsJson = False) -> None:
    """Try the coding-agent program in every role, on a tiny agent and without a run."""
    settings = load_settings()
    coders, where = catalogue.coders(settings.coder), settings.data / "coder-check"
    prepare(settings.data)
    findings = []
    async for each in check(coders, where):
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
