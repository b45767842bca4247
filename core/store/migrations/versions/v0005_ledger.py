"""The ledger: what was spent, call by call. What earlier runs spent is taken over from their steps."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text()
COUNT = sa.BigInteger()


def upgrade() -> None:
    ledger = op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("what", TEXT, nullable=False),
        sa.Column("question", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("input_tokens", COUNT, nullable=False),
        sa.Column("output_tokens", COUNT, nullable=False),
        sa.Column("cached_tokens", COUNT, nullable=False),
        sa.Column("tokens", COUNT, nullable=False),
        sa.Column("money_usd", sa.Float()),
        sa.Column("unpriced_tokens", COUNT, nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_ledger_substrate"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_ledger_run"),
    )
    op.create_index("ix_ledger_question", "ledger", ["question"])
    op.create_index("ix_ledger_run", "ledger", ["run", "n"])
    op.create_index("ix_ledger_substrate", "ledger", ["substrate", "at"])
    steps = sa.table(
        "steps", *(sa.column(name) for name in ("run", "n", "money_usd", "tokens")), sa.column("done", sa.JSON()),
        sa.column("ended_at", sa.DateTime(timezone=True)),
    )  # fmt: skip
    runs = sa.table("runs", sa.column("id"), sa.column("substrate"))
    spent = (
        sa.select(steps, runs.c.substrate)
        .join(runs, runs.c.id == steps.c.run)
        .where((steps.c.money_usd > 0) | (steps.c.tokens > 0))
    )
    lines = [
        {
            "substrate": row.substrate,
            "run": row.run,
            "n": row.n,
            "kind": "past",
            "stage": row.done["step"]["stage"],
            "what": "",
            "question": f"past-{row.run}-{row.n}",
            "provider": "",
            "model": "",
            "input_tokens": 0,
            "output_tokens": 0,
            "cached_tokens": 0,
            "tokens": row.tokens,
            "money_usd": row.money_usd,
            "unpriced_tokens": 0,
            "estimated": False,
            "seconds": 0.0,
            "at": row.ended_at,
        }
        for row in op.get_bind().execute(spent)
    ]
    if lines:
        op.bulk_insert(ledger, lines)
