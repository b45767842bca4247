"""The sandbox `container`: a container of the owner's image, without network, rights or anything that is not shown.

The image brings the program; of this machine it gets what its question needs, under the same paths.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from core.coders import post
from core.coders.coder import STDERR, STDOUT, Brief, Ended, Lane, Order
from core.coders.showing import Secret, named
from core.containers import docker_plan as plan
from core.containers.docker_coder import CoderBox, CoderBoxes
from core.containers.host import label
from core.process_table import TAG

PURPOSE = "coder"
_KEYS = (".ssh", ".aws")
"""What of a home is set up as a trap: the rest of it may be where the image keeps its programs."""
_SCRATCH_MB = 512


@dataclass(frozen=True, slots=True)
class ContainerSandbox:
    """A Sandbox."""

    boxes: CoderBoxes
    image: str
    secret: Secret
    owner: str
    name: str = "container"
    confines: bool = True
    has_programs: bool = True

    async def ping(self) -> str:
        about = await self.boxes.ping(self.image)
        return f"container: coders see their question and an image of yours, and have no network ({about})"

    def url(self, lane: Lane) -> str:
        return post.url(lane)

    async def run(self, order: Order) -> Ended:
        brief = order.brief
        traps = post.traps(self.secret, tuple(self.secret.home / name for name in _KEYS))
        env = {name: value for name, value in order.env.items() if name != "PATH"}  # the image has its own
        async with post.opened(order, env, traps, beside=True) as office:
            finished = await self.boxes.run(
                self._box(order, office.where, traps),
                brief.prompt.encode(),
                timeout_s=brief.timeout_s,
                limit_bytes=brief.output_limit_bytes,
                stdout_to=brief.artefacts / STDOUT,
                stderr_to=brief.artefacts / STDERR,
            )
            told = await office.heard_out()
            if told.starved:
                told.excess = f"took more than {plan.CODER_MB} MB of memory"
            return post.ended(order, finished, told, self.name)

    def _box(self, order: Order, office: Path, traps: post.Traps) -> CoderBox:
        brief = order.brief
        owner = brief.checkout.stat()
        shown = {path: (path.resolve(), False) for path in (*order.shows, *named(order.argv, self.secret))}
        shown |= {brief.checkout: (brief.checkout, brief.may_write), brief.evidence: (brief.evidence, False)}
        shown |= {order.home: (order.home, True), post.WITHIN: (office, False)}
        shown |= {Path("/etc", name): (office / name, False) for name in ("passwd", "group")}
        if order.lane:
            shown[post.WITHIN / "lane"] = (order.lane.socket, False)
        scratch = dict.fromkeys((Path("/tmp"), Path("/var/tmp")), _SCRATCH_MB)
        scratch |= dict.fromkeys((Path("/run"), *traps.folders), 1)
        return CoderBox(
            name=f"moss-coder-{hashlib.sha256(f'{self.owner} {brief.tag}'.encode()).hexdigest()[:12]}",
            image=self.image,
            command=("python3", *post.STARTER),
            labels={label.OWNER: self.owner, label.PURPOSE: PURPOSE, **_whose(brief)},
            env={TAG: brief.tag},
            user=f"{owner.st_uid}:{owner.st_gid}",
            shown=shown,
            scratch=scratch,
        )


def _whose(brief: Brief) -> dict[str, str]:
    """By these it is found to belong to nothing that is under way, should Moss die meanwhile."""
    if brief.account is None:
        return {label.RUN: brief.tag.partition("/")[0]}
    account = brief.account
    return {label.SUBSTRATE: account.substrate, label.RUN: account.run, label.STEP: str(account.n)}
