"""Marks for tests that need a real server: without it they skip with a reason, and with CI=true they run and fail."""

import os
import shutil
import subprocess

import docker
import docker.errors
import pytest
import requests

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

POSTGRES_URL = os.environ.get("MOSS_TEST_POSTGRES", "")


def _engine_answers() -> bool:
    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException):
        return False
    client.close()
    return True


def _needs(present: bool, mark: pytest.MarkDecorator, reason: str) -> pytest.MarkDecorator:
    return mark if present or os.environ.get("CI") == "true" else pytest.mark.skip(reason=reason)


ENGINE = _engine_answers()
HOST = "docker" if ENGINE or os.environ.get("CI") == "true" else "process"
"""Where a long story is told once: with an engine on that, and else as plain processes."""

needs_engine = _needs(ENGINE, pytest.mark.engine, "no Docker engine answers; start one to run this test")
needs_postgres = _needs(
    bool(POSTGRES_URL), pytest.mark.postgres, "MOSS_TEST_POSTGRES names no server, such as postgresql://user@host/db"
)
needs_chromium = _needs(
    CHROMIUM is not None, pytest.mark.chromium, "no Chromium is installed; Debian's package `chromium` has one"
)


def _bubblewrap_works() -> bool:
    try:
        argv = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]
        return subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


BUBBLEWRAP = _bubblewrap_works()
needs_bubblewrap = _needs(
    BUBBLEWRAP, pytest.mark.bubblewrap, "bubblewrap is not installed or forbidden; Debian's package has it"
)
