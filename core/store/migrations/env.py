"""Runs the revisions on the connection, and inside the transaction, that `core/store/schema.py` hands in."""

from alembic import context

from core.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite is said to have no transactional DDL; with a real BEGIN it has.
    transactional_ddl=True,
)
context.run_migrations()
