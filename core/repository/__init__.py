"""Git: clones that Moss owns, checkouts that a coder spoils, and the rule of what a change may touch."""

from core.repository.clone import Clone, begin
from core.repository.scope import Change, check_scope
from core.repository.tampering import fingerprint, tampering

__all__ = ["Change", "Clone", "begin", "check_scope", "fingerprint", "tampering"]
