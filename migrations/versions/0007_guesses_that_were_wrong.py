"""A POST whose guess was taken back may be unknown beside another of its total

The old code is still running while this is applied: add before use, stop using before dropping. A worker of the old
code cannot send until it is restarted: its steps break and are tried again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NAME = "uq_submissions_open_total"
OPEN = "outcome IS NULL OR outcome = 'unknown'"


def upgrade() -> None:
    op.add_column("submissions", sa.Column("searched_again", sa.Boolean(), server_default="false", nullable=False))
    op.drop_index(NAME, table_name="submissions")
    where = sa.text(f"({OPEN}) AND NOT searched_again")
    op.create_index(NAME, "submissions", ["account_id", "total"], unique=True, postgresql_where=where)


def downgrade() -> None:
    op.drop_index(NAME, table_name="submissions")
    op.create_index(NAME, "submissions", ["account_id", "total"], unique=True, postgresql_where=sa.text(OPEN))
    op.drop_column("submissions", "searched_again")
