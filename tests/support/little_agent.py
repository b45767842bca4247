"""A whole agent in one file, for swaps: it answers, beats, remembers, and misbehaves as the file `mood` beside it says.

It also tells on Moss: it holds a lock in its state directory, and whoever finds that lock taken leaves `two-writers`.
"""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATE = Path(os.environ["MOSS_STATE_DIR"])
BOOT_ID = os.environ.get("MOSS_BOOT_ID", "")
HERE = Path(__file__).parent
MOOD = (HERE / "mood").read_text().strip()
VERSION = (HERE / "version").read_text().strip()


class Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(503 if MOOD == "sick" else 200, {"version": VERSION, "boot_id": BOOT_ID})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with (STATE / "memory.jsonl").open("a") as memory:
            memory.write(json.dumps(asked["messages"][-1]["content"]) + "\n")
        said = "nonsense" if MOOD == "confused" else f"version {VERSION} hears you"
        if MOOD == "echo":
            said = " | ".join(one["content"] for one in asked["messages"])
        if MOOD == "slow":
            time.sleep(float(asked["messages"][-1]["content"]))
        if MOOD == "silent":
            said = ""
        self.answer(200, {"choices": [{"message": {"role": "assistant", "content": said}}]})

    def answer(self, code: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        pass


def beat() -> None:
    number = 0
    while True:
        number += MOOD != "frozen"
        text = json.dumps({"boot_id": "of-somebody-else" if MOOD == "impostor" else BOOT_ID, "beat": number})
        fresh = STATE / "heartbeat.new"
        fresh.write_text(text)
        fresh.replace(STATE / "heartbeat.json")
        time.sleep(0.03)


def main() -> None:
    lock = (STATE / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (STATE / "two-writers").write_text(f"{VERSION} {BOOT_ID}")
    with (STATE / "starts").open("a") as starts:
        starts.write(f"{VERSION}\n")
    sys.stderr.write(f"agent {VERSION} is {MOOD}, key {os.environ.get('AGENT_KEY', 'none')}\n")
    if MOOD == "dying":
        sys.exit("Traceback: the new code has a fault")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if MOOD == "stubborn" else lambda *_: os._exit(0))
    threading.Thread(target=beat, daemon=True).start()
    if MOOD == "fading":
        threading.Timer(0.4, lambda: os._exit(3)).start()
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Agent).serve_forever()


main()
