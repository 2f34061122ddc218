"""What runs were likely to cost, and caps on what may be spent

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_estimates",
        sa.Column("run_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("low_usd", sa.Numeric(), nullable=True),
        sa.Column("likely_usd", sa.Numeric(), nullable=True),
        sa.Column("high_usd", sa.Numeric(), nullable=True),
        sa.Column("most_usd", sa.Numeric(), nullable=True),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_estimates")),
    )
    op.create_table(
        "caps",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("limit_usd", sa.Numeric(), nullable=False),
        sa.Column("refuse_unpriced", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("limit_usd >= 0", name=op.f("ck_caps_limit_usd")),
        sa.CheckConstraint("scope IN ('run', 'account', 'task', 'owner')", name=op.f("ck_caps_scope")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caps")),
        sa.UniqueConstraint("scope", "target", name=op.f("uq_caps_scope_target")),
    )


def downgrade() -> None:
    op.drop_table("caps")
    op.drop_table("run_estimates")
