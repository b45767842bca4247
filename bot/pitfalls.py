"""Settings that load and lead nowhere all the same: nobody can approve, nobody is connected to that place. Pure."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bot.chat import Health
from bot.places import ROOM, place_named
from bot.settings import Settings
from core.coders.catalogue import CoderSettings, RoleSettings
from core.coders.program import missing_script
from core.containers.docker_host import DockerHost
from core.containers.host import Host, untrusted
from core.model.consent import Policy
from core.model.errors import BadInput
from core.model.substrate import Substrate
from core.pipeline.check_substrate import Finding, Outcome
from core.process import safe_env


def failed(name: str, sentence: str) -> Finding:
    return Finding(name, Outcome.failed, sentence)


def warning(name: str, sentence: str) -> Finding:
    return Finding(name, Outcome.warning, sentence)


def not_there(image: str, what: str) -> str:
    return f"The image `{image}`, {what} is not on the engine, and has to be fetched; run `docker pull {image}`."


async def to_fetch(host: DockerHost, dockerfile: str) -> list[str]:
    """What a build of it has to fetch first. Raises BuildFailed when that cannot be said."""
    lacking = await host.lacks(dockerfile)
    return [not_there(image, f"which line {number} of the Dockerfile names,") for image, number in lacking.items()]


def of_consent(policy: Policy) -> Iterator[Finding]:
    """Whether anybody can ever approve anything."""
    count, quorum = len(policy.approvers), policy.quorum
    if not count:
        yield warning("consent", "Nobody may approve, so nothing can go live; name people as `approvers` in [consent].")
    elif quorum > count:
        yield failed(
            "consent",
            f"`quorum` is {quorum} and only {count} may approve, so nothing can ever go live; name more `approvers` in "
            "[consent], or lower `quorum`.",
        )
    elif count == 1 and not policy.allow_sole_approver:
        (only,) = policy.approvers
        yield warning(
            "consent",
            f"{only} alone may approve, and not what {only} started, alone flagged or wants rolled back; name a second "
            "approver in [consent], or set `allow_sole_approver = true`.",
        )
    elif quorum == count > 1:
        yield warning(
            "consent",
            f"All {count} approvers must approve, and who starts a run does not count, so that what an approver starts "
            "can never go live; name more `approvers` in [consent], or lower `quorum`.",
        )


def of_ways(coder: CoderSettings) -> Iterator[Finding]:
    """Whether the coder is told of a way to its model that it cannot go where it works."""
    every: tuple[CoderSettings | RoleSettings, ...] = (coder, *coder.roles.values())
    names = sorted({name for own in every for name in own.env_from or ()})
    if names:
        yield warning(
            "sandbox",
            f"The coder is given {', '.join(names)}, and has no network in its sandbox; let it reach its model through "
            'Moss, or ask for `sandbox = "host"`.',
        )
    for url in sorted({own.base_url for own in every if own.base_url}):
        yield warning(
            "sandbox",
            f"The coder is to ask {url}, and has no network in its sandbox; write that as `url` into "
            "[gateway.anthropic], [gateway.openai] or [gateway.gemini] instead of `base_url`, or ask for "
            '`sandbox = "host"`.',
        )


def of_people(settings: Settings, with_token: Collection[str]) -> Iterator[Finding]:
    """Whether the approvers are the people they should be."""
    owners: dict[str, str] = {}
    for person, others in sorted(settings.people.items()):
        for other in others:
            if owners.setdefault(other, person) != person:
                yield warning(
                    "people", f"`{other}` stands for {owners[other]} and for {person}; leave it to one of them."
                )
    for approver in sorted(settings.consent.approvers):
        person = settings.person(approver)
        if person != approver:
            sentence = (
                f"The approver `{approver}` is another name of {person}, and never asked; write {person} instead."
            )
            yield warning("consent", sentence)
        elif ":" not in approver and approver not in with_token:
            sentence = f"The approver {approver} has no token yet, which room and command line ask for; "
            yield warning("people", f"{sentence}`moss people add {approver}` makes one.")


def connected(settings: Settings) -> set[str]:
    """The platforms on which this Moss speaks."""
    there = {ROOM: settings.room.enabled, "slack": settings.slack, "discord": settings.discord}
    return {platform for platform, section in there.items() if section}


def of_places(settings: Settings, running: Sequence[Health] = ()) -> Iterator[Finding]:
    """`running` are the connections of a Moss that runs: of which workspace a token of Slack's is, it alone knows."""
    teams = {each.workspace for each in running if each.platform == "slack" and each.workspace}
    channels = {each.name for each in settings.substrate} | settings.room.channels.keys()
    named = [("digest", text) for text in settings.digest.places]
    named += [("announce", settings.announce.place)] if settings.announce.place else []
    for section, text in named:
        try:
            place = place_named(text)
        except BadInput as problem:
            yield failed(section, problem.sentence)
            continue
        if place.platform not in connected(settings):
            known = ", ".join(sorted(connected(settings))) or "none"
            yield failed(section, f"`{text}` is on {place.platform}, which is not connected; connected: {known}.")
        elif place.platform == ROOM and (place.workspace != ROOM or place.channel not in channels):
            there = ", ".join(f"room/room/{channel}" for channel in sorted(channels))
            yield failed(section, f"The room has no `{text}`; it has {there}.")
        elif settings.discord and place.platform == "discord" and place.workspace not in settings.discord.guilds:
            yield failed(section, f"`{text}` is on a server that is not among the `guilds` of [discord]; add it there.")
        elif place.platform == "slack" and teams and place.workspace not in teams:
            yield failed(section, f"`{text}` is in no workspace of this Moss; it is in {', '.join(sorted(teams))}.")
    for channel, name in sorted(settings.room.channels.items()):
        if name not in {each.name for each in settings.substrate}:
            yield failed(
                "room", f"The channel `{channel}` leads to `{name}`, and no substrate is named so; correct it."
            )


