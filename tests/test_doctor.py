"""`moss doctor`: each thing that is missing is named, with its mend; what comes by itself is not missing."""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot import doctor, pitfalls
from bot.chat import Health
from bot.settings import Settings, load
from core.containers.docker_host import DockerHost
from core.containers.process_host import ProcessHost
from core.model.consent import Policy
from core.model.errors import Unavailable
from core.pipeline.check_substrate import Finding, Outcome
from tests.support.command import House
from tests.support.needs import needs_engine
from tests.support.world import FOREIGN, World


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Nothing runs here, and nothing is missing."""
    made = House(World.foreign(tmp_path, "process"))
    if "[room]" not in made.config.read_text():
        made.settle(("[consent]", "[room]\nport = 0\n\n[consent]"))
    return made


def levels(house: House) -> dict[str, list[str]]:
    """Level -> sentences."""
    found: dict[str, list[str]] = {}
    for finding in house.moss("doctor", "--json").data:
        found.setdefault(finding["level"], []).append(finding["sentence"])
    return found


def test_each_thing_is_named_and_what_the_first_start_makes_is_not_missing(house: House) -> None:
    said = house.moss("doctor", "--json")
    found = {finding["name"]: finding for finding in said.data}
    assert said.code == 0
    assert {
        "python",
        "git",
        "settings",
        "data",
        "socket",
        "host",
        "room",
        "coder sh",
        "substrate prices",
    } <= found.keys()
    assert {finding["level"] for finding in said.data} == {"ok", "warning"}
    assert found["database"]["sentence"].endswith("moss.db will be made by the first `moss run`")
    assert found["data"]["sentence"].endswith("will be made by the first `moss run`")
    assert not (house.world.root / "data").exists(), "the doctor looks and changes nothing"


def test_warnings_and_failures_end_in_different_ways(house: House) -> None:
    assert house.moss("doctor").code == 0
    strict = house.moss("doctor", "--strict")
    assert strict.code == 7
    assert strict.out.splitlines()[-1] == "2 warnings", "neither agents nor coders are confined"
    house.settle(("[substrate.run]", 'branch = "gone"\n[substrate.run]'))
    failed = house.moss("doctor", "--strict")
    assert failed.code == 1
    assert failed.out.splitlines()[-1] == "1 failed, 2 warnings"


def test_warnings_and_failures_have_different_colours() -> None:
    styles = {level: {span.style for span in doctor.row(Finding("x", level, "y")).spans} for level in Outcome}
    assert styles == {Outcome.ok: {"green"}, Outcome.warning: {"yellow"}, Outcome.failed: {"red"}}


def test_it_works_on_broken_settings(house: House) -> None:
    house.config.write_text("[moss\n")
    said = house.moss("doctor", "--json")
    assert said.code == 1
    assert "is not valid TOML" in said.data[-1]["sentence"]


# Consent


CONSENTS = {
    "nobody": (Policy(), "warning", "Nobody may approve, so nothing can go live"),
    "more votes than people": (
        Policy(approvers=frozenset({"a", "b"}), quorum=3),
        "failed",
        "`quorum` is 3 and only 2 may approve",
    ),
    "one": (Policy(approvers=frozenset({"a"})), "warning", "a alone may approve, and not what a started"),
    "all of them": (
        Policy(approvers=frozenset({"a", "b"}), quorum=2),
        "warning",
        "All 2 approvers must approve, and who starts a run does not count",
    ),
}


@pytest.mark.parametrize(("policy", "level", "words"), CONSENTS.values(), ids=CONSENTS.keys())
def test_a_consent_that_nobody_can_give_is_found(policy: Policy, level: str, words: str) -> None:
    (finding,) = pitfalls.of_consent(policy)
    assert finding.level == level
    assert finding.sentence.startswith(words)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(approvers=frozenset({"a", "b"})),
        Policy(approvers=frozenset({"a", "b", "c"}), quorum=2),
        Policy(approvers=frozenset({"a"}), allow_sole_approver=True),
    ],
)
def test_a_consent_that_somebody_can_give_is_not_complained_about(policy: Policy) -> None:
    assert list(pitfalls.of_consent(policy)) == []


def settings(house: House, more: str = "") -> Settings:
    house.config.write_text(f"{house.config.read_text()}\n{more}")
    return load(house.config, {})


def test_an_approver_under_another_name_is_found_and_one_without_a_token_too(house: House) -> None:
    house.settle(('["ann", "bob"]', '["ann", "cli:bobby", "slack:T1/U1"]'))
    made = settings(house, '[people]\nbob = ["cli:bobby", "cli:b"]\neve = ["cli:b"]\n')
    assert [finding.sentence for finding in pitfalls.of_people(made, {"bob"})] == [
        "`cli:b` stands for bob and for eve; leave it to one of them.",
        "The approver ann has no token yet, which room and command line ask for; `moss people add ann` makes one.",
        "The approver `cli:bobby` is another name of bob, and never asked; write bob instead.",
    ]


# Places


PLACES = {
    "a platform that is not connected": (
        '[digest]\nplaces = ["slack/T1/C1"]',
        "`slack/T1/C1` is on slack, which is not",
    ),
    "no place at all": ('[digest]\nplaces = ["C1"]', "`C1` names no place"),
    "an unknown channel of the room": (
        '[announce]\nplace = "room/room/nope"',
        "it has room/room/prices, room/room/sales",
    ),
    "a channel that leads nowhere": ('[room.channels]\nshop = "shop"', "The channel `shop` leads to `shop`, and no"),
}


@pytest.mark.parametrize(("more", "words"), PLACES.values(), ids=PLACES.keys())
def test_a_place_that_nobody_can_reach_is_found(house: House, more: str, words: str) -> None:
    rooms = "" if "[room" in more else '\n[room.channels]\nsales = "prices"'
    (finding,) = pitfalls.of_places(settings(house, more + rooms))
    assert finding.level is Outcome.failed
    assert words in finding.sentence


PLATFORMS = """
[[slack]]
bot_token = "xoxb-1"
app_token = "xapp-1"
[digest]
places = ["slack/T1/C1"]
"""


def test_a_workspace_of_slack_is_known_as_soon_as_moss_runs(house: House) -> None:
    known = settings(house, PLATFORMS)
    assert list(pitfalls.of_places(known)) == []
    assert list(pitfalls.of_places(known, [Health(platform="slack"), Health(platform="slack", workspace="T1")])) == []
    (finding,) = pitfalls.of_places(known, [Health(platform="room", workspace="room"), SLACK])
    assert finding.sentence == "`slack/T1/C1` is in no workspace of this Moss; it is in T2."


SLACK = Health(platform="slack", workspace="T2", connected=True)


def test_the_room_is_no_place_when_it_is_switched_off(house: House) -> None:
    house.settle(("port = 0", "enabled = false"))
    (finding,) = pitfalls.of_places(settings(house, '[digest]\nplaces = ["room/room/prices"]'))
    assert finding.sentence.endswith("which is not connected; connected: none.")


def test_places_in_the_room_are_fine(house: House) -> None:
    more = '[digest]\nplaces = ["room/room/prices", "room/room/sales"]\n[room.channels]\nsales = "prices"'
    assert list(pitfalls.of_places(settings(house, more))) == []


# The agent and its host


@pytest.fixture
def processes(tmp_path: Path) -> ProcessHost:
    return ProcessHost(tmp_path / "data", "me")


AGENTS = {
    "nobody vouches for it": (("trusted = true\n", ""), "Nothing isolates prices from this machine"),
    "no command": (
        ('command = ["sh", "agent.sh", "serve"]\n', ""),
        "It has no `run.command`, and a plain process needs",
    ),
    "a user": (("stop_grace_s = 2", 'user = "nobody"'), "It names `run.user`, and plain processes run as the user"),
    "a lacking variable": (
        ("stop_grace_s = 2", 'env_from = ["LACKING_KEY"]'),
        "`run.env_from` names LACKING_KEY, which",
    ),
    "a lacking file of tasks": (('"tasks.jsonl"', '"gone.jsonl"'), "gone.jsonl, which is not a file; mend the path."),
    "a lacking fixture": (
        ("[substrate.tests]", '[substrate.trials]\nfixture = "./seed"\n[substrate.tests]'),
        "seed, which is not a directory; mend the path.",
    ),
    "a lacking grader": (
        ("[substrate.tests]", '[substrate.grader]\ncommand = ["sh", "./grade.sh"]\n[substrate.tests]'),
        "grade.sh, which does not exist; mend the path.",
    ),
}


@pytest.mark.parametrize(("change", "words"), AGENTS.values(), ids=AGENTS.keys())
def test_what_this_host_cannot_run_is_found(
    house: House, processes: ProcessHost, change: tuple[str, str], words: str
) -> None:
    house.settle(change)
    substrate = settings(house).substrate[0]
    (finding,) = [each for each in pitfalls.of_substrate(substrate, processes) if each.level is Outcome.failed]
    assert words in finding.sentence


def test_a_lacking_smoke_test_is_not_mourned_beside_tests_and_lacking_tests_are(
    house: House, processes: ProcessHost
) -> None:
    substrate = settings(house).substrate[0]
    assert list(pitfalls.of_substrate(substrate, processes)) == []
    smoked = substrate.model_copy(update={"tests": None, "smoke": ("true",)})
    (finding,) = pitfalls.of_substrate(smoked, processes)
    assert finding.sentence == (
        "It names no tests, so that only the smoke test and replays judge a change; add [substrate.tests]."
    )


def test_a_coder_whose_script_is_gone_is_found(house: House) -> None:
    house.settle((str(FOREIGN / "coder.sh"), "./gone.sh"))
    (sentence,) = levels(house)["failed"]
    gone = house.world.root / "gone.sh"
    assert sentence == f"`{gone}`, which `sh` is to run, is not there; correct `argv` of the coder."


def test_a_taken_port_of_the_agent_is_found(house: House) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        house.settle(("stop_grace_s = 2", f"port = 8080\npublish = {port}"))
        (sentence,) = levels(house)["failed"]
        assert sentence == f"`run.publish` is {port}, and something else has that port; free or change it."


def test_a_taken_port_of_the_room_is_found(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        house.settle(("port = 0", f"port = {port}"))
        (sentence,) = levels(house)["failed"]
        assert sentence.startswith(f"127.0.0.1:{port} is taken, or not an address of this machine")


def test_a_missing_box_is_found(house: House) -> None:
    house.settle(("stop_grace_s = 2", 'box = "prices-1"'))
    (sentence,) = levels(house)["failed"]
    assert sentence == "There is no box prices-1 here; start it, or leave out `run.box`."


def test_a_configured_database_that_is_not_there_is_missing(house: House) -> None:
    house.settle(("[moss]", '[moss]\ndatabase = "sqlite:///elsewhere.db"'))
    (sentence,) = levels(house)["failed"]
    assert "run `moss db upgrade` to make one" in sentence


def test_a_data_directory_that_others_may_read_is_found(house: House) -> None:
    (house.world.root / "data").mkdir()
    os.chmod(house.world.root / "data", 0o755)
    (sentence,) = levels(house)["failed"]
    assert "is open to other users (mode 755)" in sentence


def test_little_space_is_a_warning(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_SPACE_BYTES", 10**18)
    assert any("images and transcripts need more; free some." in sentence for sentence in levels(house)["warning"])


class AnotherTime(DockerHost):
    """An engine whose clock is not ours: the failure to be found, since nobody sets a real one."""

    def __init__(self, ahead_s: float | None) -> None:
        self.ahead_s = ahead_s

    async def clock(self) -> datetime:
        if self.ahead_s is None:
            raise Unavailable("The engine's clock got no answer: the engine hangs; restart it.")
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (3, Outcome.ok, "agrees with ours"),
        (600, Outcome.warning, "is 10 min ahead of ours"),
        (-7200, Outcome.warning, "is 2 h behind ours"),
        (None, Outcome.failed, "got no answer"),
    ],
)
async def test_an_engine_with_another_clock_is_found(ahead_s: float | None, level: Outcome, words: str) -> None:
    finding = await doctor._clock(AnotherTime(ahead_s))
    assert finding.level is level
    assert words in finding.sentence


@needs_engine
async def test_where_relays_cannot_be_made_of_what_is_there_nothing_is_fetched_for_them(tmp_path: Path) -> None:
    gone = "moss-test.invalid/gone:1"
    host = DockerHost(tmp_path, "me", relay_base=gone)
    try:
        found = await doctor._relay(host)
    finally:
        await host.close()
    assert found.level is Outcome.warning
    assert found.sentence.endswith(f"is not on the engine, and has to be fetched; run `docker pull {gone}`.")


@needs_engine
async def test_the_clock_of_a_real_engine_can_be_read(tmp_path: Path) -> None:
    host = DockerHost(tmp_path, "me")
    try:
        assert abs((await host.clock() - datetime.now(UTC)).total_seconds()) < 30
    finally:
        await host.close()
