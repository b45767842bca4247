"""Starts a coder inside its sandbox, watches what it tries, and sees to it that nothing of it is left.

    python3 -I -S inside.py POST

It is the first process in there, which the kernel protects from all others, and not dumpable, so that nobody looks into
it or speaks in its place. From the unix socket POST it gets its order, a line of JSON, and to it it tells what happens,
a line each; when nobody is at the other end any more, everything ends. Standard input and output are the program's.
The standard library only, and beside it witness.py and core/containers/relay.py: all may be copied into a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import witness  # type: ignore[import-not-found]

_LOOK_S = 0.1
"""How often it is looked what the program takes, and at the kernel's counters; how often what lives on, is a matter of
hundredths."""
_FIRST_TO_GO, _THEN = 500, 400
"""Where memory is short, the kernel ends the program rather than us, and us rather than Moss or an agent."""
_OUT_OF_MEMORY = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
"""Where the kernel counts what it ended for the memory of a container, in its second and its first version."""
_MOST = 20
"""Sentences; a program that tries a thing a thousand times has tried it."""

_OPEN, _MODIFY, _MOVED, _CREATE, _DELETE, _IS_DIR = 0x20, 0x2, 0xC0, 0x100, 0x200, 0x40000000
_WRITES = _MODIFY | _MOVED | _CREATE | _DELETE
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_EVENT = struct.Struct("iIII")

COUNTERS = {
    "Ip.OutNoRoutes": "tried to reach another machine",
    "Ip6OutNoRoutes": "tried to reach another machine",
    "Udp.NoPorts": "asked for the address of another machine",
    "Udp6NoPorts": "asked for the address of another machine",
    "Tcp.OutRsts": "tried ports of 127.0.0.1 at which nobody listens",
}
"""What the kernel counts in a network of its own, and what it means where there is none."""

libc = ctypes.CDLL(None, use_errno=True)


class Post:
    """The line to Moss."""

    def __init__(self, path: str) -> None:
        self.plug = socket.socket(socket.AF_UNIX)
        self.plug.connect(path)
        self.said: set[tuple[str, object]] = set()

    def order(self) -> dict[str, Any]:
        heard = b""
        while not heard.endswith(b"\n"):
            more = self.plug.recv(65536)
            if not more:
                sys.exit("there is no order")
            heard += more
        order: dict[str, Any] = json.loads(heard.decode())
        return order

    def tell(self, kind: str, what: object) -> None:
        if (kind, what) in self.said or sum(kind == said for said, _ in self.said) > _MOST:
            return  # one kind never crowds out the other
        self.said.add((kind, what))
        with contextlib.suppress(OSError):  # nobody is there any more, which ends us soon
            self.plug.sendall(json.dumps({kind: what}).encode() + b"\n")


class Traps:
    """Directories and sockets that stand where something secret stands outside. What is done to them is told."""

    def __init__(self, order: dict[str, Any], post: Post) -> None:
        self.post = post
        for path, text in order["decoys"].items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        self.doors: dict[socket.socket, tuple[str, str]] = {}
        for path, what in order["doors"].items():
            with contextlib.suppress(OSError):  # the image has something else there
                self.doors[listening(path)] = (path, what)
        self.events = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self.folders: dict[int, str] = {}
        self.decoys = set(order["decoys"])
        for folder in {*order["traps"], *(os.path.dirname(path) for path in self.decoys)}:
            mark = libc.inotify_add_watch(self.events, os.fsencode(folder), _OPEN | _WRITES)
            if mark >= 0:
                self.folders[mark] = folder

    def happened(self) -> None:
        while True:
            try:
                heard = os.read(self.events, 65536)
            except OSError:
                return
            while heard:
                mark, mask, _, length = _EVENT.unpack_from(heard)
                name = heard[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode("utf-8", "replace")
                heard = heard[_EVENT.size + length :]
                self._one(os.path.join(self.folders.get(mark, ""), name) if name else self.folders.get(mark, ""), mask)

    def _one(self, path: str, mask: int) -> None:
        if not path:
            return
        if mask & _WRITES:
            self.post.tell("deed", f"wrote to {path}")
        elif path in self.decoys:
            self.post.tell("deed", f"read {path}")
        elif mask & _IS_DIR:
            self.post.tell("note", f"looked into {path}")

    def knocked(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            door.accept()[0].close()
            self.post.tell("deed", "spoke to {1} at {0}".format(*self.doors[door]))


def listening(path: str) -> socket.socket:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen(16)
    door.setblocking(False)
    return door


def counted() -> dict[str, int]:
    """The kernel's counters of this network by their names; empty where it tells none."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/net/snmp") as file:
        lines = [line.split() for line in file]
        for names, values in zip(lines[::2], lines[1::2]):  # noqa: B905 (older Pythons do not know `strict`)
            found.update({names[0][:-1] + "." + name: values[n] for n, name in enumerate(names) if n})
    with contextlib.suppress(OSError), open("/proc/net/snmp6") as file:
        found.update((line.split()[0], line.split()[1]) for line in file)
    return {name: int(found.get(name, 0)) for name in COUNTERS}


