"""Prices that admins give, and a ledger that names what it was priced by and what no cache would have cost

The old code is still running while this is applied: add before use, stop using before dropping. What it appends has
neither; the trigger takes what it can from the rest. Lines that there are stay as they are: what they would have cost
without a cache is their synchronous cost, unless they used one, and then it is counted as unknown.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TRIGGER = """
    CREATE OR REPLACE FUNCTION tally_ledger_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO ledger_tallies ({columns}) SELECT {sums} FROM appended GROUP BY {keys};
        RETURN NULL;
    END $$
"""
OLD = {
    "columns": """run_id, api_batch_id, account_id, model, day, lines, unpriced, sync_unpriced, duplicates, cost_usd,
    sync_cost_usd, input_tokens, write_5m_tokens, write_1h_tokens, read_tokens, output_tokens, web_searches""",
    "sums": """run_id, api_batch_id, account_id, model, CAST(priced_at AT TIME ZONE 'UTC' AS date), count(*),
    count(*) - count(cost_usd), count(*) - count(sync_cost_usd), count(*) FILTER (WHERE duplicate),
    coalesce(sum(cost_usd), 0), coalesce(sum(sync_cost_usd) FILTER (WHERE NOT duplicate), 0),
    coalesce(sum(input_tokens), 0), coalesce(sum(write_5m_tokens), 0), coalesce(sum(write_1h_tokens), 0),
    coalesce(sum(read_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(web_searches), 0)""",
    "keys": "1, 2, 3, 4, 5",
}
TALLY = """
    CREATE OR REPLACE FUNCTION tally_ledger_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO ledger_tallies (run_id, api_batch_id, account_id, model, day, price, inference_geo, lines, unpriced,
            sync_unpriced, duplicates, cost_usd, sync_cost_usd, uncached_cost_usd, uncached_unknown,
            duplicate_cost_usd, input_tokens, write_5m_tokens, write_1h_tokens, read_tokens, output_tokens,
            web_searches)
        SELECT run_id, api_batch_id, account_id, model, CAST(priced_at AT TIME ZONE 'UTC' AS date), price,
            inference_geo, count(*), count(*) - count(cost_usd), count(*) - count(sync_cost_usd),
            count(*) FILTER (WHERE duplicate), coalesce(sum(cost_usd), 0),
            coalesce(sum(sync_cost_usd) FILTER (WHERE NOT duplicate), 0),
            coalesce(sum(coalesce(uncached_cost_usd, sync_cost_usd)) FILTER (WHERE NOT duplicate), 0),
            count(sync_cost_usd) FILTER (WHERE NOT duplicate AND uncached_cost_usd IS NULL
                AND write_5m_tokens + write_1h_tokens + read_tokens > 0),
            coalesce(sum(cost_usd) FILTER (WHERE duplicate), 0),
            coalesce(sum(input_tokens), 0), coalesce(sum(write_5m_tokens), 0), coalesce(sum(write_1h_tokens), 0),
            coalesce(sum(read_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(web_searches), 0)
        FROM appended GROUP BY 1, 2, 3, 4, 5, 6, 7;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    op.create_table(
        "price_overrides",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("since", sa.Date(), nullable=False),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("removed_by", sa.Text(), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_overrides")),
    )
    # Adding columns locks the ledger against writers until all this is committed: what they append afterwards is
    # tallied by the new function.
    op.add_column("ledger_lines", sa.Column("uncached_cost_usd", sa.Numeric(), nullable=True))
    op.add_column("ledger_lines", sa.Column("price", sa.Text(), nullable=True))
    for name, kind in (
        ("uncached_cost_usd", sa.Numeric()),
        ("uncached_unknown", sa.BigInteger()),
        ("duplicate_cost_usd", sa.Numeric()),
    ):
        op.add_column("ledger_tallies", sa.Column(name, kind, server_default="0", nullable=False))
    op.add_column("ledger_tallies", sa.Column("price", sa.Text(), nullable=True))
    op.add_column("ledger_tallies", sa.Column("inference_geo", sa.Text(), nullable=True))
    op.execute(TALLY)
    _tally_again()


def _tally_again() -> None:
    """Tallies of what there is, by the new keys; made anew from the lines, which are read once and not written."""
    op.execute("DELETE FROM ledger_tallies")
    body = TALLY[TALLY.index("INSERT INTO") : TALLY.index("FROM appended")]
    op.execute(f"{body} FROM ledger_lines GROUP BY 1, 2, 3, 4, 5, 6, 7")


def downgrade() -> None:
    op.execute(TRIGGER.format(**OLD))
    for column in ("inference_geo", "price", "duplicate_cost_usd", "uncached_unknown", "uncached_cost_usd"):
        op.drop_column("ledger_tallies", column)
    for column in ("price", "uncached_cost_usd"):
        op.drop_column("ledger_lines", column)
    op.drop_table("price_overrides")
