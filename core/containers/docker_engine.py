"""The Docker engine behind asyncio: the only file that knows docker-py, its blocking calls and its many exceptions."""

import asyncio
import contextlib
import http.client
import re
import socket
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import docker  # type: ignore[import-untyped]
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound, StreamParseError  # type: ignore[import-untyped]

from core.model import errors

T = TypeVar("T")
Work = Callable[[Any], T]
"""Done in a thread, with docker-py's low-level client."""
_PORT = re.compile(r":(\d+)(?: failed|: bind)")


class Engine:
    def __init__(self, url: str, silence_s: float) -> None:
        self.url = url
        self.silence_s = silence_s
        """An engine that says nothing for so long has hung."""
        self._version: str | None = None
        self._threads = ThreadPoolExecutor(max_workers=128, thread_name_prefix="engine")

    async def do(self, about: str, work: Work[T], longer_s: float = 0) -> T:
        """A call that runs to its end even when its caller is cancelled: nobody could say otherwise whether the engine
        did it, and what a cancelled creation leaves behind would come after the removal that follows it."""
        return await self._in_thread(about, work, self.silence_s + longer_s, cut=False)

    async def follow(self, about: str, work: Work[T]) -> T:
        """A call that may take long, and is cut off at its socket when its caller is cancelled."""
        return await self._in_thread(about, work, self.silence_s, cut=True)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, about: str, work: Work[T], silence_s: float, *, cut: bool) -> T:
        line = _Line()

        def working() -> T:
            with _one_sentence(about, self.url), line.open(self.url, self._version, silence_s) as api:
                self._version = api.api_version
                return work(api)

        future = asyncio.get_running_loop().run_in_executor(self._threads, working)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if cut:
                line.cut()
            await asyncio.wait({future}, timeout=silence_s)
            if future.done():
                future.exception()  # looked at, or asyncio complains that nobody did
            raise


class _Line:
    """A client for one call, so that the call can be cut off at its socket without harm to any other."""

    def __init__(self) -> None:
        self._plugs: list[socket.socket] = []
        self._is_cut = False

    @contextlib.contextmanager
    def open(self, url: str, version: str | None, silence_s: float) -> Iterator[Any]:
        api = docker.APIClient(base_url=url, version=version or "auto", timeout=silence_s)
        api.hooks["response"].append(self._heard)
        try:
            yield api
        finally:
            api.close()

    def cut(self) -> None:
        self._is_cut = True
        for plug in self._plugs:
            with contextlib.suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)

    def _heard(self, response: Any, *_: object, **__: object) -> None:
        plug = getattr(response.raw.connection, "sock", None)
        if plug is not None:
            self._plugs.append(plug)
        if self._is_cut:
            self.cut()
            raise ConnectionAbortedError("cut off")


def if_there(work: Work[T]) -> Work[T | None]:
    """None for what the engine does not know, and for a link that leads to itself."""

    def asked(api: Any) -> T | None:
        try:
            return work(api)
        except APIError as problem:
            if problem.status_code != 404 and "too many links" not in str(problem.explanation):
                raise
            return None

    return asked


def inspect(api: Any, container: str) -> dict[str, Any] | None:
    try:
        return cast(dict[str, Any], api.inspect_container(container))
    except NotFound:
        return None


def begin_unheard(api: Any, container: str, argv: tuple[str, ...]) -> str | None:
    """A command of which nobody hears a word; None where it cannot be started."""
    made = api.exec_create(container, list(argv), stdout=False, stderr=False)["Id"]
    try:
        api.exec_start(made, detach=True)
    except APIError as problem:
        if problem.status_code is None or problem.status_code >= 500:
            raise
        return None
    return cast(str, made)


def kill(api: Any, container: str) -> None:
    """Also when it has ended meanwhile, or is gone."""
    try:
        api.kill(container)
    except APIError as problem:
        if problem.status_code not in (404, 409):
            raise


def remove_image(api: Any, image: str) -> None:
    try:
        api.remove_image(image)
    except APIError as problem:  # the second is what an engine says that another one is just removing it for
        if problem.status_code != 404 and "unrecognized image ID" not in str(problem.explanation):
            raise


def remove_volume(api: Any, volume: str) -> bool:
    """Whether it went. Somebody may have taken or removed it meanwhile."""
    try:
        api.remove_volume(volume)
    except APIError as problem:
        if problem.status_code not in (404, 409):
            raise
        return False
    return True


def remove(api: Any, container: str, *, volumes: bool) -> None:
    """Gone when this returns, also when somebody else has begun it."""
    try:
        api.remove_container(container, force=True, v=volumes)
    except NotFound:
        pass
    except APIError as problem:
        if problem.status_code != 409:
            raise
        with contextlib.suppress(NotFound):
            api.wait(container, condition="removed")


@contextlib.contextmanager
def _one_sentence(about: str, url: str) -> Iterator[None]:
    """Nothing of docker-py, requests or urllib3 gets past this."""
    try:
        yield
    except APIError as problem:
        raise _refusal(about, problem.status_code, problem.explanation or str(problem)) from problem
    except (DockerException, StreamParseError, requests.RequestException) as problem:
        raise errors.Unavailable(_silence(about, url, problem)) from problem
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as problem:
        raise errors.Unavailable(_silence(about, url, problem)) from problem
    except (tarfile.TarError, ValueError, LookupError) as problem:  # half an answer
        raise errors.Unavailable(_silence(about, url, problem)) from problem


def _silence(about: str, url: str, problem: BaseException | None) -> str:
    while problem:
        if isinstance(problem, requests.ReadTimeout | TimeoutError):
            return f"{about} got no answer: the engine at {url} hangs; restart it, and Moss goes on by itself."
        problem = problem.__cause__ or problem.__context__
    return f"{about} got no answer: no Docker engine can be reached at {url}; start it, or name another one."


def _refusal(about: str, status: int, said: str) -> errors.MossError:
    said = said.strip().rstrip(".")
    if "no space left on device" in said:
        return errors.Unavailable(f"{about} found the engine's disk full; free space, such as by `docker image prune`.")
    if "port is already allocated" in said or "address already in use" in said:
        port = _PORT.search(said)
        which = f"port {port[1]}, which is taken" if port else f"a port that is taken: {said}"
        return errors.Unavailable(f"{about} needs {which}; free it, or change `run.publish`.")
    if status == 404:
        return errors.NotFound(f"{about} is not on this engine: {said}; make it again.")
    if status == 409:
        return errors.Refused(f"{about} cannot be had now: {said}; look at what holds it.")
    if "OCI runtime" in said or "unable to find user" in said:
        return errors.AgentFailed(f"{about} did not start: {said}; correct its command or its image.")
    if status == 400:
        return errors.BadInput(f"{about} cannot be made as asked: {said}; correct the substrate's settings.")
    return errors.Unavailable(f"{about} was refused by the engine: {said}; see the engine's log.")
