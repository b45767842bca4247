"""A place to ask one coder one question: the sample agent, checked out as in a run, and a brief for any role."""

from dataclasses import dataclass, replace
from pathlib import Path

from core.coders import check, sample
from core.coders.ask import ask
from core.coders.coder import Brief, Coder
from core.coders.command import Command
from core.coders.program import Program
from core.model.replies import Reply, Role
from core.model.run import Spend
from core.repository import Change, Clone


@dataclass(frozen=True, slots=True)
class Bench:
    where: Path
    clone: Clone
    base: str
    change: Change

    async def brief(self, role: Role = Role.locate, **different: object) -> Brief:
        """With a fresh checkout and fresh evidence."""
        checkout, evidence = self.where / "checkout", self.where / "evidence"
        await self.clone.checkout(self.base, checkout)
        check.lay(evidence, sample.evidence(role, self.change.diff))
        brief = Brief(
            role=role,
            tag=f"run-{self.where.name}/iter-1/{role}-1",
            prompt=sample.prompt(role, str(evidence)),
            checkout=checkout,
            evidence=evidence,
            artefacts=self.where / "artefacts",
            may_write=role is Role.implement,
            timeout_s=40,
        )
        return replace(brief, **different)  # type: ignore[arg-type]

    async def ask(self, coder: Coder, role: Role = Role.locate, **different: object) -> tuple[Reply, Spend]:
        return await ask(coder, await self.brief(role, **different))


def shell(script: str, *env_from: str) -> Program:
    """A coder in a few lines of shell."""
    return Program("sh", ("sh", "-c", script), Command(), env_from)
