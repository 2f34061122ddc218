"""Destinations, which runs and schedules name, and deliveries

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "destinations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_destinations")),
        sa.UniqueConstraint("name", name=op.f("uq_destinations_name")),
    )
    for whose, table in (("run", "runs"), ("schedule", "schedules")):
        name = f"{whose}_destinations"
        op.create_table(
            name,
            sa.Column(f"{whose}_id", sa.BigInteger(), nullable=False),
            sa.Column("destination_id", sa.BigInteger(), nullable=False),
            sa.ForeignKeyConstraint(["destination_id"], ["destinations.id"], name=op.f(f"fk_{name}_destination_id")),
            sa.ForeignKeyConstraint([f"{whose}_id"], [f"{table}.id"], name=op.f(f"fk_{name}_{whose}_id")),
            sa.PrimaryKeyConstraint(f"{whose}_id", "destination_id", name=op.f(f"pk_{name}")),
        )
        op.create_index(op.f(f"ix_{name}_destination_id"), name, ["destination_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("position", sa.Integer(), server_default="-1", nullable=False),
        sa.Column("outputs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('sink', 'hook', 'news')", name=op.f("ck_deliveries_kind")),
        sa.CheckConstraint(
            "state IN ('waiting', 'delivered', 'failed', 'superseded')", name=op.f("ck_deliveries_state")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_deliveries_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("run_id", "kind", "name", "round", name=op.f("uq_deliveries_run_id_kind_name_round")),
    )
    op.create_index(op.f("ix_deliveries_name_id"), "deliveries", ["name", "id"], unique=False)
    op.create_index(
        "ix_deliveries_failed", "deliveries", ["id"], unique=False, postgresql_where=sa.text("state = 'failed'")
    )


def downgrade() -> None:
    op.drop_table("deliveries")
    op.drop_table("schedule_destinations")
    op.drop_table("run_destinations")
    op.drop_table("destinations")