def start(order: dict[str, Any], post: Post) -> int:
    """The program's number. What keeps it from starting is told by raising OSError."""
    own = dict(os.environ) if order["beside"] else {}  # noqa: TID251 (that of an image, where it is run)
    env = {**own, **order["env"]}
    known = witness.table()
    near, far = socket.socketpair()
    told, tell = os.pipe()  # both are closed by the exec that works
    pid = os.fork()
    if pid == 0:
        try:
            give_way(_FIRST_TO_GO)
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.chdir(order["cwd"])
            if known:
                with contextlib.suppress(OSError):
                    witness.install(known, far)
            far.close()
            os.execvpe(order["argv"][0], order["argv"], env)
        except OSError as problem:
            os.write(tell, str(problem.errno).encode())
        finally:
            os._exit(127)
    os.close(tell)
    far.close()
    ear = witness.received(near)
    if ear is not None:
        tell_note = functools.partial(post.tell, "note")
        threading.Thread(target=witness.listen, args=(ear, known, order["writable"], tell_note), daemon=True).start()
    with open(told, "rb") as pipe:
        wrong = pipe.read()
    if wrong:
        raise OSError(int(wrong), os.strerror(int(wrong)))
    return pid


def give_way(rank: int) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(rank))


def others() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]


def reap(ended: dict[int, int]) -> None:
    """Whatever has ended is taken away, with how it did."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended[pid] = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def end_all() -> None:
    """Everything here but ourselves; it may fork between two blows."""
    until = time.monotonic() + 5
    while others() and time.monotonic() < until:
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
        time.sleep(0.005)
        reap({})


def excess(most: dict[str, int]) -> str | None:
    """What there is too much of, as the rest of a sentence. Pages that processes share count once at most."""
    pids = others()
    if len(pids) > most["processes"]:
        return f"had more than {most['processes']} processes at once"
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
            pages += resident - shared
    if pages * os.sysconf("SC_PAGE_SIZE") > most["megabytes"] << 20:
        return f"took more than {most['megabytes']} MB of memory"
    return None


def ran_out_of_memory() -> bool:
    """Whether the kernel ended something in here for it. It says so of a container only."""
    for path in _OUT_OF_MEMORY:
        with contextlib.suppress(OSError), open(path) as file:
            return any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in file)
    return False


def watch(  # noqa: PLR0917
    pid: int, post: Post, traps: Traps, before: dict[str, int], deadline: float, most: dict[str, int] | None
) -> int | None:
    """Until the program has ended: how. Or until its time is over, it takes too much, or Moss is gone."""
    ended: dict[int, int] = {}
    woken = woken_by_children()
    selector = selectors.DefaultSelector()
    selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(4096))
    selector.register(post.plug, selectors.EVENT_READ, None)
    if traps.events >= 0:
        selector.register(traps.events, selectors.EVENT_READ, traps.happened)
    for door in traps.doors:
        selector.register(door, selectors.EVENT_READ, functools.partial(traps.knocked, door))
    reap(ended)
    while pid not in ended and time.monotonic() < deadline:
        for key, _ in selector.select(_LOOK_S):
            if key.data is None:  # Moss has nothing more to say: it is gone
                return None
            with contextlib.suppress(BlockingIOError):
                key.data()
        reap(ended)
        look(post, before)
        if most and pid not in ended and (what := excess(most)):
            post.tell("excess", what)
            return None
    return ended.get(pid)


def woken_by_children() -> socket.socket:
    """Readable when a child has ended."""
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


def look(post: Post, before: dict[str, int]) -> None:
    for name, count in counted().items():
        if count > before[name]:
            post.tell("note", COUNTERS[name])


def left(grace_s: float) -> bool:
    """Whether something lives on although it had time to end; many a program is a moment ahead of its children."""
    until = time.monotonic() + grace_s
    while others():
        if time.monotonic() > until:
            return True
        time.sleep(0.01)
        reap({})
    return False


def lane_opened(order: dict[str, Any]) -> threading.Thread | None:
    """What will lead to the model; its port is taken, and it begins when it is started."""
    if not order["lane"]:
        return None
    import relay  # type: ignore[import-not-found]  # noqa: PLC0415 (it lies beside us in there)

    near = relay.opened(f"tcp:127.0.0.1:{order['port']}", listening=True)
    return threading.Thread(target=relay.serve, args=(near, "unix:" + order["lane"]), daemon=True)


def main(where: str) -> None:
    give_way(_THEN)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    post = Post(where)
    order = post.order()
    deadline = time.monotonic() + order["lifetime_s"]
    before = counted()
    lane = lane_opened(order)
    traps = Traps(order, post)
    try:
        pid = start(order, post)
    except OSError as problem:
        post.tell("cannot", problem.errno or errno.EIO)
        return
    if lane:
        lane.start()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # what the program does not read is not held open for it
    code = watch(pid, post, traps, before, deadline, order["most"])
    starved = bool(code) and ran_out_of_memory()
    if starved:
        post.tell("starved", True)
    lives_on = code is not None and not starved and left(order["grace_s"])
    end_all()
    traps.happened()
    for door in traps.doors:
        traps.knocked(door)
    look(post, before)
    if code is not None:
        with contextlib.suppress(OSError):
            post.plug.sendall(json.dumps({"ended": code, "left": lives_on}).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # there is nothing to tidy, and somebody waits
