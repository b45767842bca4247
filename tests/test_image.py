"""The image of Moss itself: built without a network from what the locks name, and useful inside."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.needs import needs_engine
from tests.support.world import ROOT

pytestmark = needs_engine

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BUILD_S = 300

CONFIG = """
[moss]
data = "{data}"

[substrate]
name = "prices"
repository = "/nowhere"

[substrate.run]
port = 8080

[substrate.health]
heartbeat = "/state/heartbeat.json"

[coder]
argv = ["sh"]
sandbox = "host"
"""


def docker(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    source = tmp_path_factory.mktemp("moss")
    listed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(source)], input=listed.stdout, check=True)
    _fetch_wheels(source)
    tag = f"moss-test:{secrets.token_hex(4)}"
    built = docker(
        "build", "--quiet", "--network=none", f"--build-arg=MOSS_COMMIT={COMMIT}", f"--tag={tag}", str(source),
        timeout_s=BUILD_S,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    yield tag
    docker("image", "rm", "--force", tag)


def _fetch_wheels(source: Path) -> None:
    """What the Dockerfile's first lines tell an owner without a network to do."""
    lines = (source / "requirements-dev.lock").read_text().splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith("setuptools=="))
    end = next(n for n, line in enumerate(lines[start:], start) if not line.rstrip().endswith("\\"))
    (source / "build.lock").write_text("".join(lines[start : end + 1]))
    for lock in ("requirements.lock", "build.lock"):
        fetch = (sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--dest", "wheels", "-r", lock)
        done = subprocess.run(fetch, cwd=source, capture_output=True, text=True, timeout=BUILD_S, check=False)
        assert done.returncode == 0, done.stderr
    (source / "build.lock").unlink()


def test_the_image_knows_its_commit_and_does_not_run_as_root(image: str) -> None:
    said = json.loads(docker("image", "inspect", image).stdout)[0]
    assert said["Config"]["Labels"]["org.opencontainers.image.revision"] == COMMIT
    assert said["Config"]["User"] == "moss"
    assert COMMIT[:12] in docker("run", "--rm", image, "version").stdout


def test_the_doctor_runs_inside_and_says_what_is_missing(image: str, tmp_path: Path) -> None:
    findings = _doctor(image, _config(tmp_path, "/srv/moss"))
    assert findings["python"]["level"] == findings["git"]["level"] == "ok"
    assert findings["settings"]["level"] == "ok"
    assert any(finding["level"] == "failed" for finding in findings.values())
    assert all(finding["sentence"] for finding in findings.values())


def test_a_data_directory_that_the_engine_sees_elsewhere_is_explained(image: str, tmp_path: Path) -> None:
    outside = tmp_path / "data"
    outside.mkdir()
    outside.chmod(0o777)
    engine = ("--user=0", "--volume=/var/run/docker.sock:/var/run/docker.sock")
    elsewhere = _doctor(image, _config(tmp_path, "/data"), *engine, f"--volume={outside}:/data")
    assert elsewhere["host"]["level"] == "ok", elsewhere
    assert "mount it under the same path on both sides" in elsewhere["relay"]["sentence"]
    same = _doctor(image, _config(tmp_path, str(outside)), *engine, f"--volume={outside}:{outside}")
    assert same["relay"]["level"] == "ok", same


def _config(where: Path, data: str) -> Path:
    config = where / "moss.toml"
    config.write_text(CONFIG.format(data=data))
    return config


def _doctor(image: str, config: Path, *more: str) -> dict[str, dict[str, str]]:
    mount = f"--volume={config}:/etc/moss.toml:ro"
    said = docker("run", "--rm", mount, *more, image, "--config", "/etc/moss.toml", "doctor", "--json")
    assert said.stdout, said.stderr
    assert "Traceback" not in said.stderr
    findings = json.loads(said.stdout)
    return {finding["name"]: finding for finding in findings}
