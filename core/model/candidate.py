"""A candidate: one immutable, fully scored change. Consent binds to exactly these values."""

from core.model.keypoints import Matrix
from core.model.value import Value


class Candidate(Value):
    id: str
    run: str
    iteration: int
    base_commit: str
    commit: str
    tree: str
    image: str
    """The digest of the very image that was tried."""
    diff_hash: str
    files: tuple[str, ...]
    insertions: int
    deletions: int
    baseline: Matrix
    control: Matrix
    matrix: Matrix
    partial: bool
    """Offered at a plateau or at the last iteration, without a verdict of convergence."""
    summary: str
    """What was wrong and what changed, in one or two sentences of the coder's own; quoted, never trusted."""
    diff_artefact: str
