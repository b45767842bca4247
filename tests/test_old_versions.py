"""Images of old versions go, as soon as nobody can go back to them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core import consent as consent_room
from core.containers.host import Recipe, label
from core.model.errors import Refused
from core.model.run import RunState
from core.model.substrate import Swapping
from core.model.swap import Version
from core.store import consents, runs, substrates, swaps
from core.swap.reconcile import reconcile
from core.swap.rollback import version_to_restore
from tests.support.house import House, a_house
from tests.support.stored import run_in
from tests.support.swaps import POLICY, granted_rollback


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house("process", tmp_path) as house:
        await house.live()
        async with house.store.changing("little") as change:
            keeping = house.substrate.model_copy(update={"swap": Swapping(keep_versions=2)})
            await substrates.save(change, keeping, "anna")
        yield house


async def versions_without_a_swap(house: House, *names: str) -> list[Version]:
    """As if they had been live, one after the other; the last box stays the first one's."""
    made = [await house.now_live()]
    for number, name in enumerate(names, start=1):
        image = await house.image(name, "well")
        made.append(made[0].model_copy(update={"number": number, "image": image, "commit": f"c{name}"}))
        async with house.store.changing("little") as change:
            await swaps.add_version(change, made[-1])
    return made


async def left(house: House) -> set[str]:
    await reconcile(house.store, house.host, house.owner)
    return set(await house.host.images({}))


async def test_only_the_newest_and_what_is_running_last_good_or_asked_about_is_kept(house: House) -> None:
    zero, one, _, three, four = await versions_without_a_swap(house, "1", "2", "3", "4")
    async with house.store.changing("little") as change:
        asked = await consent_room.ask_for_rollback(change, one.model_copy(update={"until": one.since}), POLICY, "anna")
    # 4 and 3 are the newest, 0 is last good and runs, 1 waits for an answer.
    assert await left(house) == {four.image, three.image, zero.image, one.image}
    with pytest.raises(Refused, match="The image of version 2 of little is gone"):
        await version_to_restore(house.store, house.host, "little", 2)
    async with house.store.changing("little") as change:
        await consent_room.void(change, asked, "It is not wanted any more.")
    assert await left(house) == {four.image, three.image, zero.image}


async def test_what_people_allowed_is_kept_until_it_is_swapped(house: House) -> None:
    _, one, two, _ = await versions_without_a_swap(house, "1", "2", "3")
    consent = await granted_rollback(house.store, one)
    assert one.image in await left(house)
    async with house.store.reading() as db:
        assert [found.id for found in await consents.unused(db, "little")] == [consent]
    assert two.image in await left(house)


async def test_the_images_of_a_run_that_is_under_way_are_kept(house: House) -> None:
    await versions_without_a_swap(house, "1", "2", "3")
    async with house.store.changing("little") as change:
        run = await run_in(change, RunState.running)
    source = house.tmp / "sources" / "3-well"
    labels = {label.OWNER: house.owner, label.SUBSTRATE: "little", label.PURPOSE: "candidate", label.RUN: run.id}
    (source / "more.py").write_text("")
    built = await house.host.build(Recipe(source, "Dockerfile", ".", None, False, 60, labels, house.tmp / "log"))
    assert built in await left(house)
    async with house.store.changing("little") as change:
        await runs.move(change, run.id, RunState.stopped, "anna")
    assert built not in await left(house)
