"""A commit becomes an image."""

from collections.abc import Mapping
from pathlib import Path

from core.containers.host import Host, Recipe, label
from core.folders import to_its_end
from core.model.substrate import Substrate
from core.redact import Redactor
from core.repository import Clone


async def image_of(
    host: Host, clone: Clone, substrate: Substrate, commit: str, labels: Mapping[str, str], *, work: Path, log: Path
) -> str:
    """The image's digest. `work` is a directory that the commit's files may be laid into."""
    source = work / "source"
    await clone.export(commit, source)
    labels = {
        **labels,
        label.SUBSTRATE: substrate.name,
        label.PURPOSE: "candidate",
        label.COMMIT: commit,
        label.TREE: await clone.tree_of(commit),
    }
    try:
        return await host.build(Recipe.of(substrate.build, source, labels, log))
    finally:
        await to_its_end(Redactor().file, log)
