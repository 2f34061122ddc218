"""Schedules, and what tells which outputs are as new as the settings

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("over", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("outcome_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("over IN ('all', 'stale')", name=op.f("ck_schedules_over")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_schedules_dataset_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_schedules_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("token", name=op.f("uq_schedules_token")),
    )
    op.add_column("events", sa.Column("schedule_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_events_schedule_id_id"), "events", ["schedule_id", "id"], unique=False)
    op.add_column("runs", sa.Column("schedule_id", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("settings_hash", sa.Text(), nullable=True))
    op.create_index(op.f("ix_runs_schedule_id"), "runs", ["schedule_id"], unique=False)
    op.create_index(op.f("ix_runs_dataset_id"), "runs", ["dataset_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_runs_dataset_id"), table_name="runs")
    op.drop_index(op.f("ix_runs_schedule_id"), table_name="runs")
    op.drop_column("runs", "settings_hash")
    op.drop_column("runs", "schedule_id")
    op.drop_index(op.f("ix_events_schedule_id_id"), table_name="events")
    op.drop_column("events", "schedule_id")
    op.drop_table("schedules")
