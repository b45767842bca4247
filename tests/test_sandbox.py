"""Coders in their sandboxes: every way out is closed and told, nothing outlives them, and honest ones see no walls."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from core.coders import bubblewrap, check
from core.coders.ask import ask
from core.coders.bubblewrap import Bubblewrap
from core.coders.coder import Brief, Heard, Start, Way
from core.coders.command import Command
from core.coders.program import Program
from core.coders.showing import Secret
from core.containers import docker_plan
from core.containers.docker_host import DockerHost
from core.containers.host import label
from core.model.replies import Implementation, Role
from core.repository import Change, Clone
from core.swap.reconcile import Deed, Known, decide
from tests.support.bench import Bench
from tests.support.coding_agents import AGENTS, CLAUDE, CODEX, Agent
from tests.support.hostile import REPLY
from tests.support.model_stub import KEY, Read, Say, Shell, Text, Write, model
from tests.support.needs import needs_bubblewrap, needs_engine
from tests.support.prison import FakeLanes, Led, Prison, prison, sleeping
from tests.support.scripted_coder import calls, scripted
from tests.support.until import until

ROOT = Path(__file__).parents[1]
KINDS = [pytest.param("bubblewrap", marks=needs_bubblewrap), pytest.param("container", marks=needs_engine)]
Prepared = tuple[Clone, str, Change]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return asyncio.run(check.prepare(tmp_path_factory.mktemp("prepared")))


@pytest_asyncio.fixture
async def jail(tmp_path: Path, prepared: Prepared) -> AsyncIterator[Prison]:
    question = tmp_path / f"q-{secrets.token_hex(4)}"  # its name becomes that of the run, on a machine with others
    question.mkdir()
    async with prison(tmp_path, Bench(question, *prepared)) as made:
        yield made


# Ways out

OUT = {
    "reads the home": "read {home}/.ssh/id_ed25519",
    "reads the data": "read {data}/moss.db",
    "reads other runs": "read {data}/runs/",
    "writes home": "wrote to {home}/.profile",
    "writes data": "wrote to {data}/moss.db",
    "speaks to the engine": "spoke to the Docker engine at /run/docker.sock",
    "speaks to moss": "spoke to Moss's control socket at {data}/moss.sock",
}
"""What no honest program does, and how it is told. Writing there changes a decoy."""
REACHING = {
    "reaches loopback": "tried ports of 127.0.0.1 at which nobody listens",
    "reaches the bridge": "tried to reach another machine",
    "reaches an address": "tried to reach another machine",
    "asks for a name": "asked for the address of another machine",
}
"""What an honest one may do as well."""
UNTOLD = {
    ("container", "writes home"): "only places of keys are decoys, since an image may keep programs in a home",
    ("container", "mounts"): "the engine's own filter says no before anybody is asked",
    ("container", "becomes root"): "the same",
    ("container", "asks for a name"): "the engine names a server, which is another machine",
}
SEEN = {
    "writes /etc": "tried to write to /etc/{name}",
    "writes /usr": "tried to write to /usr/{name}",
    "writes evidence": "tried to write to {question}/evidence/{name}",
    "writes checkout": "tried to write to {question}/checkout/{name}",
    "traces": "asked the kernel for ptrace",
    "traces its guard": "asked the kernel for ptrace",
    "mounts": "asked the kernel for mount",
    "becomes root": "asked the kernel for unshare",
}
"""What fails by itself and is only told of."""
LOOKING = ("reads the settings", "finds the key", "looks at processes")
"""For which there is nothing to be found inside, and so nothing to tell."""


@pytest.mark.parametrize("kind", KINDS)
async def test_every_way_out_of_a_sandbox_is_closed_and_the_attempt_is_told(jail: Prison, kind: str) -> None:
    every = (*OUT, *REACHING, *SEEN, *LOOKING)
    how, said = await jail.attempt(kind, *every)
    done = {attempt for attempt, end in how.items() if end == "done"}
    assert done <= {"writes home", "writes data"}, "they changed decoys"
    assert how.keys() == set(every)
    assert said.startswith("Misconduct: Coder hostile ")
    places: dict[str, object] = {"home": jail.secret.home, "data": jail.secret.data}
    for words in (words.format(**places) for attempt, words in OUT.items() if (kind, attempt) not in UNTOLD):
        assert words in said
        assert words in jail.notes()
    places |= {"question": jail.bench.where, "name": f"moss-hostile-{jail.mark}"}
    for words in (words.format(**places) for attempt, words in SEEN.items() if (kind, attempt) not in UNTOLD):
        assert words in jail.notes()
    assert kind == "bubblewrap" or f"tried to write to {jail.secret.home}/.profile" in jail.notes()
    for words in (words for attempt, words in REACHING.items() if (kind, attempt) not in UNTOLD):
        assert words not in said
        assert words in jail.notes()
    assert (jail.secret.data / "moss.db").read_bytes() == b"REAL"
    assert not (jail.secret.home / ".profile").exists()
    for place in ("/etc", "/usr", str(jail.bench.where / "checkout"), str(jail.bench.where / "evidence")):
        assert not Path(place, f"moss-hostile-{jail.mark}").exists()


async def test_on_the_host_the_same_ways_are_open(jail: Prison) -> None:
    ways = [*OUT, "reaches loopback", "reaches the bridge", "reads the settings", "finds the key", "looks at processes"]
    if not Path("/var/run/docker.sock").exists():
        ways.remove("speaks to the engine")
    if os.getuid() == 0:
        ways += ["writes /etc", "writes /usr", "traces", "mounts"]
    ways += ["writes evidence", "writes checkout"]
    try:
        how, said = await jail.attempt("host", *ways, timeout_s=60.0)
    finally:
        for place in ("/etc", "/usr"):
            Path(place, f"moss-hostile-{jail.mark}").unlink(missing_ok=True)
    allowed = {} if os.getuid() == 0 else {"writes evidence": "failed (Permission denied)"}
    assert {attempt: end for attempt, end in how.items() if end != "done"} == allowed, said
    assert "changed the evidence" in said or os.getuid() != 0


# What is left


@pytest.mark.parametrize("kind", KINDS)
async def test_a_process_that_is_left_behind_is_ended_and_told_whatever_it_did_to_hide(jail: Prison, kind: str) -> None:
    how, said = await jail.attempt(kind, "leaves a process")
    assert how == {"leaves a process": "done"}
    assert "left a process behind in role locate; it was killed" in said
    assert jail.left() == []


async def test_on_the_host_one_that_hides_well_lives_on(jail: Prison) -> None:
    _, said = await jail.attempt("host", "leaves a process")
    assert said == ""
    assert len(jail.left()) == 1, "which is why a sandbox is better"


@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_tries_to_end_its_guard_ends_itself_at_most(jail: Prison, kind: str) -> None:
    await jail.attempt(kind, "leaves a process", "kills its guard")
    assert jail.left() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_no_name_of_a_file_hides_a_deed_or_forges_one(jail: Prison, kind: str) -> None:
    """One that is no UTF-8, one as long as may be, one that has a line of its own."""
    script = f"""
