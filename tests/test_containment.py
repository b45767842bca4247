"""Which sandbox is taken, what it is told to people, and what of this machine it shows."""

import os
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from bot import built_in, pitfalls
from bot.settings import load
from core.coders.bubblewrap import Bubblewrap
from core.coders.catalogue import CoderSettings
from core.coders.choose import Choice, choose
from core.coders.container_sandbox import ContainerSandbox
from core.coders.host_sandbox import HostSandbox
from core.coders.showing import Secret, Shown, needed
from core.containers.docker_host import RELAY_BASE
from core.model.errors import Unavailable
from tests.support.command import House, moss
from tests.support.needs import needs_bubblewrap, needs_engine
from tests.support.world import FOREIGN, World, repository_of


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    for name in ("data", "home"):
        (tmp_path / name).mkdir()
    return Secret(tmp_path / "data", tmp_path / "home", tmp_path / "etc" / "moss.toml")


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """bubblewrap is installed, and may not do what it must."""
    bwrap = tmp_path / "bin" / "bwrap"
    bwrap.parent.mkdir()
    bwrap.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bwrap.parent}:{os.environ['PATH']}")
    return "bubblewrap does not work here (bwrap: No permissions to create new namespace); let this user make"


async def chosen(secret: Secret, harmless: bool = False, url: str = "", **settings: object) -> Choice:
    made = CoderSettings.model_validate({"argv": ["x"], **settings})
    return await choose(made, secret, "test", harmless=harmless, **({"engine_url": url} if url else {}))


# Which


@needs_bubblewrap
async def test_without_an_image_bubblewrap_is_the_strongest(secret: Secret) -> None:
    choice = await chosen(secret)
    assert isinstance(choice.sandbox, Bubblewrap)
    assert choice.works
    assert choice.sentence.startswith("Bubblewrap: coders see their question")


@needs_engine
async def test_with_an_image_and_an_engine_a_container_is(secret: Secret) -> None:
    choice = await chosen(secret, image=RELAY_BASE)
    assert isinstance(choice.sandbox, ContainerSandbox)
    assert RELAY_BASE in choice.sentence


@needs_bubblewrap
@needs_engine
async def test_an_image_that_is_not_there_is_told_and_bubblewrap_is_taken(secret: Secret) -> None:
    choice = await chosen(secret, image="no/such:image")
    assert isinstance(choice.sandbox, Bubblewrap)
    assert "The image `no/such:image` for coders is not on the engine; build or pull it" in choice.sentence


async def test_auto_never_takes_the_host(secret: Secret, forbidden: str) -> None:
    choice = await chosen(secret)
    assert not choice.works
    assert choice.sentence.startswith(forbidden)
    assert 'sandbox = "host"' in choice.sentence
    with pytest.raises(Unavailable, match="bubblewrap does not work here"):
        await choice.sandbox.ping()


async def test_where_it_is_not_installed_that_is_said(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(secret.data))
    assert (await chosen(secret)).sentence.startswith("`bwrap` was not found on PATH; install the package `bubblewrap`")


async def test_what_was_asked_for_is_not_replaced_by_something_weaker(
    secret: Secret, forbidden: str, tmp_path: Path
) -> None:
    assert not (await chosen(secret, sandbox="bubblewrap")).works
    gone = await chosen(secret, sandbox="container", image="x", url=f"unix://{tmp_path}/gone.sock")
    assert not gone.works
    assert "no Docker engine can be reached" in gone.sentence
    host = await chosen(secret, sandbox="host")
    assert isinstance(host.sandbox, HostSandbox)
    assert "nothing confines them" in host.sentence


async def test_only_our_own_recording_works_without_a_sandbox_unasked(secret: Secret, forbidden: str) -> None:
    choice = await chosen(secret, harmless=True)
    assert isinstance(choice.sandbox, HostSandbox)
    assert choice.sentence.startswith("The recorded coder runs as Moss's own user: Bubblewrap does not work") or (
        forbidden in choice.sentence
    )


def test_a_recording_is_known_by_its_command(tmp_path: Path) -> None:
    coder = CoderSettings.model_validate(built_in.written(tmp_path, "process")["coder"])
    assert built_in.recorded(coder)
    assert not built_in.recorded(coder.model_copy(update={"argv": (*built_in.THIS_PYTHON, "/tmp/recorded_coder.py")}))
    own = {"locate": {"argv": ("mine",)}}
    assert not built_in.recorded(CoderSettings.model_validate({"argv": coder.argv, "roles": own}))


def test_a_container_needs_an_image() -> None:
    with pytest.raises(ValidationError, match="needs an `image`"):
        CoderSettings.model_validate({"argv": ["x"], "sandbox": "container"})


@pytest.mark.parametrize("shows", ["data", "home", "", "gone"])
async def test_what_must_stay_hidden_cannot_be_shown(secret: Secret, tmp_path: Path, shows: str) -> None:
    choice = await chosen(secret, shows=[str(tmp_path / shows)])
    assert not choice.works
    assert f"`shows` names {tmp_path / shows}".rstrip("/") in choice.sentence


