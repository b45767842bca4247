"""The only composition root: opens every room of a Moss in order, serves until told to end, closes them in order."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from bot import control, first_start, models
from bot import settings as configuration
from bot.adapters import platforms
from bot.adapters.room.server import Room
from bot.announcer import Announcer
from bot.answers import answers, follow
from bot.chat import Adapter, Health
from bot.containment import containment
from bot.data import alone, prepare
from bot.digest import Digests
from bot.forgetting import forget
from bot.inbox import Inbox
from bot.logs import start_logging
from bot.notifying import Notifier
from bot.receive import give_up, receive
from bot.schedule import Schedule
from bot.settings import Settings
from bot.verbs import Moss
from core.clock import system_clock
from core.coders import catalogue
from core.containers.choose import choose
from core.dispatch import Dispatch
from core.durable import Durable
from core.folders import clear
from core.model.errors import MossError
from core.pipeline.evolve import Evolution
from core.store import ledger, substrates
from core.store.store import Store, upgrade
from flags.seal import seal_old

log = structlog.get_logger(__name__)

TICK_S = 15.0
"""What a wake-up missed is found at the next tick: a row of the outbox, a batch or a consent that came of age."""
GRACE_S = 10.0
LEAVE_S = 8.0
"""To leave every platform in order."""
SHORT_GRACE_S = 5.0
"""What is asked and told may take so long to its end; whatever does not is done after the next start."""
FORGET_EVERY = 240
"""Ticks between two looks for what may be forgotten."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
MIN_FREE_BYTES = 1_000_000_000
LANES_PATH_BYTES = 80
"""What is left of the hundred that a socket's path may have is for the names in there."""

Ready = Callable[[Moss], Coroutine[Any, Any, None]]


def _own_scratch(scratch: Path) -> None:
    """Temporary files of a Moss that was killed are found again by the next one, which is alone here, and removed."""
    clear(scratch)
    scratch.mkdir(mode=0o700)
    tempfile.tempdir = str(scratch)


async def run(settings: Settings, ready: Ready | None = None) -> None:
    """`moss run`. What is `ready` begins once everything answers, and is cancelled at the end."""
    start_logging()
    control.check_length(settings.socket)
    owner = prepare(settings.data)
    with alone(settings.data):
        _own_scratch(settings.data / "tmp")
        if settings.built_in:
            await first_start.lay_desk(settings.data)
        if settings.moss.database is None and not (settings.data / "moss.db").exists():
            await upgrade(settings.database_url)  # the embedded default begins empty, so nothing can be spoiled
        async with opened(settings, owner) as (moss, adapters):
            await _serve(moss, adapters, ready)
            if settings.built_in:
                await first_start.rest(moss)


@contextlib.asynccontextmanager
async def opened(settings: Settings, owner: str) -> AsyncIterator[tuple[Moss, Sequence[Adapter]]]:
    """Every room, in order; whatever was opened is closed in the opposite order, also when opening fails half way."""
    async with AsyncExitStack() as stack:
        store = await Store.open(settings.database_url, system_clock)
        stack.push_async_callback(store.close)
        host, why = await choose(settings.moss.host, settings.data, owner)
        stack.push_async_callback(host.close)
        log.info("host", sentence=why)
        for substrate in settings.substrate:
            async with store.changing(substrate.name) as change:
                await substrates.save(change, substrate, "moss.toml")
        contained = await containment(settings, owner)
        tell = log.info if contained.works else log.error
        tell("sandbox", sentence=contained.sentence)
        gateway = models.gateway(settings, partial(ledger.add, store))
        await stack.enter_async_context(gateway.serving(_lanes(settings.data, owner)))
        durable = Durable(settings.database_url, store, clock=system_clock)
        evolution = Evolution(
            store=store,
            host=host,
            coders=catalogue.coders(settings.coder, contained.sandbox, gateway),
            policy=settings.consent,
            owner=owner,
            data=settings.data,
            clock=system_clock,
            submit=durable.submit,
            person=settings.person,
            month=settings.evolve.month,
            lanes=gateway,
        )
        dispatch = Dispatch(store=store, durable=durable, host=host, evolution=evolution, owner=owner)
        stack.push_async_callback(durable.close, GRACE_S)
        await dispatch.start()
        inbox = Inbox(store, lambda: durable.holder)
        adapters: list[Adapter] = []

        def health() -> list[Health]:
            return [each for adapter in adapters for each in adapter.health]

        room = Room(store, settings, inbox, health) if settings.room.enabled else None
        adapters += [room] if room else []
        adapters += platforms.adapters(store, settings, inbox)
        for adapter in adapters:
            stack.push_async_callback(adapter.close)
        chats = {adapter.chat.platform: adapter.chat for adapter in adapters}
        page = room.page if room else lambda run: ""
        yield Moss(settings, store, host, dispatch, inbox, chats, page, health, contained), adapters