import contextlib
open({str(jail.secret.data / "moss.db")!r}).read()
for name in (b"\\xff", b"\\xff/" * 2000, b"x\\nIt read /root/.netrc"):
    with contextlib.suppress(OSError):
        open(b"/etc/" + name, "w")
open({str(jail.secret.data / "first-tokens.json")!r}).read()
"""
    coder = Program("odd", (jail.python(kind), "-c", script), Command(), sandbox=jail.sandbox(kind))
    said = await jail.complaint(coder)
    data = jail.secret.data
    assert said.startswith(f"Misconduct: Coder odd read {data}/moss.db and read {data}/first-tokens.json in role")
    lines = jail.notes().splitlines()
    assert [line for line in lines if "/etc/" in line and len(line) < 100] == [
        "It tried to write to /etc/\\udcff.",
        "It tried to write to /etc/x\\nIt read /root/.netrc.",
    ]
    assert len(lines) == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_in_the_name_of_a_file_is_not_repeated(
    jail: Prison, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "shapeless\nphrase")
    script = f"""
import os
for place in ("/etc", {str(jail.secret.data)!r}):
    try:
        open(place + "/" + os.environ["MODEL_KEY"], "w")
    except OSError:
        pass
"""
    argv = (jail.python(kind), "-c", script)
    with capture_logs() as logged:
        said = await jail.complaint(Program("odd", argv, Command(), ("MODEL_KEY",), jail.sandbox(kind)))
    assert f"wrote to {jail.secret.data}/[MODEL_KEY]" in said
    assert "It tried to write to /etc/[MODEL_KEY].\n" in jail.notes()
    assert "shapeless" not in f"{said} {jail.notes()} {logged}"
    assert "[MODEL_KEY]" in str(logged)


def hiding(jail: Prison, kind: str) -> Program:
    """It hides a process, says so, and hangs."""
    script = f"import os, time; from tests_hostile import leaves_a_process; leaves_a_process({jail.mark!r})"
    copy = jail.bench.where / "tests_hostile.py"
    copy.write_text((ROOT / "tests/support/hostile.py").read_text())
    script = f"import sys; sys.path.insert(0, {str(copy.parent)!r}); {script}; print('up', flush=True); time.sleep(60)"
    argv = (jail.python(kind), "-c", script)
    return Program("hiding", argv, Command(), sandbox=jail.sandbox(kind), shows=(copy,))


async def up(jail: Prison) -> None:
    told = jail.bench.where / "artefacts" / "stdout.txt"
    await until(lambda: told.exists() and told.read_text().startswith("up"))


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_else_on_this_machine_comes_to_the_home_or_to_the_order(jail: Prison, kind: str) -> None:
    """Who connects to the post first is told the environment, keys and all."""
    script = "import os, time; print(os.environ['HOME'], flush=True); time.sleep(60)"
    coder = Program("slow", (jail.python(kind), "-c", script), Command(), sandbox=jail.sandbox(kind))
    asked = asyncio.create_task(ask(coder, await jail.bench.brief()))
    told = jail.bench.where / "artefacts" / "stdout.txt"
    await until(lambda: told.exists() and told.read_text().endswith("\n"))
    home = Path(told.read_text().strip())
    place = home.parent
    try:
        assert {path.name for path in place.iterdir()} == {"home", "post"}
        assert (place / "post" / "post").is_socket()
        assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (os.getuid(), 0o700)
    finally:
        asked.cancel()
        await asyncio.wait({asked})
    assert not place.exists()


@pytest.mark.parametrize("kind", KINDS)
async def test_at_the_limit_nothing_survives(jail: Prison, kind: str) -> None:
    said = await jail.complaint(hiding(jail, kind), timeout_s=3.0)
    assert "it did not end within 3 s and was killed" in said
    assert (jail.bench.where / "artefacts" / "stdout.txt").read_text() == "up\n"
    assert jail.left() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_ends_everything_in_less_than_five_seconds(jail: Prison, kind: str) -> None:
    asked = asyncio.create_task(ask(hiding(jail, kind), await jail.bench.brief()))
    await up(jail)
    await until(lambda: len(jail.left()) == 1)
    began = time.monotonic()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until(lambda: jail.left() == [])  # the kernel ends them once their guard is gone, on a busy machine later
    assert time.monotonic() - began < 5


def started(*argv: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, cwd=ROOT)


MORTAL = """
import asyncio, sys, tempfile
from pathlib import Path
from core.coders.coder import Brief
from core.coders.ask import ask
from core.coders.coder import Account
from core.coders.bubblewrap import Bubblewrap
from core.coders.container_sandbox import ContainerSandbox
from core.coders.command import Command
from core.coders.program import Program
from core.coders.showing import Secret
from core.containers.docker_coder import CoderBoxes
from core.containers.docker_host import RELAY_BASE, SOCKET
from core.model.replies import Role
where, data, mark, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
secret = Secret(data, data.parent / "home")
boxes = {
    "bubblewrap": Bubblewrap(secret),
    "container": ContainerSandbox(CoderBoxes(SOCKET, 60), RELAY_BASE, secret, f"test-{mark}"),
}
script = f"env -i sleep {mark} & sleep {mark} & echo up; sleep {mark}"
coder = Program("sh", ("sh", "-c", script), Command(), sandbox=boxes[kind])
parts = (where / name for name in ("checkout", "evidence", "artefacts"))
account = Account("little", f"run-{mark}", 3, "locate")
brief = Brief(Role.locate, f"run-{mark}/x", "?", *parts, may_write=False, timeout_s=60, account=account)
asyncio.run(ask(coder, brief))
"""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_moss_that_is_killed_leaves_nothing_running(jail: Prison, kind: str) -> None:
    await jail.bench.brief()
    argv = (sys.executable, "-c", MORTAL, str(jail.bench.where), str(jail.secret.data), jail.mark, kind)
    moss = started(*argv)
    try:
        await up(jail)
        await until(lambda: len(sleeping(jail.mark)) == 3)
        moss.send_signal(signal.SIGKILL)
        moss.wait(5)
        await until(lambda: not sleeping(jail.mark), within_s=5)
    finally:
        moss.kill()
        moss.wait()
    if kind == "container":
        await is_reaped(jail)


async def is_reaped(jail: Prison) -> None:
    """What is left of it on the engine belongs to a run, and the next start sees that it is not under way."""
    owner = f"test-{jail.mark}"
    host = DockerHost(jail.secret.data, owner)
    try:
        (box,) = await host.boxes({label.OWNER: owner, label.SUBSTRATE: "little"})
        known = Known("little", None, None, False, {f"run-{jail.mark}": 3}, frozenset())
        assert decide(known, [box], {}) == [], "the very step is under way"
        for steps in ({}, {f"run-{jail.mark}": 4}):
            (decision,) = decide(replace(known, steps=steps), [box], {})
            assert (decision.deed, decision.name) == (Deed.remove_box, box.name)
        await host.remove(box.name)
        assert await host.boxes({label.OWNER: owner}) == []
    finally:
        await host.close()


TOO_MUCH = {
    "memory": (
        "eaten = bytearray(300 << 20); eaten[::4096] = b'x' * len(eaten[::4096])",
        "took more than 200 MB of memory",
    ),
    "memory of many": (
        "for _ in range(6):\n if os.fork() == 0: eaten = bytearray(60 << 20); time.sleep(60)",
        "took more than 200 MB of memory",
    ),
    "processes": ("for _ in range(40):\n if os.fork() == 0: time.sleep(60)", "had more than 20 processes at once"),
    "processes without end": ("while True: os.fork()", "had more than 20 processes at once"),
}


@needs_bubblewrap
@pytest.mark.parametrize("what", TOO_MUCH)
async def test_whoever_takes_too_much_of_the_machine_is_ended_and_the_limit_is_named(
    jail: Prison, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, why = TOO_MUCH[what]
    script = f"import os, time\n{code}\ntime.sleep(1)\nos.killpg(0, 9)"
    coder = Program("greedy", (sys.executable, "-S", "-c", script), Command(), sandbox=jail.sandbox("bubblewrap"))
    if what != "processes without end":
        assert "it was ended by signal 9" in await jail.complaint(coder), "within its limits nobody minds"
    monkeypatch.setattr(bubblewrap, "MOST", {"megabytes": 200, "processes": 20})
    said = await jail.complaint(coder)
    assert f"it {why} and was killed" in said
    assert said.startswith("CoderFailed"), "it may be a mistake"


BLOAT = "x = bytearray(400 << 20)"
"""Touched, so that it is really taken."""
STARVED = {
    "itself": BLOAT,
    "a program that it starts": f"import subprocess, sys; sys.exit(subprocess.call(['python3', '-c', '{BLOAT}']) != 0)",
    "itself, with another beside it": f"import subprocess; subprocess.Popen(['sleep', '60']); {BLOAT}",
    "many small ones": (
        "import os, sys, time\n"
        "for _ in range(60):\n  if not os.fork():\n    x = bytearray(8 << 20)\n    time.sleep(60)\n"
        "sys.exit(os.wait()[1])"
    ),
}


@needs_engine
@pytest.mark.parametrize("who", STARVED)
async def test_a_coder_that_meets_the_memory_limit_of_its_container_is_told_of_it(
    jail: Prison, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coder = Program("greedy", ("python3", "-S", "-c", STARVED[who]), Command(), sandbox=jail.sandbox("container"))
    monkeypatch.setattr(docker_plan, "CODER_MB", 200)
    said = await jail.complaint(coder)
    assert "it took more than 200 MB of memory and was killed" in said
    assert said.startswith("CoderFailed"), "it may be a mistake"


@pytest.mark.parametrize("kind", KINDS)
async def test_where_memory_is_short_the_kernel_ends_a_coder_first(jail: Prison, kind: str) -> None:
    argv = (jail.python(kind), "-c", "print(open('/proc/self/oom_score_adj').read())")
    await jail.complaint(Program("first", argv, Command(), sandbox=jail.sandbox(kind)))
    assert (jail.bench.where / "artefacts" / "stdout.txt").read_text().strip() == "500"


# What an honest coder has


@pytest.mark.parametrize("kind", KINDS)
async def test_an_honest_coder_works_in_every_sandbox_as_on_the_host(jail: Prison, kind: str) -> None:
    look = (
        "git status && git diff && git log --oneline && python3 -c 'import ssl, json' && cat $MOSS_EVIDENCE/brief.json"
    )
    edit = "echo '# new' >> agent.py && git add -A && echo '{\"summary\": \"done\"}'"
    script = f"PATH=/usr/local/bin:/usr/bin:/bin; cat >&2; ({look}) >$TMPDIR/said && {edit}"
    coder = Program("sh", ("sh", "-c", script), Command(), sandbox=jail.sandbox(kind))
    brief = await jail.bench.brief(Role.implement)
    await ask(coder, brief)
    assert "# new" in (brief.checkout / "agent.py").read_text()
    assert (brief.artefacts / "stderr.txt").read_text() == brief.prompt
    assert jail.notes() == ""


@needs_bubblewrap
async def test_the_environment_in_a_sandbox_is_the_one_on_the_host(
    jail: Prison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_TOKEN", "xoxb-secret")
    monkeypatch.setenv("MODEL_KEY", "key-1234567")
    script = "import json, os, sys; print(json.dumps(dict(os.environ)), file=sys.stderr)"
    seen = {}
    for kind in ("host", "bubblewrap"):
        coder = Program("py", (sys.executable, "-c", script), Command(), ("MODEL_KEY",), jail.sandbox(kind))
        await jail.complaint(coder)
        said = (jail.bench.where / "artefacts" / "stderr.txt").read_text()
        seen[kind] = {name: value for name, value in json.loads(said).items() if name not in ("HOME", "TMPDIR")}
        seen[kind].pop("MOSS_SCHEMA")
    assert seen["bubblewrap"] == seen["host"]
    assert "SLACK_TOKEN" not in seen["host"]


class Asks:
    """A Provider whose program reaches a model at its lane."""

    api = "openai"

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        assert way
        return Start((), {"MODEL": way.url, "TOKEN": way.token})

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        return Heard(said)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_lane_is_the_one_way_out(jail: Prison, kind: str) -> None:
    script = (
        "import os, sys, urllib.request as r;"
        "q = r.Request(os.environ['MODEL'], headers={'X-Token': os.environ['TOKEN']});"
        "print([r.urlopen(q).read() for _ in range(3)], file=sys.stderr)"
    )
    lanes = FakeLanes()
    argv = (jail.python(kind), "-c", script)
    coder = Program("asks", argv, Asks(), sandbox=jail.sandbox(kind), lanes=lanes)  # type: ignore[arg-type]
    await jail.complaint(coder)
    assert "b'model', b'model', b'model'" in (jail.bench.where / "artefacts" / "stderr.txt").read_text()
    assert b"x-token: lane-token" in lanes.heard[0].lower()
    assert jail.notes() == ""


HABITS = {
    "opencode": {
        "It tried to write to /sys/kernel/debug/tracing/trace_marker.",
        "It tried ports of 127.0.0.1 at which nobody listens.",
    }
}
"""What it does whenever it starts, so that people will see it told."""
real = [pytest.param(each, id=each.name, marks=each.needs()) for each in AGENTS]


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        pytest.param(agent, kind, id=f"{agent.name}-{kind}", marks=[agent.needs(), needs])
        for agent in AGENTS
        for kind, needs in (("bubblewrap", needs_bubblewrap), ("container", needs_engine))
        if kind == "bubblewrap" or agent in (CLAUDE, CODEX)
    ],
)
async def test_a_real_coding_agent_edits_in_a_sandbox_and_meets_no_decoy(agent: Agent, kind: str, jail: Prison) -> None:
    new = jail.bench.where / "checkout" / "new.py"
    says: list[Say] = [Read(str(jail.bench.where / "evidence/brief.json")), Write(str(new), "fresh = True\n")]
    says += [Shell("git status >&2; echo shell > shell.txt"), Text('{"summary": "done"}')]
    with model(*says) as stub:
        # The container's image has no coding agent; those that are one file can be shown to it.
        shows = (Path(agent.path),) if kind == "container" else ()
        coder = replace(agent.program(stub), sandbox=jail.sandbox(kind), lanes=Led(stub.port, KEY), shows=shows)
        brief = await jail.bench.brief(Role.implement, timeout_s=60)
        reply, _ = await ask(coder, brief)
    assert reply == Implementation(summary="done")
    assert new.read_text() == "fresh = True\n"
    assert (brief.checkout / "shell.txt").exists() == agent.shell, stub.last.results
    told = {line for line in jail.notes().splitlines() if "asked for the address" not in line}
    assert told <= HABITS.get(agent.name, set()), "telemetry at most"


@needs_bubblewrap
@pytest.mark.parametrize("agent", real)
async def test_a_real_coding_agent_that_reads_can_write_nowhere(agent: Agent, jail: Prison) -> None:
    new = jail.bench.where / "checkout" / "new.txt"
    says: list[Say] = [Write(str(new), "x\n"), Shell(f"echo x > {new}; cat {jail.secret.home}/.ssh/id_ed25519")]
    with model(*says, Text(json.dumps(REPLY))) as stub:
        # Codex leaves its own sandbox out inside of ours: nothing of it is left to be loosened.
        loose = agent.program(stub) if agent.name == "codex" else agent.program(stub, agent.loose())
        said = await jail.complaint(replace(loose, sandbox=jail.sandbox("bubblewrap"), lanes=Led(stub.port, KEY)))
    assert not new.exists()
    assert f"tried to write to {new}" in jail.notes()
    assert said.startswith(f"Misconduct: Coder {agent.name} read {jail.secret.home}/.ssh/id_ed25519"), stub.last.results


@needs_bubblewrap
async def test_what_is_not_there_is_told_in_a_sentence(jail: Prison) -> None:
    coder = Program("gone", ("/bin/sh", "-c", "true"), Command(), sandbox=Bubblewrap(Secret(Path("/"), Path("/"))))
    assert await coder.ping()
    script = jail.bench.where / "coder"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    said = await jail.complaint(Program("gone", (str(script),), Command(), sandbox=jail.sandbox("bubblewrap")))
    assert f"`{script}` did not start in the sandbox bubblewrap: No such file or directory; see that" in said


@needs_bubblewrap
async def test_a_scripted_coder_plays_every_role_in_bubblewrap(jail: Prison) -> None:
    argv, scenario = scripted(jail.bench.where)
    log = Path(f"{scenario}.calls.jsonl")
    log.touch()
    coder = Program("scripted", argv, Command(), sandbox=jail.sandbox("bubblewrap"), shows=(scenario, log))
    assert "Read-only file system" in await jail.complaint(coder), "what is shown may only be read"
    assert calls(scenario) == []


@needs_bubblewrap
async def test_a_sandbox_costs_a_fraction_of_a_second(jail: Prison) -> None:
    async def fastest(kind: str) -> float:
        coder = Program("true", ("/bin/sh", "-c", "true"), Command(), sandbox=jail.sandbox(kind))
        times = []
        for _ in range(5):
            began = time.monotonic()
            await jail.complaint(coder)
            times.append((time.monotonic() - began) / 2)  # there are two tries
        return min(times)

    assert await fastest("bubblewrap") - await fastest("host") < 0.5
