"""Settings: every mistake is named at once, with place and mend; paths start at moss.toml; secrets stay hidden."""

from pathlib import Path

import pytest

from bot.settings import Settings, load
from core.model.errors import BadInput, NotFound
from core.model.run import Dial

GOOD = """
[moss]
data = "data"

[substrate]
name = "desk"
repository = "agent"

[substrate.health]
http = "/health"

[coder]
argv = ["./coder.py"]
"""


def settings(tmp_path: Path, text: str = GOOD, **environ: str) -> Settings:
    file = tmp_path / "moss.toml"
    file.write_text(text)
    return load(file, environ)


def complaint(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(BadInput) as problem:
        settings(tmp_path, text, **environ)
    return problem.value.sentence


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    made = settings(tmp_path)
    assert made.substrate_named(None).name == "desk"
    assert made.evolve.depth is Dial.standard
    assert made.consent.approvers == frozenset()
    assert made.database_url == f"sqlite:///{tmp_path}/data/moss.db"


def test_relative_paths_start_at_the_file_wherever_moss_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = GOOD.replace('repository = "agent"', 'repository = "../agent"\ntasks = ["golden.jsonl"]')
    made = settings(tmp_path, text)
    assert made.data == tmp_path / "data"
    assert made.substrate_named("desk").repository == str(tmp_path.parent / "agent")
    assert made.substrate_named("desk").tasks == (str(tmp_path / "golden.jsonl"),)
    assert made.coder.argv[0] == str(tmp_path / "coder.py")


@pytest.mark.parametrize("address", ["ssh://host/agent.git", "git@host:agent.git"])
def test_an_address_of_a_repository_is_no_path(tmp_path: Path, address: str) -> None:
    made = settings(tmp_path, GOOD.replace('"agent"', f'"{address}"'))
    assert made.substrate_named("desk").repository == address


def test_a_relative_sqlite_file_starts_at_the_file_too(tmp_path: Path) -> None:
    made = settings(tmp_path, GOOD.replace("[moss]", '[moss]\ndatabase = "sqlite:///other/here.db"'))
    assert made.database_url == f"sqlite:///{tmp_path}/other/here.db"


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("name =", "nmae =") + '\n[evolve]\ndepth = "deeper"\n\n[consent]\nquorum = 0\n'
    said = complaint(tmp_path, text)
    assert "The settings have 4 mistakes" in said
    assert "moss.toml, line 6: substrate.nmae: no such setting; did you mean `name`?" in said
    assert "substrate.name: is missing; add it to [substrate]." in said
    assert "moss.toml, line 16: evolve.depth: should be 'shallow', 'standard' or 'deep'." in said
    assert "moss.toml, line 19: consent.quorum: should be greater than or equal to 1." in said


def test_an_unknown_section_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert "consnet: no such setting; did you mean `consent`?" in complaint(tmp_path, GOOD + "[consnet]\nquorum = 1\n")


def test_a_typing_mistake_deep_inside_finds_its_nearest_name(tmp_path: Path) -> None:
    said = complaint(tmp_path, GOOD.replace('http = "/health"', 'http = "/health"\nwindow_sec = 3'))
    assert "substrate.health.window_sec: no such setting; did you mean `window_s`?" in said


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    said = complaint(tmp_path, "[moss]\n")
    assert "substrate: is missing; add a section [substrate]." in said
    assert "coder: is missing; add a section [coder]." in said


def test_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    said = complaint(tmp_path, '[moss]\ndata = "data\n')
    assert "is not valid TOML" in said
    assert "line 2" in said


def test_a_missing_file_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist; write one"):
        load(tmp_path / "moss.toml", {})


def test_a_file_that_is_not_text_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "moss.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "moss.toml", {})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        MOSS_EVOLVE__DEPTH="deep",
        MOSS_EVOLVE__BUDGET__MONEY_USD="2.5",
        MOSS_CONSENT__APPROVERS='["anna", "ben"]',
        MOSS_CONSENT__ALLOW_SOLE_APPROVER="true",
        MOSS_SUBSTRATE__BRANCH="release",
        MOSS_DATABASE="postgresql://moss:geheim@db/moss",
    )
    assert made.evolve.depth is Dial.deep
    assert made.evolve.budget.money_usd == 2.5
    assert made.consent.approvers == {"anna", "ben"}
    assert made.consent.allow_sole_approver
    assert made.substrate_named("desk").branch == "release"
    assert made.substrate_named("desk").name == "desk"
    assert made.database_url == "postgresql://moss:geheim@db/moss"