def _lanes(data: Path, owner: str) -> Path:
    """Where the sockets to models stand: where an engine sees them too, unless their paths would be too long there."""
    beside = data / "lanes"
    return beside if len(bytes(beside)) <= LANES_PATH_BYTES else Path("/tmp") / f"moss-{os.getuid()}-{owner}"


async def _serve(moss: Moss, adapters: Sequence[Adapter], ready: Ready | None) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    server = control.Server(moss.settings.socket, answers(moss), lambda name, since: follow(moss, name, since))
    for adapter in adapters:
        adapter.listen()
    server.listen()  # last: whoever waits for Moss waits for this socket
    announcer = Announcer(moss.store, moss.settings, moss.chats, moss.page)
    schedule, digest = Schedule(), moss.settings.digest
    schedule.add("digest", Digests(moss.store, moss.settings, moss.chats).tick, digest.cron, digest.timezone)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        chatting = {group.create_task(_steadily(each.chat.platform, each.serve)) for each in adapters}
        working = group.create_task(_steadily("inbox", lambda: _work(moss)))
        announcing = group.create_task(_steadily("news", announcer.run))
        ticking = group.create_task(_tick(moss))
        notifiers = [
            Notifier(moss.store, each, each.notices, configuration.variable)
            for each in moss.settings.substrate
            if each.notices
        ]
        notifying = [group.create_task(_steadily("notices", each.run)) for each in notifiers]
        schedule.start()
        log.info("running", data=str(moss.settings.data), host=moss.host.name, socket=str(moss.settings.socket))
        telling = group.create_task(_tell(moss, ready))
        told = group.create_task(ending.wait())
        await asyncio.wait({serving, *chatting, told}, return_when=asyncio.FIRST_COMPLETED)
        log.info("ending")
        told.cancel()
        telling.cancel()
        # In the order of the way that words take: nothing new is heard, what was heard is worked on, and then told.
        for adapter in adapters:
            adapter.stop()
        if chatting:
            _, late = await asyncio.wait(chatting, timeout=LEAVE_S)
            for task in late:
                task.cancel()
        await moss.inbox.finish(SHORT_GRACE_S)
        schedule.stop()
        announcer.stop()
        for notifier in notifiers:
            notifier.stop()
        await asyncio.wait({announcing, *notifying}, timeout=SHORT_GRACE_S)
        for task in (working, announcing, ticking, *notifying):
            task.cancel()
        server.stop()


async def _work(moss: Moss) -> None:
    await moss.inbox.work(partial(receive, moss), partial(give_up, moss), moss.chats)


async def _steadily(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """A fault of ours in one room must not end the others: it is logged, and the room begins again."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await run()
        except Exception:
            log.exception("begins again", what=what, pause_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _tell(moss: Moss, ready: Ready | None) -> None:
    """A terminal that is gone ends nothing."""
    try:
        if ready:
            await ready(moss)
    except Exception:
        log.exception("nothing more is told on the terminal")


async def _tick(moss: Moss) -> None:
    """Each part of a tick stands alone: one that fails is logged and tried again at the next."""
    parts: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: seal_old(moss.store, moss.settings.flags.seal_age_s),
        moss.dispatch.tick,
        lambda: _watch_space(moss.settings.data),
    )
    for n in itertools.count():
        for part in parts if n % FORGET_EVERY else (*parts, lambda: forget(moss)):
            try:
                await part()
            except MossError as problem:
                log.warning("tick failed", reason=problem.sentence)
            except Exception:
                log.exception("tick failed")
        await asyncio.sleep(TICK_S)


async def _watch_space(data: Path) -> None:
    free = (await asyncio.to_thread(shutil.disk_usage, data)).free
    if free < MIN_FREE_BYTES:
        log.warning("little space left", data=str(data), free_mb=free // 1_000_000)
