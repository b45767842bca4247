"""Knocks at a port of this machine every 5 ms until its input ends, in a process of its own so that nothing delays it;
then says how often nobody answered, and for how long at most."""

import json
import selectors
import socket
import sys
import time

EVERY_S, PATIENCE_S = 0.005, 0.05
REQUEST = b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as knock:
            knock.settimeout(PATIENCE_S)
            knock.sendall(REQUEST)
            return knock.recv(12).endswith(b" 200")
    except OSError:
        return False


def main() -> None:
    port = int(sys.argv[1])
    asked = selectors.DefaultSelector()
    asked.register(sys.stdin, selectors.EVENT_READ)
    failed, silent_s, answered_at = 0, 0.0, time.monotonic()
    while not asked.select(EVERY_S):
        if answers(port):
            now = time.monotonic()
            silent_s, answered_at = max(silent_s, now - answered_at), now
        else:
            failed += 1
    print(json.dumps({"failed": failed, "silent_s": silent_s}))


if __name__ == "__main__":
    main()
