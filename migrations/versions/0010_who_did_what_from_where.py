"""Who did what from where: addresses and other targets of events, wrong tries at signing in, the last sign-in

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("address", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("target_kind", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("target", sa.Text(), nullable=True))
    op.create_index(op.f("ix_events_actor_id"), "events", ["actor", "id"])
    op.create_index(op.f("ix_events_kind_id"), "events", ["kind", "id"])
    op.create_index(op.f("ix_events_at"), "events", ["at"])
    op.create_index(
        "ix_events_target", "events", ["target_kind", "target", "id"], postgresql_where=sa.text("target IS NOT NULL")
    )
    op.add_column("users", sa.Column("signed_in_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "sign_in_tries",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('pair', 'name', 'address')", name=op.f("ck_sign_in_tries_scope")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sign_in_tries")),
    )
    op.create_index(op.f("ix_sign_in_tries_name_key"), "sign_in_tries", ["name_key"])
    op.create_index(op.f("ix_sign_in_tries_tried_at"), "sign_in_tries", ["tried_at"])


def downgrade() -> None:
    op.drop_table("sign_in_tries")
    op.drop_column("users", "signed_in_at")
    op.drop_index("ix_events_target", table_name="events", postgresql_where=sa.text("target IS NOT NULL"))
    op.drop_index(op.f("ix_events_at"), table_name="events")
    op.drop_index(op.f("ix_events_kind_id"), table_name="events")
    op.drop_index(op.f("ix_events_actor_id"), table_name="events")
    op.drop_column("events", "target")
    op.drop_column("events", "target_kind")
    op.drop_column("events", "address")
