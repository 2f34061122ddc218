"""Unknown submissions: where ids were drawn, batches of the API that no row knows, cancelling unproved ones

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "strays",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("api_id", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("processing_status", sa.Text(), nullable=False),
        sa.Column("api_counts", sa.JSON(), nullable=False),
        sa.Column("custom_id", sa.Text(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_strays_account_id")),
        sa.PrimaryKeyConstraint("account_id", "api_id", name=op.f("pk_strays")),
    )
    with op.batch_alter_table("accounts", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("looked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("cancel_unproved", sa.Boolean(), server_default="false", nullable=False))
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.drop_column("place")
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.drop_column("cancel_unproved")
        batch_op.drop_column("place")
    with op.batch_alter_table("accounts", schema=None) as batch_op:
        batch_op.drop_column("looked_at")
    op.drop_table("strays")
