"""Which sandbox coders work in, and a sentence why."""

from dataclasses import dataclass
from typing import assert_never

from core.coders.bubblewrap import Bubblewrap
from core.coders.catalogue import CoderSettings
from core.coders.coder import Ended, Lane, Order, Sandbox
from core.coders.container_sandbox import ContainerSandbox
from core.coders.host_sandbox import HostSandbox
from core.coders.showing import Secret
from core.containers.docker_coder import CoderBoxes
from core.containers.docker_host import SILENCE_S, SOCKET
from core.model.errors import MossError, Unavailable


@dataclass(frozen=True, slots=True)
class Nowhere:
    """A Sandbox that there is not: nothing confines coders here, and nobody has said that nothing need."""

    why: str
    name: str = "none"
    confines: bool = False
    has_programs: bool = False

    async def ping(self) -> str:
        raise Unavailable(self.why)

    def url(self, lane: Lane) -> str:
        return ""

    async def run(self, order: Order) -> Ended:
        raise Unavailable(self.why)


@dataclass(frozen=True, slots=True)
class Choice:
    sandbox: Sandbox
    sentence: str
    works: bool


async def choose(
    settings: CoderSettings, secret: Secret, owner: str, *, harmless: bool = False, engine_url: str = SOCKET
) -> Choice:
    """`auto` takes the strongest that works here, and none at all for nobody but a coder that is `harmless`: one that
    comes with Moss and does what is written in it."""
    try:
        secret.check(settings.shows)
    except MossError as problem:
        return Choice(Nowhere(problem.sentence), problem.sentence, works=False)
    image = settings.image
    boxes = [ContainerSandbox(CoderBoxes(engine_url, SILENCE_S), image, secret, owner)] if image else []
    match settings.sandbox:
        case "host":
            return Choice(HostSandbox(), HOST, works=True)
        case "container":
            return await _tried(*boxes)
        case "bubblewrap":
            return await _tried(Bubblewrap(secret))
        case "auto":
            return await _strongest([*boxes, Bubblewrap(secret)], harmless=harmless)
        case _:
            assert_never(settings.sandbox)


HOST = "Coders run as Moss's own user, as asked, and nothing confines them; leave out `sandbox` to change that."


async def _tried(sandbox: Sandbox) -> Choice:
    """As asked; when it does not work, it is not replaced by a weaker one."""
    try:
        return Choice(sandbox, _whole(await sandbox.ping()), works=True)
    except MossError as problem:
        return Choice(Nowhere(problem.sentence), problem.sentence, works=False)


async def _strongest(sandboxes: list[Sandbox], *, harmless: bool) -> Choice:
    why: list[str] = []
    for sandbox in sandboxes:
        tried = await _tried(sandbox)
        if tried.works:
            return Choice(sandbox, " ".join([tried.sentence, *why]), works=True)
        why.append(tried.sentence)
    if harmless:
        return Choice(HostSandbox(), f"The recorded coder runs as Moss's own user: {why[-1]}", works=True)
    return Choice(Nowhere(why[-1]), why[-1], works=False)


def _whole(told: str) -> str:
    return f"{told[:1].upper()}{told[1:].rstrip('.')}."
