"""What a build may take: memory, processors and time, and a sentence when it takes more."""

import asyncio
import secrets
import shutil
import time
from pathlib import Path

import docker
import pytest

from core.containers import docker_calls
from core.containers.docker_host import DockerHost
from core.containers.host import Recipe, label
from core.model.errors import BuildFailed, Unavailable
from core.model.substrate import Build
from tests.support.containers import Stage, context, docker_image, docker_stage, recipe
from tests.support.needs import needs_engine

__all__ = ["docker_image", "docker_stage"]

pytestmark = needs_engine

FROM = "FROM python:3.11-slim-bookworm\n"


@pytest.fixture
def stage(docker_stage: Stage) -> Stage:
    return docker_stage


def step(where: Path, code: str, **limits: float) -> Recipe:
    return recipe(context(where, Dockerfile=f"{FROM}RUN python3 -S -c {code!r}\n"), **limits)


async def test_a_build_that_takes_too_much_memory_is_killed_and_says_which_setting_it_met(
    stage: Stage, tmp_path: Path
) -> None:
    greedy = "eaten = [bytearray(1 << 20) for _ in range(400)]"
    with pytest.raises(BuildFailed, match=r"a step was killed; .* raise `build\.memory_mb`\. Its log ends:"):
        await stage.host.build(step(tmp_path / "greedy", greedy, memory_mb=64))
    assert await stage.host.build(step(tmp_path / "modest", greedy, memory_mb=512))


async def test_a_build_that_talks_without_end_is_ended_and_leaves_a_short_log(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_calls, "LOG_BYTES", 2_000_000)
    talks = "import sys; all(sys.stdout.write('y' * 1000 + chr(10)) for _ in range({}))"
    modest, endless = step(tmp_path / "modest", talks.format(1000)), step(tmp_path / "endless", talks.format(10**9))
    assert await stage.host.build(modest)
    with pytest.raises(BuildFailed, match="because it said more than 2 MB; let it say less"):
        await stage.host.build(endless)
    assert modest.log.stat().st_size > 1_000_000
    assert endless.log.stat().st_size < 3_000_000


@pytest.mark.sweep
async def test_a_build_that_fills_the_disk_is_ended_before_it_is_full(stage: Stage, tmp_path: Path) -> None:
    assert isinstance(stage.host, DockerHost)
    root = docker.from_env().info()["DockerRootDir"]
    free = shutil.disk_usage(root).free
    stage.host.spare_bytes = free - 400_000_000
    fills = "full = open('/full', 'wb'); all(full.write(bytes(1 << 20)) for _ in range({}))"
    assert await stage.host.build(step(tmp_path / "modest", fills.format(50)))
    with pytest.raises(BuildFailed, match=r"less than .* GB of the engine's disk was left; let it write less"):
        await stage.host.build(step(tmp_path / "greedy", fills.format(20_000)))
    assert shutil.disk_usage(root).free > free - 4_000_000_000
    stage.host.spare_bytes = 10**15
    with pytest.raises(Unavailable, match="Nothing is built while less than"):
        await stage.host.build(step(tmp_path / "again", "pass"))


async def test_a_build_gets_the_processors_that_its_owner_gives_it(stage: Stage, tmp_path: Path) -> None:
    """By the clock it takes, at a quarter of one, four times what it takes by the processor."""
    busy = "import time; all(iter(lambda: time.process_time() < 0.5, False))"
    began = time.monotonic()
    await stage.host.build(step(tmp_path / "slow", busy, cpus=0.25))
    assert time.monotonic() - began > 1.5


async def test_a_build_whose_time_is_over_leaves_no_container(stage: Stage, tmp_path: Path) -> None:
    client = docker.from_env()
    mark = secrets.token_hex(8)
    with pytest.raises(BuildFailed, match="did not end within 1 s"):
        await stage.host.build(step(tmp_path / "endless", f"import time; '{mark}'; time.sleep(300)", timeout_s=1))

    def left() -> list[str]:
        listed = client.containers.list(all=True, ignore_removed=True)
        return [one.name for one in listed if mark in str(one.attrs["Config"]["Cmd"])]

    async with asyncio.timeout(60):
        while left():  # noqa: ASYNC110 (the engine tells no event of what a build has made)
            await asyncio.sleep(0.1)
    client.close()


def test_a_recipe_is_what_the_owner_wrote(tmp_path: Path) -> None:
    build = Build(dockerfile="D", context="c", command=("make",), network=True, timeout_s=7, memory_mb=99, cpus=0.5)
    made = Recipe.of(build, tmp_path, {label.COMMIT: "c1"}, tmp_path / "log")
    for name in Build.model_fields:
        assert getattr(made, name) == getattr(build, name)
    assert (made.source, made.labels, made.log) == (tmp_path, {label.COMMIT: "c1"}, tmp_path / "log")


async def test_a_label_of_ours_in_a_dockerfile_is_refused(stage: Stage, tmp_path: Path) -> None:
    """By our labels we tell what we may remove, and boxes inherit those of their image."""
    forged = recipe(context(tmp_path / "forged", Dockerfile=f'{FROM}LABEL {label.RUN}="of-somebody-else"\n'))
    with pytest.raises(BuildFailed, match=f"sets the label `{label.RUN}`, which is Moss's own"):
        await stage.host.build(forged)
    assert len(await stage.host.images({})) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no plain file of at most 64 kB; make it one"),
        (b"x" * 70_000, "is no plain file of at most 64 kB; make it one"),
        (b"caf\xe9\n", "is not UTF-8; save it as such"),
        (b"[z-a]\n", r"bad character range z-a .*; correct `\.dockerignore`"),
    ],
)
async def test_a_dockerignore_that_nobody_can_read_is_a_failed_build(
    stage: Stage, tmp_path: Path, content: bytes | None, said: str
) -> None:
    source = context(tmp_path / "odd")
    ignored = source / ".dockerignore"
    ignored.mkdir() if content is None else ignored.write_bytes(content)
    with pytest.raises(BuildFailed, match=said):
        await stage.host.build(recipe(source))


async def test_a_dockerignore_that_is_matched_for_ever_holds_up_nothing_but_its_own_build(
    stage: Stage, tmp_path: Path
) -> None:
    source = context(tmp_path / "slow", **{".dockerignore": "*a" * 9 + "b\n", "a" * 150: ""})
    building = asyncio.create_task(stage.host.build(recipe(source, timeout_s=6)))
    longest_s, last = 0.0, time.monotonic()
    while not building.done():
        await asyncio.sleep(0.02)
        longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
    with pytest.raises(BuildFailed, match=r"not picked within 3 s; simplify the patterns of `\.dockerignore`"):
        await building
    assert longest_s < 1.5


async def test_what_a_dockerignore_names_is_not_sent(stage: Stage, tmp_path: Path) -> None:
    files = {".dockerignore": "# a word\n\n*.md\n!kept.md\nDockerfile\n", "gone.md": "", "kept.md": "", "code.py": ""}
    source = context(tmp_path / "some", **files)
    (source / "agent.py").unlink()
    image = await stage.host.build(recipe(source))
    said = await stage.ended(("python3", "-S", "-c", "import os; print(sorted(os.listdir()))"), image=image)
    assert said == "['.dockerignore', 'code.py', 'kept.md']\n"
