"""Plugins that are installed: their wheels, which version is in use, and which one a run names

The old code is still running while this is applied: add before use, stop using before dropping.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plugin_versions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("wheel", sa.LargeBinary(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plugin_versions")),
        sa.UniqueConstraint("name", "sha256", name=op.f("uq_plugin_versions_name_sha256")),
    )
    op.execute("ALTER TABLE plugin_versions ALTER COLUMN wheel SET STORAGE EXTERNAL")
    op.create_table(
        "plugins",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version_id", sa.BigInteger(), nullable=True),
        sa.Column("former_version_id", sa.BigInteger(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["former_version_id"], ["plugin_versions.id"], name=op.f("fk_plugins_former_version_id")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["plugin_versions.id"], name=op.f("fk_plugins_version_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_plugins")),
    )
    op.create_table(
        "plugin_set",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_plugin_set_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plugin_set")),
    )
    op.execute("INSERT INTO plugin_set (id) VALUES (1)")
    op.create_table(
        "plugin_installs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("wheel", sa.LargeBinary(), nullable=True),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("about", sa.JSON(), nullable=True),
        sa.Column("state", sa.Text(), server_default="fetching", nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("confirmed_by", sa.Text(), nullable=True),
        sa.Column("version_id", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('fetching', 'waiting', 'installing', 'installed', 'refused', 'dropped')",
            name=op.f("ck_plugin_installs_state"),
        ),
        sa.ForeignKeyConstraint(["version_id"], ["plugin_versions.id"], name=op.f("fk_plugin_installs_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plugin_installs")),
    )
    op.execute("ALTER TABLE plugin_installs ALTER COLUMN wheel SET STORAGE EXTERNAL")
    op.add_column("runs", sa.Column("plugin_version_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_runs_plugin_version_id"), "runs", ["plugin_version_id"], unique=False)
    op.add_column("processes", sa.Column("generation", sa.BigInteger(), nullable=True))
    op.add_column("processes", sa.Column("plugin_problems", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("processes", "plugin_problems")
    op.drop_column("processes", "generation")
    op.drop_index(op.f("ix_runs_plugin_version_id"), table_name="runs")
    op.drop_column("runs", "plugin_version_id")
    op.drop_table("plugin_installs")
    op.drop_table("plugin_set")
    op.drop_table("plugins")
    op.drop_table("plugin_versions")
