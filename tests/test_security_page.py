"""docs/security.md claims nothing that no test shows."""

import re

from tests.support.tracked import ROOT

PAGE = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", PAGE)))


def test_every_test_that_is_named_is_there() -> None:
    assert len(NAMED) > 30
    gone = [
        f"{file}::{name}"
        for file, name in NAMED
        if not re.search(rf"^(async )?def {name}\(", (ROOT / f"tests/{file}.py").read_text(), re.MULTILINE)
    ]
    assert gone == []


def test_every_line_of_a_table_names_one() -> None:
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| they", "| it tries"))
    ]
    assert len(rows) > 30
    assert [row for row in rows if "::test_" not in row] == []
