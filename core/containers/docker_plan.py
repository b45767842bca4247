"""What the engine is asked for and how its answers are read: plain values in, plain values out, no engine in sight."""

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from core.containers import inside
from core.containers.host import BoxSpec, BoxState, Portrait, Volume, label
from core.model.errors import AgentFailed, BadInput

if TYPE_CHECKING:
    from core.containers.docker_coder import CoderBox

Json = dict[str, Any]

PORT = "moss.port"
STATE = "moss.state-path"
RELAY = "moss.relay"
"""On an isolated box: the name of its relay."""
RELAY_FOR = "moss.relay-for"
IMAGE = "moss.image"
"""On a box with files laid over its image: the image that was asked for."""
OVERLAY_FOR = "moss.overlay-for"
OURS = frozenset(
    {
        PORT,
        STATE,
        RELAY,
        RELAY_FOR,
        IMAGE,
        OVERLAY_FOR,
        *(value for name, value in vars(label).items() if name.isupper()),
    }
)
"""Labels by which we tell what is ours and what it is for."""

CODER_MB, CODER_CPUS, CODER_PIDS = 4096, 2.0, 512
"""What a coder may take of the machine."""
SOCKETS = "/s"
DOOR = "in.sock"
LANE, LANE_PORT = "/lane", 4100
_SPEAKABLE_BYTES = 100
"""A path of a unix socket ends at 108 bytes on Linux, at 104 elsewhere."""


def relay_name(box: str) -> str:
    return f"{box}-relay"


def socket_directory(data: Path, owner: str, box: str) -> Path:
    return data / "s" / hashlib.sha256(f"{owner} {box}".encode()).hexdigest()[:12]


def speakable(path: Path) -> bool:
    return len(bytes(path)) <= _SPEAKABLE_BYTES


def labels_of(spec: BoxSpec, owner: str) -> dict[str, str]:
    own = {label.OWNER: owner, STATE: spec.state_path}
    if spec.port:
        own[PORT] = str(spec.port)
    if spec.isolated:
        own[RELAY] = relay_name(spec.name)
    return {**spec.labels, **own}


def check_digest(image: str) -> None:
    if not image.startswith("sha256:"):
        raise BadInput(f"`{image}` is not the digest of an image, and a tag may move; give its `sha256:...`.")


def box(spec: BoxSpec, owner: str, relay: str | None, declared: Iterable[str] = ()) -> Json:
    """The container of a box. `relay` is the id of the container whose network an isolated one joins; `declared` are
    the volumes that its image declares."""
    check_digest(spec.image)
    fixture = spec.fixture.target if spec.fixture else None
    told = inside.environment(spec, port=spec.port, state=spec.state_path, fixture=fixture)
    made: Json = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in told.items()],
        "Labels": labels_of(spec, owner),
        "User": spec.user or "",
        "HostConfig": _isolated(spec, owner, relay, declared) if relay else _live(spec),
    }
    if spec.command:
        made["Cmd"] = list(inside.filled(spec.command, port=spec.port, state=spec.state_path))
    if not spec.entrypoint:
        made["Entrypoint"] = []
    if spec.publish:
        made["ExposedPorts"] = {f"{spec.port}/tcp": {}}
    return made


def declared_volumes(image: Json) -> tuple[str, ...]:
    """Where an image asks for volumes. The engine would lay them on its disk, which knows no limit."""
    names: Iterable[str] = (image.get("Config") or {}).get("Volumes") or ()
    named = {name: posixpath.normpath(f"/{name.lstrip('/')}") for name in names}
    for name, path in named.items():
        if path == "/" or path.split("/")[1] in _SYSTEM:
            raise AgentFailed(f"The image declares the volume `{name}`, where none can be; take the VOLUME line out.")
    return tuple(sorted(set(named.values())))


_SYSTEM = ("proc", "sys", "dev")


