"""What an adoption finds, and what the box that replaces it one day will not have. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.containers.host import BoxState, Portrait, Volume, label
from core.model.errors import Refused
from core.model.substrate import Substrate
from core.model.swap import LastGood, Version
from core.model.value import short

REVISION = "org.opencontainers.image.revision"
"""The common label for the commit of an image that somebody else built."""


@dataclass(frozen=True, slots=True)
class Running:
    """A box that runs already becomes the live one as it is."""

    box: BoxState
    ours: bool


@dataclass(frozen=True, slots=True)
class LastImage:
    """Moss starts the image that passed last."""

    good: LastGood


@dataclass(frozen=True, slots=True)
class Fresh:
    """Moss builds and starts this commit; None stands for the head of the branch."""

    commit: str | None


Way = Running | LastImage | Fresh


def choose_way(
    substrate: Substrate,
    *,
    named: BoxState | None,
    ours: Sequence[BoxState],
    versions: Sequence[Version],
    good: LastGood | None,
    commit: str | None,
) -> Way:
    """`named` is the box that `run.box` names; `ours` are the boxes that Moss made to be live; `good` is None when
    its image is gone."""
    name, box = substrate.name, substrate.run.box
    running = [Running(other, ours=True) for other in ours if other.running and other.name != box]
    if named and named.running:
        running.append(Running(named, ours=False))
    if len(running) > 1:
        names = " and ".join(sorted(found.box.name for found in running))
        raise Refused(f"{names} run at once, and only one may write to the volume of {name}; stop what is too many.")
    if box and not named and not versions:
        raise Refused(f"There is no box {box}; start it, or leave `run.box` out and Moss starts {name} itself.")
    if named and not named.running and not versions:
        raise Refused(f"The box {box} does not run; start it, since only a running agent can be probed.")
    if running and (not running[0].ours or commit in (None, running[0].box.labels.get(label.COMMIT))):
        return running[0]
    if good and commit in (None, good.commit):
        return LastImage(good)
    return Fresh(commit)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a swap will recreate. Names of environment variables only: their values may be secret."""

    way: Way
    box: str | None
    """None when Moss starts the agent itself."""
    image: str | None
    commit: str | None
    command: tuple[str, ...] | None
    env_names: tuple[str, ...]
    volume: Volume | None
    ports: Mapping[int, int | None]
    user: str | None
    restart: str | None
    obstacles: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        image = short(self.image) if self.image else "to be built"
        ports = [
            f"{inside} published as {outside}" if outside else str(inside) for inside, outside in self.ports.items()
        ]
        return [
            f"box       {self.box or 'to be started by Moss'}",
            f"image     {image}",
            f"commit    {self.commit or 'the head of the branch'}",
            f"command   {' '.join(self.command) if self.command else 'the one of the image'}",
            f"env       {', '.join(self.env_names) or 'none'}",
            f"volume    {f'{self.volume.name} at {self.volume.target}' if self.volume else 'none'}",
            f"ports     {', '.join(ports) or 'none'}",
            f"user      {self.user or 'the one of the image'}",
            f"restart   {self.restart or 'by Moss only'}",
            *(f"cannot be adopted: {obstacle}" for obstacle in self.obstacles),
        ]


def of_portrait(
    way: Running, seen: Portrait, substrate: Substrate, commit: str | None, env: Mapping[str, str]
) -> Survey:
    return Survey(
        way=way,
        box=seen.name,
        image=seen.image,
        commit=commit,
        command=seen.command,
        env_names=tuple(sorted(seen.env)),
        volume=seen.volumes[0] if seen.volumes else None,
        ports=seen.ports,
        user=seen.user,
        restart=seen.restart,
        obstacles=() if way.ours else tuple(differences(seen, substrate, env)),
    )


def of_settings(way: LastImage | Fresh, substrate: Substrate) -> Survey:
    run = substrate.run
    good = way.good if isinstance(way, LastImage) else None
    return Survey(
        way=way,
        box=None,
        image=good.image if good else None,
        commit=good.commit if good else way.commit if isinstance(way, Fresh) else None,
        command=run.command,
        env_names=tuple(sorted({*run.env, *run.env_from})),
        volume=Volume(run.volume, run.state_path) if run.volume else None,
        ports={run.port: run.publish} if run.port else {},
        user=run.user,
        restart=run.restart,
    )


def of_another(box: BoxState, owner: str) -> str | None:
    """Two of us would each take the other's box for theirs to remove. Its labels stay for as long as it does."""
    if box.labels.get(label.OWNER, owner) == owner:
        return None
    return "it belongs to another Moss; run `moss release --stop` there, leave `run.box` out, and Moss starts it here"


def commit_of(labels: Mapping[str, str]) -> str | None:
    return labels.get(label.COMMIT) or labels.get(REVISION)


def differences(seen: Portrait, substrate: Substrate, env: Mapping[str, str]) -> list[str]:
    """Where a box made from the settings (with `env`, keys included) would not be what runs now: each with its mend."""
    run = substrate.run
    told = {"PORT": str(run.port), "MOSS_STATE_DIR": run.state_path}  # every box of Moss is told these
    has = {name: value for name, value in seen.env.items() if told.get(name) != value and name != "MOSS_BOOT_ID"}
    found = [f"it {words}, and Moss has no way to say so" for words in seen.beyond]
    for name in sorted({*has, *env}):
        if name not in env:
            found.append(f"it has {name}, which neither `run.env` nor `run.env_from` names")
        elif name not in has:
            found.append(f"it lacks {name}, which the settings name")
        elif has[name] != env[name]:
            found.append(f"its {name} has another value than the settings give it")
    volumes = {(volume.name, volume.target) for volume in seen.volumes}
    wanted = {(run.volume, run.state_path)} if run.volume else set()
    if len(volumes) > 1:
        found.append("it has several volumes, and Moss keeps one; move its state to one volume")
    elif volumes != wanted:
        shown = " and ".join(f"`{name}` at {target}" for name, target in volumes) or "no volume"
        found.append(f"it has {shown}; set `run.volume` and `run.state_path` accordingly")
    published = {inside: outside for inside, outside in seen.ports.items() if outside}
    if published != ({run.port: run.publish} if run.publish else {}):
        shown = ", ".join(f"{inside} as {outside}" for inside, outside in sorted(published.items())) or "no port"
        found.append(f"it publishes {shown}; set `run.port` and `run.publish` accordingly")
    if seen.pids not in (None, run.pids):
        found.append(f"it may have {seen.pids} processes; set `run.pids` to that")
    for what, here, there in (
        ("command", seen.command, run.command),
        ("user", seen.user, run.user),
        ("restart", seen.restart or run.restart, run.restart),
    ):
        if here != there:
            found.append(f"its {what} is {_shown(here)}; set `run.{what}` to that")
    return found


def _shown(value: str | tuple[str, ...] | None) -> str:
    if value is None:
        return "that of its image"
    return f"`{value if isinstance(value, str) else ' '.join(value)}`"