def test_a_mistake_in_the_environment_is_named_by_its_variable(tmp_path: Path) -> None:
    said = complaint(tmp_path, GOOD, MOSS_EVOLVE__DEPTH="deeper", MOSS_FLAGS__SEAL_CUONT="3", MOSS_DATABSE="x")
    assert "MOSS_EVOLVE__DEPTH (environment): should be" in said
    assert "MOSS_FLAGS__SEAL_CUONT (environment): no such setting; did you mean `seal_count`?" in said
    assert "MOSS_DATABSE (environment): no such setting; did you mean MOSS_DATABASE?" in said


def test_broken_json_and_contradictions_in_the_environment_are_named(tmp_path: Path) -> None:
    said = complaint(
        tmp_path,
        GOOD,
        MOSS_CONSENT__APPROVERS="[anna]",
        MOSS_SUBSTRATE__BUILD="x",
        MOSS_SUBSTRATE__BUILD__NETWORK="true",
    )
    assert "MOSS_CONSENT__APPROVERS (environment): looks like JSON and is not" in said
    assert "MOSS_SUBSTRATE__BUILD__NETWORK (environment): contradicts MOSS_SUBSTRATE__BUILD" in said


def test_variables_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    assert settings(tmp_path, MOSS_SERVICE_HOST="10.0.0.1", MOSS_TOKEN="t", MOSS_TAG="run-1/plan", PATH="/bin")


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    made = settings(tmp_path, MOSS_DATABASE="postgresql://moss:geheim@db/moss")
    assert "geheim" not in repr(made)
    said = complaint(tmp_path, GOOD, MOSS_DATABASE='["postgresql://moss:geheim@db/moss"]')
    assert "MOSS_DATABASE (environment)" in said
    assert "geheim" not in said


def test_several_substrates_are_several_tables(tmp_path: Path) -> None:
    second = '[[substrate]]\nname = "shop"\nrepository = "shop"\nhealth.http = "/health"\n'
    made = settings(tmp_path, GOOD.replace("[substrate]", "[[substrate]]") + second)
    assert [substrate.name for substrate in made.substrate] == ["desk", "shop"]
    assert made.substrate_named("shop").repository == str(tmp_path / "shop")
    with pytest.raises(BadInput, match="say which with --substrate: desk, shop"):
        made.substrate_named(None)
    with pytest.raises(NotFound, match="No substrate is named 'dsek'"):
        made.substrate_named("dsek")


def test_two_substrates_of_one_name_are_refused(tmp_path: Path) -> None:
    second = '[[substrate]]\nname = "desk"\nrepository = "shop"\nhealth.http = "/health"\n'
    assert "two substrates have the same name" in complaint(
        tmp_path, GOOD.replace("[substrate]", "[[substrate]]") + second
    )


def test_a_rule_of_the_substrate_is_told_in_its_own_words(tmp_path: Path) -> None:
    said = complaint(tmp_path, GOOD.replace('http = "/health"', "passes = 2"))
    assert "substrate.health: give at least one of http, heartbeat, commands, canary." in said


def test_a_person_is_known_by_other_names(tmp_path: Path) -> None:
    made = settings(tmp_path, GOOD + '[people]\nanna = ["cli:annab"]\n')
    assert made.person("cli:annab") == "anna"
    assert made.person("cli:ben") == "cli:ben"
