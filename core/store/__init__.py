"""SQL: the only room that knows tables. One module per noun; readers take a connection, writers take a change."""

from core.store.store import Change, Store, upgrade

__all__ = ["Change", "Store", "upgrade"]
