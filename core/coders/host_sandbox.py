"""No sandbox: the program runs as Moss's user, and may do what that user may. It has to be asked for."""

from dataclasses import dataclass

from core import process
from core.coders.coder import STDERR, STDOUT, Ended, Lane, Order


@dataclass(frozen=True, slots=True)
class HostSandbox:
    name: str = "host"
    confines: bool = False
    has_programs: bool = False

    async def ping(self) -> str:
        return "host: coders run as Moss's own user, and nothing confines them"

    def url(self, lane: Lane) -> str:
        return f"http://127.0.0.1:{lane.port}"

    async def run(self, order: Order) -> Ended:
        brief = order.brief
        finished = await process.run(
            order.argv,
            cwd=brief.checkout,
            env=order.env,
            stdin=brief.prompt.encode(),
            timeout_s=brief.timeout_s,
            limit_bytes=brief.output_limit_bytes,
            stdout_to=brief.artefacts / STDOUT,
            stderr_to=brief.artefacts / STDERR,
            tag=brief.tag,
        )
        return Ended(finished)