def of_substrate(substrate: Substrate, host: Host) -> Iterator[Finding]:
    """What this host asks of an agent, as far as the settings tell."""
    name, run = f"substrate {substrate.name}", substrate.run
    if problem := untrusted(host, substrate):
        yield failed(name, problem)
    if not host.isolates and not run.command:
        yield failed(name, "It has no `run.command`, and a plain process needs one; add it to [substrate.run].")
    if not host.isolates and run.user:
        yield failed(name, "It names `run.user`, and plain processes run as the user of Moss; leave it out.")
    if lacking := [each for each in run.env_from if each not in safe_env(*run.env_from)]:
        yield failed(
            name, f"`run.env_from` names {', '.join(lacking)}, which is not set here; set it before `moss run`."
        )
    if substrate.notices and (lacks := substrate.notices.token_from) and lacks not in safe_env(lacks):
        yield failed(name, f"`notices.token_from` names {lacks}, which is not set here; set it before `moss run`.")
    for file in substrate.tasks:
        if not Path(file).is_file():
            yield failed(name, f"`tasks` names {file}, which is not a file; mend the path.")
    if (fixture := substrate.trials.fixture) and not Path(fixture).is_dir():
        yield failed(name, f"`trials.fixture` names {fixture}, which is not a directory; mend the path.")
    if substrate.grader and (gone := missing_script(substrate.grader.command)):
        yield failed(name, f"`grader` names {gone}, which does not exist; mend the path.")
    if substrate.tests is None:
        judges = "the smoke test and replays judge" if substrate.smoke else "replays judge"
        yield warning(name, f"It names no tests, so that only {judges} a change; add [substrate.tests].")
    if run.volume is None:
        yield warning(
            name, "It has no `run.volume`, so that a swap forgets what the agent wrote; add one if it writes."
        )
