"""Settings: every mistake is named at once, with place and mend; paths start at moss.toml; secrets stay hidden."""

import sys
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

[substrate.run]
port = 8080

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
    text += '\n[substrate.trials]\nfixture = "./seed"\n'
    made = settings(tmp_path, text)
    assert made.data == tmp_path / "data"
    assert made.substrate_named("desk").repository == str(tmp_path.parent / "agent")
    assert made.substrate_named("desk").tasks == (str(tmp_path / "golden.jsonl"),)
    assert made.substrate_named("desk").trials.fixture == str(tmp_path / "seed")
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
    assert "moss.toml, line 19: evolve.depth: should be 'shallow', 'standard' or 'deep'." in said
    assert "moss.toml, line 22: consent.quorum: should be at least 1." in said


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
    second = '[[substrate]]\nname = "shop"\nrepository = "shop"\nrun.port = 8081\nhealth.http = "/health"\n'
    made = settings(tmp_path, GOOD.replace("[substrate]", "[[substrate]]") + second)
    assert [substrate.name for substrate in made.substrate] == ["desk", "shop"]
    assert made.substrate_named("shop").repository == str(tmp_path / "shop")
    with pytest.raises(BadInput, match="say which with --substrate: desk, shop"):
        made.substrate_named(None)
    with pytest.raises(NotFound, match="No substrate is named 'dsek'"):
        made.substrate_named("dsek")


SEVERAL = """
[[slack]]
agent_user = "U1"

[[slack]]
agent_user = "U2"
app_token = "xapp-2"
"""


def test_secrets_of_several_workspaces_come_from_the_environment_by_their_number(tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        GOOD + SEVERAL,
        MOSS_SLACK__0__BOT_TOKEN="xoxb-1",
        MOSS_SLACK__0__APP_TOKEN="xapp-1",
        MOSS_SLACK__1__BOT_TOKEN="xoxb-2",
        MOSS_SLACK__2__BOT_TOKEN="xoxb-3",
        MOSS_SLACK__2__SIGNING_SECRET="secret",
    )
    tokens = [(one.bot_token.get_secret_value(), one.agent_user) for one in made.slack]
    assert tokens == [("xoxb-1", "U1"), ("xoxb-2", "U2"), ("xoxb-3", "")]


def test_one_workspace_needs_no_number(tmp_path: Path) -> None:
    made = settings(tmp_path, GOOD, MOSS_SLACK__BOT_TOKEN="xoxb-1", MOSS_SLACK__APP_TOKEN="xapp-1")
    assert [one.bot_token.get_secret_value() for one in made.slack] == ["xoxb-1"]
    assert "xoxb" not in repr(made)


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        (SEVERAL, {"MOSS_SLACK__5__BOT_TOKEN": "x"}, "MOSS_SLACK__5 (environment): there is no [[slack]] before it"),
        ("[slack]\n", {}, "line 17: slack.bot_token: is missing"),
        ("[slack]\n", {"MOSS_SLACK__BOT_TOKEN": "x"}, "needs `app_token`, for a socket to Slack, or `signing_secret`"),
        (SEVERAL, {"MOSS_SLACK__0__BOT_TOKEN": "x", "MOSS_SLACK__1__BOT_TOKEN": "x"}, "line 18: slack.0"),
        ("[slack.channels]\nC1 = 'dosk'\n", {"MOSS_SLACK__BOT_TOKEN": "x", "MOSS_SLACK__APP_TOKEN": "x"},
         "line 18: slack.channels.C1: names no substrate; there is desk"),
        ("[discord]\nguilds = [1]\n", {"MOSS_DISCORD__TOKEN": "x"}, "discord.guilds.0: "),
        ("[discord]\nguilds = []\n", {"MOSS_DISCORD__TOKEN": "x"}, "discord.guilds: "),
    ],
)  # fmt: skip
def test_a_mistake_about_a_platform_is_named_with_its_place(
    tmp_path: Path, text: str, environ: dict[str, str], words: str
) -> None:
    assert words in complaint(tmp_path, GOOD + text, **environ)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("relay", "is `relay`, as Moss names its own images; choose another name."),
        ("desk-", "ends with a dash, as no image can be named; take it off."),
    ],
)
def test_a_name_that_no_image_of_an_agent_can_have_is_refused(tmp_path: Path, name: str, words: str) -> None:
    said = complaint(tmp_path, GOOD.replace('name = "desk"', f'name = "{name}"'))
    assert f"substrate.name: {words}" in said


def test_two_substrates_of_one_name_are_refused(tmp_path: Path) -> None:
    second = '[[substrate]]\nname = "desk"\nrepository = "shop"\nhealth.http = "/health"\n'
    assert "two substrates have the same name" in complaint(
        tmp_path, GOOD.replace("[substrate]", "[[substrate]]") + second
    )


def test_a_rule_of_the_substrate_is_told_in_its_own_words(tmp_path: Path) -> None:
    said = complaint(tmp_path, GOOD.replace('http = "/health"', "passes = 2"))
    assert "substrate.health: give at least one of http, heartbeat, commands, canary." in said


