"""The whole story with a Moss that is killed on the way: adopt, import, evolve, approve, swap."""

import asyncio
import atexit
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bot.control import Client
from core.clock import system_clock
from core.model.errors import MossError
from core.store import people
from core.store.store import Store, upgrade
from tests.support.outsider import BASE, docker, end_everything, jobs, ours, problems_after
from tests.support.world import FOREIGN, ROOT, World

MORTAL = ROOT / "tests" / "support" / "mortal_moss.py"
TICKED = "after tick"
PULSE = re.compile(r"(before|after) (tick|leases\..*)|(born|dead|killed) .*")
"""What is heard of a Moss that only lives."""
BIRTH_S = 60.0
ANSWER_S = 60.0
END_S = 60.0
NEWS_S = 1.0
"""Each durable write wakes the story; without any it looks again after this."""
FINAL = ("applied", "stopped", "exhausted", "failed", "rolled_back", "stuck")
AT_WORK = ("queued", "running", "approved", "swapping")

_ALONE = threading.Lock()
"""For what two stories that are told at once must not do at once. Alembic takes one event loop at a time."""

AT_THE_CODER = "after spawn sh in iter-1/implement-1"
"""Killed here, Moss leaves a coder at work."""
CODER = """#!/bin/sh
# The coder, which tells when another one is still at work.
if [ "$MOSS_ROLE" = implement ]; then
    grep -qs '{root}' "/proc/$(cat '{root}/coder.pid')/cmdline" && echo "two coders" >>'{root}/coder-alarm.txt'
    test -e '{root}/coder.pid' || first=yes
    echo $$ >'{root}/coder.pid'
    {then}
fi
exec sh '{coder}'
"""
LINGER = 'test -z "$first" || sleep 60'
SPOIL = r"""sed -i 's/^serve)$/&\n    [ -e "$state\/memory.txt" ] \&\& exit 7/' agent.sh"""
"""An agent that is well in every trial, where there is no memory, and dies on the volume of the live one."""


@dataclass(frozen=True, slots=True)
class Life:
    """Ended from outside after so many deeds, and so many seconds more, in the middle of whatever is under way."""

    deeds: int
    seconds: float


def is_deed(said: str) -> bool:
    return not PULSE.fullmatch(said)


