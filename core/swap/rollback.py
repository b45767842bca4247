"""Which version to go back to. The way back is an ordinary swap, with the same consent as any other."""

from collections.abc import Collection, Sequence

from core.containers.host import Host
from core.model.errors import NotFound, Refused
from core.model.swap import Version
from core.store import swaps
from core.store.store import Store


async def version_to_restore(store: Store, host: Host, substrate: str, wanted: int | None) -> Version:
    """The version that somebody named, or the newest one before the live one that differs from it."""
    async with store.reading() as db:
        versions = await swaps.versions(db, substrate)
    images = {version.image for version in versions}
    return choose(substrate, versions, {image for image in images if await host.has_image(image)}, wanted)


def choose(substrate: str, versions: Sequence[Version], images: Collection[str], wanted: int | None) -> Version:
    live = next((version for version in versions if version.until is None), None)
    if live is None:
        raise Refused(f"Nothing of {substrate} is live yet, so there is no way back; run `moss adopt`.")
    if wanted is not None:
        return _named(substrate, versions, images, live, wanted)
    for version in reversed(versions):
        if version.number < live.number and version.image != live.image and version.image in images:
            return version
    raise Refused(
        f"No version of {substrate} before {live.number} has an image left, so there is no way back; "
        "`moss adopt --commit ID` builds one anew."
    )


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
