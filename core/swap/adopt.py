"""Adoption: an agent that runs already, or one that Moss starts itself, becomes a version that Moss answers for.

It is the one verb that makes something live without a consent, so it starts nothing but what the owner's branch
holds or what was live before; anything else must already be running.
"""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.consent import withdraw_grants, withdraw_questions
from core.containers.commit import image_of
from core.containers.host import BoxState, Host, label, untrusted
from core.model.errors import AgentFailed, BadInput, Busy, NotFound, Refused
from core.model.events import Noun
from core.model.substrate import Substrate
from core.model.swap import LastGood, Version
from core.model.value import new_id
from core.process import safe_env
from core.repository import Clone
from core.store import claims, notices, substrates, swaps
from core.store.store import Store
from core.swap.plan import adopted_box, box_spec, next_number, shared_volume
from core.swap.probe import last_words, longest_s, watch
from core.swap.records import good_of
from core.swap.survey import (
    Fresh,
    LastImage,
    Running,
    Survey,
    Way,
    choose_way,
    commit_of,
    of_another,
    of_portrait,
    of_settings,
)

SHOWN_CHARS = 600
WHOLE = (40, 64)
"""Digits of a commit's id, in repositories of either kind."""


async def survey(store: Store, host: Host, owner: str, substrate: Substrate, *, commit: str | None = None) -> Survey:
    """What `adopt` would do, without doing anything."""
    before = await _look(store, host, owner, substrate)
    way = choose_way(
        substrate, named=before.named, ours=before.ours, versions=before.versions, good=before.good, commit=commit
    )
    found = await _found(host, substrate, way, commit)
    own = {box.name for box in (*before.ours, before.named) if box}
    writers = await host.writers(found.volume.name) if found.volume else []
    shared = (shared_volume(substrate, writers, own) or "").rstrip(".")
    another = of_another(way.box, owner) if isinstance(way, Running) else None
    return replace(found, obstacles=(*filter(None, (another, *found.obstacles, shared)),))


async def _found(host: Host, substrate: Substrate, way: Way, commit: str | None) -> Survey:
    if not isinstance(way, Running):
        return of_settings(way, substrate)
    seen = await host.portrait(way.box.name)
    if seen is None:
        raise Refused(f"The box {way.box.name} disappeared; look what removed it, and try again.")
    said = commit_of({**await host.image_labels(way.box.image), **way.box.labels})
    if commit and said and not said.startswith(commit) and not commit.startswith(said):
        raise Refused(
            f"The box {seen.name} says that it was built from {said[:12]}, not from {commit[:12]}; look again."
        )
    env = {**safe_env(*substrate.run.env_from), **substrate.run.env}
    env = {name: env[name] for name in {*substrate.run.env, *substrate.run.env_from} if name in env}
    return of_portrait(way, seen, substrate, commit or said, env)


async def adopt(
    store: Store,
    host: Host,
    owner: str,
    substrate: Substrate,
    who: str,
    *,
    clone: Clone,
    work: Path,
    commit: str | None = None,
) -> Version:
    """The version that is live now. Adopting what is sound already changes nothing; after a crash, call it again."""
    if commit is not None and len(commit) not in WHOLE:
        raise BadInput(f"`{commit}` is not the whole id of a commit; give all 40 digits.")
    if problem := untrusted(host, substrate):
        raise Refused(problem)
    before = await _look(store, host, owner, substrate)
    if before.sound and commit in (None, before.sound.commit):
        await _keep_running(host, owner, substrate, before.sound.box)
        return before.sound
    found = await survey(store, host, owner, substrate, commit=commit)
    if found.obstacles:
        what = f"The box {found.box}" if found.box else substrate.name
        raise Refused(f"{what} cannot be adopted as it is: {'; '.join(found.obstacles)}.")
    adoption = Adoption(store, host, owner, substrate, who, clone, work, before)
    match found.way:
        case Running():
            return await adoption.of_running(found.way, found.commit)
        case LastImage():
            async with adoption.claimed():
                return await adoption.of_image(found.way.good.image, found.way.good.commit)
        case Fresh():
            chosen = await adoption.own_commit(found.way.commit)
            async with adoption.claimed():
                return await adoption.of_image(await adoption.build(chosen), chosen)