def probe(image: str, labels: Mapping[str, str], name: str, declared: Iterable[str]) -> Json:
    """A container that is never started: to look into an image, or to lay files over it. What its image declares as a
    volume is a plain directory of it. By its labels the box of this name is found to have left it."""
    return {
        "Image": image,
        "Cmd": ["-"],
        "Labels": {**labels, RELAY_FOR: name},
        "HostConfig": {"Tmpfs": dict.fromkeys(declared, "size=1m")},  # mounted at the start, which never comes
    }


def _isolated(spec: BoxSpec, owner: str, relay: str, declared: Iterable[str]) -> Json:
    limits = spec.limits
    size = f"size={limits.tmp_mb}m,mode=1777"
    # Tmpfs as well, but such that the engine can read files from it, and that any user may write to; it disappears
    # together with the box.
    scratch = {
        "NoCopy": True,
        "Labels": {label.OWNER: owner},
        "DriverConfig": {
            "Name": "local",
            "Options": {"type": "tmpfs", "device": "tmpfs", "o": f"nosuid,nodev,{size}"},
        },
    }
    tmp = {} if spec.state_path == "/tmp" else {"/tmp": f"rw,exec,nosuid,nodev,{size}"}
    paths = sorted({spec.state_path, *declared} - tmp.keys())
    mounts: list[Json] = [{"Type": "volume", "Target": path, "VolumeOptions": scratch} for path in paths]
    if given := spec.fixture:
        mounts.append({"Type": "bind", "Source": given.name, "Target": given.target, "ReadOnly": True})
    return {
        **_harmless(memory_mb=limits.memory_mb, pids=limits.pids, log_mb=4),
        "NetworkMode": f"container:{relay}",
        "NanoCpus": int(limits.cpus * 1e9),
        "ShmSize": limits.tmp_mb << 20,
        "Tmpfs": tmp,
        "Mounts": mounts,
    }


def _live(spec: BoxSpec) -> Json:
    """Without a restart policy: while it is on probation an end must be seen as one, and an engine that comes back
    in the middle of a swap must not start two writers. What follows the swap sets the policy."""
    config: Json = {
        "Init": True,
        "LogConfig": _log(10),
        "RestartPolicy": {"Name": "no"},
        "PidsLimit": spec.limits.pids,
    }
    if spec.volume:
        kind = "bind" if spec.volume.name.startswith("/") else "volume"
        config["Mounts"] = [{"Type": kind, "Source": spec.volume.name, "Target": spec.volume.target}]
    if spec.publish:
        if not spec.port:
            raise BadInput(f"The box {spec.name} publishes a port but listens at none; set `run.port` too.")
        config["PortBindings"] = {f"{spec.port}/tcp": [{"HostPort": str(spec.publish)}]}
    return config


def scratch_of(found: Json) -> set[str]:
    """The directories of a box that begin empty, whatever its image holds there."""
    host = found["HostConfig"]
    return {*(host.get("Tmpfs") or {}), *(mount["Target"] for mount in host.get("Mounts") or ())}


def relay(  # noqa: PLR0917 - what it is, and what it leads to
    image: str, labels: Mapping[str, str], network: str, sockets: Path, routes: tuple[str, ...], lane: Path | None
) -> Json:
    mounts = [{"Type": "bind", "Source": str(sockets), "Target": SOCKETS}]
    if lane:
        mounts.append({"Type": "bind", "Source": str(lane), "Target": LANE})
    return {
        "Image": image,
        "Cmd": list(routes),
        "Labels": {**labels, label.PURPOSE: "relay"},
        "User": "65534:65534",
        "HostConfig": {
            **_harmless(memory_mb=128, pids=512, log_mb=1),
            "NetworkMode": network,
            "Mounts": mounts,
        },
    }


