"""Which host runs the agents, and a sentence why."""

from pathlib import Path
from typing import Literal

from core.containers.docker_host import RELAY_BASE, SOCKET, DockerHost
from core.containers.host import Host
from core.containers.process_host import ProcessHost
from core.model.errors import Unavailable


async def choose(
    wanted: Literal["auto", "docker", "process"],
    data: Path,
    owner: str,
    *,
    engine_url: str = SOCKET,
    relay_base: str = RELAY_BASE,
) -> tuple[Host, str]:
    """An engine that was once taken, or was asked for, is not replaced by no isolation when it is down for a moment."""
    if wanted == "process":
        return ProcessHost(data, owner), "Agents run as plain processes, as asked; nothing isolates them."
    docker = DockerHost(data, owner, url=engine_url, relay_base=relay_base)
    before = data / "host"
    try:
        engine = await docker.ping()
    except Unavailable as problem:
        if wanted == "docker":
            return docker, f"Agents run in containers, as asked, but: {problem.sentence}"
        if before.exists():
            return docker, f"Agents run in containers, as until now, but: {problem.sentence}"
        await docker.close()
        return ProcessHost(data, owner), f"Agents run as plain processes, which nothing isolates: {problem.sentence}"
    data.mkdir(parents=True, exist_ok=True)
    before.write_text("docker\n")
    return docker, f"Agents run in containers: {engine}"
