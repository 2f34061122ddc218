"""Batches that go ahead of the rest of their run: a pilot, and the one request that writes the cache

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("role", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_batches_role"), "batches", "role IN ('prime', 'pilot')")
    op.create_index(
        "ix_batches_ahead", "batches", ["run_id"], postgresql_where=sa.text("role IS NOT NULL"), if_not_exists=True
    )
    op.add_column("runs", sa.Column("pilot", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("pilot_over_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("pilot_released_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("priming", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_runs_pilot"), "runs", "pilot > 0")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_runs_pilot"), "runs")
    op.drop_column("runs", "priming")
    op.drop_column("runs", "pilot_released_at")
    op.drop_column("runs", "pilot_over_at")
    op.drop_column("runs", "pilot")
    op.drop_index("ix_batches_ahead", table_name="batches")
    op.drop_constraint(op.f("ck_batches_role"), "batches")
    op.drop_column("batches", "role")
