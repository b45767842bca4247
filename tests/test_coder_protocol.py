"""docs/coder-protocol.md says what the code does: every example, field, variable, file and limit in it is checked."""

import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

import core.model.brief
import core.model.replies
import core.model.transcript
from core.coders import ask, coder
from core.coders.catalogue import TIME_LIMITS_S, CoderSettings, coders
from core.coders.check import check
from core.coders.coder import Brief, Way
from core.coders.command import Command, Report
from core.coders.customary import ModelVariable
from core.coders.program import Variable
from core.coders.reply import LOOKED_AT, last_object, read_reply
from core.model.brief import EVIDENCE, BriefFile, MatrixFile, TaskFile, TrialFile
from core.model.replies import REPLIES, Role
from core.model.transcript import Transcript
from core.pipeline.brief import MAY_WRITE
from tests.support.field_table import field_table

PAGE = (Path(__file__).parent.parent / "docs/coder-protocol.md").read_text("utf-8")
FILES: dict[str, type[BaseModel]] = {
    "brief.json": BriefFile,
    "tasks/t1.json": TaskFile,
    "transcript.json": Transcript,
    "trials/t1-1.json": TrialFile,
    "matrix.json": MatrixFile,
}


def section(heading: str) -> str:
    """What stands below a heading, up to the next."""
    return re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def example(heading: str, language: str = "json") -> str:
    return section(heading).split(f"```{language}\n", 1)[1].split("```", 1)[0]


def table_after(words: str) -> list[list[str]]:
    lines = PAGE.split(words, 1)[1].lstrip().splitlines()
    rows = lines[: next(n for n, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in re.split(r" \| ", row.strip("|"))] for row in rows[2:]]


@pytest.mark.parametrize("role", Role)
def test_the_example_reply_of_a_role_is_valid_and_shows_every_field(role: Role) -> None:
    text = example(f"`{role}`")
    assert isinstance(read_reply(role, text), REPLIES[role])
    assert set(last_object(text)) - {"spend"} == set(REPLIES[role].model_fields)
    Report.model_validate(last_object(text).get("spend", {}))


@pytest.mark.parametrize("name", FILES)
def test_the_example_of_a_file_is_valid(name: str) -> None:
    text = example(f"`{name}`")
    FILES[name].model_validate_json(text)
    assert set(last_object(text)) == set(FILES[name].model_fields)


def test_the_tables_of_fields_are_those_of_the_models() -> None:
    modules = (core.model.brief, core.model.replies, core.model.transcript)
    names = re.findall(r"<!-- fields: (\w+) -->", PAGE)
    assert {model.__name__ for model in REPLIES.values()} < set(names)
    for name in names:
        model = next(getattr(module, name) for module in modules if hasattr(module, name))
        table = field_table(model)
        assert f"<!-- fields: {name} -->\n\n{table}\n" in PAGE, f"the page should show for {name}:\n{table}"


def test_the_variables_are_those_that_are_set() -> None:
    rows = table_after("holds these variables and no others:")
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(Variable) | {"LANG", "LC_ALL", "TZ"}
    assert set(re.findall(r"\bMOSS_\w+", PAGE)) <= {*Variable, *ModelVariable}


def test_the_variables_that_lead_to_a_model_are_those_that_are_set() -> None:
    rows = table_after("Then it also gets")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == set(ModelVariable)
    way = Way("http://127.0.0.1:4100", "token", apis=("anthropic", "openai", "gemini"))
    brief = Brief(Role.plan, "t", "p", Path(), Path(), Path(), False, 1)
    assert Command().start(brief, Path(), None).env == {}
    assert set(Command().start(brief, Path(), way).env) == set(ModelVariable)
    some = Command(("OPENAI_API_KEY",)).start(brief, Path(), replace(way, apis=("openai", "gemini"))).env
    assert set(some) == {"MOSS_GATEWAY", "MOSS_GATEWAY_TOKEN", "GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"}
    assert some["GOOGLE_GEMINI_BASE_URL"] == "http://127.0.0.1:4100/gemini"


def test_each_role_has_its_files_its_right_and_its_time() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table_after("whatever you add to it.")}
    assert rows.keys() == set(Role)
    for role in Role:
        files, may_edit, time = rows[role]
        assert re.findall(r"`([^`]+)`", files) == [re.sub(r"\{.*\}", "*", name) for name in EVIDENCE[role]]
        assert may_edit == ("yes" if role in MAY_WRITE else "no")
        assert time == f"{TIME_LIMITS_S[role]:.0f} s"


def test_limits_and_names_are_those_of_the_code() -> None:
    page = " ".join(PAGE.split())
    assert f"more than {Brief.__dataclass_fields__['output_limit_bytes'].default:,} bytes" in page
    assert f"the last {LOOKED_AT:,} characters" in page
    for name in (ask.PROMPT, coder.STDOUT, coder.STDERR, ask.REPLY, f"{ask.REPAIR}/"):
        assert f"`{name}`" in section("Try it")


def test_the_settings_shown_are_settings() -> None:
    shown = tomllib.loads(example("How it is started", "toml"))["coder"]
    made = coders(CoderSettings.model_validate(shown))
    assert made.timeout_s(Role.implement) == 7200


async def test_the_complete_coder_passes_the_check(tmp_path: Path) -> None:
    program = tmp_path / "coder.py"
    program.write_text(example("A complete coder", "python"))
    made = coders(CoderSettings(argv=(sys.executable, str(program))))
    assert [finding.sentence async for finding in check(made, tmp_path / "check") if not finding.passed] == []
    assert len(program.read_text().splitlines()) < 45