@dataclass(frozen=True, slots=True)
class Before:
    """What stood before the adoption."""

    named: BoxState | None
    ours: list[BoxState]
    versions: list[Version]
    good: LastGood | None
    sound: Version | None
    """The live version, when nothing asks for an adoption."""


async def _look(store: Store, host: Host, owner: str, substrate: Substrate) -> Before:
    name = substrate.name
    async with store.reading() as db:
        versions, good = await swaps.versions(db, name), await swaps.last_good(db, name)
        live, swap = await swaps.live_version(db, name), await swaps.in_flight(db, name)
        try:
            needed = await substrates.needs_adoption(db, name)
        except NotFound:
            needed = True
    if swap:
        raise Busy(f"{name} is in the middle of {swap.id}; adopt it when that has ended.")
    box = await host.look(live.box) if live else None
    lives = await host.boxes({label.OWNER: owner, label.SUBSTRATE: name, label.PURPOSE: "live"})
    return Before(
        named=await host.look(substrate.run.box) if substrate.run.box else None,
        ours=[box for box in lives if not box.by_hand],
        versions=versions,
        good=good if good and await host.has_image(good.image) else None,
        sound=live if live and box and box.running and box.image == live.image and not needed else None,
    )


@dataclass(frozen=True, slots=True)
class Adoption:
    store: Store
    host: Host
    owner: str
    substrate: Substrate
    who: str
    clone: Clone
    work: Path
    before: Before

    @property
    def number(self) -> int:
        return next_number(self.before.versions)

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[None]:
        """From the first line to the last, so that nobody else starts, removes or adopts anything meanwhile."""
        claim = await self._begin()
        async with claims.held(self.store, self.substrate.name, claim, "adopted"):
            yield

    async def _begin(self) -> claims.Claim:
        """Until the end is recorded a human has to come back: no swap begins, and nothing is tidied away."""
        async with self.store.changing(self.substrate.name) as change:
            await substrates.save(change, self.substrate, self.who)
            if swap := await swaps.in_flight(change.db, self.substrate.name):
                raise Busy(f"{self.substrate.name} is in the middle of {swap.id}; adopt it when that has ended.")
            await claims.check_free(change)
            if await swaps.versions(change.db, self.substrate.name) != self.before.versions:
                raise Busy(f"{self.substrate.name} was adopted or replaced a moment ago; look again.")
            await substrates.set_needs_adoption(change, True, self.who, "an adoption is under way")
            box = adopted_box(self.substrate.name, self.owner, self.number)
            return await claims.take(change, box, "it is adopted", self._longest)

    @property
    def _longest(self) -> float:
        """With a build, and with what ran before brought back. The claim of one that died counts for nothing."""
        both_s = 2 * (longest_s(self.substrate) + self.substrate.run.stop_grace_s)
        return claims.long_enough(self.host.silence_s, self.substrate.build.timeout_s + both_s)

    async def own_commit(self, commit: str | None) -> str:
        head = await self.clone.head(self.substrate.branch)
        if commit is None:
            return head
        if await self.clone.contains(commit) and await self.clone.is_ancestor(commit, head):
            return commit
        raise Refused(
            f"Commit {commit[:12]} is not on `{self.substrate.branch}`; Moss starts only what its owner merged."
        )

    async def of_running(self, way: Running, commit: str | None) -> Version:
        """The box is probed and recorded, and not touched."""
        box = way.box
        if commit is None:
            raise Refused(f"Nothing says from which commit {box.name} was built; name it with `--commit`.")
        if not await self.clone.contains(commit):
            await self.clone.fetch()
        if not await self.clone.contains(commit):
            raise Refused(f"Commit {commit[:12]} of {box.name} is not in {self.substrate.repository}; push it there.")
        boot_id = box.labels.get(label.BOOT_ID) or await self.boot_id_of(box.name)
        async with self.claimed():
            await self.probe(box.name, boot_id)
            version = await self.record(box.name, box.image, commit, boot_id)
            await _keep_running(self.host, self.owner, self.substrate, box.name)
            return version

    async def boot_id_of(self, box: str) -> str:
        """A box that others made may carry none; then what its heartbeat says must do."""
        seen = await self.host.portrait(box)
        if seen and (given := seen.env.get("MOSS_BOOT_ID")):
            return given
        beat = await self.host.read(box, self.substrate.health.heartbeat) if self.substrate.health.heartbeat else None
        try:
            said = json.loads(beat or b"{}")
        except ValueError:
            return ""
        return str(said.get("boot_id", "")) if isinstance(said, dict) else ""

    async def build(self, commit: str) -> str:
        log = self.work / f"adopt-{self.substrate.name}.log"
        with tempfile.TemporaryDirectory(prefix="moss-export-") as work:
            return await image_of(
                self.host,
                self.clone,
                self.substrate,
                commit,
                {label.OWNER: self.owner},
                base=commit,
                work=Path(work),
                log=log,
            )

    async def of_image(self, image: str, commit: str) -> Version:
        """Start a box of our own, once nothing else runs on the volume; when it fails, what ran before runs again."""
        box, boot_id = adopted_box(self.substrate.name, self.owner, self.number), new_id("boot")
        spec = box_spec(
            self.substrate,
            name=box,
            image=image,
            commit=commit,
            boot_id=boot_id,
            owner=self.owner,
            swap=None,
            secrets=safe_env(*self.substrate.run.env_from),
        )
        await self.host.create(spec)
        running = [other for other in self.before.ours if other.running and other.name != box]
        try:
            for other in running:
                await self.host.set_restart(other.name, "no")
                await self.host.stop(other.name, self.substrate.run.stop_grace_s)
            await self.host.start(box)
            await self.probe(box, boot_id)
        except Exception:
            await self.host.remove(box)
            for other in running:
                await self.host.start(other.name)
                await _keep_running(self.host, self.owner, self.substrate, other.name)
            raise
        version = await self.record(box, image, commit, boot_id)
        await _keep_running(self.host, self.owner, self.substrate, box)
        return version

    async def probe(self, box: str, boot_id: str) -> None:
        verdict = await watch(self.host, box, self.substrate, boot_id)
        if not verdict.passed:
            words = " ".join((await last_words(self.host, box, self.substrate))[-SHOWN_CHARS:].split())
            said = f" Its last words: {words}" if words else ""
            raise AgentFailed(
                f"{self.substrate.name} is not adopted, for {box} is not healthy: {verdict.sentence}{said}"
            )

    async def record(self, box: str, image: str, commit: str, boot_id: str) -> Version:
        name = self.substrate.name
        async with self.store.changing(name) as change:
            version = Version(
                substrate=name,
                number=self.number,
                commit=commit,
                image=image,
                box=box,
                boot_id=boot_id,
                swap=None,
                since=change.now,
            )
            await swaps.add_version(change, version, self.who)
            await swaps.set_last_good(change, good_of(version), self.who)
            await substrates.set_needs_adoption(change, False, self.who, f"version {self.number} was adopted")
            await withdraw_questions(change, f"version {self.number} was adopted meanwhile")
            await withdraw_grants(change, f"version {self.number} was adopted after it was approved")
            text = f"{name} is adopted as version {self.number} ({commit[:12]}) in the box {box}."
            await change.record(self.who, Noun.substrate, name, "adopted", version=self.number, box=box, image=image)
            await notices.add(change, "adopted", f"version {self.number}", text, version=self.number, commit=commit)
        return version


async def _keep_running(host: Host, owner: str, substrate: Substrate, box: str) -> None:
    """Last of all, and again when asked again, since a crash may come before it. What others made stays as they
    made it: it has the same policy already."""
    seen = await host.look(box)
    if seen and seen.labels.get(label.OWNER) == owner:
        await host.set_restart(box, substrate.run.restart)
