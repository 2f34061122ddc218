"""Uploads, and what pages about datasets look for

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

PRESENT = sa.text("gone_in IS NULL")


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dataset_name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=True),
        sa.Column("refreshes", sa.Boolean(), nullable=False),
        sa.Column("key_field", sa.Text(), nullable=True),
        sa.Column("text_field", sa.Text(), nullable=True),
        sa.Column("skip_bad", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("problems", sa.Integer(), server_default="0", nullable=False),
        sa.Column("against", sa.Integer(), nullable=True),
        sa.Column("added", sa.Integer(), nullable=True),
        sa.Column("changed", sa.Integer(), nullable=True),
        sa.Column("same", sa.Integer(), nullable=True),
        sa.Column("absent", sa.Integer(), nullable=True),
        sa.Column("examples", sa.JSON(), nullable=True),
        sa.Column("remove_absent", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'importing', 'refused', 'compared', 'applying', 'imported', 'discarded')",
            name=op.f("ck_uploads_state"),
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_uploads_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_dataset_id_id"), "uploads", ["dataset_id", "id"])
    _parts()
    op.create_index("ix_subjects_present", "subjects", ["dataset_id", "position"], postgresql_where=PRESENT)
    op.create_index(
        "ix_subjects_present_key",
        "subjects",
        ["dataset_id", "key"],
        postgresql_where=PRESENT,
        postgresql_ops={"key": "text_pattern_ops"},
    )
    op.create_index(op.f("ix_runs_dataset_id_id"), "runs", ["dataset_id", "id"])


def _parts() -> None:
    """What an upload has while it is on its way."""
    op.create_table(
        "upload_chunks",
        sa.Column("upload_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "ordinal", name=op.f("pk_upload_chunks")),
    )
    op.execute("ALTER TABLE upload_chunks ALTER COLUMN content SET STORAGE EXTERNAL")
    op.create_table(
        "upload_progress",
        sa.Column("upload_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("fetched", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("records", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_upload_progress")),
    )
    op.create_table(
        "upload_problems",
        sa.Column("upload_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("cut", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "ordinal", name=op.f("pk_upload_problems")),
    )
    op.create_table(
        "upload_records",
        sa.Column("upload_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "position", name=op.f("pk_upload_records")),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_runs_dataset_id_id"), "runs")
    op.drop_index("ix_subjects_present_key", "subjects")
    op.drop_index("ix_subjects_present", "subjects")
    for table in ("upload_records", "upload_problems", "upload_progress", "upload_chunks", "uploads"):
        op.drop_table(table)
