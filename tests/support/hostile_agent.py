"""An agent that was changed into a hostile one, for `tests/test_hostile_trial.py`. Standard library only.

    python3 hostile_agent.py              serves turns, as an agent on trial does
    python3 hostile_agent.py turn [TURN]  answers one, else that on standard input
    python3 hostile_agent.py wait MARK    stands beside it, to be found

A turn is what it shall do, in JSON: `{"try": TARGETS}` is answered with what became of each attempt (or of
`only` some), and `{"bomb": NAME, "much": NUMBER}` with what it got.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REAL = b"REAL"
"""Stands in everything that must not be had."""
MEGABYTE = bytes(1 << 20)


# What it tries to reach. Each returns whether it got it.


def has_an_address():
    return sorted(os.listdir("/sys/class/net")) != ["lo"]


def has_a_route():
    with open("/proc/net/route") as routes:
        return len(routes.read().splitlines()) > 1


def resolves(name):
    return bool(socket.getaddrinfo(name, 80))


def hears(plug, words=b""):
    plug.settimeout(5)
    if words:
        plug.sendall(words)
    return REAL in plug.recv(1000)


def reaches(addresses, port):
    for address in addresses:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2) as plug:
            if hears(plug):
                return True
    return False


def reaches_through_the_gateway(addresses, port):
    """Whoever leads to a model may lead elsewhere as well."""
    way, token = urlsplit(os.environ["OPENAI_BASE_URL"]), f"Authorization: Bearer {os.environ['OPENAI_API_KEY']}"
    for address in addresses:
        for order in (f"GET http://{address}:{port}/", f"CONNECT {address}:{port}"):
            with contextlib.suppress(OSError), socket.create_connection((way.hostname, way.port), timeout=2) as plug:
                if hears(plug, f"{order} HTTP/1.1\r\nHost: {address}\r\n{token}\r\n\r\n".encode()):
                    return True
    return False


def speaks_to(path):
    """A path, or an abstract name: those know no directories, only networks."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect(path)
        return hears(plug)


def speaks_to_the_engine():
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect("/var/run/docker.sock")
        plug.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        return b"200 OK" in plug.recv(1000)


def sees_a_process(mark):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
            if mark.encode() in command.read() and int(pid) != os.getpid():
                return True
    return False


def reads(path):
    with open(path, "rb") as file:
        return REAL in file.read()


def writes(path):
    with open(path, "ab") as file:
        file.write(b"# hostile\n")
    return True


def finds_in_an_environment(value):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
            if value.encode() in environment.read():
                return True
    return False


def attempts(to):
    return {
        "has an address": has_an_address,
        "has a route": has_a_route,
        "asks for a name": lambda: resolves(to["name"]),
        "reaches a listener of this machine": lambda: reaches(to["addresses"], to["port"]),
        "reaches it through the gateway": lambda: reaches_through_the_gateway(to["addresses"], to["port"]),
        "speaks to an abstract socket of this machine": lambda: speaks_to("\0" + to["abstract"]),
        "speaks to the engine": speaks_to_the_engine,
        "speaks to another trial": lambda: speaks_to("\0" + to["neighbour"]),
        "reaches a port of another trial": lambda: reaches(["127.0.0.1"], to["neighbours port"]),
        "sees another trial": lambda: sees_a_process(to["neighbour"]),
        "reads the memory of the live agent": lambda: reads(to["memory"]),
        "finds the key": lambda: finds_in_an_environment(to["key"]),
        "writes to its own image": lambda: writes("/app/hostile_agent.py"),
        "writes where the engine keeps its names": lambda: writes("/etc/hosts"),
    }


def tried(to):
    known = attempts(to)
    report = {}
    for name in to.get("only", known):
        try:
            report[name] = "done" if known[name]() else "failed"
        except OSError as refused:
            report[name] = f"failed: {refused}"
    return report


# What it takes of the machine: so many megabytes, or processes. Each returns what it got.


