"""`python -m desk serve` and `python -m desk status`."""

import argparse
import http.client
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from desk.agent import Agent
from desk.model import Rules
from desk.records import load
from desk.server import Server

HERE = Path(__file__).resolve().parent.parent


def main() -> int:
    signal.signal(signal.SIGTERM, _end)
    parser = argparse.ArgumentParser(prog="desk", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer over HTTP until SIGTERM")
    commands.add_parser("status", help="exit code 0 when the running desk is well")
    options = parser.parse_args()
    state = Path(os.environ.get("MOSS_STATE_DIR", "/state"))
    port = int(os.environ.get("PORT", "8080"))
    return serve(port, state) if options.command == "serve" else status(port, state)


def serve(port: int, state: Path) -> int:
    data = load(Path(os.environ.get("DESK_DATA", HERE / "data" / "desk.json")))
    boot_id = os.environ.get("MOSS_BOOT_ID", f"pid-{os.getpid()}")
    agent = Agent(data, Rules())
    bind = os.environ.get("DESK_BIND", "127.0.0.1")
    with Server((bind, port), agent, state, boot_id) as server:
        server.serve_forever(poll_interval=0.1)
    return 0


def status(port: int, state: Path) -> int:
    """Well means: the desk that beats is the one that answers."""
    try:
        beating = json.loads((state / "heartbeat.json").read_text(encoding="utf-8"))["boot_id"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/health")
        answering = json.loads(connection.getresponse().read())["boot_id"]
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        print(f"not well: {error}")
        return 1
    print(f"answering: {answering}, beating: {beating}")
    return 0 if answering == beating else 1


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
