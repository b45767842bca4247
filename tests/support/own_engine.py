"""A Docker engine of the test's own, which may be killed: nobody else's containers stop with it."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
import requests

NEEDS_ROOT = pytest.mark.skipif(
    os.environ.get("CI") != "true" and (os.geteuid() != 0 or not shutil.which("dockerd")),
    reason="only root can start an engine of its own, with `dockerd`",
)
BASE = "python:3.11-slim-bookworm"
STARTS_S, TRIES = 60.0, 3
"""After a hard kill the first start can die on what containerd still holds."""


@dataclass
class OwnEngine:
    where: Path
    disk_mb: int | None = None
    """How much room it has, if not all of this machine's: in memory then."""
    _process: "subprocess.Popen[bytes] | None" = None
    _log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.where / "dockerd.log"

    @property
    def url(self) -> str:
        return f"unix://{self.where}/d.sock"

    def start(self) -> None:
        data = self.where / "data"
        if self.disk_mb and not data.exists():
            data.mkdir()
            words = ["mount", "-t", "tmpfs", "-o", f"size={self.disk_mb}m", "moss-test", str(data)]
            subprocess.run(words, check=True)
        for _ in range(TRIES):
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        "unshare",  # its bridge, or having none, would be that of the machine's engine
                        "--net",
                        "dockerd",
                        f"--host={self.url}",
                        f"--data-root={self.where}/data",
                        f"--exec-root={self.where}/exec",
                        f"--pidfile={self.where}/d.pid",
                        "--bridge=none",
                        "--iptables=false",
                        "--ip6tables=false",
                    ],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            until = time.monotonic() + STARTS_S
            while self._process.poll() is None and time.monotonic() < until:
                if self.answers():
                    return
                time.sleep(0.1)
            self.kill()
        raise AssertionError(f"no engine came up: {self._log.read_text()[-2000:]}")

    def answers(self) -> bool:
        try:
            with contextlib.closing(docker.DockerClient(base_url=self.url, timeout=5)) as client:
                return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException):
            return False

    def load_base(self) -> None:
        """The base image, from the machine's own engine."""
        with contextlib.closing(docker.from_env()) as other, contextlib.closing(self.client()) as own:
            own.images.load(b"".join(other.images.get(BASE).save(named=True)))

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, timeout=60)

    def kill(self) -> None:
        """The engine and its containerd at once; what it ran is ended as it starts again."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            (self.where / "d.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """As a machine is shut down: containers first, so that no shim is left."""
        gone = contextlib.suppress(docker.errors.DockerException, requests.RequestException)
        with gone, contextlib.closing(self.client()) as client:
            for container in client.containers.list(all=True):
                container.remove(force=True, v=True)
        if self._process:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self.kill()
        for mount in sorted(_mounts_below(self.where), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.where, ignore_errors=True)


def _mounts_below(where: Path) -> list[str]:
    mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [mount for mount in mounts if Path(mount).is_relative_to(where)]


@contextlib.contextmanager
def own_engine(disk_mb: int | None = None) -> Iterator[OwnEngine]:
    """Below a short path, since it makes sockets there."""
    engine = OwnEngine(Path(tempfile.mkdtemp(prefix="eng-", dir="/var/tmp")), disk_mb)
    try:
        engine.start()
        engine.load_base()
        yield engine
    finally:
        engine.close()