def takes_memory(much):
    eaten = []
    while len(eaten) < much:
        eaten.append(bytearray(MEGABYTE))
        eaten[-1][::4096] = b"x" * 256  # untouched it would not count
    return f"{len(eaten)} MB"


def has_a_child_take_memory(much):
    """The agent itself lives on, and fails in a way of its own."""
    child = os.fork()
    if child == 0:
        takes_memory(much)
        os._exit(0)
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"the child ended with {code}")
    return "the child ended well"


def forks(much):
    """Until it has so many: it does not give up."""
    count = 0
    while count < much:
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                time.sleep(3600)
            count += 1
    return f"{count} processes"


def fills_the_disk(much):
    written = {}
    for folder in ("/tmp", os.environ["MOSS_STATE_DIR"], "/dev/shm"):
        with contextlib.suppress(OSError), open(f"{folder}/full", "ab", buffering=0) as file:
            while file.tell() < much << 20:
                file.write(MEGABYTE)
        written[folder] = os.path.getsize(f"{folder}/full") >> 20
    return json.dumps(written)


def needs_disk(much):
    with open("/tmp/needed", "ab", buffering=0) as file:
        while file.tell() < much << 20:
            file.write(MEGABYTE)
    return f"{os.path.getsize('/tmp/needed') >> 20} MB"


def floods_its_log(much):
    line = b"x" * 999 + b"\n"
    for _ in range(much * 1000):
        os.write(2, line)
    return f"{much} MB"


def beats(much):
    """A heartbeat of so many megabytes, which takes no place at all."""
    with open(f"{os.environ['MOSS_STATE_DIR']}/beat", "wb") as file:
        file.truncate(much << 20)
    return "beats"


BOMBS = {
    "heartbeat": beats,
    "memory": takes_memory,
    "memory of a child": has_a_child_take_memory,
    "processes": forks,
    "disk": fills_the_disk,
    "needed disk": needs_disk,
    "log": floods_its_log,
}


def answered(turn):
    asked = json.loads(turn)
    return json.dumps(tried(asked["try"])) if "try" in asked else BOMBS[asked["bomb"]](asked["much"])


def long_reply(much):
    for _ in range(much):
        yield MEGABYTE


class Agent(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({}) if self.path == "/" else self.answer_at_length(10 << 10)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        turn = asked["messages"][-1]["content"]
        if json.loads(turn).get("bomb") == "reply":
            self.answer_at_length(json.loads(turn)["much"])
        else:
            self.answer({"choices": [{"message": {"role": "assistant", "content": answered(turn)}}]})

    def answer(self, told):
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer_at_length(self, much):
        self.send_response(200)
        self.send_header("Content-Length", str(much << 20))
        self.end_headers()
        for part in long_reply(much):
            self.wfile.write(part)

    def log_message(self, *words):
        pass


def wait(mark):
    """What is there is told to whoever comes, at an abstract socket and at a port."""

    def tell(plug):
        plug.listen()
        while True:
            with plug.accept()[0] as caller:
                caller.sendall(REAL)

    near, far = socket.socket(socket.AF_UNIX), socket.socket()
    near.bind("\0" + mark)
    far.bind(("127.0.0.1", 9999))
    threading.Thread(target=tell, args=(near,), daemon=True).start()
    print("waits", flush=True)
    tell(far)


def answer_one(turn):
    asked = json.loads(turn)
    if asked.get("bomb") == "reply":
        for part in long_reply(asked["much"]):
            sys.stdout.buffer.write(part)
    else:
        print(answered(turn))


if __name__ == "__main__":
    if sys.argv[1:2] == ["turn"]:
        answer_one(sys.argv[2] if len(sys.argv) > 2 else sys.stdin.read())
    elif sys.argv[1:2] == ["wait"]:
        wait(sys.argv[2])
    else:
        ThreadingHTTPServer(("", int(os.environ["PORT"])), Agent).serve_forever()
