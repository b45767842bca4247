"""Temporary directories with a short path, for tests in which a Moss makes its control socket: it takes no long one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="moss-", ignore_cleanup_errors=True) as made:
        yield Path(made)
