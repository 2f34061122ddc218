"""Processing again, rebuilding, and what waits for its next attempt

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Failures of class retry in runs that are under way were tallied without their attempt: moved to where they belong.
TALLY_RETRIES = """
    WITH found AS (
        SELECT i.run_id, i.attempts, count(*) FILTER (WHERE i.state = 'errored') AS errored,
               count(*) FILTER (WHERE i.state = 'expired') AS expired,
               count(*) FILTER (WHERE i.state = 'missing') AS missing
        FROM items i JOIN runs r ON r.id = i.run_id
        WHERE i.failure_class = 'retry' AND r.state NOT IN ('finished', 'cancelled') GROUP BY 1, 2
    )
    INSERT INTO tallies (scope, run_id, retry_attempt, errored, expired, missing)
    SELECT 'items', run_id, attempts, errored, expired, missing FROM found
    UNION ALL
    SELECT 'items', run_id, NULL, -errored, -expired, -missing FROM found
"""


def upgrade() -> None:
    op.create_table(
        "former_outputs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("task_version", sa.Text(), nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('ok', 'invalid')", name=op.f("ck_former_outputs_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_former_outputs")),
    )
    op.create_index(op.f("ix_former_outputs_request_id"), "former_outputs", ["request_id"], unique=False)
    op.create_table(
        "reprocessings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=True),
        sa.Column("invalid_only", sa.Boolean(), nullable=False),
        sa.Column("task_version", sa.Text(), nullable=False),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_reprocessings_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reprocessings")),
    )
    op.create_index(op.f("ix_reprocessings_run_id"), "reprocessings", ["run_id"], unique=False)
    op.create_table(
        "selections",
        sa.Column("run_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("pk_selections")),
    )
    op.add_column("outputs", sa.Column("reprocessing_id", sa.BigInteger(), nullable=True))
    op.add_column("tallies", sa.Column("retry_attempt", sa.Integer(), nullable=True))
    op.execute(TALLY_RETRIES)
    op.add_column("runs", sa.Column("parent_run_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_runs_parent_run_id"), "runs", "runs", ["parent_run_id"], ["id"])
    op.create_index(op.f("ix_runs_parent_run_id"), "runs", ["parent_run_id"], unique=False)
    op.create_index(
        "ix_ledger_lines_duplicates",
        "ledger_lines",
        ["request_id"],
        unique=False,
        postgresql_where=sa.text("duplicate"),
    )


def downgrade() -> None:
    op.drop_index("ix_ledger_lines_duplicates", table_name="ledger_lines")
    op.drop_index(op.f("ix_runs_parent_run_id"), table_name="runs")
    op.drop_constraint(op.f("fk_runs_parent_run_id"), "runs", type_="foreignkey")
    op.drop_column("runs", "parent_run_id")
    op.drop_column("tallies", "retry_attempt")
    op.drop_column("outputs", "reprocessing_id")
    op.drop_table("selections")
    op.drop_index(op.f("ix_reprocessings_run_id"), table_name="reprocessings")
    op.drop_table("reprocessings")
    op.drop_index(op.f("ix_former_outputs_request_id"), table_name="former_outputs")
    op.drop_table("former_outputs")
