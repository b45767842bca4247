"""A whole agent in one file, for swaps: it answers, beats, remembers, and misbehaves as the file `mood` beside it says.

It also tells on Moss: it holds a lock in its state directory, and whoever finds that lock taken leaves `two-writers`.
And it keeps a diary there while it lives, in which each line has the hash of all before it (tests/support/diary.py).
"""

import contextlib
import fcntl
import hashlib
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
LIFE_S = {"fading": 0.4, "mortal": 20.0}


class Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(503 if MOOD in ("sick", "stubborn-sick") else 200, {"version": VERSION, "boot_id": BOOT_ID})

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
        with contextlib.suppress(OSError):  # on a full disk it misses a beat
            fresh.write_text(text)
            fresh.replace(STATE / "heartbeat.json")
        time.sleep(0.03)


def keep_diary() -> None:
    """As long as it lives; on a full disk it waits until there is room for a whole line."""
    with (STATE / "diary").open("ab+", buffering=0) as diary:
        diary.seek(0)
        lines = diary.read().splitlines()
        number, seal = len(lines), lines[-1].decode().rpartition(" ")[2] if lines else ""
        while True:
            said = f"{number} {VERSION} {BOOT_ID}"
            fresh = hashlib.sha256(f"{seal} {said}".encode()).hexdigest()[:16]
            line, before = f"{said} {fresh}\n".encode(), os.fstat(diary.fileno()).st_size
            written = 0
            with contextlib.suppress(OSError):
                written = diary.write(line)
            if written == len(line):
                number, seal = number + 1, fresh
            else:
                diary.truncate(before)
            time.sleep(0.05)


def breed() -> None:
    """Children, and children again, for as long as the machine gives any; a few hundred are more than enough."""
    born = 0
    while born < 400:
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            born += 1
        except OSError:
            time.sleep(0.1)
        (STATE / "born").write_text(str(born))


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
    signal.signal(signal.SIGTERM, signal.SIG_IGN if MOOD.startswith("stubborn") else lambda *_: os._exit(0))
    if MOOD != "heartless":
        threading.Thread(target=beat, daemon=True).start()
    threading.Thread(target=keep_diary, daemon=True).start()
    if MOOD == "breeding":
        threading.Thread(target=breed, daemon=True).start()
    if MOOD in LIFE_S:
        threading.Timer(LIFE_S[MOOD], lambda: os._exit(3)).start()
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Agent).serve_forever()


main()
