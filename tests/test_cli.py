"""The `moss` command against a real Moss on a host of processes: what each verb says, to people and to programs."""

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bot.words import harmless, line
from core.model import errors
from core.model.replies import Role
from tests.support.command import House
from tests.support.kill_story import end_everything
from tests.support.world import FOREIGN, MOSS, World

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m \u202egnp.exe [bold]not bold[/bold] \x9b5A end"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("house")
    world = World.foreign(root, "process")
    world.start()
    world.moss("adopt")
    yield House(world)
    end_everything(world)


@pytest.fixture
def quiet_house(tmp_path: Path) -> House:
    """Nothing runs here."""
    return House(World.foreign(tmp_path, "process"))


ACTING = [
    ("adopt",),
    ("import", str(FOREIGN / "batch.jsonl")),
    ("evolve",),
    ("evolve", "--wait"),
    ("stop", "run-1"),
    ("restart", "run-1"),
    ("approve", "run-1"),
    ("decline", "run-1", "--reason", "no"),
    ("rollback",),
    ("flag",),
    ("release",),
    ("apply", "run-1"),
]


@pytest.mark.parametrize("words", ACTING, ids=lambda words: words[0])
def test_a_verb_that_acts_says_when_no_moss_runs(quiet_house: House, words: tuple[str, ...]) -> None:
    said = quiet_house.moss(*words)
    assert said.code == errors.Unavailable.exit_code
    assert said.err == f"No Moss is running on {quiet_house.world.root}/data; start it with `moss run`.\n"
    assert said.out == ""


READING = [("batches",), ("batch", "batch-1"), ("export",), ("status",), ("run", "show", "run-1"), ("history",)]


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_verb_that_reads_says_when_there_is_no_database(quiet_house: House, words: tuple[str, ...]) -> None:
    said = quiet_house.moss(*words)
    assert said.code == errors.Unavailable.exit_code
    assert "run `moss db upgrade`" in said.err


def test_a_database_can_be_made_and_read_without_a_running_moss(quiet_house: House) -> None:
    assert quiet_house.moss("db", "upgrade", "--json").data["revision"]
    assert quiet_house.moss("db", "upgrade").code == 0
    assert quiet_house.moss("batches", "--json").data == []
    assert "No Moss runs" in quiet_house.moss("status").out
    assert quiet_house.moss("history").out.startswith("Nothing was ever live here")


def test_an_error_is_one_sentence_and_with_json_an_object_too(quiet_house: House) -> None:
    quiet_house.moss("db", "upgrade")
    said = quiet_house.moss("batch", "batch-none", "--json")
    assert said.code == errors.NotFound.exit_code
    assert said.data == {"error": said.err.strip()}


@pytest.mark.parametrize(
    "words",
    [("evlove",), ("run", "show"), ("evolve", "--depth", "deeper"), ("rollback", "first"), ("batches", "--jsn")],
)
def test_a_typing_mistake_is_one_sentence(quiet_house: House, words: tuple[str, ...]) -> None:
    said = quiet_house.moss(*words)
    assert said.code == errors.BadInput.exit_code
    assert len(said.err.strip().splitlines()) == 1


def test_a_missing_file_of_settings_is_named(quiet_house: House, tmp_path: Path) -> None:
    said = quiet_house.moss("status", config=tmp_path / "none.toml")
    assert said.code == errors.BadInput.exit_code
    assert "none.toml does not exist; write one" in said.err


def test_a_data_directory_too_deep_for_a_socket_is_refused_before_anything_runs(quiet_house: House) -> None:
    config = quiet_house.world.root / "moss.toml"
    config.write_text(config.read_text().replace('data = "data"', f'data = "{"d" * 120}"'))
    for words in (("run",), ("evolve",)):
        said = quiet_house.moss(*words)
        assert said.code == errors.BadInput.exit_code
        assert "choose a shorter `data`" in said.err


def test_a_data_directory_that_cannot_be_one_is_named(quiet_house: House) -> None:
    (quiet_house.world.root / "data").write_text("")
    said = quiet_house.moss("run")
    assert said.code == errors.BadInput.exit_code
    assert "cannot be used" in said.err


