"""Sees what a program asks of the kernel that its sandbox does not allow: to write elsewhere, to trace, to mount.

A seccomp filter makes the kernel ask us about these few calls, and the answer is always that it may decide itself: the
walls are mounts and namespaces, and this only tells who ran against them. What does not work here is left out, without
a word. One file of the standard library, used by inside.py.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
from typing import Any, Callable  # noqa: UP035 (older Pythons)

_ARCHS = {
    "x86_64": (
        0xC000003E,
        317,
        {
            **{2: ("open", None, 0), 85: ("creat", None, 0), 257: ("openat", 0, 1), 437: ("openat2", 0, 1)},
            **{83: ("mkdir", None, 0), 258: ("mkdirat", 0, 1), 84: ("rmdir", None, 0), 87: ("unlink", None, 0)},
            **{263: ("unlinkat", 0, 1), 82: ("rename", None, 1), 264: ("renameat", 2, 3), 316: ("renameat2", 2, 3)},
            **{86: ("link", None, 1), 265: ("linkat", 2, 3), 88: ("symlink", None, 1), 266: ("symlinkat", 1, 2)},
            **{76: ("truncate", None, 0), 90: ("chmod", None, 0), 268: ("fchmodat", 0, 1), 92: ("chown", None, 0)},
            **{260: ("fchownat", 0, 1), 133: ("mknod", None, 0), 259: ("mknodat", 0, 1)},
        },
        {101: "ptrace", 155: "pivot_root", 165: "mount", 272: "unshare", 308: "setns", 310: "process_vm_readv"},
    ),
    "aarch64": (
        0xC00000B7,
        277,
        {
            **{56: ("openat", 0, 1), 437: ("openat2", 0, 1), 34: ("mkdirat", 0, 1), 35: ("unlinkat", 0, 1)},
            **{38: ("renameat", 2, 3), 276: ("renameat2", 2, 3), 37: ("linkat", 2, 3), 36: ("symlinkat", 1, 2)},
            **{45: ("truncate", None, 0), 53: ("fchmodat", 0, 1), 54: ("fchownat", 0, 1), 33: ("mknodat", 0, 1)},
        },
        {117: "ptrace", 41: "pivot_root", 40: "mount", 97: "unshare", 268: "setns", 270: "process_vm_readv"},
    ),
}
"""By machine: how it is called, the number of seccomp, calls that change a path (with the places of its directory and
of the path among the arguments), and calls that ask for power over others."""
_FLAGS_OF = {"open": 1, "openat": 2}
_WRITES = 0o3 | 0o100 | 0o1000  # for writing, or creating, or emptying
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTICE, _REPLY = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")
_PATH_BYTES = 4096
_AT_FDCWD = -100

libc = ctypes.CDLL(None, use_errno=True)
Table = Any


def table() -> Table | None:
    """What is watched on this machine; None where the kernel cannot leave the decision to itself."""
    try:
        version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    except ValueError:
        return None
    return _ARCHS.get(platform.machine()) if version >= (5, 5) else None


def install(known: Table, to: socket.socket) -> None:
    """In the child, before it becomes the program: the filter, whose other end goes through the socket."""
    arch, number, paths, powers = known
    words = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, _ALLOW), (0x20, 0, 0, 0)]
    for call, (name, _, _) in paths.items():
        if name in _FLAGS_OF:
            words += [(0x15, 0, 4, call), (0x20, 0, 0, 16 + 8 * _FLAGS_OF[name])]
            words += [(0x45, 0, 1, _WRITES), (0x06, 0, 0, _ASK), (0x06, 0, 0, _ALLOW)]
        else:
            words += [(0x15, 0, 1, call), (0x06, 0, 0, _ASK)]
    for call in powers:
        words += [(0x15, 0, 1, call), (0x06, 0, 0, _ASK)]
    words.append((0x06, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *word) for word in words))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(words), ctypes.addressof(code)))
    ear = libc.syscall(number, 1, 8, program)
    if ear >= 0:
        to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ear]))])
        os.close(ear)


def received(at: socket.socket) -> int | None:
    """The other end of the filter; None where there is none."""
    data, ancillary, _, _ = at.recvmsg(1, socket.CMSG_SPACE(4))
    for level, kind, content in ancillary if data else ():
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(struct.unpack("i", content[:4])[0])
    return None


def listen(ear: int, known: Table, writable: dict[str, bool], tell: Callable[[str], None]) -> None:
    """Until nobody is left who could ask. Whatever cannot be understood is let pass like all the rest."""
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    while True:
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
            return
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(ear, _RECEIVE, notice)
        except OSError:  # it is gone
            continue
        identity, pid, _, call, _, _, *arguments = _NOTICE.unpack(notice)
        with contextlib.suppress(OSError, ValueError):
            told = _told(known, pid, call, arguments, writable)
            if told:
                tell(told)
        with contextlib.suppress(OSError):
            fcntl.ioctl(ear, _ANSWER, bytearray(_REPLY.pack(identity, 0, 0, _CONTINUE)))


def _told(known: Table, pid: int, call: int, arguments: list[int], writable: dict[str, bool]) -> str | None:
    _, _, paths, powers = known
    if call in powers:
        return f"asked the kernel for {powers[call]}"
    name, folder, path = paths[call]
    if name == "openat2" and not struct.unpack("Q", _memory(pid, arguments[2], 8))[0] & _WRITES:
        return None
    where = os.fsdecode(_memory(pid, arguments[path], _PATH_BYTES).partition(b"\0")[0])
    if not where:
        return None
    if not where.startswith("/"):
        number = ctypes.c_int(arguments[folder]).value if folder is not None else _AT_FDCWD
        at = f"/proc/{pid}/cwd" if number == _AT_FDCWD else f"/proc/{pid}/fd/{number}"
        where = os.path.join(os.readlink(at), where)
    where = os.path.normpath(where)
    real = os.path.join(os.path.realpath(os.path.dirname(where)), os.path.basename(where))
    if any(_may(each, writable) for each in (where, real)):
        return None
    return f"tried to write to {where}"


def _may(where: str, writable: dict[str, bool]) -> bool:
    while where not in writable and where != "/":
        where = os.path.dirname(where)
    return writable.get(where, False)


def _memory(pid: int, address: int, size: int) -> bytes:
    """Of a program that waits for us. A path may end where its memory does."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        try:
            return memory.read(size)
        except OSError:
            memory.seek(address)
            return memory.read(min(size, 4096 - address % 4096))
