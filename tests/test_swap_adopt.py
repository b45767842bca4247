"""Adoption and reconciliation of a real agent: what runs becomes a version, and what is left over goes."""

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from core.clock import system_clock
from core.containers.docker_host import SOCKET
from core.containers.host import BoxSpec, BoxState, Recipe, label
from core.model.consent import ConsentState
from core.model.errors import AgentFailed, BadInput, Busy, Refused
from core.model.events import Noun
from core.model.swap import SwapState, Version
from core.repository import Clone
from core.store import Store, claims, consents, facts, notices, substrates, swaps
from core.swap.adopt import adopt, survey
from core.swap.perform import perform
from core.swap.plan import adopted_box
from core.swap.reconcile import Deed, reconcile
from tests.support import foreigner
from tests.support.containers import NO_ENGINE
from tests.support.databases import database
from tests.support.house import BLUE, House, a_free_port, a_house, lay_agent, little
from tests.support.needs import needs_engine
from tests.support.paper_host import BUILT, Killed, PaperHost
from tests.support.swaps import granted_rollback, make_live
from tests.support.world import git

KINDS = ["process", pytest.param("docker", marks=[pytest.mark.engine, *NO_ENGINE])]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    where = lay_agent(tmp_path / "repository", "0", "well")
    git(where, "init", "--quiet", "--initial-branch=main")
    return commit_all(where)


def commit_all(where: Path) -> Path:
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message=The agent")
    return where


