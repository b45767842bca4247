"""Leads from sockets to sockets inside the relay container, whose network namespace an isolated agent joins.

Each argument is LISTEN=TARGET, and each end `unix:/path` or `tcp:host:port`; `--for=SECONDS` ends it after that time.
It says `ready` once everything listens. One file of the standard library, because it is copied into an image of its
own; threads rather than asyncio, because those are imported in a tenth of the time and every trial waits for it.
"""

import contextlib
import os
import socket
import sys
import threading

AT_ONCE = 128
"""Connections; the next one waits. An agent that leaves them open harms only itself: each has a relay of its own."""
CHUNK_BYTES = 65_536


def opened(end: str, *, listening: bool) -> socket.socket:
    kind, _, where = end.partition(":")
    if kind == "unix":
        plug = socket.socket(socket.AF_UNIX)
        if listening:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(where)
            plug.bind(where)
            os.chmod(where, 0o666)  # the directory above keeps others away; who Moss is in here is not known
        else:
            plug.connect(where)
    else:
        host, _, port = where.rpartition(":")
        plug = socket.socket(socket.AF_INET)
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if listening:
            plug.bind((host, int(port)))
        else:
            plug.connect((host, int(port)))
    if listening:
        plug.listen(AT_ONCE)
    return plug


def serve(listener: socket.socket, target: str) -> None:
    places = threading.BoundedSemaphore(AT_ONCE)

    def lead(near: socket.socket) -> None:
        # Closing it without a word is what the caller would see of a port that nobody listens at.
        with near, contextlib.suppress(OSError), opened(target, listening=False) as far:
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            copy(near, far)
            back.join()
        places.release()

    while True:
        places.acquire()
        threading.Thread(target=lead, args=(listener.accept()[0],), daemon=True).start()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Until the source has said all; then the sink is told so, and may still answer."""
    try:
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def main(arguments: list[str]) -> None:
    lifetime_s = None
    routes = []
    for argument in arguments:
        if argument.startswith("--for="):
            lifetime_s = float(argument[len("--for=") :])
        else:
            listen, _, target = argument.partition("=")
            routes.append((opened(listen, listening=True), target))
    for listener, target in routes:
        threading.Thread(target=serve, args=(listener, target), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait(lifetime_s)


if __name__ == "__main__":
    main(sys.argv[1:])