def test_the_schema_of_a_role_is_printed_without_any_settings(quiet_house: House, tmp_path: Path) -> None:
    said = quiet_house.moss("coder", "schema", "locate", config=tmp_path / "none.toml")
    assert set(said.data["required"]) >= {"summary", "suspects", "failure_class"}


def test_the_coder_is_tried_in_every_role(quiet_house: House) -> None:
    said = quiet_house.moss("coder", "check", "--json")
    assert [finding["role"] for finding in said.data] == list(Role)
    assert said.code == (0 if all(finding["passed"] for finding in said.data) else 1)
    assert all(finding["coder"] == "sh" for finding in said.data)


def test_people_get_a_token_once_and_lose_it(quiet_house: House) -> None:
    quiet_house.moss("db", "upgrade")
    token = quiet_house.moss("people", "add", "ann", "--json").data["token"]
    again = quiet_house.moss("people", "add", "ann")
    assert again.code == errors.Refused.exit_code
    listed = quiet_house.moss("people", "list", "--json")
    assert token not in listed.out
    assert [(person["name"], bool(person["token_since"])) for person in listed.data] == [("ann", True), ("bob", False)]
    assert quiet_house.moss("people", "remove", "ann").code == 0
    assert quiet_house.moss("people", "remove", "ann").code == errors.NotFound.exit_code


def test_what_is_wrong_with_a_substrate_is_told_line_by_line(quiet_house: House) -> None:
    config = quiet_house.world.root / "moss.toml"
    config.write_text(config.read_text().replace("[substrate.run]", 'branch = "gone"\n[substrate.run]', 1))
    (quiet_house.world.root / "tasks.jsonl").unlink()
    said = quiet_house.moss("substrate", "check", "--json")
    assert said.code == 1
    sentences = " ".join(finding["sentence"] for finding in said.data)
    assert "has no branch gone" in sentences
    assert "tasks.jsonl" in sentences


# With a Moss that runs