def head(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture(params=KINDS)
async def house(request: pytest.FixtureRequest, tmp_path: Path, repository: Path) -> AsyncIterator[House]:
    async with a_house(request.param, tmp_path, little(request.param, str(repository))) as house:
        yield house


@pytest.fixture
async def process_house(tmp_path: Path, repository: Path) -> AsyncIterator[House]:
    async with a_house("process", tmp_path, little("process", str(repository))) as house:
        yield house


async def adopted(house: House, commit: str | None = None) -> Version:
    clone = await Clone.of(house.substrate.repository, house.tmp / "clone.git")
    return await adopt(
        house.store, house.host, house.owner, house.substrate, "anna",
        clone=clone, work=house.tmp / "work", commit=commit,
    )  # fmt: skip


async def needs_adoption(house: House) -> bool:
    async with house.store.reading() as db:
        return await substrates.needs_adoption(db, "little")


async def told(house: House) -> list[str]:
    async with house.store.reading() as db:
        return [notice.kind for notice in await notices.listing(db, "little")]


async def test_an_agent_that_does_not_run_yet_is_built_from_its_branch_and_started(
    house: House, repository: Path
) -> None:
    version = await adopted(house)
    assert (version.number, version.commit, version.box) == (0, head(repository), adopted_box("little", house.owner, 0))
    assert await house.now_live() == version
    assert await house.running() == [version.box]
    assert await house.ask(version.box, BLUE) == "version 0 hears you"
    assert not await needs_adoption(house)
    async with house.store.reading() as db:
        good = await swaps.last_good(db, "little")
    assert good
    assert (good.image, good.commit, good.box) == (version.image, version.commit, version.box)

    assert await adopted(house) == version, "a second time changes nothing"
    assert (await house.state_file("starts")).split() == ["0"]
    assert await told(house) == ["adopted"]


async def test_of_two_adoptions_at_once_one_is_told_to_wait(process_house: House) -> None:
    house = process_house
    both = await asyncio.gather(adopted(house), adopted(house), return_exceptions=True)
    (version,) = [one for one in both if isinstance(one, Version)]
    (busy,) = [one for one in both if isinstance(one, Busy)]
    assert "try again in a moment" in busy.sentence
    assert await house.running() == [version.box]
    assert (await house.state_file("starts")).split() == ["0"]
    assert await adopted(house) == version
    async with house.store.reading() as db:
        assert await swaps.versions(db, "little") == [version]
        assert await claims.unfinished(db, "little") is None


async def test_what_a_build_that_is_killed_leaves_lies_where_the_next_start_clears_away(
    process_house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    sources: list[Path] = []
    build = process_house.host.build

    async def building(recipe: Recipe) -> str:
        sources.append(recipe.source)
        return await build(recipe)

    monkeypatch.setattr(process_house.host, "build", building)
    await adopted(process_house)
    assert [source.is_relative_to(scratch) for source in sources] == [True]


async def test_what_moss_has_adopted_can_be_swapped_and_rolled_back(house: House) -> None:
    first = await adopted(house)
    await house.ask(first.box, BLUE)
    swap = await house.swap_to(await house.image("1", "well"))
    assert swap.state is SwapState.live
    await perform(house.store, house.host, house.owner, await granted_rollback(house.store, first))
    live = await house.now_live()
    assert (live.number, live.restores, live.image) == (2, 0, first.image)
    assert await house.running() == [live.box]
    assert BLUE in await house.memory()


async def test_an_agent_that_is_not_healthy_is_not_adopted_and_not_left_running(
    process_house: House, repository: Path
) -> None:
    house = process_house
    house.expects(window_s=1)
    (repository / "mood").write_text("sick")
    commit_all(repository)
    with pytest.raises(AgentFailed, match="not healthy"):
        await adopted(house)
    assert await house.boxes() == []
    assert await needs_adoption(house)

    (repository / "mood").write_text("well")
    commit_all(repository)
    house.expects(window_s=5)
    version = await adopted(house)
    assert (version.number, version.commit) == (0, head(repository))


async def test_moss_starts_no_commit_that_the_owner_did_not_merge(process_house: House, repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "moss/run-1")
    (repository / "version").write_text("6")
    unapproved = head(commit_all(repository))
    git(repository, "switch", "--quiet", "main")
    with pytest.raises(Refused, match="is not on `main`"):
        await adopted(process_house, commit=unapproved)
    with pytest.raises(BadInput, match="whole id"):
        await adopted(process_house, commit=unapproved[:12])
    assert await process_house.boxes() == []


async def test_the_live_agent_of_another_moss_is_not_adopted(
    process_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = process_house
    theirs = (await adopted(house)).box
    run = house.substrate.run.model_copy(update={"box": theirs})
    house.substrate = house.substrate.model_copy(update={"run": run})
    async with house.store.changing("little") as change:
        await swaps.end_live(change, "anna", stopped=False)
    with monkeypatch.context() as here:
        here.setattr(house, "owner", f"{house.owner}-second")
        with pytest.raises(Refused, match="belongs to another Moss; run `moss release --stop` there"):
            await adopted(house)
    assert await house.running() == [theirs]


async def test_the_owners_newer_commit_replaces_the_live_one_and_comes_back_when_it_fails(
    process_house: House, repository: Path
) -> None:
    house = process_house
    first = await adopted(house)
    await house.ask(first.box, BLUE)

    (repository / "version").write_text("1")
    second = await adopted(house, commit=head(commit_all(repository)))
    assert (second.number, await house.running()) == (1, [second.box])
    assert await house.ask(second.box, "Who are you?") == "version 1 hears you"
    assert (await house.memory())[:1] == ["Are you there?"]
    assert BLUE in await house.memory()

    (repository / "mood").write_text("sick")
    house.expects(window_s=1)
    with pytest.raises(AgentFailed):
        await adopted(house, commit=head(commit_all(repository)))
    assert await house.running() == [second.box], "what ran before runs again"
    assert await needs_adoption(house)
    house.expects(window_s=5)
    third = await adopted(house)
    assert (third.number, third.box, third.commit) == (2, second.box, second.commit)
    assert not await house.had_two_writers()


async def test_what_was_allowed_before_an_adoption_is_void_after_it(process_house: House, repository: Path) -> None:
    house = process_house
    granted = await granted_rollback(house.store, await adopted(house))
    (repository / "version").write_text("1")
    await adopted(house, commit=head(commit_all(repository)))
    async with house.store.reading() as db:
        consent = await consents.get(db, granted)
        (_, voided) = [fact.detail for fact in await facts.about(db, Noun.consent, granted) if fact.what == "moved"]
    assert consent.state is ConsentState.void
    assert voided["reason"] == "version 1 was adopted after it was approved"
    assert await told(house) == ["adopted", "swap-void", "adopted"]


async def test_a_stuck_agent_is_adopted_again_as_a_new_version_and_takes_swaps_again(process_house: House) -> None:
    house = process_house
    first = await adopted(house)
    await house.ask(first.box, BLUE)
    bad = await house.image("1", "sick")
    async with house.store.changing("little") as change:  # nothing of this agent can pass a probe for a while
        spoiled = house.substrate.health.model_copy(update={"commands": (("false",),), "window_s": 0.5})
        await substrates.save(change, house.substrate.model_copy(update={"health": spoiled}), "anna")
    swap = await house.swap_to(bad)
    assert (swap.state, await needs_adoption(house)) == (SwapState.stuck, True)
    assert len(await house.running()) <= 1
    assert await reconcile(house.store, house.host, house.owner) == [], "a human finds every box as it is"

    async with house.store.changing("little") as change:
        await substrates.save(change, house.substrate, "anna")
    again = await adopted(house)
    assert (again.number, again.image, again.commit) == (1, first.image, first.commit)
    assert await house.running() == [again.box]
    assert BLUE in await house.memory()
    assert (await house.swap_to(await house.image("2", "well"))).state is SwapState.live
    await reconcile(house.store, house.host, house.owner)
    assert [box.name for box in await house.boxes()] == [(await house.now_live()).box]


async def no_world(house: House, host: PaperHost) -> None:
    """Nothing was ever live."""


async def stuck_world(house: House, host: PaperHost) -> None:
    await live_world(house, host)
    host.boxes_["box-0"] = replace(host.boxes_["box-0"], running=False, exit_code=1)
    async with house.store.changing("little") as change:
        await substrates.set_needs_adoption(change, True, "moss", "a swap got stuck")


async def live_world(house: House, host: PaperHost) -> None:
    first = git(Path(house.substrate.repository), "rev-list", "--max-parents=0", "HEAD")
    zero = Version(
        substrate="little",
        number=0,
        commit=first,
        image=WELL,
        box="box-0",
        boot_id="boot-0",
        swap=None,
        since=system_clock(),
    )
    await make_live(house.store, house.substrate, zero)
    labels = {label.OWNER: house.owner, label.SUBSTRATE: "little", label.PURPOSE: "live", label.COMMIT: first}
    host.boxes_["box-0"] = BoxState("box-0", WELL, True, labels)
    host.policies["box-0"] = "always"


WELL = "sha256:" + "a" * 64
WORLDS = {
    "nothing was ever live": (no_world, False, 0, BUILT),
    "a swap got stuck": (stuck_world, False, 1, WELL),
    "the owner has a newer commit": (live_world, True, 1, BUILT),
}


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.sweep, id="each"), pytest.param(7, id="some")])
@pytest.mark.parametrize("world", WORLDS)
async def test_wherever_moss_dies_in_an_adoption_asking_again_completes_it(
    tmp_path: Path, repository: Path, world: str, every: int
) -> None:
    begins, names_commit, number, image = WORLDS[world]
    probes = {"http": None, "heartbeat": None, "canary": None, "commands": [["check"]], "every_s": 0.01}
    substrate = little("docker", str(repository), health=probes, run={"restart": "always"})
    commit = None
    if names_commit:
        (repository / "version").write_text("1")
        commit = head(commit_all(repository))

    async def play(die_at: int | None) -> int:
        host = PaperHost(moods={WELL: "well", BUILT: "well"}, die_at=die_at)
        async with database("sqlite", tmp_path) as url:
            store = await Store.open(url, system_clock)
            house = House(host, store, "moss-test", tmp_path, substrate, url)
            try:
                host.die_at = None
                await begins(house, host)
                host.die_at, host.edges = die_at, 0
                try:
                    version = await adopted(house, commit)
                    assert die_at is None
                except Killed:
                    version = await adopted(house, commit)
                assert (version.image, await house.now_live()) == (image, version)
                assert number <= version.number <= number + 1
                assert host.running() == [version.box]
                assert host.policies[version.box] == "always"
                assert not await needs_adoption(house)
                return host.edges
            finally:
                await store.close()

    for edge in range(1, await play(None) + 1, every):
        await play(edge)