def coder(box: "CoderBox") -> Json:
    """The container of a coder. Our starter is its first process, which nothing in there can end."""
    made = _harmless(memory_mb=CODER_MB, pids=CODER_PIDS, log_mb=1)
    scratch = {str(path): f"rw,exec,nosuid,nodev,size={size}m,mode=1777" for path, size in box.scratch.items()}
    return {
        "Image": box.image,
        "Entrypoint": list(box.command),
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in box.env.items()],
        "Labels": dict(box.labels),
        "User": box.user,
        "WorkingDir": "/",
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **made,
            "Init": False,
            "NetworkMode": "none",
            "NanoCpus": int(CODER_CPUS * 1e9),
            "LogConfig": {"Type": "none"},  # it is heard as it speaks
            "Tmpfs": scratch,
            "Mounts": [
                {"Type": "bind", "Source": str(source), "Target": str(path), "ReadOnly": not writable}
                for path, (source, writable) in box.shown.items()
            ],
        },
    }


def build_limits(memory_mb: int, cpus: float) -> Json:
    """Of each step of a build. The engine takes no limit of processes or disk for one."""
    period_us = 100_000
    memory = memory_mb << 20
    return {"memory": memory, "memswap": memory, "cpuperiod": period_us, "cpuquota": int(cpus * period_us)}


def inward(port: int | None) -> tuple[str, ...]:
    return (f"unix:{SOCKETS}/{DOOR}=tcp:127.0.0.1:{port}",) if port else ()


def outward(lane: Path | None) -> tuple[str, ...]:
    return (f"tcp:127.0.0.1:{LANE_PORT}=unix:{LANE}",) if lane else ()


def _harmless(*, memory_mb: int, pids: int, log_mb: int) -> Json:
    return {
        "Init": True,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": memory_mb << 20,
        "MemorySwap": memory_mb << 20,
        "PidsLimit": pids,
        "LogConfig": _log(log_mb),
    }


def _log(megabytes: int) -> Json:
    return {"Type": "json-file", "Config": {"max-size": f"{megabytes}m", "max-file": "2"}}


def laid_over(found: Json, overlay: str) -> Json:
    """The same box again, from the image with files laid over it."""
    config: Json = {**found["Config"], "Image": overlay, "HostConfig": found["HostConfig"]}
    config["Labels"] = {**config["Labels"], IMAGE: found["Image"]}
    # The relay's, and what the image exposes: both are refused together with the relay's network.
    for name in ("Hostname", "Domainname", "ExposedPorts"):
        config.pop(name, None)
    return config


def state_of(found: Json) -> BoxState:
    labels = found["Config"].get("Labels") or {}
    state = found["State"]
    running = bool(state["Running"]) and not state.get("Restarting")
    return BoxState(
        name=found["Name"].lstrip("/"),
        image=str(labels.get(IMAGE, found["Image"])),
        running=running,
        labels=labels,
        exit_code=None if running or state["Status"] == "created" else state["ExitCode"],
        out_of_memory=bool(state.get("OOMKilled")),
    )


def devices(volumes: Iterable[Json]) -> dict[str, str]:
    """What stands for a directory, or a disk, of the engine's machine."""
    given = {volume["Name"]: (volume.get("Options") or {}).get("device", "") for volume in volumes}
    return {name: device for name, device in given.items() if device.startswith("/")}


def writes_to(found: Json, volume: str, devices: Mapping[str, str], real: Callable[[str], str]) -> bool:
    """A directory has many paths and any number of volumes, and whoever has one above or below it writes to it too."""
    mounts = [mount for mount in found.get("Mounts") or [] if mount.get("RW")]
    place = devices.get(volume, volume)
    if not place.startswith("/"):
        return any(mount.get("Name") == volume for mount in mounts)
    here = PurePosixPath(real(place))
    sources = [devices.get(mount.get("Name") or "", mount.get("Source")) for mount in mounts]
    there = [PurePosixPath(real(source)) for source in sources if source]
    return any(here.is_relative_to(other) or other.is_relative_to(here) for other in there)


def was_killed(found: Json) -> bool:
    """By whom or by what was not said (yet)."""
    state = found["State"]
    return not state["Running"] and state.get("ExitCode") == 137 and not state.get("OOMKilled")


