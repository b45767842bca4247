"""`moss init`: what it finds, that what it writes loads, and that it writes over nothing."""

import os
import secrets
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bot import dockerfile
from bot.dockerfile import Dockerfile
from bot.moss_toml import CODERS, Container, Found, HostName, Wishes, data_directory, moss_toml, name_of
from bot.settings import Settings, load
from core.containers.host import Portrait, Volume
from core.model.errors import BadInput, Refused
from tests.support.command import Said, moss
from tests.support.needs import needs_engine
from tests.support.world import FOREIGN, git, repository_of

BASE_IMAGE = "python:3.11-slim-bookworm"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The repository of an agent, and nothing of Moss."""
    return repository_of(FOREIGN / "shop", tmp_path / "shop")


def init(directory: Path, *words: str) -> Said:
    return moss("init", *words, config=directory / "moss.toml")


def test_what_it_writes_loads_and_the_doctor_names_only_what_is_missing(shop: Path) -> None:
    said = init(
        shop, "--host", "process", "--trusted", "--approver", "ann", "--approver", "bob", "--coder", "./gone.sh"
    )
    assert said.code == 0, said.err
    made = load(shop / "moss.toml", {}).substrate[0]
    assert (made.name, made.repository, made.branch, made.trusted) == ("shop", str(shop), "main", True)
    assert (made.run.port, made.run.command) == (8080, ("python3", "agent.py"))
    assert made.health.http == "/well"
    found = moss("doctor", "--json", config=shop / "moss.toml").data
    bad = {finding["name"]: finding["sentence"] for finding in found if finding["level"] != "ok"}
    taken = bad.pop("room", "")  # the room's own port may be taken on this machine
    assert not taken or "is taken" in taken
    bad.pop("sandbox", "")  # nor is there one everywhere
    assert set(bad) == {"isolation", "coder gone.sh", "substrate shop"}
    assert "gone.sh` does not exist or is not executable" in bad["coder gone.sh"]
    assert bad["substrate shop"].startswith("It names no tests")


def test_without_any_wish_the_file_loads_too_and_the_doctor_says_the_rest(shop: Path) -> None:
    assert init(shop, "--host", "process").code == 0
    made = load(shop / "moss.toml", {})
    assert not made.substrate[0].trusted, "nobody but its owner vouches for an agent"
    assert made.consent.approvers == frozenset()
    said = moss("doctor", config=shop / "moss.toml")
    assert "Nobody may approve" in said.out
    assert "Nothing isolates shop" in said.out


def test_it_tells_people_and_programs_what_it_found(shop: Path) -> None:
    told = init(shop, "--host", "process").out
    assert f"{shop / 'moss.toml'} is written." in told
    assert "Dockerfile" in told
    data = init(shop, "--host", "process", "--force", "--json").data
    assert data["file"] == str(shop / "moss.toml")
    assert (data["branch"], data["dockerfile"], data["container"], data["problems"]) == ("main", "Dockerfile", None, [])


def test_it_never_writes_over_a_file_unless_it_is_told_to(shop: Path) -> None:
    (shop / "moss.toml").write_text("mine")
    refused = init(shop, "--host", "process")
    assert refused.code == Refused.exit_code
    assert refused.err == f"{shop / 'moss.toml'} exists; edit it, or write it anew with --force.\n"
    assert (shop / "moss.toml").read_text() == "mine"
    assert init(shop, "--host", "process", "--force").code == 0
    assert "[substrate]" in (shop / "moss.toml").read_text()


def test_it_does_not_follow_a_link_that_stands_in_its_place(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (shop / "moss.toml").symlink_to(tmp_path / "precious")
    assert init(shop, "--host", "process").code == Refused.exit_code
    assert init(shop, "--host", "process", "--force").code == 0
    assert (tmp_path / "precious").read_text() == "mine"


def test_it_starts_and_changes_nothing_else(shop: Path) -> None:
    before = git(shop, "status", "--porcelain", "--ignored")
    init(shop)
    assert git(shop, "status", "--porcelain", "--ignored") == f"{before}\n?? moss.toml".strip()


def test_outside_of_a_repository_it_says_so(tmp_path: Path) -> None:
    said = init(tmp_path)
    assert said.code == BadInput.exit_code
    assert "is not in a git repository" in said.err
    assert not (tmp_path / "moss.toml").exists()


def test_from_a_directory_within_the_repository_it_finds_its_root(shop: Path) -> None:
    (shop / "deploy").mkdir()
    assert init(shop / "deploy", "--host", "process").code == 0
    assert load(shop / "deploy" / "moss.toml", {}).substrate[0].repository == str(shop)


def test_a_worktree_is_a_repository_too(shop: Path, tmp_path: Path) -> None:
    git(shop, "worktree", "add", "--quiet", "-b", "next", str(tmp_path / "tree"))
    assert init(tmp_path / "tree", "--host", "process", "--json").data["branch"] == "next"


def test_what_is_not_committed_is_not_seen_and_that_is_said(tmp_path: Path) -> None:
    shutil.copytree(FOREIGN / "shop", tmp_path / "shop")
    git(tmp_path / "shop", "init", "--quiet", "--initial-branch=main")
    data = init(tmp_path / "shop", "--host", "process", "--json").data
    assert data["dockerfile"] is None
    assert data["problems"] == ["Nothing is committed yet, and Moss works on commits; commit the agent's source."]
    assert load(tmp_path / "shop" / "moss.toml", {})


def test_the_first_coder_on_the_path_is_taken_and_the_others_are_named(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("codex", "claude"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert init(shop, "--host", "process", "--json").data["coders"] == ["claude", "codex"]
    coder = load(shop / "moss.toml", {}).coder
    assert (coder.provider, coder.argv, coder.env_from) == ("claude", None, None)
    assert "# Also on PATH: codex." in (shop / "moss.toml").read_text()


@pytest.mark.parametrize("coder", ["'unclosed", '"'])
def test_a_coder_with_an_open_quote_is_refused(shop: Path, coder: str) -> None:
    said = init(shop, "--coder", coder)
    assert said.code == BadInput.exit_code
    assert "has a quote without its end; close it" in said.err


# Dockerfiles


def test_only_the_last_stage_of_a_dockerfile_counts() -> None:
    text = """
    FROM golang AS build
    EXPOSE 1
    CMD ["build"]
    from scratch
    # EXPOSE 2
    EXPOSE 9000/tcp 9001
    ENTRYPOINT ["/agent", \\
        "--quiet"]
    CMD ["serve"]
    VOLUME ["/memory", "/other"]
    HEALTHCHECK --interval=5s \\
      CMD curl -f http://localhost:9000/healthz?deep=1 || exit 1
    """
    assert dockerfile.read(text) == Dockerfile(9000, ("/agent", "--quiet", "serve"), "/memory", "/healthz")


HOSTILE = [
    "",
    "\\",
    "FROM",
    "EXPOSE ${PORT}\nVOLUME $X\nCMD\nHEALTHCHECK NONE",
    "EXPOSE 99999999999999999999\nEXPOSE ٣\nEXPOSE 53/udp",
    "CMD " + "[" * 100_000,
    'CMD ["a", 1]\nENTRYPOINT {"a": 1}',
    "VOLUME relative\n" * 1000,
    "HEALTHCHECK CMD curl http://[::1/x",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_strange_dockerfile_is_read_as_far_as_it_goes(text: str) -> None:
    found = dockerfile.read(text)
    assert (found.port, found.volume) == (None, None)


def test_the_command_of_a_shell_is_given_to_a_shell() -> None:
    assert dockerfile.read("FROM x\nCMD python3 agent.py --port $PORT").command == (
        "sh",
        "-c",
        "python3 agent.py --port $PORT",
    )


# The file


def found(**changes: Any) -> Found:
    values: dict[str, Any] = {
        "repository": Path("/srv/agent"),
        "branch": "main",
        "dockerfile": "Dockerfile",
        "about": Dockerfile(),
        "engine": "Docker Engine",
        "no_engine": "",
        "coders": (),
        "container": None,
    }
    return Found(**{**values, **changes})


def loaded(found: Found, directory: Path, wishes: Wishes | None = None) -> Settings:
    (directory / "moss.toml").write_text(moss_toml(found, wishes or Wishes(), directory))
    return load(directory / "moss.toml", {})


NASTY = 'a"b\\c\nd\x1b[31m\x7f\u2028[x]'


def test_whatever_is_found_is_written_so_that_it_is_read_as_the_same(tmp_path: Path) -> None:
    portrait = Portrait(
        name="shop-1",
        image="sha256:1",
        command=("serve", NASTY),
        env={"KEY": "very secret", "OTHER": "x"},
        volumes=(Volume("shop-memory", "/memory"), Volume("more", "/more")),
        ports={9000: 80, 9001: None},
        user="1000",
        restart="always",
        beyond=(f"is on the network `{NASTY}`",),
    )
    here = found(
        branch=NASTY.replace("\n", ""), dockerfile="build/Dockerfile", container=Container(portrait, None, NASTY)
    )
    run = (made := loaded(here, tmp_path).substrate[0]).run
    assert made.branch == NASTY.replace("\n", "")
    assert made.build.dockerfile == "build/Dockerfile"
    assert (run.box, run.command, run.port, run.publish) == ("shop-1", ("serve", NASTY), 9000, 80)
    assert (run.volume, run.state_path, run.user, run.restart) == ("shop-memory", "/memory", "1000", "always")
    assert run.env_from == ("KEY", "OTHER")
    text = (tmp_path / "moss.toml").read_text()
    assert "very secret" not in text
    assert "\x1b" not in text
    assert "`moss adopt` will refuse it: it is on the network" in text


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("host", HostName)
def test_the_file_loads_whatever_was_found(tmp_path: Path, coder: str, host: HostName) -> None:
    engine = None if host is HostName.process else "Docker Engine"
    here = found(coders=(coder,), engine=engine, dockerfile=None, branch=None)
    made = loaded(here, tmp_path, Wishes(host=host, approvers=("ann",)))
    assert made.moss.host == host
    assert made.coder.provider == coder
    assert tomllib.loads((tmp_path / "moss.toml").read_text())["consent"]["approvers"] == ["ann"]


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("/srv/My Agent (2)", "my-agent-2"),
        ("/srv/---", "agent"),
        ("/srv/relay", "agent"),
        ("/", "agent"),
        ("/srv/" + "x" * 80, "x" * 40),
    ],
)
def test_an_agent_is_named_after_its_directory(directory: str, name: str) -> None:
    assert name_of(Path(directory)) == name


def test_a_path_that_is_too_long_for_a_socket_is_not_proposed() -> None:
    assert data_directory(Path("/srv/shop")) == "moss-data"
    assert data_directory(Path("/srv") / ("x" * 90) / "shop") == "~/.moss/shop"


# Images that are not there


@needs_engine
def test_an_image_that_the_first_build_has_to_fetch_is_named(shop: Path) -> None:
    gone = f"moss-test.invalid/gone:{secrets.token_hex(4)}"
    text = (shop / "Dockerfile").read_text()
    (shop / "Dockerfile").write_text(text.replace(BASE_IMAGE, gone))
    git(shop, "commit", "--quiet", "--all", "--message", "another base")
    mend = f"is not on the engine, and has to be fetched; run `docker pull {gone}`."
    said = init(shop, "--json").data["problems"]
    assert said == [f"The image `{gone}`, which line 1 of the Dockerfile names, {mend}"]
    found = moss("doctor", "--json", config=shop / "moss.toml").data
    told = [finding["sentence"] for finding in found if finding["name"] == "substrate shop"]
    assert f"The image `{gone}`, which line 1 of the Dockerfile names, {mend}" in told

    (shop / "Dockerfile").write_text(f"FROM --platform=linux/arm64 {BASE_IMAGE}\n")
    git(shop, "commit", "--quiet", "--all", "--message", "another platform")
    wanted = "wants an image of a platform, which may have to be fetched"
    assert wanted in init(shop, "--force", "--json").data["problems"][0]
    bad = [
        each["sentence"]
        for each in moss("doctor", "--json", config=shop / "moss.toml").data
        if each["level"] == "failed"
    ]
    assert any(wanted in sentence for sentence in bad)


# A running container


@needs_engine
def test_a_running_container_of_this_source_is_found_and_described(shop: Path) -> None:
    mark = secrets.token_hex(4)
    names = [f"moss-test-shop-{mark}", f"moss-test-shop-{mark}-2"]
    commit = git(shop, "rev-parse", "HEAD")
    try:
        start(
            names[0], "--label", f"org.opencontainers.image.revision={commit}", "--env", "KEY=secret", "--user", "1000"
        )
        data = init(shop, "--json").data
        assert data["container"] == names[0]
        assert data["engine"].startswith("Docker Engine")
        run = load(shop / "moss.toml", {}).substrate[0].run
        assert (run.box, run.env_from, run.user, run.command) == (names[0], ("KEY",), "1000", ("sleep", "600"))
        assert (run.volume, run.state_path) == (f"{names[0]}-memory", "/memory")
        assert "secret" not in (shop / "moss.toml").read_text()

        start(names[1], "--label", f"com.docker.compose.project.working_dir={shop}")
        again = init(shop, "--force", "--json").data
        assert again["container"] is None
        assert again["problems"] == [
            f"Several containers may be this agent: {names[0]}, {names[1]}; name one as `run.box`."
        ]
    finally:
        for name in names:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
            subprocess.run(["docker", "volume", "rm", "--force", f"{name}-memory"], capture_output=True, check=False)


def start(name: str, *words: str) -> None:
    mount = ("--volume", f"{name}-memory:/memory")
    command = ["docker", "run", "--detach", "--name", name, *mount, *words, BASE_IMAGE, "sleep", "600"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
