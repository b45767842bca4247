"""What is asked at every reaction is found at once, however much is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waiting = sa.text("done_at IS NULL")
    op.create_index("ix_chunks_turn", "chunks", ["turn"])
    op.create_index("ix_flags_person", "flags", ["person", "at"])
    op.create_index("ix_inbox_next", "inbox", ["holder", "id"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("ix_posts_message", "posts", ["platform", "workspace", "channel", "message"])