@needs_engine
@pytest.mark.engine
async def test_a_container_that_somebody_else_started_is_adopted_as_it_is(tmp_path: Path, repository: Path) -> None:
    name, port = f"agent-{secrets.token_hex(4)}", a_free_port()
    run = {"box": name, "publish": port, "env": {"MODE": "live"}, "volume": name}
    async with a_house("docker", tmp_path, little("docker", str(repository), run=run)) as house:
        engine = docker.from_env()
        try:
            labels = {"org.opencontainers.image.revision": head(repository)}
            image = engine.images.build(path=str(repository), labels=labels, rm=True, forcerm=True)[0]
            environment = {"MODE": "live", "PORT": "8000", "MOSS_STATE_DIR": "/state"}
            theirs = {"name": name, "detach": True, "ports": {"8000/tcp": port}, "environment": environment}
            theirs |= {"volumes": {name: {"bind": "/state"}}, "restart_policy": {"Name": "always"}}
            engine.containers.run(image.id, **theirs)

            seen = await survey(house.store, house.host, house.owner, house.substrate)
            assert list(seen.obstacles) == ["its restart is `always`; set `run.restart` to that"]
            with pytest.raises(Refused, match=r"set `run\.restart` to that"):
                await adopted(house)
            always = house.substrate.run.model_copy(update={"restart": "always"})
            house.substrate = house.substrate.model_copy(update={"run": always})

            with pytest.raises(Refused, match="says that it was built from"):
                await adopted(house, commit="b" * 40)
            async with foreigner.beside(house, SOCKET, name) as stranger:
                with pytest.raises(Refused, match=f"is open to `{stranger}` as well"):
                    await adopted(house)
            version = await adopted(house)
            assert (version.number, version.box, version.image) == (0, name, image.id)
            assert version.commit == head(repository)
            await house.ask(name, BLUE)
            assert engine.containers.get(name).attrs["HostConfig"]["RestartPolicy"]["Name"] == "always"

            swap = await house.swap_to(await house.image("1", "well"))
            assert swap.state is SwapState.live
            assert await house.host.look(name) is None, "the old one goes at commit"
            assert await house.ask(swap.new_box, "Who are you?") == "version 1 hears you"
            assert BLUE in await house.memory()
            made = engine.containers.get(swap.new_box).attrs
            assert made["HostConfig"]["RestartPolicy"]["Name"] == "always"
            assert "MODE=live" in made["Config"]["Env"]
            assert not await house.had_two_writers()
        finally:
            for left in engine.containers.list(all=True, filters={"volume": name}):
                left.remove(force=True)
            engine.images.remove(image.id, force=True)
            engine.close()


