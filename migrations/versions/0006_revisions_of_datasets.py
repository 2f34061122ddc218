"""Revisions of datasets, and runs over a selection that is no rebuilding

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
    op.add_column("subjects", sa.Column("added_in", sa.Integer(), server_default="1", nullable=False))
    op.add_column("subjects", sa.Column("gone_in", sa.Integer(), nullable=True))
    op.create_unique_constraint(
        op.f("uq_subjects_dataset_id_key_added_in"), "subjects", ["dataset_id", "key", "added_in"]
    )
    op.drop_constraint(op.f("uq_subjects_dataset_id_key"), "subjects", type_="unique")
    op.add_column("runs", sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
    op.add_column("runs", sa.Column("selected", sa.Boolean(), server_default="false", nullable=False))
    op.execute("UPDATE runs SET selected = true WHERE parent_run_id IS NOT NULL")


def downgrade() -> None:
    op.drop_column("runs", "selected")
    op.drop_column("runs", "revision")
    op.create_unique_constraint(op.f("uq_subjects_dataset_id_key"), "subjects", ["dataset_id", "key"])
    op.drop_constraint(op.f("uq_subjects_dataset_id_key_added_in"), "subjects", type_="unique")
    op.drop_column("subjects", "gone_in")
    op.drop_column("subjects", "added_in")
    op.drop_column("datasets", "revision")