@pytest.mark.parametrize(
    ("was", "written", "sentence"),
    [
        (
            "port = 8080\n",
            "\n",
            "line 9: substrate.run.port: is missing, and `replay` of the kind openai needs it; add it",
        ),
        ("port = 8080", "publish = 80", "substrate.run.publish: leads nowhere without `run.port`; add that."),
        ('"/health"', '"health"', "line 13: substrate.health.http: should begin with a slash, such as `/health`."),
        ('"agent"', '"agent"\nreplay.path = "ask"', "substrate.replay.path: should begin with a slash."),
        ("port = 8080", 'port = 8080\nstate_path = "state"', "line 11: substrate.run.state_path: should begin with a"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_anybody_waits(
    tmp_path: Path, was: str, written: str, sentence: str
) -> None:
    assert sentence in complaint(tmp_path, GOOD.replace(was, written))


def test_an_agent_that_is_asked_by_a_command_needs_no_port(tmp_path: Path) -> None:
    text = GOOD.replace("port = 8080", "").replace('http = "/health"', 'heartbeat = "/state/beat.json"')
    assert settings(tmp_path, text + '[substrate.replay]\nkind = "exec"\ncommand = ["ask"]\n')


def test_the_line_of_a_mistake_is_in_the_right_one_of_several_substrates(tmp_path: Path) -> None:
    second = '[[substrate]]\nname = "shop"\nrepository = "shop"\nhealth.http = "/health"\n'
    said = complaint(tmp_path, GOOD.replace("[substrate]", "[[substrate]]") + second)
    assert "moss.toml, line 17: substrate.1.run.port: is missing" in said


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("evolve.budget.tokens = 1.5", "should be a whole number."),
        ('evolve.budget.money_usd = "much"', "should be a number."),
        ('room.enabled = "perhaps"', "should be true or false."),
        ("room.port = 70000", "should be at most 65535."),
        ('consent.approvers = "anna"', "should be a list."),
        ("people = 3", "should be a table of names and values."),
        ("evolve.budget = 3", "should be a table of names and values."),
        ("consent = { approvers = [3] }", "should be a text in quotes."),
    ],
)
def test_no_mistake_is_told_in_the_words_of_a_library(tmp_path: Path, written: str, sentence: str) -> None:
    said = complaint(tmp_path, f"{written}\n{GOOD}")
    assert said.endswith(sentence)
    assert not any(word in said for word in ("Input", "valid", "Value error", "pydantic", "frozenset", "tuple"))


def test_a_person_is_known_by_other_names(tmp_path: Path) -> None:
    made = settings(tmp_path, GOOD + '[people]\nanna = ["cli:annab"]\n')
    assert made.person("cli:annab") == "anna"
    assert made.person("cli:ben") == "cli:ben"


# Without a moss.toml


def beginning(where: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    monkeypatch.chdir(where)
    return load(None, environ, beginning=True)


def test_where_nobody_wrote_settings_a_beginner_gets_the_desk_and_two_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = beginning(tmp_path, monkeypatch)
    desk = made.substrate_named(None)
    assert made.built_in
    assert (desk.name, desk.repository, made.moss.host) == ("desk", str(tmp_path / "moss-data" / "desk"), "process")
    assert made.data == tmp_path / "moss-data"
    assert made.database_url == f"sqlite:///{tmp_path}/moss-data/moss.db"
    assert made.room.enabled
    assert made.consent.approvers == {"operator"}
    assert made.permits.maintainers == {"user"}
    assert all(Path(file).is_file() for file in desk.tasks)
    assert desk.grader is not None
    assert all(Path(word).is_file() for word in desk.grader.command if "/" in word)
    assert all(Path(word).is_file() for word in made.coder.argv if "/" in word)
    assert desk.run.command is not None
    assert desk.run.command[0] == sys.executable, "`python3` may be missing, or be another one"


def test_the_environment_wins_over_what_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = beginning(tmp_path, monkeypatch, MOSS_DATA="there", MOSS_HOST="docker", MOSS_SUBSTRATE__RUN__PUBLISH="8123")
    desk = made.substrate_named(None)
    assert (made.data, made.moss.host, desk.run.publish) == (tmp_path / "there", "docker", 8123)
    assert desk.repository == str(tmp_path / "there" / "desk")
    assert desk.run.command is not None
    assert desk.run.command[0] == "python3", "in an image of its own it is there"


def test_two_built_in_moss_on_one_engine_have_a_volume_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = {
        beginning(tmp_path, monkeypatch, MOSS_DATA=name).substrate_named(None).run.volume for name in ("one", "two")
    }
    assert len(volumes) == 2


def test_what_is_built_in_is_for_those_who_begin_and_after_that_for_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="does not exist; write one"):
        load(None, {})
    (tmp_path / "moss-data" / "desk").mkdir(parents=True)
    assert load(None, {}).built_in
    with pytest.raises(BadInput, match="does not exist"):
        load(None, {"MOSS_CONFIG": "elsewhere.toml"}, beginning=True)
    with pytest.raises(BadInput, match="does not exist"):
        load(tmp_path / "elsewhere.toml", {}, beginning=True)
    (tmp_path / "moss.toml").write_text(GOOD)
    assert not load(None, {}, beginning=True).built_in


def test_a_mistake_in_the_environment_is_told_without_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"MOSS_ROOM__PORT \(environment\): should be at most 65535"):
        beginning(tmp_path, monkeypatch, MOSS_ROOM__PORT="99999")
