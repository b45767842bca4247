"""Asking a coder: what it is given, what it may not do, what its answer must be, and what is left when it ends."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from core import process
from core.coders import check
from core.coders.ask import ask, end_leftovers
from core.coders.coder import Answer, Brief, Heard
from core.coders.command import Command
from core.coders.program import Program
from core.model.errors import CoderFailed, Misconduct, Unavailable
from core.model.replies import Depth, Diagnosis, Implementation, Reply, Role
from core.process_table import survivors
from core.repository import Change, Clone
from tests.support.bench import Bench, shell
from tests.support.scripted_coder import MODES, calls, scripted

DIAGNOSIS = {
    "summary": "s",
    "failure_class": "routing",
    "depth": "surface",
    "suspects": [{"path": "agent.py", "why": "w"}],
    "siblings": [],
}
SAYS = f"echo '{json.dumps(DIAGNOSIS)}'"


Prepared = tuple[Clone, str, Change]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return asyncio.run(check.prepare(tmp_path_factory.mktemp("prepared")))


@pytest.fixture
def bench(tmp_path: Path, prepared: Prepared) -> Iterator[Bench]:
    yield Bench(tmp_path, *prepared)
    assert process.survivors(f"run-{tmp_path.name}/") == []


def playing(where: Path, **scenario: object) -> tuple[Program, Path]:
    argv, path = scripted(where, **scenario)
    return Program("scripted", argv, Command()), path


async def complaint(bench: Bench, coder: Program, role: Role = Role.locate, **different: object) -> str:
    with pytest.raises(CoderFailed) as failed:
        await bench.ask(coder, role, **different)
    return failed.value.sentence


async def test_a_reply_comes_back_checked_with_what_it_cost(bench: Bench) -> None:
    reply, spend = await bench.ask(shell(f"echo Thinking...; {SAYS}; echo That is all."))
    assert isinstance(reply, Diagnosis)
    assert reply.depth is Depth.surface
    assert 0 < spend.seconds < 10
    kept = {path.name for path in (bench.where / "artefacts").iterdir()}
    assert kept == {"prompt.md", "stdout.txt", "stderr.txt", "reply.json"}
    assert Diagnosis.model_validate_json((bench.where / "artefacts/reply.json").read_text()) == reply


async def test_an_implementer_may_edit_and_stage(bench: Bench) -> None:
    edit = "echo '# new' >> agent.py && git add -A && git status >/dev/null && git diff --cached >/dev/null"
    reply, _ = await bench.ask(shell(edit + """ && echo '{"summary": "done"}'"""), Role.implement)
    assert reply == Implementation(summary="done")
    assert "# new" in (bench.where / "checkout/agent.py").read_text()


async def test_a_reader_may_look_with_git(bench: Bench) -> None:
    await bench.ask(shell(f"touch agent.py; git status; git diff; git log; git stash list; {SAYS}"))


SENTENCES = {
    "edits_read_only": "scripted in role locate changed left_by_a_reader.txt, though this role may only read.",
    "commits": "scripted in role implement made commits",
    "plants_fsmonitor": "scripted in role implement changed the git settings of its checkout.",
    "plants_hooks": "scripted in role implement planted a git hook in its checkout",
    "deletes_checkout": "scripted in role implement removed its checkout.",
    "deletes_git": "scripted in role implement removed the git directory of its checkout.",
    "changes_evidence": "scripted in role locate changed the evidence.",
    "leaves_process": "scripted left a process behind in role locate; it was killed.",
}


@pytest.mark.parametrize("mode", SENTENCES)
async def test_misconduct_is_named_and_what_was_planted_never_runs(bench: Bench, mode: str) -> None:
    coder, scenario = playing(bench.where, mode=mode)
    with pytest.raises(Misconduct, match=SENTENCES[mode]) as caught:
        await bench.ask(coder, Role(MODES[mode][1][0]))
    assert caught.value.spend is not None
    assert caught.value.spend.seconds > 0
    assert not Path(f"{scenario}.pwned").exists()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("exits_1", "scripted failed in role locate: it exited with 1 (the model does not answer)."),
        ("floods_stdout", "scripted failed in role locate: it printed more than 8000000 bytes and was killed."),
        ("no_json", "scripted failed in role locate: its reply cannot be used, it holds no JSON object."),
        ("other_role", "scripted failed in role locate: its reply cannot be used, its last JSON object does not match"),
    ],
)
async def test_a_failure_says_who_failed_in_which_role_and_why(bench: Bench, mode: str, words: str) -> None:
    coder, _ = playing(bench.where, mode=mode)
    assert (await complaint(bench, coder)).startswith(f"Coder {words}")


async def test_a_coder_that_hangs_is_ended_with_all_that_it_started(bench: Bench) -> None:
    coder, _ = playing(bench.where, mode="hangs")
    assert "it did not end within 1 s and was killed" in await complaint(bench, coder, timeout_s=1.0)


async def test_a_file_whose_name_cannot_be_printed_is_told_of(bench: Bench) -> None:
    with pytest.raises(Misconduct, match=r"locate changed \\udcff\\nCoder, though this role may only read\.$"):
        await bench.ask(shell(f"touch \"$(printf '\\377\nCoder')\"; {SAYS}"))


async def test_misconduct_counts_more_than_a_mistake_of_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: Program, brief: Brief, __: Path) -> Answer:
        (brief.checkout / "note.txt").touch()
        raise TypeError("a mistake")

    monkeypatch.setattr(Program, "answer", answer)
    with pytest.raises(Misconduct, match="only read"):
        await bench.ask(shell("true"))


async def test_misconduct_counts_more_than_a_bad_end(bench: Bench) -> None:
    with pytest.raises(Misconduct, match="only read"):
        await bench.ask(shell("echo x > note.txt; exit 3"))


async def test_a_signal_is_told_from_an_exit_code(bench: Bench) -> None:
    assert "it was ended by signal 9" in await complaint(bench, shell("kill -9 $$"))


async def test_a_background_process_that_ends_soon_is_no_misconduct(bench: Bench) -> None:
    await bench.ask(shell(f"sleep 0.3 >/dev/null 2>&1 & {SAYS}"))


async def test_a_program_that_does_not_exist_is_named(bench: Bench) -> None:
    nowhere = Program("ghost", ("no-such-coder",), Command())
    assert "`no-such-coder` was not found on PATH" in await complaint(bench, nowhere)
    with pytest.raises(Unavailable, match="`/no/such/coder` does not exist"):
        await Program("ghost", ("/no/such/coder",), Command()).ping()


async def test_ping_says_which_program_it_is() -> None:
    assert await Program("mine", (sys.executable, "x.py"), Command()).ping() == f"mine: {sys.executable}"


async def test_the_program_is_not_looked_for_in_the_code_under_repair(bench: Bench) -> None:
    brief = await bench.brief()
    trap = brief.checkout / "my-coder"
    trap.write_text("#!/bin/sh\ntouch ../pwned\n")
    trap.chmod(0o755)
    with pytest.raises(CoderFailed, match="not found"):
        await ask(Program("mine", ("my-coder",), Command()), brief)
    assert not (bench.where / "pwned").exists()


async def test_the_environment_is_what_the_protocol_names_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_SECRET_OF_THE_BOT", "xoxb-secret")
    monkeypatch.setenv("SLACK_TOKEN", "xoxb-secret")
    monkeypatch.setenv("MODEL_KEY", "key-1234567")
    argv, scenario = scripted(bench.where)
    await bench.ask(Program("scripted", argv, Command(), ("MODEL_KEY",)))
    (call,) = calls(scenario)
    ours = {"HOME", "TMPDIR", "PYTHONDONTWRITEBYTECODE"} | {name for name in call["environment"] if "MOSS" in name}
    assert ours - {"HOME", "TMPDIR", "PYTHONDONTWRITEBYTECODE"} == {
        "MOSS_ROLE",
        "MOSS_RUN",
        "MOSS_EVIDENCE",
        "MOSS_SCHEMA",
        "MOSS_TIMEOUT_S",
        "MOSS_TAG",
    }
    assert call["environment"].keys() - ours <= {"PATH", "LANG", "LC_ALL", "TZ", "MODEL_KEY", "LC_CTYPE"}
    assert call["environment"]["MODEL_KEY"] == "key-1234567"
    assert call["environment"]["MOSS_RUN"] == f"run-{bench.where.name}"
    assert call["cwd"] == str(bench.where / "checkout")
    assert call["prompt"] == (bench.where / "artefacts/prompt.md").read_text()


async def test_a_key_that_is_missing_is_named_before_the_program_starts(bench: Bench) -> None:
    coder = shell("touch ../started", "NO_SUCH_KEY")
    assert "needs NO_SUCH_KEY, which Moss's environment lacks" in await complaint(bench, coder)
    with pytest.raises(Unavailable, match="NO_SUCH_KEY"):
        await coder.ping()
    assert not (bench.where / "started").exists()


async def test_a_key_that_is_printed_is_kept_nowhere(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", "key-1234567")
    coder = shell("echo $MODEL_KEY; echo refused: $MODEL_KEY >&2; exit 1", "MODEL_KEY")
    assert "(refused: [MODEL_KEY])" in await complaint(bench, coder)
    for path in (bench.where / "artefacts").rglob("*"):
        assert "key-1234567" not in path.read_text()


SHAPELESS = "a phrase that looks like none"


async def test_a_key_stays_in_no_output_however_its_program_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", SHAPELESS)
    stdout = bench.where / "artefacts" / "stdout.txt"
    coder = shell("echo $MODEL_KEY; sleep 60", "MODEL_KEY")
    assert "did not end" in await complaint(bench, coder, timeout_s=1.0)
    assert stdout.read_text() == "[MODEL_KEY]\n"
    asked = asyncio.create_task(bench.ask(coder))
    for _ in range(500):
        if stdout.exists() and stdout.read_text() == f"{SHAPELESS}\n":
            break
        await asyncio.sleep(0.02)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert stdout.read_text() == "[MODEL_KEY]\n"


async def test_a_key_stays_in_no_sentence_and_in_no_prompt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", SHAPELESS)
    written = "".join(f"\\u{ord(letter):04x}" for letter in SHAPELESS)
    said = await complaint(bench, shell(f"""printf %s '{{"{written}": 1, "{written}": 2}}'""", "MODEL_KEY"))
    assert "the key `[MODEL_KEY]` stands in it twice" in said
    assert "the key `[MODEL_KEY]` stands in it twice" in (bench.where / "artefacts/repair/prompt.md").read_text()
    with pytest.raises(Misconduct, match=r"locate changed \[MODEL_KEY\], though"):
        await bench.ask(shell('touch "$MODEL_KEY"', "MODEL_KEY"))


async def test_the_home_is_fresh_and_goes_with_all_that_was_locked_in_it(bench: Bench) -> None:
    lock = 'test -z "$(ls -A $TMPDIR)" && mkdir -p $HOME/a/b && touch $HOME/a/b/c && chmod -R 0 $HOME/a'
    reply = shell(f"{lock} && cat $MOSS_SCHEMA >&2 && echo $HOME >&2 && {SAYS}")
    await bench.ask(reply)
    said = (bench.where / "artefacts/stderr.txt").read_text()
    assert '"title": "Diagnosis"' in said
    assert not Path(said.splitlines()[-1]).exists()


async def test_an_invalid_reply_gets_one_more_try_with_the_reason(bench: Bench) -> None:
    turns = [
        {"reply": {"depth": "shallow", "spend": {"tokens": 5, "money_usd": 0.25}}},
        {"reply": {"spend": {"tokens": 7}}},
    ]
    coder, scenario = playing(bench.where, roles={"locate": turns})
    reply, spend = await bench.ask(coder)
    first, second = calls(scenario)
    assert isinstance(reply, Diagnosis)
    assert (spend.tokens, spend.money_usd) == (12, 0.25)
    assert second["prompt"].startswith(first["prompt"])
    assert "`depth`: should be 'surface' or 'structural'" in second["prompt"]
    assert first["environment"]["HOME"] != second["environment"]["HOME"]
    artefacts = bench.where / "artefacts"
    assert "shallow" in (artefacts / "stdout.txt").read_text()
    assert "structural" in (artefacts / "repair/stdout.txt").read_text()
    assert (artefacts / "reply.json").exists()


async def test_a_reply_that_cannot_be_printed_is_told_of_in_words(bench: Bench) -> None:
    twice = "the key `a\\ud800\\n` stands in it twice"
    said = await complaint(bench, shell("""printf %s '{"a\\ud800\\n": 1, "a\\ud800\\n": 2}'"""))
    assert said.endswith(f"its last JSON object cannot be read: {twice}.")
    assert twice in (bench.where / "artefacts/repair/prompt.md").read_text()


async def test_a_mistake_in_reading_what_was_printed_is_a_failure_in_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hear(*_: object) -> Heard:
        raise TypeError("a mistake")

    monkeypatch.setattr(Command, "hear", hear)
    said = await complaint(bench, shell(SAYS))
    assert said.endswith("what it printed cannot be understood (TypeError); please report the log.")


async def test_there_is_no_third_try_and_both_have_their_price(bench: Bench) -> None:
    coder, scenario = playing(bench.where, roles={"locate": [{"reply": {"depth": "shallow", "spend": {"tokens": 5}}}]})
    with pytest.raises(CoderFailed) as failed:
        await bench.ask(coder)
    assert len(calls(scenario)) == 2
    assert failed.value.spend is not None
    assert failed.value.spend.tokens == 10


async def test_a_second_try_is_not_made_when_the_time_is_over(bench: Bench) -> None:
    count = f"echo x >> {bench.where}/count; sleep 1.2"
    await complaint(bench, shell(count), timeout_s=2.0)
    assert (bench.where / "count").read_text() == "x\n"


async def test_a_second_try_may_not_misbehave_either(bench: Bench) -> None:
    coder, _ = playing(bench.where, roles={"locate": [{"mode": "no_json"}, {"mode": "edits_read_only"}]})
    with pytest.raises(Misconduct, match="only read"):
        await bench.ask(coder)


async def test_more_than_the_schema_can_be_asked_of_a_reply(bench: Bench) -> None:
    def objection(reply: Reply) -> str | None:
        assert isinstance(reply, Diagnosis)
        return None if reply.siblings else "it names no sibling"

    coder, scenario = playing(bench.where, roles={"locate": [{}, {"reply": {"siblings": ["t2"]}}]})
    reply, _ = await ask(coder, await bench.brief(), objection=objection)
    assert isinstance(reply, Diagnosis)
    assert reply.siblings == ("t2",)
    assert "could not be used: it names no sibling." in calls(scenario)[1]["prompt"]


@pytest.mark.parametrize("spend", [{"tokens": -1}, {"money_usd": "much"}, {"money_usd": 1e99}, [1], "free"])
async def test_a_spend_that_would_spoil_the_budget_is_refused(bench: Bench, spend: object) -> None:
    coder, _ = playing(bench.where, roles={"locate": [{"reply": {"spend": spend}}]})
    assert "its reply reports a `spend` that is no amount" in await complaint(bench, coder)


async def test_what_a_failed_coder_spent_is_counted(bench: Bench) -> None:
    with pytest.raises(CoderFailed) as failed:
        await bench.ask(shell("""echo '{"spend": {"tokens": 9}}'; exit 1"""))
    assert failed.value.spend is not None
    assert failed.value.spend.tokens == 9


async def test_a_reply_is_never_read_from_an_old_file(bench: Bench) -> None:
    artefacts = bench.where / "artefacts"
    (artefacts / "repair").mkdir(parents=True)
    for name in ("stdout.txt", "reply.json", "repair/stdout.txt", "repair/reply.json"):
        (artefacts / name).write_text(json.dumps(DIAGNOSIS))
    assert "it holds no JSON object" in await complaint(bench, shell("true"))
    assert not (artefacts / "reply.json").exists()
    assert (artefacts / "stdout.txt").read_text() == ""


def tagged(tag: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"], env={**os.environ, "MOSS_TAG": tag}, start_new_session=True)


async def test_what_a_killed_moss_left_running_is_ended_first(bench: Bench) -> None:
    brief = await bench.brief()
    orphan, bystander = tagged(f"{brief.tag}/1"), tagged(f"{brief.tag}0/1")
    try:
        await ask(shell(SAYS), brief)
        assert orphan.wait(5) != 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_all_that_a_run_left_running_can_be_ended_at_once(tmp_path: Path) -> None:
    run = f"run-{tmp_path.name}"
    left = [tagged(f"{run}/iter-1/plan-1/1"), tagged(f"{run}/iter-2/implement-1/2")]
    async with asyncio.timeout(5):
        while len(survivors(f"{run}/")) < len(left):  # noqa: ASYNC110 - a program shows its tag a moment after its start
            await asyncio.sleep(0.01)
    assert await end_leftovers(f"{run}/")
    assert [process.wait(5) for process in left] == [-9, -9]
    assert not await end_leftovers(f"{run}/")


async def test_cancelling_ends_the_program_and_removes_its_home(bench: Bench) -> None:
    asked = asyncio.create_task(bench.ask(shell(f"echo $HOME > {bench.where}/home; sleep 60")))
    told = bench.where / "home"
    for _ in range(500):
        if told.exists() and told.read_text().endswith("\n"):
            break
        await asyncio.sleep(0.02)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    home = Path(told.read_text().strip())
    assert home.parent.name.startswith("moss-")
    assert not home.parent.exists()


async def test_an_outage_of_moss_itself_is_not_blamed_on_the_coder(bench: Bench) -> None:
    class Away:
        name = "away"
        secrets: Mapping[str, str] = MappingProxyType({})

        async def ping(self) -> str:
            return "away"

        async def answer(self, brief: Brief, home: Path) -> Answer:
            raise Unavailable("The disk is full.")

    with pytest.raises(Unavailable, match="The disk is full"):
        await ask(Away(), await bench.brief())
