"""Tallies of the ledger, and indexes of failures

The old code is still running while this is applied: add before use, stop using before dropping. What it appends to the
ledger is tallied by the database, from the moment on that the lines there are, are tallied here.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = """run_id, api_batch_id, account_id, model, day, lines, unpriced, sync_unpriced, duplicates, cost_usd,
    sync_cost_usd, input_tokens, write_5m_tokens, write_1h_tokens, read_tokens, output_tokens, web_searches"""
SUMS = """run_id, api_batch_id, account_id, model, CAST(priced_at AT TIME ZONE 'UTC' AS date), count(*),
    count(*) - count(cost_usd), count(*) - count(sync_cost_usd), count(*) FILTER (WHERE duplicate),
    coalesce(sum(cost_usd), 0), coalesce(sum(sync_cost_usd) FILTER (WHERE NOT duplicate), 0),
    coalesce(sum(input_tokens), 0), coalesce(sum(write_5m_tokens), 0), coalesce(sum(write_1h_tokens), 0),
    coalesce(sum(read_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(web_searches), 0)"""


def upgrade() -> None:
    names = ("lines", "unpriced", "sync_unpriced", "duplicates")
    tokens = ("input_tokens", "write_5m_tokens", "write_1h_tokens", "read_tokens", "output_tokens", "web_searches")
    op.create_table(
        "ledger_tallies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("api_batch_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in names),
        sa.Column("cost_usd", sa.Numeric(), nullable=False),
        sa.Column("sync_cost_usd", sa.Numeric(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in tokens),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_tallies")),
    )
    for column in ("run_id", "api_batch_id", "day"):
        op.create_index(op.f(f"ix_ledger_tallies_{column}"), "ledger_tallies", [column])
    op.execute(
        f"""
        CREATE FUNCTION tally_ledger_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO ledger_tallies ({COLUMNS}) SELECT {SUMS} FROM appended GROUP BY 1, 2, 3, 4, 5;
            RETURN NULL;
        END $$;
        CREATE TRIGGER tally_ledger_lines AFTER INSERT ON ledger_lines REFERENCING NEW TABLE AS appended
            FOR EACH STATEMENT EXECUTE FUNCTION tally_ledger_lines()
        """  # noqa: S608 - constants
    )
    # Making the trigger has locked the ledger against writers: nothing is tallied twice, nothing never.
    op.execute(f"INSERT INTO ledger_tallies ({COLUMNS}) SELECT {SUMS} FROM ledger_lines GROUP BY 1, 2, 3, 4, 5")  # noqa: S608 - likewise
    failed = sa.text("failure_class IS NOT NULL")
    op.create_index("ix_requests_failed", "requests", ["id"], postgresql_where=failed)
    op.create_index("ix_items_failed", "items", ["run_id", "id"], postgresql_where=failed)
    op.create_index("ix_outputs_invalid", "outputs", ["request_id"], postgresql_where=sa.text("state = 'invalid'"))


def downgrade() -> None:
    for name, table in (("requests_failed", "requests"), ("items_failed", "items"), ("outputs_invalid", "outputs")):
        op.drop_index(f"ix_{name}", table_name=table)
    op.execute("DROP TRIGGER tally_ledger_lines ON ledger_lines")
    op.execute("DROP FUNCTION tally_ledger_lines")
    op.drop_table("ledger_tallies")
