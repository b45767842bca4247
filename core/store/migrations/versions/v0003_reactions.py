"""Reactions in the inbox can be asked for: which emoji, and when it was put on or taken off."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("inbox", sa.Column("emoji", sa.Text()))
    op.add_column("inbox", sa.Column("happened_at", sa.DateTime(timezone=True)))
    reactions = sa.text("emoji IS NOT NULL")
    op.create_index(
        "ix_inbox_reactions",
        "inbox",
        ["lane", "happened_at"],
        sqlite_where=reactions,
        postgresql_where=reactions,
    )
