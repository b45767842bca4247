"""From the settings to the coder of each role, and `moss coder check`: every role tried without a run."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.coders import sample
from core.coders.catalogue import TIME_LIMITS_S, Coders, CoderSettings, coders
from core.coders.check import Finding, check
from core.model.brief import EVIDENCE, LOG, REJECTED
from core.model.errors import BadInput
from core.model.replies import Role
from tests.support.scripted_coder import calls, scripted

HONEST = {
    "patch": {"files": {"agent.py": sample.MENDED["agent.py"]}},
    "keypoints": {"*": [{"id": point.id, "text": point.text, "matches": "9 to 5"} for point in sample.KEYPOINTS]},
}


def made(**settings: object) -> Coders:
    return coders(CoderSettings.model_validate(settings))


async def findings(coders: Coders, where: Path, *roles: Role) -> dict[Role, Finding]:
    return {finding.role: finding async for finding in check(coders, where, roles=roles or tuple(Role))}


async def test_an_honest_coder_passes_in_every_role_and_gets_the_evidence_of_a_run(tmp_path: Path) -> None:
    argv, scenario = scripted(tmp_path, **HONEST)
    found = await findings(made(argv=argv), tmp_path / "check")
    assert {role: finding.sentence for role, finding in found.items() if not finding.passed} == {}
    assert list(found) == list(Role)
    assert found[Role.plan].sentence.startswith(f"Coder {Path(sys.executable).name} replied as role plan asks, in 0.")
    assert [call["role"] for call in calls(scenario)] == list(Role)
    for call in calls(scenario):
        wanted = set(EVIDENCE[Role(call["role"])]) - {LOG, REJECTED}
        assert set(call["evidence"]) == {name.format(task="t1", trial=1) for name in wanted}
        assert set(call["brief"]["files"]) == set(call["evidence"]) - {"brief.json"}


@pytest.mark.parametrize(
    ("mode", "role", "words"),
    [
        ("does_nothing", Role.implement, "changed nothing"),
        ("deletes_tests", Role.implement, "is protected by `tests/**`"),
        ("weakens_tests", Role.implement, "is protected by `tests/**`"),
        ("edits_protected", Role.implement, "is protected by `tests/**`"),
        ("links_outside", Role.implement, "is a symbolic link"),
        ("leaks_a_secret", Role.implement, "puts a secret into keys.py"),
        ("writes_100_mb", Role.implement, "big.bin has 100000000 bytes"),
        ("edits_read_only", Role.scan, "may only read"),
    ],
)
async def test_what_is_wrong_in_a_role_is_said_in_the_words_of_a_run(
    tmp_path: Path, mode: str, role: Role, words: str
) -> None:
    argv, _ = scripted(tmp_path, **{**HONEST, "mode": mode})
    found = await findings(made(argv=argv), tmp_path / "check", role)
    assert not found[role].passed
    assert words in found[role].sentence
    assert (found[role].artefacts / "prompt.md").exists()


async def test_one_bad_role_does_not_hide_the_others(tmp_path: Path) -> None:
    argv, _ = scripted(tmp_path, **HONEST)
    bad = made(argv=argv, roles={"plan": {"argv": ["no-such-coder"]}})
    found = await findings(bad, tmp_path / "check", Role.locate, Role.plan, Role.plan_review)
    assert [finding.passed for finding in found.values()] == [True, False, True]
    assert "`no-such-coder` was not found on PATH" in found[Role.plan].sentence


async def test_other_keypoints_than_those_asked_for_do_not_pass(tmp_path: Path) -> None:
    own = {"keypoints": [{"id": "mine", "text": "Is nice.", "level": 3}]}
    argv, _ = scripted(tmp_path, roles={"evaluate": [{"reply": own}]})
    found = await findings(made(argv=argv), tmp_path / "check", Role.evaluate)
    assert (
        "it must score exactly the keypoints of brief.json: no-refusal, opening-hours" in found[Role.evaluate].sentence
    )


def test_every_role_has_a_coder_and_the_time_of_the_semantics() -> None:
    all_roles = made(argv=["my-coder", "-q"])
    assert {all_roles.of(role).name for role in Role} == {"my-coder"}
    assert len(all_roles.distinct()) == 1
    assert TIME_LIMITS_S[Role.implement] == all_roles.timeout_s(Role.implement) == 3600
    assert TIME_LIMITS_S.keys() == set(Role)


def test_a_role_replaces_what_it_names() -> None:
    mixed = made(
        name="usual",
        argv=["my-coder"],
        env_from=["KEY"],
        timeout_s=100,
        roles={"implement": {"argv": ["other", "--edit"], "timeout_s": 900}, "verdict": {"env_from": []}},
    )
    assert (mixed.of(Role.implement).name, mixed.timeout_s(Role.implement)) == ("other", 900)
    assert (mixed.of(Role.plan).name, mixed.timeout_s(Role.plan)) == ("usual", 100)
    assert len(mixed.distinct()) == 3


def test_paths_start_at_the_settings_and_keep_their_links(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    settings = CoderSettings(argv=("./python", "../coder.py", "-m", "x/y"), roles={Role.plan: {"argv": ("./plan",)}})  # type: ignore[dict-item]
    anchored = settings.starting_at(tmp_path)
    assert anchored.argv == (f"{tmp_path}/python", f"{tmp_path.parent}/coder.py", "-m", "x/y")
    assert anchored.roles[Role.plan].argv == (f"{tmp_path}/plan",)


def test_a_relative_program_is_refused_since_it_would_be_the_code_under_repair() -> None:
    with pytest.raises(BadInput, match="`bin/coder` is a relative path"):
        made(argv=["bin/coder"])


@pytest.mark.parametrize("name", ["MOSS_DATABASE", "HOME", "TMPDIR", "PATH", "LD_PRELOAD"])
def test_a_coder_is_never_given_what_belongs_to_moss(name: str) -> None:
    with pytest.raises(ValidationError, match="belongs to Moss"):
        made(argv=["x"], env_from=[name])
    with pytest.raises(ValidationError, match="belongs to Moss"):
        made(argv=["x"], roles={"plan": {"env_from": [name]}})


@pytest.mark.parametrize(
    "wrong", [{"argv": []}, {}, {"argv": ["x"], "provider": "none"}, {"argv": ["x"], "roles": {"dance": {}}}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(**wrong)