def by_hand(found: Json, image: Mapping[str, str]) -> bool:
    labels = found["Config"].get("Labels") or {}
    return all(labels.get(name) == image.get(name) for name in OURS)


def is_kept(image: Json) -> bool:
    """Somebody gave it a name of their own, or made it of a box, as evidence: it has a label that only boxes get."""
    if STATE in (image.get("Labels") or {}):
        return True
    return any(not tag.startswith(("moss/", "<none>")) for tag in image.get("RepoTags") or ())


def boxes_among(found: list[Json], wanted: Mapping[str, str]) -> list[BoxState]:
    """The boxes with these labels. A relay whose box is gone stands for it, whatever that was for."""
    boxes = [state_of(one) for one in found if RELAY_FOR not in one["Config"]["Labels"]]
    relays = [one["Config"]["Labels"] for one in found if RELAY_FOR in one["Config"]["Labels"]]
    here = {box.name for box in boxes}
    lost = {labels[RELAY_FOR]: labels for labels in relays if labels[RELAY_FOR] not in here}
    boxes += [BoxState(name=name, image="", running=False, labels=labels) for name, labels in lost.items()]

    def fits(box: BoxState) -> bool:
        ignored = {label.PURPOSE} if box.name in lost else set()
        return all(box.labels.get(key) == value for key, value in wanted.items() if key not in ignored)

    return [box for box in boxes if fits(box)]


@dataclass(frozen=True, slots=True)
class Ways:
    """What leads to an agent's port."""

    port: int | None
    published: int | None
    relay: str | None


def ways_to(found: Json) -> Ways:
    labels = found["Config"].get("Labels") or {}
    bound: Json = found["HostConfig"].get("PortBindings") or {}
    exposed = [port.partition("/")[0] for port in {*bound, *(found["Config"].get("ExposedPorts") or {})}]
    named = labels.get(PORT) or (exposed[0] if len(exposed) == 1 else None)
    bindings = bound.get(f"{named}/tcp") or [{}]
    published = bindings[0].get("HostPort") if bindings[0].get("HostIp", "") in (*_EVERYWHERE, "127.0.0.1") else None
    return Ways(int(named) if named else None, int(published) if published else None, labels.get(RELAY))


_EVERYWHERE = ("", "0.0.0.0", "::")
_UNUSUAL = {
    "Privileged": "is privileged",
    "ReadonlyRootfs": "has a read-only root",
    "AutoRemove": "removes itself when it ends",
    "CapAdd": "has more capabilities",
    "CapDrop": "has fewer capabilities",
    "SecurityOpt": "has security options",
    "Devices": "uses devices",
    "DeviceRequests": "uses devices",
    "ExtraHosts": "knows extra hosts",
    "Dns": "has a name server of its own",
    "Links": "is linked to other containers",
    "VolumesFrom": "takes the volumes of another container",
    "GroupAdd": "is in more groups",
    "Tmpfs": "has a tmpfs",
    "Sysctls": "has kernel settings",
    "Ulimits": "has ulimits",
    "Memory": "has a memory limit",
    "NanoCpus": "has a CPU limit",
    "CpuQuota": "has a CPU limit",
    "CpuShares": "has a weight of processors",
    "CpusetCpus": "is bound to some processors",
    "MemoryReservation": "has a memory reservation",
    "OomKillDisable": "is never ended for its memory",
    "OomScoreAdj": "has an OOM score of its own",
    "PidMode": "shares process numbers",
    "UsernsMode": "has a user namespace of its own",
    "PublishAllPorts": "publishes ports at random",
    "Runtime": "has a runtime of its own",
}
_USUAL = {"Runtime": "runc"}
"""Where the engine writes something down although nothing was asked for."""


