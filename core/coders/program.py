"""One program put to work: what every question has in common, whichever kind of coding agent answers it.

Its environment is built from a list, its home is fresh, its limits are kept, and everything that it started is gone
when it ends. How it is spoken to is its Provider's affair.
"""

import asyncio
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import structlog

from core import process
from core.coders.coder import (
    Answer,
    Api,
    Brief,
    Doubtful,
    Ended,
    Heard,
    Lane,
    Lanes,
    Order,
    Provider,
    Sandbox,
    Versions,
    Way,
    failed,
)
from core.coders.host_sandbox import HostSandbox
from core.coders.shims import without_shims
from core.model.errors import CoderFailed, Misconduct, OverBudget, Unavailable
from core.model.replies import schema
from core.model.run import Spend
from core.redact import without_values

VERSION_S = 20.0

_log = structlog.get_logger(__name__)


class Variable(StrEnum):
    """What Moss puts into the program's environment, besides LANG, LC_ALL, TZ and what `env_from` names."""

    PATH = "PATH"
    HOME = "HOME"
    TMPDIR = "TMPDIR"
    MOSS_ROLE = "MOSS_ROLE"
    MOSS_RUN = "MOSS_RUN"
    MOSS_EVIDENCE = "MOSS_EVIDENCE"
    MOSS_SCHEMA = "MOSS_SCHEMA"
    MOSS_TIMEOUT_S = "MOSS_TIMEOUT_S"
    MOSS_TAG = "MOSS_TAG"
    PYTHONDONTWRITEBYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True, slots=True)
