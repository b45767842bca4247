"""Everything Moss keeps: evidence, runs, consents, swaps, the chains of facts, the outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text()
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON()


def _one_at_a_time(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=True, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    op.create_table(
        "chains",
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("substrate", name="pk_chains"),
    )
    op.create_table(
        "facts",
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("noun", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("what", TEXT, nullable=False),
        sa.Column("before", TEXT),
        sa.Column("after", TEXT),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("previous_hash", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("substrate", "seq", name="pk_facts"),
    )
    op.create_index("ix_facts_id", "facts", ["noun", "id"])
    op.create_table(
        "leases",
        sa.Column("slot", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("holder", TEXT),
        sa.Column("expires_at", TIME),
        sa.PrimaryKeyConstraint("slot", name="pk_leases"),
        sa.UniqueConstraint("n", name="uq_leases_n"),
    )
    op.create_table(
        "people",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("token_hash", TEXT, nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_people"),
        sa.UniqueConstraint("token_hash", name="uq_people_token_hash"),
    )
    op.create_table(
        "substrates",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("stuck", sa.Boolean(), nullable=False),
        sa.Column("saved_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_substrates"),
    )
    op.create_table(
        "batches",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("platform", TEXT, nullable=False),
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("thread", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("sealed_at", TIME),
        sa.Column("sealed_by", TEXT),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_batches_substrate"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    _one_at_a_time(
        "one_open_batch", "batches", ["substrate", "platform", "workspace", "channel", "thread"], "state = 'open'"
    )
    op.create_table(
        "last_good",
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("image", TEXT, nullable=False),
        sa.Column("commit", TEXT, nullable=False),
        sa.Column("box", TEXT, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_last_good_substrate"),
        sa.PrimaryKeyConstraint("substrate", name="pk_last_good"),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_notices_substrate"),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        sa.UniqueConstraint("substrate", "kind", "subject", name="uq_notices_substrate"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("done_at", TIME),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_outbox_substrate"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("kind", "subject", name="uq_outbox_kind"),
    )
    op.create_table(
        "chunks",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("batch", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("place", JSON, nullable=False),
        sa.Column("turn", TEXT, nullable=False),
        sa.Column("transcript", JSON, nullable=False),
        sa.Column("checks", JSON, nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_chunks_batch"),
        sa.PrimaryKeyConstraint("id", name="pk_chunks"),
        sa.UniqueConstraint("batch", "turn", name="uq_chunks_batch"),
    )
    op.create_table(
        "runs",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("batch", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("dial", TEXT, nullable=False),
        sa.Column("budget", JSON, nullable=False),
        sa.Column("starter", TEXT, nullable=False),
        sa.Column("queued_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("sentence", TEXT, nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_runs_batch"),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_runs_substrate"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_batch", "runs", ["batch"])
    _one_at_a_time("one_run_in_flight", "runs", ["substrate"], "state IN ('queued', 'running', 'approved', 'swapping')")
    op.create_table(
        "candidates",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("iteration", sa.Integer(), nullable=False),
        sa.Column("base_commit", TEXT, nullable=False),
        sa.Column("commit", TEXT, nullable=False),
        sa.Column("tree", TEXT, nullable=False),
        sa.Column("image", TEXT, nullable=False),
        sa.Column("diff_hash", TEXT, nullable=False),
        sa.Column("files", JSON, nullable=False),
        sa.Column("insertions", sa.Integer(), nullable=False),
        sa.Column("deletions", sa.Integer(), nullable=False),
        sa.Column("baseline", JSON, nullable=False),
        sa.Column("control", JSON, nullable=False),
        sa.Column("matrix", JSON, nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("summary", TEXT, nullable=False),
        sa.Column("diff_artefact", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_candidates_run"),
        sa.PrimaryKeyConstraint("id", name="pk_candidates"),
    )
    op.create_index("ix_candidates_run", "candidates", ["run"])
    op.create_table(
        "flags",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("chunk", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("emoji", TEXT),
        sa.Column("reason", TEXT),
        sa.Column("at", TIME, nullable=False),
        sa.Column("withdrawn_at", TIME),
        sa.ForeignKeyConstraint(["chunk"], ["chunks.id"], name="fk_flags_chunk"),
        sa.PrimaryKeyConstraint("id", name="pk_flags"),
        sa.UniqueConstraint("chunk", "person", name="uq_flags_chunk"),
    )
    op.create_table(
        "steps",
        sa.Column("run", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("done", JSON, nullable=False),
        sa.Column("money_usd", sa.Float(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("ended_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_steps_run"),
        sa.PrimaryKeyConstraint("run", "n", name="pk_steps"),
    )
    op.create_table(
        "consents",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("run", TEXT),
        sa.Column("candidate", TEXT),
        sa.Column("version", sa.Integer()),
        sa.Column("commit", TEXT, nullable=False),
        sa.Column("image", TEXT, nullable=False),
        sa.Column("diff_hash", TEXT, nullable=False),
        sa.Column("matrix_hash", TEXT, nullable=False),
        sa.Column("policy", JSON, nullable=False),
        sa.Column("starter", TEXT, nullable=False),
        sa.Column("flaggers", JSON, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["candidate"], ["candidates.id"], name="fk_consents_candidate"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_consents_run"),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_consents_substrate"),
        sa.PrimaryKeyConstraint("id", name="pk_consents"),
    )
    _one_at_a_time("one_asked_consent", "consents", ["run"], "state = 'asked'")
    op.create_table(
        "swaps",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("consent", TEXT, nullable=False),
        sa.Column("run", TEXT),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("commit", TEXT, nullable=False),
        sa.Column("image", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("old_box", TEXT, nullable=False),
        sa.Column("new_box", TEXT, nullable=False),
        sa.Column("planned_at", TIME, nullable=False),
        sa.Column("stopped_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("outage_ms", sa.Integer()),
        sa.Column("problem", TEXT),
        sa.ForeignKeyConstraint(["consent"], ["consents.id"], name="fk_swaps_consent"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_swaps_run"),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_swaps_substrate"),
        sa.PrimaryKeyConstraint("id", name="pk_swaps"),
        sa.UniqueConstraint("consent", name="uq_swaps_consent"),
    )
    _one_at_a_time(
        "one_swap_in_flight",
        "swaps",
        ["substrate"],
        "state IN ('planned', 'stopping', 'starting', 'probing', 'restoring')",
    )
    op.create_table(
        "votes",
        sa.Column("consent", TEXT, nullable=False),
        sa.Column("person", TEXT, nullable=False),
        sa.Column("approve", sa.Boolean(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("reason", TEXT),
        sa.ForeignKeyConstraint(["consent"], ["consents.id"], name="fk_votes_consent"),
        sa.PrimaryKeyConstraint("consent", "person", name="pk_votes"),
    )
    op.create_table(
        "versions",
        sa.Column("substrate", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("commit", TEXT, nullable=False),
        sa.Column("image", TEXT, nullable=False),
        sa.Column("box", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("swap", TEXT),
        sa.Column("restores", sa.Integer()),
        sa.Column("since", TIME, nullable=False),
        sa.Column("until", TIME),
        sa.ForeignKeyConstraint(["substrate"], ["substrates.name"], name="fk_versions_substrate"),
        sa.ForeignKeyConstraint(["swap"], ["swaps.id"], name="fk_versions_swap"),
        sa.PrimaryKeyConstraint("substrate", "number", name="pk_versions"),
    )
    _one_at_a_time("one_live_version", "versions", ["substrate"], "until IS NULL")
