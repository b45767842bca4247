"""Marks for tests that need a real server: they skip with a reason, and fail instead when CI=true."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., object])

POSTGRES_URL = os.environ.get("MOSS_TEST_POSTGRES", "")


def _engine_answers() -> bool:
    import docker

    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except Exception:
        return False
    client.close()
    return True


def _missing(present: bool, reason: str) -> Callable[[F], F]:
    if present or os.environ.get("CI") == "true":
        return lambda test: test
    return pytest.mark.skip(reason=reason)


needs_engine = _missing(_engine_answers(), "no Docker engine answers; start one to run this test")
needs_postgres = _missing(bool(POSTGRES_URL), "MOSS_TEST_POSTGRES names no server, such as postgresql://user@host/db")
needs_bubblewrap = _missing(Path("/usr/bin/bwrap").exists(), "bubblewrap is not installed")