class Program:
    """A Coder."""

    name: str
    argv: tuple[str, ...]
    provider: Provider
    env_from: tuple[str, ...] = ()
    """Variables of Moss's own environment that the program needs, such as the key of its model."""
    sandbox: Sandbox = field(default_factory=HostSandbox)
    lanes: Lanes | None = None
    shows: tuple[Path, ...] = ()
    """What a sandbox shows of this machine besides what every question needs."""

    @property
    def secrets(self) -> Mapping[str, str]:
        env = process.safe_env(*self.env_from)
        return {name: env[name] for name in self.env_from if env.get(name)}

    async def ping(self) -> str:
        self._complete()
        if self.lanes and self.provider.api:
            self.lanes.open(None, self.provider.api)  # says what is missing; nobody goes there
        program = self._path()
        if not self.sandbox.has_programs and (script := missing_script(self.argv)):
            what = f"`{script}`, which `{self.argv[0]}` is to run, is not there"
            raise Unavailable(f"{what}; correct `argv` of the coder.")
        if self.sandbox.has_programs:
            return f"{self.name}: `{program}` of its image"
        measured = self.provider.versions
        return await self._version(program, measured) if measured else f"{self.name}: {program}"

    async def _version(self, program: str, measured: Versions) -> str:
        """Asked in a home of its own, as every question is: many a program leaves something behind when it starts."""
        with tempfile.TemporaryDirectory(prefix="moss-") as home:
            env = process.safe_env(HOME=home, TMPDIR=home)
            done = await process.run((program, *self.argv[1:], "--version"), env=env, timeout_s=VERSION_S)
        found = re.search(rb"\d+(?:\.\d+)+", done.stdout)
        if done.exit_code or found is None:
            said = last_line((done.stderr or done.stdout).decode("utf-8", "replace"))
            how = "did not answer" if done.timed_out else how_it_ended(done.exit_code)
            what = f"`{program} --version` {how}{said}, and told no version"
            raise Unavailable(f"{what}; install it anew, or correct `argv` of the coder.")
        version = found[0].decode()
        line = f"{self.name}: {program}, version {version}"
        if measured.oldest <= tuple(map(int, version.split("."))) <= measured.newest:
            return line
        oldest, newest = (".".join(map(str, end)) for end in (measured.oldest, measured.newest))
        tried = oldest if oldest == newest else f"{oldest} to {newest}"
        return Doubtful(f"{line}, which was not tried with Moss, as {tried} was; `moss coder check` tries it.")

    async def answer(self, brief: Brief, home: Path) -> Answer:
        async with AsyncExitStack() as stack:
            try:
                lane = await self._lane(brief, stack)
                self._complete()
                order = await asyncio.to_thread(self._order, brief, home, lane)
                ended, closed = await self._run(order)
            except Unavailable as missing:
                raise failed(self, brief, missing.sentence) from None
            metered = lane.spend if lane else Spend()
        try:
            return await self._judge(brief, ended, metered, order.secrets)
        except CoderFailed as error:
            raise (self._over(brief, closed, error.spend) if closed else error) from None

    async def _lane(self, brief: Brief, stack: AsyncExitStack) -> Lane | None:
        if self.lanes is None or (self.provider.api is None and not self.lanes.apis):
            return None
        return await stack.enter_async_context(self.lanes.open(brief.account, self.provider.api))

    def _order(self, brief: Brief, home: Path, lane: Lane | None) -> Order:
        way = Way(self.sandbox.url(lane), lane.token, self.sandbox.confines, self._apis()) if lane else None
        start = self.provider.start(brief, home, way)
        env = self._environment(brief, home, start.env)
        for name, text in start.files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text, encoding="utf-8")
        argv = (self._path(), *self.argv[1:], *start.arguments)
        return Order(argv, env, brief, home, lane, self.shows, self.secrets)

    def _apis(self) -> tuple[Api, ...]:
        return (self.provider.api,) if self.provider.api else self.lanes.apis if self.lanes else ()

    async def _run(self, order: Order) -> tuple[Ended, str | None]:
        """To its end, or until its model is closed to it: then it could only try again and again. A program that ended
        by itself at that moment may have done its work; the reason goes with it."""
        if order.lane is None:
            return await self.sandbox.run(order), None
        began = time.monotonic()
        running, closing = asyncio.create_task(self.sandbox.run(order)), asyncio.create_task(order.lane.exhausted())
        try:
            await asyncio.wait({running, closing}, return_when=asyncio.FIRST_COMPLETED)
            closed = closing.result() if closing.done() else None
        finally:
            closing.cancel()
            if not running.done():
                running.cancel()  # and with it everything that it started
                await asyncio.gather(running, return_exceptions=True)
        if not running.cancelled():
            return running.result(), closed
        assert closed is not None, "nothing else cancels it"
        seconds = time.monotonic() - began
        raise self._over(order.brief, closed, order.lane.spend.model_copy(update={"seconds": seconds}))

    def _over(self, brief: Brief, why: str, spend: Spend | None) -> OverBudget:
        error = OverBudget(failed(self, brief, why).sentence)
        error.spend = spend
        return error

    async def _judge(self, brief: Brief, ended: Ended, metered: Spend, secrets: Mapping[str, str]) -> Answer:
        done = ended.finished
        spend = metered.model_copy(update={"seconds": done.seconds})
        said, complaint = (
            without_values(printed.decode("utf-8", "replace"), secrets) for printed in (done.stdout, done.stderr)
        )
        wrong = [*(["left a process behind"] if done.left_behind else []), *ended.deeds]
        if wrong:
            ending = "; it was killed" if done.left_behind else ""
            raise self._misconduct(brief, f"{' and '.join(wrong)} in role {brief.role}{ending}", spend)
        if done.timed_out:
            raise failed(self, brief, f"it did not end within {brief.timeout_s:.0f} s and was killed", spend)
        if ended.excess:
            raise failed(self, brief, f"it {ended.excess} and was killed", spend)
        if done.cut:
            limit = brief.output_limit_bytes
            raise failed(self, brief, f"it printed more than {limit} bytes and was killed", spend)
        try:
            heard: Heard = await asyncio.to_thread(self.provider.hear, said, complaint, done.exit_code)
        except Exception as mistake:  # a provider of ours promises that there is none
            _log.exception("a coder was not understood", coder=self.name, tag=brief.tag)
            why = f"what it printed cannot be understood ({type(mistake).__name__}); please report the log"
            raise failed(self, brief, why, spend) from None
        spend = _larger(metered, heard.spend).model_copy(update={"seconds": done.seconds})
        if heard.denied:
            _log.info("denied", coder=self.name, tag=brief.tag, denied=heard.denied)
        if heard.problem:
            raise failed(self, brief, heard.problem, spend)
        if done.exit_code:
            raise failed(self, brief, f"it {how_it_ended(done.exit_code)}{last_line(complaint)}", spend)
        return Answer(heard.text, spend, heard.session)

    def _misconduct(self, brief: Brief, what: str, spend: Spend) -> Misconduct:
        error = Misconduct(f"Coder {self.name} {what}.")
        error.spend = spend
        _log.warning("misconduct", coder=self.name, tag=brief.tag, what=what)
        return error

    def _environment(self, brief: Brief, home: Path, own: Mapping[str, str]) -> dict[str, str]:
        tmp, shape = home / "tmp", home / "schema.json"
        tmp.mkdir(exist_ok=True)
        shape.write_text(json.dumps(schema(brief.role), indent=1), encoding="utf-8")
        given = {
            Variable.HOME: str(home),
            Variable.TMPDIR: str(tmp),
            Variable.MOSS_ROLE: str(brief.role),
            Variable.MOSS_RUN: brief.tag.partition("/")[0],
            Variable.MOSS_EVIDENCE: str(brief.evidence),
            Variable.MOSS_SCHEMA: str(shape),
            Variable.MOSS_TIMEOUT_S: str(max(1, int(brief.timeout_s))),
            Variable.MOSS_TAG: brief.tag,
            Variable.PATH: _search(),
            # A reader that runs the code must not leave byte code in a checkout that it may not change.
            Variable.PYTHONDONTWRITEBYTECODE: "1",
        }
        return process.safe_env(*self.env_from, **{**own, **{str(name): value for name, value in given.items()}})

    def _complete(self) -> None:
        given = self.secrets
        if missing := [name for name in self.env_from if name not in given]:
            raise Unavailable(
                f"Coder {self.name} needs {', '.join(missing)}, which Moss's environment lacks; "
                "set it before Moss starts, or take it out of `env_from`."
            )

    def _path(self) -> str:
        """Looked up by Moss, before the checkout becomes the working directory."""
        if self.sandbox.has_programs:
            return self.argv[0]
        found = shutil.which(self.argv[0], path=_search())
        if found is None:
            where = "does not exist or is not executable" if "/" in self.argv[0] else "was not found on PATH"
            raise Unavailable(f"`{self.argv[0]}` {where}; install it, or correct `argv` of the coder.")
        return str(Path(found).absolute())


def _search() -> str:
    return without_shims(process.safe_env().get("PATH", os.defpath))


def missing_script(argv: tuple[str, ...]) -> str | None:
    """What an interpreter is to run, when it is named by its path and not there. Later words may be anything."""
    script = next((word for word in argv[1:] if not word.startswith("-")), "")
    return script if script.startswith("/") and not Path(script).exists() else None


def how_it_ended(exit_code: int) -> str:
    return f"was ended by signal {-exit_code}" if exit_code < 0 else f"exited with {exit_code}"


def _larger(metered: Spend, told: Spend) -> Spend:
    """A program that tells less than was seen of it is not believed, and one that tells more may know of more."""
    return Spend(
        money_usd=max(metered.money_usd, told.money_usd),
        tokens=max(metered.tokens, told.tokens),
        unpriced_tokens=0 if told.money_usd else metered.unpriced_tokens,
    )


def last_line(complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    said = re.sub(r"[^ -~\u00a0-\ud7ff\ue000-\ufffd]", "", lines[-1])[:200] if lines else ""
    return f" ({said})" if said else ""
