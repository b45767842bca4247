"""Everything Moss refuses or fails at.

    MossError            one sentence: the thing, the reason, the mend
    ├── BadInput         what somebody wrote is wrong: settings, a command, a payload, a file
    ├── NotFound         the named thing does not exist
    ├── Refused          a rule says no
    │   ├── IllegalMove  the thing is not in a state that allows this
    │   ├── Busy         one run and one swap per substrate
    │   ├── OutOfScope   a diff touches what it may not touch, or holds what it may not hold
    │   └── Misconduct   a coder did what its role forbids; never tried again
    ├── Unavailable      an engine, database, program or network cannot be reached; trying later may help
    ├── CoderFailed      a coder ended badly or answered nonsense; may be tried again
    │   └── OverBudget   a coder was stopped, since its next call would go over a budget; not tried again
    ├── AgentFailed      the agent under evolution did not answer as its contract says
    └── BuildFailed      the candidate did not become an image, or failed its smoke test or tests

Chat replies and exit codes are mapped from this tree and from nothing else.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.model.run import Spend


class MossError(Exception):
    exit_code = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class BadInput(MossError):
    exit_code = 2


class NotFound(MossError):
    exit_code = 4


class Refused(MossError):
    exit_code = 5


class IllegalMove(Refused):
    pass


class Busy(Refused):
    pass


class OutOfScope(Refused):
    pass


class Misconduct(Refused):
    spend: "Spend | None" = None
    """What was spent all the same."""


class Unavailable(MossError):
    exit_code = 6


class CoderFailed(MossError):
    spend: "Spend | None" = None
    """What was spent all the same."""


class OverBudget(CoderFailed):
    pass


class AgentFailed(MossError):
    pass


class BuildFailed(MossError):
    pass
