"""The only composition root: opens every room of a Moss in order, serves until told to end, closes them in order."""

import asyncio
import contextlib
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from structlog.typing import Processor

from bot import control
from bot.answers import answers, follow
from bot.data import alone, prepare
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
from core.store import substrates
from core.store.store import Store, upgrade
from flags.seal import seal_old

log = structlog.get_logger(__name__)

TICK_S = 15.0
"""What a wake-up missed is found at the next tick: a row of the outbox, a batch or a consent that came of age."""
GRACE_S = 10.0
MIN_FREE_BYTES = 1_000_000_000


def start_logging() -> None:
    """To standard error, also what libraries say: lines for a person on a terminal, JSON otherwise."""
    terminal = sys.stderr.isatty()
    common: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if terminal else [structlog.processors.format_exc_info]),
    ]
    last: Processor = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *common, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    libraries = logging.StreamHandler(sys.stderr)
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[without_meta, last], foreign_pre_chain=common)
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING)


def _own_scratch(scratch: Path) -> None:
    """Temporary files of a Moss that was killed are found again by the next one, which is alone here, and removed."""
    clear(scratch)
    scratch.mkdir(mode=0o700)
    tempfile.tempdir = str(scratch)


async def run(settings: Settings) -> None:
    """`moss run`."""
    start_logging()
    control.check_length(settings.socket)
    owner = prepare(settings.data)
    with alone(settings.data):
        _own_scratch(settings.data / "tmp")
        if settings.moss.database is None and not (settings.data / "moss.db").exists():
            await upgrade(settings.database_url)  # the embedded default begins empty, so nothing can be spoiled
        async with opened(settings, owner) as moss:
            await _serve(moss)


@contextlib.asynccontextmanager
async def opened(settings: Settings, owner: str) -> AsyncIterator[Moss]:
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
        durable = Durable(settings.database_url, store, clock=system_clock)
        evolution = Evolution(
            store=store,
            host=host,
            coders=catalogue.coders(settings.coder),
            policy=settings.consent,
            owner=owner,
            data=settings.data,
            clock=system_clock,
            submit=durable.submit,
            person=settings.person,
        )
        dispatch = Dispatch(store=store, durable=durable, host=host, evolution=evolution, owner=owner)
        stack.push_async_callback(durable.close, GRACE_S)
        await dispatch.start()
        yield Moss(settings, store, host, dispatch)


async def _serve(moss: Moss) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    server = control.Server(moss.settings.socket, answers(moss), lambda name, since: follow(moss, name, since))
    server.listen()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        ticking = group.create_task(_tick(moss))
        log.info("running", data=str(moss.settings.data), host=moss.host.name, socket=str(moss.settings.socket))
        told = group.create_task(ending.wait())
        await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
        log.info("ending")
        ticking.cancel()
        told.cancel()
        server.stop()


async def _tick(moss: Moss) -> None:
    """Each part of a tick stands alone: one that fails is logged and tried again at the next."""
    parts: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: seal_old(moss.store, moss.settings.flags.seal_age_s),
        moss.dispatch.tick,
        lambda: _watch_space(moss.settings.data),
    )
    while True:
        for part in parts:
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
