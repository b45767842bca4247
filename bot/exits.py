"""What the exit codes of `moss` mean: this table is the only one, and the pages that show it are held to it."""

from collections.abc import Mapping

from core.model.errors import BadInput, MossError, NotFound, Refused, Unavailable

DONE = 0
NOT_OFFERED = 3
"""Of `evolve --wait` and of the demo: the run ended, and no candidate waits for consent."""
WARNED = 7
"""Of `doctor --strict`."""
INTERRUPTED = 130

EXIT_CODES: Mapping[int, str] = {
    DONE: "done",
    MossError.exit_code: "anything else went wrong",
    BadInput.exit_code: "what was written is wrong",
    NOT_OFFERED: "`evolve --wait` ended without an offer",
    NotFound.exit_code: "not found",
    Refused.exit_code: "refused by a rule",
    Unavailable.exit_code: "something cannot be reached",
    WARNED: "`doctor --strict` found nothing worse than warnings",
    INTERRUPTED: "interrupted from the keyboard",
}
