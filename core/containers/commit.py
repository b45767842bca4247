"""A commit becomes an image."""

import posixpath
from collections.abc import Mapping
from pathlib import Path

from core.containers.host import Host, Recipe, label
from core.folders import to_its_end
from core.model.substrate import Substrate
from core.redact import Redactor
from core.repository import Clone


async def image_of(
    host: Host,
    clone: Clone,
    substrate: Substrate,
    commit: str,
    labels: Mapping[str, str],
    *,
    base: str,
    work: Path,
    log: Path,
) -> str:
    """The image's digest. `base` is the commit that people stand by: that of a candidate's run, or this one itself.
    `work` is a directory that the files of both may be laid into."""
    source = work / "source"
    await clone.export(commit, source)
    approved = await dockerfile_of(clone, substrate, base, work / "approved")
    labels = {
        **labels,
        label.SUBSTRATE: substrate.name,
        label.PURPOSE: "candidate",
        label.COMMIT: commit,
        label.TREE: await clone.tree_of(commit),
    }
    try:
        return await host.build(Recipe.of(substrate.build, source, labels, log, approved))
    finally:
        await to_its_end(Redactor().file, log)


async def dockerfile_of(clone: Clone, substrate: Substrate, commit: str, where: Path) -> str:
    """As it stands in a commit; empty where there is none, or a link."""
    path = posixpath.normpath(posixpath.join(substrate.build.context, substrate.build.dockerfile))
    await clone.put_tests(commit, [f"/{path}"], where)
    file = where.resolve() / path
    return file.read_text(errors="replace") if file.is_file() and file.resolve() == file else ""