async def test_what_nobody_needs_goes_and_what_somebody_needs_stays(process_house: House) -> None:
    house = process_house
    live = await adopted(house)
    orphan, left = await house.image("5", "well"), await house.image("6", "well")
    labels = {label.OWNER: house.owner, label.SUBSTRATE: "little"}
    for name, purpose, image in (("trial-1", "trial", left), ("moss-little-old", "live", left)):
        spec = BoxSpec(name, image, {**labels, label.PURPOSE: purpose, label.RUN: "run-0"}, command=("sleep", "60"))
        await house.host.create(spec)
        await house.host.start(name)
    done = {(decision.deed, decision.name) for decision in await reconcile(house.store, house.host, house.owner)}
    assert done == {
        (Deed.remove_box, "trial-1"),
        (Deed.remove_box, "moss-little-old"),
        (Deed.remove_image, orphan),
    }
    await reconcile(house.store, house.host, house.owner)
    assert [box.name for box in await house.boxes()] == [live.box]
    assert await house.host.images({label.OWNER: house.owner}) == [live.image]


async def test_a_live_box_that_fell_is_started_once_and_told(process_house: House) -> None:
    house = process_house
    live = await adopted(house)
    await house.host.stop(live.box, 1)
    await reconcile(house.store, house.host, house.owner)
    assert await house.running() == [live.box]
    assert (await told(house))[-1] == "live-down"
    await house.host.stop(live.box, 1)
    await reconcile(house.store, house.host, house.owner)
    assert await house.running() == [], "what falls again within the hour needs a person"


async def test_a_live_box_that_somebody_replaced_is_told_once_and_left_alone(process_house: House) -> None:
    house = process_house
    live = await adopted(house)
    await house.host.remove(live.box)
    for _ in range(2):
        await reconcile(house.store, house.host, house.owner)
    assert await told(house) == ["adopted", "live-drifted"]
    again = await adopted(house)
    assert (again.number, await house.running()) == (1, [again.box])
    async with house.store.reading() as db:
        assert json.dumps([fact.what for fact in await facts.chain(db, "little")]).count("adopted") == 2