@cache
def _source() -> socket.socket:
    """Where lives come from, for all stories of this process; it ends with it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with far:
        words = [sys.executable, str(MORTAL), str(far.fileno())]
        program = subprocess.Popen(words, env=kept | {"PYTHONPATH": str(ROOT)}, pass_fds=[far.fileno()])
    atexit.register(program.wait, timeout=10)
    atexit.register(near.close)
    return near


class Mortal:
    """A Moss that can be begun again and again, and says what it does."""

    def __init__(self, world: World) -> None:
        self.news: list[str] = []
        self.exit_codes: list[int] = []
        self.pid = 0
        """Zero while none lives."""
        self.listens = False
        self.killed_at = ""
        """The moment at which the last life ended, if it was one."""
        self.life: Life | None = None
        """How long the one that is begun next shall live, if it is to be ended from outside."""
        self.deeds = 0
        """In this life."""
        self.moved = time.monotonic()
        """When it last did what it had not done in this life."""
        self._heard_of_this_life: set[str] = set()
        self._heard = threading.Condition()
        self._wire, far = socket.socketpair()
        about = {"config": str(world.root / "moss.toml"), "log": str(world.log), "cwd": str(world.root)}
        with far, _ALONE:
            socket.send_fds(_source(), [json.dumps(about | {"env": world.environment()}).encode()], [far.fileno()])
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def begin(self, moments: list[str], bug: str) -> None:
        """Returns when it listens, or is dead already."""
        deaths = len(self.exit_codes)
        self._wire.sendall((json.dumps({"moments": moments, "bug": bug}) + "\n").encode())
        come = self.wait(lambda: self.listens or len(self.exit_codes) > deaths)
        assert come, f"Moss did not come up within {BIRTH_S:.0f} s"

    def wait(self, until: Callable[[], bool], timeout_s: float = BIRTH_S) -> bool:
        with self._heard:
            return self._heard.wait_for(until, timeout_s)

    def wait_for_news(self, known: int) -> None:
        self.wait(lambda: len(self.news) > known, NEWS_S)

    def kill(self, life: int | None = None, which: signal.Signals = signal.SIGKILL) -> None:
        """The life that has this process id, or whichever there is."""
        with contextlib.suppress(ProcessLookupError):
            if (pid := self.pid) and life in (None, pid):
                os.kill(pid, which)

    def end(self) -> bool:
        """As a service manager ends it. False when it died of something else on the way."""
        self.kill(which=signal.SIGTERM)
        assert self.wait(lambda: not self.pid, END_S), f"Moss did not end within {END_S:.0f} s"
        return self.exit_codes[-1] == 0

    def close(self) -> None:
        """Nothing of it lives on."""
        self._wire.shutdown(socket.SHUT_WR)
        self._listener.join(timeout=10)
        self._wire.close()

    def _listen(self) -> None:
        with self._wire.makefile() as lines:
            for line in lines:
                self._hear(line.strip())
        if self.pid or not self.news:
            self._hear("dead 1")

    def _hear(self, said: str) -> None:
        with self._heard:
            self.news.append(said)
            if said not in self._heard_of_this_life:
                self.moved = time.monotonic()
                self._heard_of_this_life.add(said)
            match said.partition(" "):
                case "born", _, pid:
                    self.pid, self.killed_at, self.deeds = int(pid), "", 0
                    self._heard_of_this_life.clear()
                case "dead", _, code:
                    self.pid, self.listens = 0, False
                    self.exit_codes.append(int(code))
                case "killed", _, moment:
                    self.killed_at = moment
                case "after", _, "listen":
                    self.listens = True
            self.deeds += is_deed(said)
            if self.life and self.pid and self.deeds >= self.life.deeds:
                threading.Timer(self.life.seconds, self.kill, [self.pid]).start()
                self.life = None
            self._heard.notify_all()


@dataclass
class Story:
    """Each step looks first whether it is done, so that it can be told again after every death."""

    world: World
    moments: list[str]
    """Moss dies once at each of them, in whatever order they come."""
    since: str = ""
    """A moment at which it dies before all others."""
    bug: str = "none"
    ends: str = "applied"
    lives: list[Life] = field(default_factory=list)
    """The first ones. The last life is not ended from outside."""
    limit_s: float = 600
    halt_s: float = 60
    """If it does nothing new for so long, it has come to a halt."""
    deaths: list[str] = field(default_factory=list)
    """What Moss had just done, or was about to do, when it died."""
    news: list[str] = field(default_factory=list)
    token: str = ""
    memory: str = field(default_factory=lambda: secrets.token_hex(1000))
    """What stands on the volume of the agent before Moss first sees it."""

    @classmethod
    def foreign(cls, where: Path, host: str, moments: list[str], *, ends: str = "applied", **more: Any) -> "Story":
        """Told by an agent and a coder in shell. Several of these may be told at once on one engine."""
        where.mkdir(parents=True, exist_ok=True)
        coder = where / "coder.sh"
        lingers = AT_THE_CODER in moments or ends == "stopped"
        then = SPOIL if ends == "rolled_back" else LINGER if lingers else ":"
        coder.write_text(CODER.format(root=where, coder=FOREIGN / "coder.sh", then=then))
        world = World.foreign(where, host, coder, name=f"prices-{secrets.token_hex(3)}")
        return cls(world, moments, ends=ends, **more)

    def tell(self) -> list[str]:
        """What is wrong at the end of it. Whatever happens, nothing of it is left running."""
        mortal = Mortal(self.world)
        self.news = mortal.news
        try:
            with _ALONE:
                asyncio.run(self._prepare())
            state = self._live_on(mortal)
            while not mortal.end():
                state = self._live_on(mortal)
            wrong = [f"Moss ended by itself with {code}" for code in mortal.exit_codes if code not in (0, -9)]
            where = [] if state in FINAL else [f"its last word was {self._last_word()!r}"]
            return [*wrong, *self.missed(), *where, *problems_after(self.world, state, self.memory, self.ends)]
        finally:
            mortal.close()
            end_everything(self.world)

    def missed(self) -> list[str]:
        """Of what is wrong, what is not the fault of Moss."""
        return [f"{moment} never came" for moment in self.moments]

    async def _prepare(self) -> None:
        url = f"sqlite:///{self.world.root / 'data' / 'moss.db'}"
        (self.world.root / "data").mkdir(exist_ok=True)
        await upgrade(url)
        store = await Store.open(url, system_clock)
        self.token = await people.add(store, "bob")
        await store.close()
        if self.world.host == "docker":
            write = f"printf %s {self.memory} >/state/memory.txt"
            docker("run", "--rm", "--volume", f"{self.world.volume}:/state", BASE, "sh", "-c", write)
        else:
            Path(self.world.volume).mkdir()
            Path(self.world.volume, "memory.txt").write_text(self.memory)

    def _live_on(self, mortal: Mortal) -> str:
        """The state in which the run ended, once Moss had nothing more to do and time to tidy up."""
        until, idle_since = time.monotonic() + self.limit_s, 0
        while time.monotonic() < min(until, mortal.moved + self.halt_s):
            known = len(mortal.news)
            if not mortal.pid:
                idle_since = 0
                self._begin(mortal)
            with contextlib.suppress(MossError, sqlite3.OperationalError):  # it died, or has not begun
                state = self._next()
                idle = state in (*FINAL, *AT_WORK) and not self._anybody_at_work()
                idle_since = (idle_since or len(mortal.news)) if idle else 0
                if idle and mortal.news[idle_since:].count(TICKED) >= 2:  # so that one of them has begun since
                    return state if state in FINAL else f"{state}, and nobody works on it"
            mortal.wait_for_news(known)
        return "never ended"

    def _begin(self, mortal: Mortal) -> None:
        if mortal.exit_codes:
            self.deaths.append(mortal.killed_at or self._last_word())
            self.moments = [moment for moment in self.moments if moment != mortal.killed_at]
            self.since = "" if mortal.killed_at == self.since else self.since
        mortal.life = self.lives.pop(0) if self.lives else None
        mortal.begin([self.since] if self.since else self.moments, self.bug)

    def _last_word(self) -> str:
        return next((said for said in reversed(self.news) if is_deed(said)), "nothing")

    def _next(self) -> str:
        """Looks into the database, since a process for every look would be slow, and acts over the control socket."""
        if not ours(self.world, "SELECT 1 FROM versions"):
            self._ask("adopt")
            return "adopted"
        if not ours(self.world, "SELECT 1 FROM chunks"):
            self._ask("import", lines=(FOREIGN / "batch.jsonl").read_text().splitlines())
            return "imported"
        run = ours(self.world, "SELECT id, state FROM runs ORDER BY queued_at DESC")
        if not run:
            self._ask("evolve")
            return "evolved"
        id, state = run[0]
        if state == "awaiting_consent":
            self._ask("approve", run=id)
        if state == "running" and self.ends == "stopped" and AT_THE_CODER in self.news:
            self._ask("stop", run=id)
        return str(state)

    def _anybody_at_work(self) -> bool:
        """What has no row in the outbox and no job, nobody ever takes up again."""
        waiting = ours(self.world, "SELECT 1 FROM outbox WHERE done_at IS NULL")
        return bool(waiting) or any(end in ("PENDING", "ENQUEUED") for _, end in jobs(self.world))

    def _ask(self, verb: str, **payload: object) -> None:
        client = Client(self.world.root / "data" / "moss.sock")
        asyncio.run(client.ask(verb, payload, token=self.token, timeout_s=ANSWER_S))
