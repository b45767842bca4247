"""`moss coder check`: a coder in every role, on a tiny agent, without a run."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.coders import sample
from core.coders.ask import ask
from core.coders.catalogue import Coders
from core.coders.coder import Brief
from core.folders import clear, lay
from core.model.errors import CoderFailed, Misconduct, MossError
from core.model.replies import Evaluation, Reply, Role
from core.model.run import Spend
from core.model.value import sha256
from core.redact import Redactor
from core.repository import Change, Clone, check_scope, git


@dataclass(frozen=True, slots=True)
class Finding:
    """How a coder did in one role."""

    role: Role
    coder: str
    passed: bool
    sentence: str
    spend: Spend
    artefacts: Path
    """What it was told and what it printed."""


async def check(
    coders: Coders, where: Path, *, roles: Sequence[Role] = tuple(Role), limit_s: float = 600.0
) -> AsyncIterator[Finding]:
    """One finding per role, as each is tried. `where` is emptied first; what was printed stays there afterwards."""
    await asyncio.to_thread(clear, where)
    run = f"check-{sha256(str(where.absolute()).encode())[-8:]}"
    clone, base, change = await prepare(where)
    for role in roles:
        checkout, evidence, artefacts = (where / str(role) / part for part in ("checkout", "evidence", "artefacts"))
        await clone.checkout(change.tree if role is Role.code_review else base, checkout)
        await asyncio.to_thread(lay, evidence, sample.evidence(role, change.diff))
        brief = Brief(
            role=role,
            tag=f"{run}/{role}",
            prompt=sample.prompt(role, str(evidence)),
            checkout=checkout,
            evidence=evidence,
            artefacts=artefacts,
            may_write=role is Role.implement,
            timeout_s=min(limit_s, coders.timeout_s(role)),
        )
        coder = coders.of(role)
        try:
            await coder.ping()
            _, spend = await ask(coder, brief, objection=_objection)
            if brief.may_write:
                made = await clone.snapshot(checkout, base)
                check_scope(made, sample.SCOPE, sample.SCOPE.protected, coder.secrets)
        except MossError as error:
            cost = (error.spend if isinstance(error, CoderFailed | Misconduct) else None) or Spend()
            yield Finding(role, coder.name, False, Redactor(run, coder.secrets).text(error.sentence), cost, artefacts)
        else:
            sentence = f"Coder {coder.name} replied as role {role} asks, in {spend.seconds:.1f} s."
            yield Finding(role, coder.name, True, sentence, spend, artefacts)


def _objection(reply: Reply) -> str | None:
    wanted = {point.id for point in sample.KEYPOINTS}
    if isinstance(reply, Evaluation) and {point.id for point in reply.keypoints} != wanted:
        return f"it must score exactly the keypoints of brief.json: {', '.join(sorted(wanted))}"
    return None


async def prepare(where: Path) -> tuple[Clone, str, Change]:
    """A repository of the tiny agent, a clone of it, and the change that mends it."""
    source = where / "source"
    own = source / ".git"
    await asyncio.to_thread(lay, source, sample.SOURCE)
    await git.must(own, "init", "--quiet", "--template=", work_tree=source)
    await git.must(own, "add", "--all", work_tree=source)
    who = ("-c", "user.name=Moss", "-c", "user.email=moss@localhost")
    await git.must(own, *who, "commit", "--quiet", "-m", "A very small agent", work_tree=source)
    clone = await Clone.of(str(source), where / "clone.git")
    base = await clone.head("base")
    mended = where / "mended"
    await asyncio.to_thread(lay, mended, sample.MENDED)
    return clone, base, await clone.snapshot(mended, base)
