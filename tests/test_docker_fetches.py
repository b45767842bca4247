"""What the engine would fetch for a build that has no network."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.containers.commit import image_of
from core.containers.docker_fetches import images
from core.containers.docker_host import DockerHost
from core.containers.host import Recipe
from core.model.errors import BuildFailed
from core.model.substrate import Build, Health, Substrate
from core.repository import Clone
from tests.support.containers import OWNER, Stage, context, docker_image, docker_stage, recipe
from tests.support.needs import needs_engine
from tests.support.repositories import commit, repository

__all__ = ["docker_image", "docker_stage"]

BASE = "python:3.11-slim-bookworm"


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address, and what it was asked for."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


@needs_engine
async def test_without_network_the_engine_fetches_nothing_either(
    docker_stage: Stage, listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = listener
    tries = {
        "add": f"FROM {BASE}\nADD http://{address}/what-i-know /x\n",
        "from": f"FROM {address}/what-i-know:1\n",
        "copy": f"FROM {BASE}\nCOPY --from={address}/what-i-know:1 /x /x\n",
    }
    for name, text in tries.items():
        with pytest.raises(BuildFailed, match=r"line [12] of the Dockerfile .* set `build\.network = true`\."):
            await docker_stage.host.build(recipe(context(tmp_path / name, Dockerfile=text)))
    assert asked == []
    open_to_it = recipe(context(tmp_path / "open", Dockerfile=tries["add"]), network=True)
    await docker_stage.host.build(open_to_it)
    assert asked == ["/what-i-know"]


@needs_engine
async def test_the_base_of_the_relays_may_be_fetched_so_that_the_example_runs_on_a_new_engine(
    listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = listener
    host = DockerHost(tmp_path, OWNER, relay_base=f"{address}/base:1")
    with pytest.raises(BuildFailed):
        await host.build(recipe(context(tmp_path / "new", Dockerfile=f"FROM {address}/base:1\n")))
    await host.close()
    assert asked


@needs_engine
async def test_what_the_owners_own_dockerfile_names_may_be_fetched(
    docker_stage: Stage, listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = listener
    source = context(tmp_path / "new", Dockerfile=f"FROM {address}/other:1\n")
    for approved, fetched in ((f"FROM {address}/base:1\n", False), (f"FROM {address}/other:1 AS first\n", True)):
        with pytest.raises(BuildFailed):
            await docker_stage.host.build(recipe(source, approved=approved))
        assert bool(asked) == fetched


async def test_that_is_the_one_of_the_commit_which_people_stand_by(tmp_path: Path) -> None:
    heard: list[Recipe] = []

    class Listening:
        async def build(self, recipe: Recipe) -> str:
            heard.append(recipe)
            return "sha256:1"

    owners = tmp_path / "owner"
    base = repository(owners, {"below/Dockerfile": f"FROM {BASE}\n"})
    clone = await Clone.of(str(owners), tmp_path / "data" / "agent.git")
    candidate = commit(owners, {"below/Dockerfile": "FROM another/one:1\n"})
    await clone.fetch()
    desk = Substrate(name="desk", repository=str(owners), health=Health(http="/"), build=Build(context="below"))
    (log := tmp_path / "log").touch()
    for approved, said in ((base, BASE), (candidate, "another/one:1")):
        where = {"base": approved, "work": tmp_path / said[:3], "log": log}
        await image_of(Listening(), clone, desk, candidate, {}, **where)  # type: ignore[arg-type]
        assert heard[-1].approved == f"FROM {said}\n"


@needs_engine
async def test_a_dockerfile_behind_a_link_is_refused(docker_stage: Stage, tmp_path: Path) -> None:
    """What it leads to is another file for the engine than for Moss."""
    source = context(tmp_path / "linked")
    (source / "Dockerfile").rename(source / "other")
    (source / "Dockerfile").symlink_to(source / "other")
    with pytest.raises(BuildFailed, match="leads over a link; make it a plain file"):
        await docker_stage.host.build(recipe(source))


@pytest.mark.parametrize(
    "text",
    [
        "ADD http://x/y /z",
        "  aDd\thttps://x/y /z",
        "ADD a b HTTP://x /z",
        "ADD git@github.com:x/y.git /z",
        "ADD $WHERE /z",
        "ADD --chown=1:1 ${WHERE} /z",
        'ADD ["a", "ftp://x", "/z"]',
        'ADD ["http\\u003a//x", "/z"]',
        'ADD http:"//x" /z',
        "ADD http:\\//x /z",
        "ADD \\\n  # a word on it\n\n http:\\\n//x /z",
        "AD\\\nD http://x /z",
        "ONBUILD ADD http://x /z",
        "OnBuild add http://x /z",
        "ONBU\u0130LD ADD http://x /z",
        "RUN x \\\\\nADD http://x /z",
        "RUN x # \\\r\r\nADD http://x /z",
        "RUN x \\\n\x1c\nADD http://x /z",
        "# a word \\\nADD http://x /z",
        "RUN <<END\nADD http://x /z\nEND",
        "FROM --platform=linux/arm64 x",
        "FROM $X",
        "FROM ${X:-y}",
        'FROM "x"',
        "FROM ../containers/x",
        "COPY --from=$X a b",
    ],
)
def test_whatever_the_engine_may_fetch_is_refused(text: str) -> None:
    with pytest.raises(BuildFailed, match=r"The build has no network, and line \d of the Dockerfile .*; .*\."):
        images(f"FROM {BASE}\n{text}\n")


def test_another_escape_than_the_backslash_is_refused() -> None:
    for directive in ("# escape=`", "#ESCAPE = `", "\ufeff# syntax=x\n# escape=`"):
        with pytest.raises(BuildFailed, match="continue them by a backslash"):
            images(f"{directive}\nFROM {BASE}\nRUN x `\nADD http://x /z\n")
    assert images(f"# escape=\\\nFROM {BASE}") == {BASE: 2}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("# syntax=docker/dockerfile:1\nFROM a/b:1@sha256:0", {"a/b:1@sha256:0": 2}),
        ("\nfrom a AS one\nFROM one as two\nFROM scratch\nCOPY --from=One --from=0 x y", {"a": 2}),
        ("FROM a\nONBUILD COPY --fr\"om\"=b x y", {"a": 1, "b": 2}),
        ('ARG V=3\nARG B="b:"\nFROM a:${V}\nARG B=c\nFROM $B$V', {"a:3": 3, "b:3": 5}),
        ("FROM a\nADD x.tar.gz $HOME/\nRUN curl http://x \\\n ADD http://x y", {"a": 1}),
        ("FROM one\nFROM a AS one", {"one": 1, "a": 2}),
        ("FROM a\r\nCOPY x \\\r\n  y\r\n", {"a": 1}),
    ],
)  # fmt: skip
def test_the_images_of_a_dockerfile_are_those_of_no_earlier_stage(text: str, named: dict[str, int]) -> None:
    assert images(text) == named


def test_an_argument_that_may_be_two_things_is_none() -> None:
    for args in ("ARG A=x\nARG A=y", "ARG A=x B=y", 'ARG B="q A=x"', "ARG A"):
        with pytest.raises(BuildFailed, match="write its plain name"):
            images(f"{args}\nFROM $A\n")
