"""Payloads that are dropped, and lz4 where the server has it

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Only for what is stored from now on. A server without it goes on with pglz.
COMPRESSED = (("item_params", "own"), ("results", "line"), ("outputs", "value"), ("subjects", "data"))
COMPRESS = """
    DO $$ BEGIN
        ALTER TABLE {} ALTER COLUMN {} SET COMPRESSION {};
    EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN NULL;
    END $$
"""


def upgrade() -> None:
    op.add_column("runs", sa.Column("payloads_dropped_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("payloads_position", sa.Integer(), nullable=True))
    op.add_column(
        "blobs",
        sa.Column("wanted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.create_index(op.f("ix_subjects_image"), "subjects", ["image"], postgresql_where=sa.text("image IS NOT NULL"))
    op.alter_column("results", "line", nullable=True)
    for table, column in COMPRESSED:
        op.execute(COMPRESS.format(table, column, "lz4"))


def downgrade() -> None:
    for table, column in COMPRESSED:
        op.execute(COMPRESS.format(table, column, "default"))
    op.execute("UPDATE results SET line = 'null' WHERE line IS NULL")
    op.alter_column("results", "line", nullable=False)
    op.drop_index(op.f("ix_subjects_image"), table_name="subjects")
    op.drop_column("blobs", "wanted_at")
    op.drop_column("runs", "payloads_position")
    op.drop_column("runs", "payloads_dropped_at")
