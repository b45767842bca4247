"""One log on standard error, also of what libraries say: lines for a person on a terminal, JSON otherwise."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bot.words import harmless
from core.redact import Redactor


def start_logging() -> None:
    terminal = sys.stderr.isatty()
    common: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    last: Processor = for_people if terminal else structlog.processors.JSONRenderer()
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


def without_secrets(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Entries quote what agents, models and libraries said."""
    clean = Redactor()
    return {name: clean.values(value) for name, value in entry.items()}


def for_people(_: WrappedLogger, __: str, entry: EventDict) -> str:
    """`09:00:12  warning: a job waits; subject run-1, why ...` Entries hold text of agents and models: it is made
    harmless, and a line of theirs does not begin a line of ours."""
    at = str(entry.pop("timestamp", ""))[11:19]
    level, event = str(entry.pop("level", "info")), str(entry.pop("event", ""))
    trace = entry.pop("exception", None)
    words = [f"{level}: {event}" if level != "info" else event]
    words += [f"{name} {value}" for name, value in entry.items() if value not in (None, "")]
    told = f"{at}  " + " ".join(harmless("; ".join(words)).split("\n"))
    return f"{told}\n{harmless(str(trace))}" if trace else told
