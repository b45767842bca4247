"""Which version to go back to. The way back is an ordinary swap, with the same consent as any other."""

from collections.abc import Collection, Sequence
from datetime import datetime

from core.containers.host import Host
from core.model.errors import NotFound, Refused
from core.model.swap import Version
from core.store import swaps
from core.store.store import Store


async def version_to_restore(
    store: Store, host: Host, substrate: str, wanted: int | None, asked_at: datetime | None = None
) -> Version:
    """The version that somebody named, or the newest one before the live one that differs from it: before the one that
    was live when they asked, since they have not seen what went live after that."""
    async with store.reading() as db:
        versions = await swaps.versions(db, substrate)
    images = {version.image for version in versions}
    left = {image for image in images if await host.has_image(image)}
    return choose(substrate, versions, left, wanted, asked_at)


def choose(
    substrate: str,
    versions: Sequence[Version],
    images: Collection[str],
    wanted: int | None,
    asked_at: datetime | None = None,
) -> Version:
    live = next((version for version in versions if version.until is None), None)
    if live is None:
        raise Refused(f"Nothing of {substrate} is live yet, so there is no way back; run `moss adopt`.")
    if wanted is not None:
        return _named(substrate, versions, images, live, wanted)
    seen = _live_at(versions, asked_at) if asked_at else live
    if seen is None:
        raise Refused(f"Nothing of {substrate} was live when a rollback was asked for; name the version to go back to.")
    for version in reversed(versions):
        if version.number < seen.number and version.image != seen.image and version.image in images:
            return _named(substrate, versions, images, live, version.number)
    raise Refused(
        f"No version of {substrate} before {seen.number} has an image left, so there is no way back; "
        "`moss adopt --commit ID` builds one anew."
    )


def overtaken(live: Version | None, meant: int, asked_at: datetime) -> str | None:
    """Why a rollback that named no version is not asked for any more, or None: something else went live meanwhile, and
    from there it would lead somewhere else."""
    if live is None or live.since <= asked_at:
        return None
    return (
        f"Version {live.number} of {live.substrate} went live after a rollback was asked for, which meant version "
        f"{meant}; name the version to go back to."
    )


def _live_at(versions: Sequence[Version], moment: datetime) -> Version | None:
    return next((v for v in versions if v.since <= moment and (v.until is None or moment < v.until)), None)


def _named(substrate: str, versions: Sequence[Version], images: Collection[str], live: Version, wanted: int) -> Version:
    version = next((version for version in versions if version.number == wanted), None)
    if version is None:
        known = ", ".join(str(version.number) for version in versions)
        raise NotFound(f"{substrate} never had a version {wanted}; it had {known}.")
    if version.image == live.image:
        raise Refused(f"Version {wanted} of {substrate} is what runs already; name another.")
    if version.image not in images:
        raise Refused(f"The image of version {wanted} of {substrate} is gone; name another version.")
    return version
