"""What is handed out: locks that bind every file, and no trace of the machines on which it was written."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pydantic
import pytest

from tests.support.tracked import ROOT, text_files, tracked

LOCKS = ("requirements.lock", "requirements-dev.lock")

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|work|root)/[\w.-]+/[\w./-]*")
REGISTRY = re.compile(r"index-url[= ]+\S*/|pypi\.org|pythonhosted|file:///\w")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=! ;]", text)[0].lower().replace("_", "-") for text in requirements}


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text()
    return {found[1].lower(): found[2] for found in re.finditer(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_pins_a_version_and_binds_its_files(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 20
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==\S+( ; [^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line[:80]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()


def test_the_locks_hold_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    runtime = names(project["dependencies"]) | names(extras["postgres"])
    assert runtime <= pinned("requirements.lock").keys()
    assert runtime | names(extras["dev"]) <= pinned("requirements-dev.lock").keys()


def test_developers_run_what_is_handed_out() -> None:
    development = pinned("requirements-dev.lock")
    assert pinned("requirements.lock").items() <= development.items()


def test_no_file_holds_a_path_of_a_machine_or_the_address_of_a_registry() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[0]}"
        for file, text in text_files()
        if file != Path(__file__)
        for number, line in enumerate(text.splitlines(), start=1)
        for pattern in (MACHINE_PATH, REGISTRY)
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)


def test_the_licence_is_there_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_a_wheel_brings_the_examples_and_finds_them(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for file in tracked():
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    offline = ("--no-index", "--no-deps")
    build = (*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source))
    subprocess.run(build, check=True, timeout=120, capture_output=True)
    venv = tmp_path / "venv"
    subprocess.run((sys.executable, "-m", "venv", "--without-pip", str(venv)), check=True, timeout=60)
    python = str(venv / "bin" / "python")
    (wheel,) = tmp_path.glob("*.whl")
    install = (*pip, "--python", python, "install", *offline, str(wheel))
    subprocess.run(install, check=True, timeout=120, capture_output=True)
    (packages,) = venv.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(f"{Path(pydantic.__file__).parents[1]}\n")
    ask = (python, "-c", "from bot import built_in; print(built_in.examples(), built_in.__file__)")
    said = subprocess.run(ask, cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True).stdout.split()
    assert [Path(path).is_relative_to(venv) for path in said] == [True, True]
    for root in (ROOT / "examples", ROOT / "bot" / "adapters" / "room" / "web"):
        wanted = {file.relative_to(root) for file in tracked() if file.is_relative_to(root)}
        there = Path(said[0]) if root.name == "examples" else packages / root.relative_to(ROOT)
        assert {file.relative_to(there) for file in there.rglob("*") if file.is_file()} >= wanted


def test_every_room_stands_on_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["id"] == "floors")["layers"]
    rooms = {room for layer in layers for room in re.split(r" [|:] ", layer)}
    inside = {f"core.{path.stem}" for path in (ROOT / "core").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert inside - {"core.__init__", "core.__pycache__"} == {room for room in rooms if room.startswith("core.")}