# What people are told


def test_doctor_and_coder_check_say_where_nothing_works(tmp_path: Path, forbidden: str) -> None:
    house = House(World.foreign(tmp_path, "process"))
    house.settle(('sandbox = "host"\n', ""))
    found = {finding["name"]: finding for finding in house.moss("doctor", "--json").data}
    assert found["sandbox"]["level"] == "failed"
    assert found["sandbox"]["sentence"].startswith(forbidden)
    said = house.moss("coder", "check")
    assert said.code == Unavailable.exit_code
    assert forbidden in said.err


@needs_bubblewrap
def test_coder_check_says_where_it_was_tried_and_a_coder_passes_there(tmp_path: Path) -> None:
    house = House(World.foreign(tmp_path, "process"))
    house.settle(('sandbox = "host"\n', ""))
    said = house.moss("coder", "check")
    assert "Bubblewrap: coders see their question" in said.out
    assert "locate                 ok " in said.out, "this coder knows some roles only"


def test_a_key_that_is_of_no_use_in_a_sandbox_is_found() -> None:
    coder = CoderSettings.model_validate({"argv": ["x"], "env_from": ["B"], "roles": {"plan": {"env_from": ["A"]}}})
    (finding,) = pitfalls.of_ways(coder)
    assert finding.sentence.startswith("The coder is given A, B, and has no network in its sandbox")


def test_an_address_that_no_sandbox_leads_to_is_found() -> None:
    coder = CoderSettings.model_validate({"provider": "claude", "base_url": "https://models.example"})
    (finding,) = pitfalls.of_ways(coder)
    assert finding.sentence.startswith("The coder is to ask https://models.example, and has no network")


@pytest.mark.parametrize("trusted", [True, False])
def test_init_asks_for_the_host_only_where_somebody_vouches(tmp_path: Path, forbidden: str, trusted: bool) -> None:
    shop = repository_of(FOREIGN / "shop", tmp_path / "shop")
    words = ("--trusted",) if trusted else ()
    assert moss("init", "--host", "process", *words, config=shop / "moss.toml").code == 0
    assert load(shop / "moss.toml", {}).coder.sandbox == ("host" if trusted else "auto")
    text = (shop / "moss.toml").read_text()
    assert f"# {forbidden}" in text
    assert "may do and read whatever" in text


# What is shown


def shown(secret: Secret, *argv: str) -> set[Path]:
    return {each.path for each in needed(argv, os.environ["PATH"], secret)}


def test_programs_of_the_machine_need_nothing_more(secret: Secret) -> None:
    assert needed(("/bin/sh", "-c", "true"), "/bin", secret) == []


def test_a_python_is_shown_with_its_environment_and_its_library(secret: Secret) -> None:
    seen = shown(secret, sys.executable)
    if sys.prefix != sys.base_prefix:
        assert Path(sys.prefix) in seen
    base = Path(sys.base_prefix)
    assert base.is_relative_to("/usr") or {path for path in seen if path.is_relative_to(base / "lib")}
    assert Path(sys.base_prefix) not in seen
    assert Path.home() not in seen


def test_a_package_of_npm_is_shown_with_the_link_that_leads_to_it(secret: Secret, tmp_path: Path) -> None:
    package = tmp_path / "npm" / "node_modules" / "@scope" / "tool"
    package.mkdir(parents=True)
    (package / "cli.js").write_text(f"#!/usr/bin/env -S node\n{secret}")
    (package / "cli.js").chmod(0o755)
    link = tmp_path / "npm" / "bin" / "tool"
    link.parent.mkdir()
    link.symlink_to("../node_modules/@scope/tool/cli.js")
    seen = needed((str(link),), os.environ["PATH"], secret)
    assert Shown(link, "../node_modules/@scope/tool/cli.js") in seen
    assert Shown(tmp_path / "npm" / "node_modules") in seen


def test_a_script_is_shown_with_its_interpreter(secret: Secret, tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("#!/bin/sh\n")
    (tmp_path / "outer").write_text(f"#!{tmp_path}/inner\n")
    for name in ("inner", "outer"):
        (tmp_path / name).chmod(0o755)
    assert shown(secret, str(tmp_path / "outer")) == {tmp_path / "outer", tmp_path / "inner"}


def test_of_arguments_only_what_is_no_secret_is_shown(secret: Secret, tmp_path: Path) -> None:
    for name in ("coder.py", "home/tool.py", "home/.ssh/key", "data/moss.db", "etc/moss.toml", "etc/coder.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    words = ("coder.py", "home/tool.py", "home/.ssh/key", "data/moss.db", "etc/moss.toml", "home", "data", "etc", "")
    argv = ("/bin/sh", *(str(tmp_path / word) for word in words), f"--config={tmp_path}/etc/coder.toml", "/", "/etc")
    assert shown(secret, *argv) == {tmp_path / name for name in ("coder.py", "home/tool.py", "etc/coder.toml")}
