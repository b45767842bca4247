"""Docker engines that misbehave, for the tests of what Moss makes of that: a unix socket with a script behind it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

VERSION = json.dumps({"ApiVersion": "1.41", "Version": "20.10"}).encode()
_JSON = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

FAULTS = ("gone", "mute", "slams", "babbles", "dies", "empty", "full", "angry")


@contextlib.asynccontextmanager
async def engine_that(fault: str, directory: Path) -> AsyncIterator[str]:
    """Its URL. `mute`, `slams` and `babbles` from the first word on; the others after they have told their version."""
    path = directory / f"{fault}.sock"
    if fault == "gone":
        yield f"unix://{path}"
        return
    hung = asyncio.Event()
    talks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while asked := await reader.readuntil(b"\r\n\r\n"):
                if fault == "mute":
                    await hung.wait()
                elif fault == "babbles":
                    writer.write(b"\x15\x03\x01 what?\r\n\r\n")
                elif fault != "slams" and asked.startswith(b"GET /version"):
                    writer.write(_JSON % (b"200 OK", len(VERSION), VERSION))
                    await writer.drain()
                    continue
                elif fault == "dies":
                    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"Id"\r\n')
                elif fault == "empty":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                elif fault == "full":
                    said = b'{"message": "mkdir /var/lib/docker/overlay2/x: no space left on device"}'
                    writer.write(_JSON % (b"500 Internal Server Error", len(said), said))
                elif fault == "angry":
                    said = b'{"message": "layer does not exist"}'
                    writer.write(_JSON % (b"500 Internal Server Error", len(said), said))
                break
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix://{path}"
    finally:
        hung.set()
        server.close()
        await asyncio.gather(*filter(None, talks))
