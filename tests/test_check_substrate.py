"""`moss substrate check`: the example passes on both hosts, and each thing that is wrong is found."""

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bot.settings import load
from core.containers.docker_host import DockerHost
from core.containers.host import Host
from core.containers.process_host import ProcessHost
from core.model.substrate import Substrate
from core.pipeline.check_substrate import Finding, Outcome, check_substrate
from core.repository import Clone
from tests.support.desk import DESK, OWNERS
from tests.support.needs import needs_engine
from tests.support.world import repository_of

Given = Callable[[Substrate], Substrate]


def as_it_is(substrate: Substrate) -> Substrate:
    return substrate


def changed(part: str, **update: object) -> Given:
    def change(substrate: Substrate) -> Substrate:
        return substrate.model_copy(update={part: getattr(substrate, part).model_copy(update=update)})

    return change


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Host]:
    host = ProcessHost(tmp_path / "data", "test")
    yield host
    await host.close()


async def found(host: Host, tmp: Path, change: Given = as_it_is) -> list[Finding]:
    repository = repository_of(DESK, tmp / "desk")
    substrate = load(OWNERS / "moss.toml", {}).substrate[0]
    substrate = change(substrate.model_copy(update={"repository": str(repository)}))
    clone = await Clone.of(str(repository), tmp / "desk.git")
    findings: list[Finding] = []
    await check_substrate(host, substrate, clone, owner="test", scratch=tmp / "scratch", tell=findings.append)
    assert await host.boxes({}) == []
    assert await host.images({}) == []
    return findings


def failures(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.sentence for finding in findings if finding.level is Outcome.failed}


ORDER = ["isolation", "tasks", "grader", "repository", "scope", "build", "smoke", "tests", "start", "turn", "health"]


async def test_the_example_passes_as_processes(processes: Host, tmp_path: Path) -> None:
    findings = await found(processes, tmp_path)
    assert failures(findings) == {}
    assert list(dict.fromkeys(finding.name for finding in findings)) == ORDER
    warned = [finding for finding in findings if finding.level is Outcome.warning]
    assert [finding.name for finding in warned] == ["isolation"], warned


@needs_engine
@pytest.mark.engine
async def test_the_example_passes_in_containers(tmp_path: Path) -> None:
    host = DockerHost(tmp_path / "data", f"test-{secrets.token_hex(4)}")
    try:
        findings = await found(host, tmp_path)
    finally:
        for box in await host.boxes({}):
            await host.remove(box.name)
        await host.close()
    assert {finding.level for finding in findings} == {Outcome.ok}, findings
    assert list(dict.fromkeys(finding.name for finding in findings)) == ORDER


WRONG: dict[str, tuple[Given, str, str]] = {
    "nobody vouches": (lambda s: s.model_copy(update={"trusted": False}), "isolation", "vouch"),
    "no such branch": (lambda s: s.model_copy(update={"branch": "trunk"}), "repository", "no branch trunk"),
    "bad tasks": (lambda s: s.model_copy(update={"tasks": ("/none.jsonl",)}), "tasks", "cannot be read"),
    "everything protected": (changed("scope", protected=("**",)), "scope", "None of the"),
    "build fails": (changed("build", command=("python3", "-c", "raise SystemExit('no')")), "build", "ended with 1"),
    "smoke fails": (lambda s: s.model_copy(update={"smoke": ("false",)}), "smoke", "exit code 1"),
    "tests fail": (changed("tests", command=("python3", "-m", "nothing")), "tests", "nothing"),
    "ends at once": (changed("run", command=("false",)), "start", "ended with exit code 1"),
    "wrong path": (changed("replay", path="/talk"), "turn", "answered 404"),
    "not well": (changed("health", http="/none", window_s=0.3), "health", "answered 404"),
    "canary": (changed("health", canary_expect="la la"), "health", "`la la`"),
    "grader fails": (changed("grader", command=("false",)), "grader", "exit code 1"),
}


@pytest.mark.parametrize(("change", "name", "words"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_is_found(change: Given, name: str, words: str, processes: Host, tmp_path: Path) -> None:
    def quick(substrate: Substrate) -> Substrate:
        """Without what takes time; without a grader nothing scores the held-back tasks of the last file."""
        left_out: dict[str, Any] = {part: None for part in ("smoke", "tests") if part != name}
        if name != "grader":
            left_out |= {"grader": None, "tasks": substrate.tasks[:2]}
        return change(substrate.model_copy(update=left_out))

    findings = await found(processes, tmp_path, quick)
    assert next(iter(failures(findings))) == name
    assert words in failures(findings)[name]


async def test_what_could_be_better_is_a_warning(processes: Host, tmp_path: Path) -> None:
    def change(substrate: Substrate) -> Substrate:
        substrate = changed("scope", editable=("desk/**", "lib/**"))(substrate)
        content = ("python3", "-c", 'print(\'{"keypoints": [{"id": "a", "text": "is nice", "level": 3}]}\')')
        grader = substrate.grader.model_copy(update={"command": content}) if substrate.grader else None
        golden = substrate.tasks[:1]
        return substrate.model_copy(update={"smoke": None, "tests": None, "grader": grader, "tasks": golden})

    findings = await found(processes, tmp_path, change)
    warned = {finding.name: finding.sentence for finding in findings if finding.level is Outcome.warning}
    assert failures(findings) == {}
    assert set(warned) == {"isolation", "tasks", "grader", "scope", "smoke", "tests"}
    assert "holdout" in warned["tasks"]
    assert "senseless" in warned["grader"]
    assert "`lib/**`" in warned["scope"]
