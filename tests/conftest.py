"""What concerns every test: how many processes run them, and what those need not look at again and again."""

import gc
import os
import sys
from pathlib import Path

import pytest
import structlog

# Agents and coders of the tests are started as `python3` hundreds of times. Where that is the shim of a version
# manager, each start is a dozen shells more; the interpreter that runs the tests is found before it.
os.environ["PATH"] = f"{Path(sys.executable).resolve().parent}{os.pathsep}{os.environ['PATH']}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each processor, since at any moment many a test waits: for a program, an engine, a clock."""
    return min(8, 2 * len(os.sched_getaffinity(0)))


def pytest_configure() -> None:
    """A traceback in the log as Python writes it; with frames and colours it would take a tenth of all the time."""
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


def pytest_collection_finish() -> None:
    """All tests and all libraries are here to stay. Without this Python would look through them for garbage again and
    again, which is a quarter of a second each time; and what a test makes goes by itself, mostly."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
