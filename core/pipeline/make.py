"""A commit becomes an image: built, smoke-tested, and put to the tests of the commit it started from."""

import asyncio
from pathlib import Path

from core.containers.commit import image_of
from core.containers.host import BoxSpec, Host
from core.folders import lay
from core.model.errors import AgentFailed, BuildFailed, NotFound
from core.pipeline.trial import Bench, limits_met
from core.redact import Redactor
from core.repository import Clone

SMOKE_TIMEOUT_S = 120.0
SHOWN_CHARS = 2000


async def make_image(bench: Bench, clone: Clone, commit: str, base_commit: str, log: Path) -> str:
    lay(bench.scratch, {})
    return await image_of(
        bench.host, clone, bench.substrate, commit, bench.labels, base=base_commit, work=bench.scratch, log=log
    )


async def check_image(bench: Bench, clone: Clone, image: str, base_commit: str, log: Path) -> None:
    """Raises BuildFailed when the smoke test or the base commit's tests fail. What they print goes to the log."""
    smoke, tests = bench.substrate.smoke, bench.substrate.tests
    if smoke:
        box = bench.box("smoke", image, "check", smoke)
        await _must_pass(bench.host, box, f"smoke test `{' '.join(smoke)}`", SMOKE_TIMEOUT_S, log)
    if tests:
        box = bench.box("tests", image, "check", tests.command)
        what = f"base commit's test suite `{' '.join(tests.command)}`"
        lay(bench.scratch, {})
        await clone.put_tests(base_commit, tests.paths, bench.scratch)
        await _must_pass(bench.host, box, what, tests.timeout_s, log, bench.scratch)


async def _must_pass(  # noqa: PLR0917
    host: Host, box: BoxSpec, what: str, timeout_s: float, log: Path, laid: Path | None = None
) -> None:
    try:
        await host.create(box)
        if laid:
            await host.put(box.name, laid)
        await host.start(box.name)
        code = await host.wait(box.name, timeout_s)
        said = Redactor().text(await host.logs(box.name))
        met = "" if code == 0 else await limits_met(host, box)
    except (AgentFailed, NotFound) as failed:
        raise BuildFailed(f"The {what} could not be run: {failed.sentence}") from failed
    finally:
        await asyncio.shield(host.remove(box.name))
    end = f"ended with exit code {code}" if code is not None else f"did not end within {timeout_s:.0f} s"
    with log.open("a", encoding="utf-8", errors="replace") as file:
        file.write(f"The {what} {'passed' if code == 0 else end}.\n{said}\n")
    if code != 0:
        raise BuildFailed(f"The {what} {end}. {met}Its last words: {said[-SHOWN_CHARS:].strip()}")
