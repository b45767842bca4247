"""A commit becomes an image: built, smoke-tested, and put to the tests of the commit it started from."""

import asyncio
from pathlib import Path

from core.containers.host import BoxSpec, Host, Recipe, label
from core.folders import lay
from core.model.errors import AgentFailed, BuildFailed, NotFound
from core.pipeline.trial import Bench
from core.repository import Clone

SMOKE_TIMEOUT_S = 120.0
SHOWN_BYTES = 2000


async def make_image(bench: Bench, clone: Clone, commit: str, log: Path) -> str:
    build = bench.substrate.build
    labels = {
        **bench.labels,
        label.SUBSTRATE: bench.substrate.name,
        label.PURPOSE: "candidate",
        label.COMMIT: commit,
        label.TREE: await clone.tree_of(commit),
    }
    lay(bench.scratch, {})
    source = bench.scratch / "source"
    await clone.export(commit, source)
    return await bench.host.build(
        Recipe(
            source=source,
            dockerfile=build.dockerfile,
            context=build.context,
            command=build.command,
            network=build.network,
            timeout_s=build.timeout_s,
            labels=labels,
            log=log,
        )
    )


async def check_image(bench: Bench, clone: Clone, image: str, base_commit: str) -> str:
    """Raises BuildFailed when the smoke test or the base commit's tests fail; returns what they printed."""
    smoke, tests, said = bench.substrate.smoke, bench.substrate.tests, ""
    if smoke:
        box = bench.box("smoke", image, "check", smoke)
        said += await _must_pass(bench.host, box, f"smoke test `{' '.join(smoke)}`", SMOKE_TIMEOUT_S)
    if tests:
        box = bench.box("tests", image, "check", tests.command)
        what = f"base commit's test suite `{' '.join(tests.command)}`"
        lay(bench.scratch, {})
        await clone.put_tests(base_commit, tests.paths, bench.scratch)
        said += await _must_pass(bench.host, box, what, tests.timeout_s, bench.scratch)
    return said


async def _must_pass(host: Host, box: BoxSpec, what: str, timeout_s: float, laid: Path | None = None) -> str:
    try:
        await host.create(box)
        if laid:
            await host.put(box.name, laid)
        await host.start(box.name)
        code = await host.wait(box.name, timeout_s)
        said = await host.logs(box.name)
    except (AgentFailed, NotFound) as failed:
        raise BuildFailed(f"The {what} could not be run: {failed.sentence}") from failed
    finally:
        await asyncio.shield(host.remove(box.name))
    if code == 0:
        return f"The {what} passed.\n{said}\n"
    end = f"ended with exit code {code}" if code is not None else f"did not end within {timeout_s:.0f} s"
    raise BuildFailed(f"The {what} {end}. Its last words: {said[-SHOWN_BYTES:].strip()}")
