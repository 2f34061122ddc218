"""The plugins' own settings, and where a dataset comes from when no file was uploaded

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plugin_settings",
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("checks", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", name=op.f("pk_plugin_settings")),
    )
    op.add_column("runs", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("datasets", sa.Column("source_name", sa.Text(), nullable=True))
    op.add_column("datasets", sa.Column("source_settings", sa.JSON(), nullable=True))
    op.add_column("uploads", sa.Column("source_name", sa.Text(), nullable=True))
    op.add_column("uploads", sa.Column("source_settings", sa.JSON(), nullable=True))
    op.add_column("uploads", sa.Column("token", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_uploads_token"), "uploads", ["token"])


def downgrade() -> None:
    op.drop_constraint(op.f("uq_uploads_token"), "uploads")
    for column in ("token", "source_settings", "source_name"):
        op.drop_column("uploads", column)
    for column in ("source_settings", "source_name"):
        op.drop_column("datasets", column)
    op.drop_column("runs", "checked_at")
    op.drop_table("plugin_settings")
