"""Whether one request goes ahead and writes the cache may be asked for, against the numbers

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("prime", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_runs_prime"), "runs", "prime IN ('on', 'off')")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_runs_prime"), "runs")
    op.drop_column("runs", "prime")
