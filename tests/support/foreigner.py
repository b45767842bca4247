"""A container that is nobody's of Moss: somebody else's, on the same engine."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import docker

from tests.support.house import House
from tests.support.own_engine import BASE


@asynccontextmanager
async def beside(house: House, engine: str, volume: str, mode: str = "rw") -> AsyncIterator[str]:
    """It has the volume of the agent, and does nothing with it."""
    name = f"a-foreigner-{secrets.token_hex(4)}"
    house.foreigners.add(name)
    with contextlib.closing(docker.DockerClient(base_url=engine, timeout=60)) as client:
        where = {volume: {"bind": "/borrowed", "mode": mode}}
        made = await asyncio.to_thread(
            client.containers.run, BASE, ["sleep", "300"], name=name, volumes=where, detach=True, network_mode="none"
        )
        try:
            yield name
        finally:
            await asyncio.to_thread(made.remove, force=True)
