"""Chat: what reached Moss, the turns it saw, its own messages, how far readers are; and the room."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text()
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON()


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("platform", TEXT, nullable=False),
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("event", TEXT, nullable=False),
        sa.Column("lane", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("holder", TEXT),
        sa.Column("done_at", TIME),
        sa.Column("altered", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("meant", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
        sa.UniqueConstraint("platform", "workspace", "event", name="uq_inbox_platform"),
    )
    waiting = sa.text("done_at IS NULL")
    op.create_index("ix_inbox_waiting", "inbox", ["lane", "id"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("ix_inbox_lane", "inbox", ["lane"])
    op.create_table(
        "turns",
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("platform", TEXT, nullable=False),
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("thread", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("said", JSON, nullable=False),
        sa.Column("version", sa.Integer()),
        sa.Column("seconds", sa.Float()),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("n", name="pk_turns"),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_turns_substrate"),
        sa.UniqueConstraint("platform", "workspace", "channel", "message", name="uq_turns_platform"),
    )
    op.create_index("ix_turns_place", "turns", ["platform", "workspace", "channel", "thread"])
    op.create_table(
        "posts",
        sa.Column("key", TEXT, nullable=False),
        sa.Column("platform", TEXT, nullable=False),
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("thread", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("shown", TEXT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_posts"),
    )
    op.create_table(
        "marks",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_marks"),
    )
    op.create_table(
        "room_posts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("thread", sa.Integer()),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("only_for", TEXT),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("card", JSON),
        sa.Column("picture", sa.LargeBinary()),
        sa.Column("key", TEXT),
        sa.Column("at", TIME, nullable=False),
        sa.Column("edited_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_room_posts"),
        sa.UniqueConstraint("key", name="uq_room_posts_key"),
    )
    op.create_index("ix_room_posts_seq", "room_posts", ["seq"])
    op.create_index("ix_room_posts_channel", "room_posts", ["channel", "thread", "id"])
    op.create_table(
        "room_reactions",
        sa.Column("post", sa.Integer(), nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("emoji", TEXT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("post", "who", "emoji", name="pk_room_reactions"),
        sa.ForeignKeyConstraint(["post"], ["room_posts.id"], name="fk_room_reactions_post"),
    )
    op.create_table(
        "room_sessions",
        sa.Column("secret_hash", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("secret_hash", name="pk_room_sessions"),
        sa.ForeignKeyConstraint(["person"], ["people.name"], name="fk_room_sessions_person", ondelete="CASCADE"),
    )
