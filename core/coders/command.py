"""The provider `command`: any program becomes a coding agent. `docs/coder-protocol.md` is written for its author."""

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core import process
from core.coders.coder import STDERR, STDOUT, Answer, Brief, failed
from core.coders.reply import NotAReply, last_object
from core.model.errors import Misconduct, Unavailable
from core.model.replies import schema
from core.model.run import Spend
from core.redact import without_values


class Variable(StrEnum):
    """What Moss puts into the program's environment, besides PATH, LANG, LC_ALL, TZ and what `env_from` names."""

    HOME = "HOME"
    TMPDIR = "TMPDIR"
    MOSS_ROLE = "MOSS_ROLE"
    MOSS_RUN = "MOSS_RUN"
    MOSS_EVIDENCE = "MOSS_EVIDENCE"
    MOSS_SCHEMA = "MOSS_SCHEMA"
    MOSS_TIMEOUT_S = "MOSS_TIMEOUT_S"
    MOSS_TAG = "MOSS_TAG"
    PYTHONDONTWRITEBYTECODE = "PYTHONDONTWRITEBYTECODE"


class Report(BaseModel):
    """`spend` in a reply: what the program's model has cost, by its own account."""

    model_config = ConfigDict(extra="ignore")
    money_usd: float = Field(default=0, ge=0, le=1e6, allow_inf_nan=False)
    tokens: int = Field(default=0, ge=0, le=10**12)


@dataclass(frozen=True, slots=True)
class CommandCoder:
    name: str
    argv: tuple[str, ...]
    env_from: tuple[str, ...] = ()
    """Variables of Moss's own environment that the program needs, such as the key of its model."""

    async def ping(self) -> str:
        self._passed_on()
        program = self._program()
        if script := missing_script(self.argv):
            what = f"`{script}`, which `{self.argv[0]}` is to run, is not there"
            raise Unavailable(f"{what}; correct `argv` of the coder.")
        return f"{self.name}: {program}"

    async def answer(self, brief: Brief, home: Path) -> Answer:
        try:
            secrets = self._passed_on()
            argv = [self._program(), *self.argv[1:]]
            done = await process.run(
                argv,
                cwd=brief.checkout,
                env=self._environment(brief, home),
                stdin=brief.prompt.encode(),
                timeout_s=brief.timeout_s,
                limit_bytes=brief.output_limit_bytes,
                stdout_to=brief.artefacts / STDOUT,
                stderr_to=brief.artefacts / STDERR,
                tag=brief.tag,
            )
        except Unavailable as missing:
            raise failed(self, brief, missing.sentence) from None
        spend = Spend(seconds=done.seconds)
        printed = (done.stdout, done.stderr)
        text, complaint = (without_values(said.decode("utf-8", "replace"), secrets) for said in printed)
        if secrets:
            await asyncio.to_thread(_rewrite, brief.artefacts, {STDOUT: text, STDERR: complaint})
        if done.left_behind:
            left = Misconduct(f"Coder {self.name} left a process behind in role {brief.role}; it was killed.")
            left.spend = spend
            raise left
        if done.timed_out:
            raise failed(self, brief, f"it did not end within {brief.timeout_s:.0f} s and was killed", spend)
        if done.cut:
            limit = brief.output_limit_bytes
            raise failed(self, brief, f"it printed more than {limit} bytes and was killed", spend)
        spend = spend + await asyncio.to_thread(self._report, text, brief, spend)
        if done.exit_code:
            raise failed(self, brief, f"it {_ended(done.exit_code)}{_last_line(complaint)}", spend)
        return Answer(text, spend)

    def _environment(self, brief: Brief, home: Path) -> dict[str, str]:
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
            # A reader that runs the code must not leave byte code in a checkout that it may not change.
            Variable.PYTHONDONTWRITEBYTECODE: "1",
        }
        return process.safe_env(*self.env_from, **{str(name): value for name, value in given.items()})

    def _passed_on(self) -> dict[str, str]:
        env = process.safe_env(*self.env_from)
        missing = [name for name in self.env_from if not env.get(name)]
        if missing:
            raise Unavailable(
                f"Coder {self.name} needs {', '.join(missing)}, which Moss's environment lacks; "
                "set it before Moss starts, or take it out of `env_from`."
            )
        return {name: env[name] for name in self.env_from}

    def _program(self) -> str:
        """Looked up by Moss, before the checkout becomes the working directory."""
        found = shutil.which(self.argv[0], path=process.safe_env().get("PATH"))
        if found is None:
            where = "does not exist or is not executable" if "/" in self.argv[0] else "was not found on PATH"
            raise Unavailable(f"`{self.argv[0]}` {where}; install it, or correct `argv` of the coder.")
        return str(Path(found).absolute())

    def _report(self, text: str, brief: Brief, spend: Spend) -> Spend:
        try:
            said = last_object(text).get("spend") if '"spend"' in text else None
            report = Report.model_validate({} if said is None else said)
        except NotAReply:
            return Spend()
        except ValidationError:
            reason = "its reply reports a `spend` that is no amount of tokens and money"
            raise failed(self, brief, reason, spend) from None
        return Spend(money_usd=report.money_usd, tokens=report.tokens)


def missing_script(argv: tuple[str, ...]) -> str | None:
    """What an interpreter is to run, when it is named by its path and not there. Later words may be anything."""
    script = next((word for word in argv[1:] if not word.startswith("-")), "")
    return script if script.startswith("/") and not Path(script).exists() else None


def _rewrite(artefacts: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (artefacts / name).write_text(text, encoding="utf-8")


def _ended(exit_code: int) -> str:
    return f"was ended by signal {-exit_code}" if exit_code < 0 else f"exited with {exit_code}"


def _last_line(complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    said = re.sub(r"[^ -~\u00a0-\ud7ff\ue000-\ufffd]", "", lines[-1])[:200] if lines else ""
    return f" ({said})" if said else ""
