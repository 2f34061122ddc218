"""What came in by hour is read from the tallies of the last day

The old code is still running while this is applied: add before use, stop using before dropping.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_tallies_at"), "tallies", ["at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_tallies_at"), table_name="tallies")