def portrait(found: Json, image: Json) -> Portrait:
    config, host = found["Config"], found["HostConfig"]
    given = image.get("Config") or {}
    labels = config.get("Labels") or {}
    own = {*inside.TOLD, "MOSS_BOOT_ID"} if label.OWNER in labels else set()
    from_image = set(given.get("Env") or ())
    env = dict(entry.split("=", 1) for entry in config.get("Env") or () if entry not in from_image and "=" in entry)
    ports, odd_ports = _ports(config, host)
    beyond = [words for key, words in _UNUSUAL.items() if (has := host.get(key)) and has != _USUAL.get(key)]
    if (network := host.get("NetworkMode") or "default") not in ("default", "bridge"):
        beyond.append(f"is on the network `{network}`")
    also = (found.get("NetworkSettings") or {}).get("Networks") or {}
    usual = {"bridge"} if network in ("default", "bridge") else {network}
    beyond += [f"is also on the network `{name}`" for name in sorted(also.keys() - usual)]
    if found["State"].get("Paused"):
        beyond.append("is paused")
    if (host.get("IpcMode") or "private") not in ("private", "shareable"):
        beyond.append("shares memory with others")
    if (host.get("RestartPolicy") or {}).get("MaximumRetryCount"):
        beyond.append("counts its restarts")
    for key, words in {"Entrypoint": "an entrypoint", "WorkingDir": "a working directory"}.items():
        if (config.get(key) or None) != (given.get(key) or None):
            beyond.append(f"has {words} of its own")
    if config.get("Hostname", "") not in ("", found["Id"][:12]):
        beyond.append("has a host name of its own")
    if config.get("Healthcheck") != given.get("Healthcheck"):
        beyond.append("has a health check of its own")
    mounts = found.get("Mounts") or []
    plain = [mount for mount in mounts if mount["Type"] in ("volume", "bind") and mount.get("RW")]
    beyond += [f"mounts {mount['Destination']} in another way" for mount in mounts if mount not in plain]
    return Portrait(
        name=found["Name"].lstrip("/"),
        image=str(labels.get(IMAGE, found["Image"])),
        command=tuple(config["Cmd"]) if config.get("Cmd") and config["Cmd"] != given.get("Cmd") else None,
        env={name: value for name, value in env.items() if name not in own},
        volumes=tuple(Volume(mount.get("Name") or mount["Source"], mount["Destination"]) for mount in plain),
        ports=ports,
        user=config.get("User") if config.get("User") != given.get("User") and config.get("User") else None,
        restart=(host.get("RestartPolicy") or {}).get("Name") or "no",
        pids=limit if (limit := host.get("PidsLimit") or 0) > 0 else None,
        beyond=tuple(dict.fromkeys(beyond + odd_ports)),
    )


def _ports(config: Json, host: Json) -> tuple[dict[int, int | None], list[str]]:
    ports: dict[int, int | None] = {}
    odd: list[str] = []
    bound: Json = host.get("PortBindings") or {}
    for name in {*(config.get("ExposedPorts") or {}), *bound}:
        number, _, kind = name.partition("/")
        bindings = bound.get(name) or []
        if kind != "tcp":
            odd.append(f"uses port {name}")
            continue
        ports[int(number)] = int(bindings[0]["HostPort"]) if bindings and bindings[0].get("HostPort") else None
        if len(bindings) > 1 or any(not binding.get("HostPort") for binding in bindings):
            odd.append(f"publishes port {number} in another way")
        if any(binding.get("HostIp", "") not in _EVERYWHERE for binding in bindings):
            odd.append(f"publishes port {number} on {bindings[0]['HostIp']} only")
    return ports, odd


def own_container(mountinfo: str) -> str | None:
    """The id of the container in which this process runs: the engine mounts its files over those in /etc.

    On the engine's own machine the same files appear elsewhere for a moment, while it copies into a container."""
    found = re.search(r"/containers/([0-9a-f]{64})/(hostname|hosts|resolv\.conf) /etc/\2 ", mountinfo)
    return found.group(1) if found else None
