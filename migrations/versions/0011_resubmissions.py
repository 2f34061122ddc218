"""Wishes to send failures again have a table, wishes to process again filters

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# What was asked of runs and not taken yet. Nothing reads the column from here on.
WISHES = """
    INSERT INTO resubmissions (run_id, token, classes, chosen, latest_request, counted, asked_by)
    SELECT id, 'before-' || id, resubmit_wanted, json_build_object('run_id', id),
           (SELECT coalesce(max(id), 0) FROM requests), 0, owner
    FROM runs WHERE resubmit_wanted IS NOT NULL
"""


def upgrade() -> None:
    op.create_table(
        "resubmissions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("classes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("chosen", sa.JSON(), nullable=False),
        sa.Column("latest_request", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("marked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dropped", sa.Text(), nullable=True),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_resubmissions_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resubmissions")),
        sa.UniqueConstraint("token", "run_id", name=op.f("uq_resubmissions_token_run_id")),
    )
    op.create_index(op.f("ix_resubmissions_run_id"), "resubmissions", ["run_id"], unique=False)
    op.add_column("batches", sa.Column("resubmission_id", sa.BigInteger(), nullable=True))
    op.add_column("reprocessings", sa.Column("chosen", sa.JSON(), nullable=True))
    op.execute(WISHES)


def downgrade() -> None:
    op.drop_column("reprocessings", "chosen")
    op.drop_column("batches", "resubmission_id")
    op.drop_index(op.f("ix_resubmissions_run_id"), table_name="resubmissions")
    op.drop_table("resubmissions")
