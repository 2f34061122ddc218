"""The ids between which a batch holds its requests

The old code is still running while this is applied: what it cuts meanwhile has no ids noted, and is looked up.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("first_request_id", sa.BigInteger(), nullable=True))
    op.add_column("batches", sa.Column("last_request_id", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE batches b SET "
        "first_request_id = (SELECT id FROM requests WHERE batch_id = b.id ORDER BY id LIMIT 1), "
        "last_request_id = (SELECT id FROM requests WHERE batch_id = b.id ORDER BY id DESC LIMIT 1)"
    )


def downgrade() -> None:
    op.drop_column("batches", "last_request_id")
    op.drop_column("batches", "first_request_id")