def test_the_socket_and_what_people_said_are_for_the_owner_alone(house: House) -> None:
    data = house.world.root / "data"
    assert stat.S_IMODE((data / "moss.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((data / "moss.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_second_moss_on_one_data_directory_says_so_and_ends(house: House) -> None:
    said = house.moss("run")
    assert said.code == errors.Busy.exit_code
    assert house.world.process is not None
    assert f"runs on {house.world.root}/data already, process {house.world.process.pid}" in said.err
    assert house.moss("status", "--json").data["moss"]["pid"] == house.world.process.pid


def test_status_says_how_each_platform_is_reached(house: House) -> None:
    running = house.moss("status", "--json").data["moss"]
    assert [(one["platform"], one["connected"]) for one in running["chats"]] == [("room", True)]
    assert "\nroom: connected\n" in house.moss("status").out


def test_evidence_goes_in_and_comes_out_again(house: House, tmp_path: Path) -> None:
    first = evidence(house, "C1", "t1", "please tell me the price")
    shown = house.moss("batch", first, "--json").data
    assert shown["chunks"][0]["flags"][0]["reason"] == "please tell me the price"
    assert first in house.moss("batches").out
    exported = house.moss("export", first).out
    again = tmp_path / "again.jsonl"
    again.write_text(exported)
    assert house.moss("import", str(again)).code == 0
    assert house.moss("export", first).out == exported, "a turn that is there already stays one chunk"


def test_secrets_are_gone_before_evidence_is_stored(house: House) -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLE"
    batch = evidence(house, "C2", "t1", f"my key is {key}")
    assert key not in house.moss("batch", batch, "--json").out
    assert "my key is" in house.moss("batch", batch, "--json").out


def test_wrong_evidence_is_refused_line_by_line_and_nothing_is_stored(house: House, tmp_path: Path) -> None:
    before = house.moss("batches", "--json").data
    good = json.loads(chunk("C8", "t1", "late"))
    ends_with_user = good | {"messages": good["messages"][:1]}
    file = tmp_path / "wrong.jsonl"
    file.write_text("\n".join([json.dumps(good), "nonsense", json.dumps(ends_with_user)]))
    said = house.moss("import", str(file))
    assert said.code == errors.BadInput.exit_code
    assert "line 2: " in said.err
    assert "line 3: has no message of the role `assistant`" in said.err
    assert house.moss("batches", "--json").data == before


def test_a_batch_is_sealed_when_it_is_full(house: House, tmp_path: Path) -> None:
    lines = [chunk("C3", f"t{n}", "late") for n in range(9)]
    file = tmp_path / "nine.jsonl"
    file.write_text("\n".join(lines))
    batches = house.moss("import", str(file), "--json").data["batches"]
    assert [(batch["state"], batch["sealed_by"]) for batch in batches] == [("sealed", "count")]


def test_who_asks_is_recorded_as_the_person_behind_the_user(house: House) -> None:
    batch = evidence(house, "C4", "t1", "why")
    run = house.moss("evolve", batch, "--json").data["run"]
    house.moss("stop", run["id"])
    assert run["starter"].startswith("cli:")


def test_approving_takes_a_token_and_never_as_an_argument(house: House, tmp_path: Path) -> None:
    no_token = house.moss("approve", "run-1")
    assert no_token.code == errors.BadInput.exit_code
    assert "give it in --token-file or MOSS_TOKEN" in no_token.err
    assert house.moss("approve", "run-1", "--token", "moss_x").code == errors.BadInput.exit_code
    file = tmp_path / "token"
    file.write_text("moss_nobody\n")
    stranger = house.moss("approve", "run-1", "--token-file", str(file))
    assert stranger.code == errors.Refused.exit_code
    assert "Nobody here has that token" in stranger.err


def test_a_known_person_is_told_what_there_is_to_decide(house: House, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(house.moss("people", "add", "carl", "--json").data["token"])
    assert "no run run-none" in house.moss("approve", "run-none", "--token-file", str(file)).err.lower()
    batch = evidence(house, "C5", "t1", "why")
    run = house.moss("evolve", batch, "--json").data["run"]["id"]
    said = house.moss("decline", run, "--reason", "no", "--token-file", str(file))
    assert said.code == errors.Refused.exit_code
    assert "has offered nothing yet" in said.err
    house.moss("stop", run)


def test_waiting_for_a_run_that_cannot_be_offered_ends_with_3(house: House) -> None:
    batch = evidence(house, "C6", "t1", "why")
    said = house.moss("evolve", batch, "--wait")  # its coder is no judge, and this evidence brings no checks
    assert said.code == 3
    run = house.moss("batch", batch, "--json").data["run"]["id"]
    queued, *stages, failed = said.out.splitlines()
    assert queued == f"{run} is queued on {batch}."
    assert [line.split()[3] for line in stages] == ["prepare", "baseline", "baseline-try-2"]
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d +[\d.]+ m?i?n? ?s  prepare +starts from [0-9a-f]{12}, with 1 flagged reply", stages[0]
    )
    assert "this coder does not know the role evaluate" in stages[1]
    assert failed.startswith(f"{run} is failed: baseline-try-2: ")
    assert house.moss("run", "show", run).code == 0
    for what in ("diagnosis", "plan", "diff", "trials", "matrix"):
        assert house.moss("run", "show", run, what).code == errors.NotFound.exit_code
    stopping = house.moss("stop", run)
    assert stopping.code == errors.Refused.exit_code
    assert "is failed" in stopping.err
    again = house.moss("restart", run, "--json").data["run"]
    assert again["batch"] == batch
    assert again["id"] != run
    house.moss("stop", again["id"])


def test_with_json_the_progress_is_told_beside_the_answer(house: House) -> None:
    batch = evidence(house, "C11", "t1", "why")
    said = house.moss("evolve", batch, "--wait", "--json")
    assert said.code == 3
    assert said.data["run"]["state"] == "failed"
    assert "baseline-try-2" in said.err


def test_who_stops_waiting_stops_nothing_else(tmp_path: Path) -> None:
    slow = tmp_path / "slow.sh"
    slow.write_text("cat >/dev/null\nexec sleep 60\n")
    world = World.foreign(tmp_path, "process", coder=slow)
    world.start()
    try:
        world.moss("adopt")
        world.moss("import", str(FOREIGN / "batch.jsonl"))
        # A shell makes deaf to Ctrl-C what it starts in the background, and all that comes of it.
        hears = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {MOSS[-1]}"
        command = [*MOSS[:-1], hears, "--config", str(world.root / "moss.toml"), "evolve", "--wait"]
        waiting = subprocess.Popen(command, cwd=world.root, env=world.environment(), stdout=subprocess.PIPE, text=True)
        assert waiting.stdout
        run = waiting.stdout.readline().split()[0]
        while "control" not in waiting.stdout.readline():
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        out, _ = waiting.communicate(timeout=30)
        assert out == f"{run} goes on without you; `moss run show {run}` shows it, `moss stop {run}` ends it.\n"
        assert waiting.returncode == 130
        assert world.moss("run", "show", run)["run"]["state"] == "running"
        world.moss("stop", run)
        refused = world.moss("stop", run, code=5)["error"]
        assert refused == f"Run {run} is stopped already; nothing is left to be done."
    finally:
        end_everything(world)


def test_what_does_not_exist_is_told_with_what_does(house: House) -> None:
    for words, listed in (("stop", "status"), ("restart", "status")):
        said = house.moss(words, "run-none")
        assert said.code == errors.NotFound.exit_code
        assert said.err == f"There is no run run-none; `moss {listed}` shows those there are.\n"
    assert house.moss("batch", "nope").err == "There is no batch nope; `moss batches` shows those there are.\n"
    assert house.moss("people", "remove", "nobody").err.endswith("`moss people list` shows who has.\n")


def test_a_reply_is_flagged_and_the_digest_tells_of_it(house: House) -> None:
    nothing = house.moss("flag", "half an answer", "--place", "room/room/quiet")
    assert nothing.code == errors.NotFound.exit_code
    assert nothing.err == "The agent has said nothing here yet that could be flagged; talk to it first.\n"
    thread, reply = talk(house, "apple pear")
    said = house.moss("flag", "half an answer", "--kind", "incomplete", "--json")
    batch, flags = said.data["batch"]["id"], said.data["chunk"]["flags"]
    assert [(flag["kind"], flag["reason"], flag["person"]) for flag in flags] == [
        ("incomplete", "half an answer", said.data["chunk"]["flags"][0]["person"])
    ]
    assert said.data["chunk"]["turn"] == reply
    again = house.moss("flag", "--message", reply, "--place", f"room/room/prices/{thread}")
    assert again.out == f"The reply is flagged, in {batch}, which is open.\n"
    assert house.moss("flag", "--place", "room/prices").code == errors.BadInput.exit_code
    assert "incomplete: " in house.moss("digest").out
    digest = house.moss("digest", "--days", "1", "--json").data
    assert digest["substrate"] == "prices"
    assert digest["flags"]["by_kind"]["incomplete"] >= 1


def talk(house: House, words: str) -> tuple[str, str]:
    """Say something in the room and wait for the agent's answer: the thread, and the answer's id."""
    token = house.moss("people", "add", f"talker-{words[:5]}", "--json").data["token"]
    room = json.loads((house.world.root / "data" / "room.json").read_text())["url"]
    with httpx.Client(base_url=room, headers={"Authorization": f"Bearer {token}"}, timeout=30, verify=False) as http:
        said = http.post("/api/messages", json={"channel": "prices", "thread": None, "text": words, "key": "k1"})
        assert said.status_code == 201, said.text
        thread = said.json()["id"]
        until = time.monotonic() + 30
        while time.monotonic() < until:
            shown = http.get("/api/messages", params={"channel": "prices", "thread": thread}).json()["messages"]
            replies = [message["id"] for message in shown if message["by"]["kind"] == "agent"]
            if replies:
                return thread, replies[0]
            time.sleep(0.2)
    raise AssertionError("the agent does not answer")


def test_a_live_agent_is_released_by_an_approver_only(house: House, tmp_path: Path) -> None:
    nobody = house.moss("release", "--stop")
    assert nobody.code == errors.Refused.exit_code
    assert nobody.err == "This needs your token; give it in --token-file or MOSS_TOKEN.\n"
    stranger = tmp_path / "stranger"
    stranger.write_text(house.moss("people", "add", "stranger", "--json").data["token"])
    refused = house.moss("release", "--stop", "--token-file", str(stranger))
    assert refused.code == errors.Refused.exit_code
    assert refused.err.startswith("Only an approver may release a live agent")
    assert house.moss("status", "--json").data["substrates"][0]["live"]["number"] == 0


def test_the_chain_of_facts_is_sound(house: House) -> None:
    before = house.moss("db", "verify", "--json").data
    assert before["sound"] is True
    house.moss("people", "add", "newcomer")
    house.moss("people", "remove", "newcomer")
    after = house.moss("db", "verify", "--json").data
    assert after["facts_about_people"] == before["facts_about_people"] + 2


def test_text_from_outside_cannot_steer_the_terminal(house: House) -> None:
    batch = evidence(house, "C7", "t1", HOSTILE)
    shown = house.moss("batch", batch).out
    assert r"\x1b[31mred\x1b[0m \u202egnp.exe [bold]not bold[/bold] \x9b" in shown, "shown, and obeyed by nothing"
    assert not set("\x1b\x07\x9b\u202e") & set(shown)
    assert not set("\x1b\x07\x9b\u202e") & set(house.moss("batch", batch, "--json").out)


@pytest.mark.parametrize("words", [("batch", "\udcff"), ("import", "\udcff"), ("help", "\udcff")])
def test_bytes_that_are_no_text_are_refused_in_a_sentence(quiet_house: House, words: tuple[str, ...]) -> None:
    said = quiet_house.moss(*words, "--json")
    assert said.code == errors.BadInput.exit_code
    assert said.data["error"].startswith("What was typed is not text in UTF-8")


ENDLESS = "/dev/zero"


def test_a_file_without_an_end_is_refused_and_not_read_to_it(quiet_house: House) -> None:
    for words, config in (
        (("import", ENDLESS), None),
        (("status",), Path(ENDLESS)),
    ):
        said = quiet_house.moss(*words, config=config)
        assert said.code == errors.BadInput.exit_code
        assert "it is larger than" in said.err


def test_a_token_file_without_an_end_is_refused(house: House) -> None:
    said = house.moss("approve", "run-1", "--token-file", ENDLESS)
    assert said.code == errors.BadInput.exit_code
    assert said.err == f"The token file {ENDLESS} cannot be read: it is larger than 4,096 bytes; name another.\n"


def test_a_terminal_that_knows_few_letters_is_served_too(quiet_house: House) -> None:
    world = quiet_house.world
    quiet_house.moss("db", "upgrade")
    command = [*MOSS, "--config", str(quiet_house.config), "help", "adopt"]
    done = subprocess.run(
        command, env=world.environment() | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert b"moss adopt --substrate desk --commit 3f1c\\u2026" in done.stdout


def test_a_line_is_one_harmless_line() -> None:
    assert harmless(HOSTILE) == r"\x1b]0;owned\x07\x1b[31mred\x1b[0m \u202egnp.exe [bold]not bold[/bold] \x9b5A end"
    assert line("a\nb\r\n\tc" + "x" * 200, 10) == "a b cxxxx…"


def test_moss_ends_in_order_and_starts_again_after_any_death(quiet_house: House) -> None:
    world = quiet_house.world
    sock = world.root / "data" / "moss.sock"
    world.start()
    batch = evidence(quiet_house, "C1", "t1", "why")
    assert world.end() == 0
    assert not sock.exists()
    world.start()
    assert world.process is not None
    os.kill(world.process.pid, signal.SIGKILL)
    world.process.wait()
    assert sock.exists()
    world.process = None
    sock.unlink()  # only so that `start` waits for a new one; Moss itself takes over what it finds
    world.start()
    assert [each["id"] for each in quiet_house.moss("batches", "--json").data] == [batch]
    assert world.end() == 0


def evidence(house: House, channel: str, turn: str, reason: str) -> str:
    """One flagged turn in a conversation of its own; the batch."""
    file = house.world.root / f"{channel}-{turn}.jsonl"
    file.write_text(chunk(channel, turn, reason))
    said = house.moss("import", str(file), "--json")
    assert said.code == 0, said.err
    return str(said.data["batches"][0]["id"])


def chunk(channel: str, turn: str, reason: str) -> str:
    messages = [{"role": "user", "content": "apple"}, {"role": "assistant", "content": "I do not know"}]
    place = {"platform": "slack", "workspace": "w", "channel": channel, "thread": "1"}
    said = {"who": "slack:kim", "kind": "wrong_answer", "reason": reason}
    return json.dumps({"place": place, "turn": turn, "messages": messages, "feedback": [said]})
