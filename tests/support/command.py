"""The `moss` command called within this process: its exit code and what it printed."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bot.cli import main
from tests.support.world import World


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


def moss(*words: str, config: Path) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["--config", str(config), *words])
    assert "Traceback" not in err.getvalue()
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@dataclass
class House:
    """A Moss that runs, or does not, and the command next to it."""

    world: World

    @property
    def config(self) -> Path:
        return self.world.root / "moss.toml"

    def moss(self, *words: str, config: Path | None = None) -> Said:
        return moss(*words, config=config or self.config)

    def settle(self, *changes: tuple[str, str]) -> None:
        """Replace texts in moss.toml."""
        text = self.config.read_text()
        for was, becomes in changes:
            assert was in text, was
            text = text.replace(was, becomes)
        self.config.write_text(text)
