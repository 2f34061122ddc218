"""A large installation, made in minutes: requests that went all the way, with small payloads, put straight into their
tables. `bench.scale` makes one and looks at its pages; each row is as the steps would have left it.
"""

from __future__ import annotations

import sys
import time

import psycopg

PART = 500_000  # rows that one statement makes
# What became of request n: most came to something, some answers are no use, some were refused, some expired.
INVALID, REFUSED, EXPIRED = "n % 100 = 7", "n % 100 = 8", "n % 200 = 9"
BATCH = "1 + n / :each"  # the batch of request n
RUN = "CASE WHEN 1 + n / :each <= :first THEN 1 ELSE 2 + (n / :each) % 9 END"  # half of the batches are the first run's

ONCE = (
    "INSERT INTO accounts (fingerprint, base_url, sandbox) VALUES ('f', 'https://api.example', false)",
    "INSERT INTO datasets (name, source, text_field, created_by, subjects) "
    "VALUES ('documents', 'documents.jsonl', 'text', 'bench', :requests)",
    "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state, shared, planned_at) "
    "SELECT 1, 'classify', '1', '{\"labels\":[\"alpha\",\"beta\"]}', 'token' || n, 1, 'bench', 'finished', "
    '\'{"model":"claude-haiku-4-5","max_tokens":100}\', now() FROM generate_series(1, 10) n',
    "INSERT INTO batches (run_id, account_id, ordinal, total, body_bytes, state, api_id, processing_status, "
    "api_created_at, api_ended_at, created_at, first_request_id, last_request_id) "
    "SELECT CASE WHEN n < :first THEN 1 ELSE 2 + n % 9 END, 1, n, :each, 1000000, 'done', 'msgbatch_' || n, 'ended', "
    "t.at, t.at, t.at, n * CAST(:each AS bigint) + 1, (n + 1) * CAST(:each AS bigint) "
    "FROM generate_series(0, :batches - 1) n, LATERAL (SELECT now() - make_interval(mins => :batches - n) AS at) t",
    "INSERT INTO events (run_id, batch_id, kind, from_state, to_state, actor) SELECT b.run_id, b.id, 'move', m.a, m.b, "
    "'worker' FROM batches b, (VALUES ('planned', 'submitting'), ('submitting', 'in_progress'), "
    "('in_progress', 'ingesting'), ('ingesting', 'done')) m(a, b) ORDER BY b.id",
)
MANY = {
    "subjects": "(dataset_id, position, kind, key, content_hash, size, data) SELECT 1, n, 'document', 'doc-' || n, "
    '\'\\x00\', 60, CAST(\'{"key":"doc-\' || n || \'","text":"a few words about alpha and beta"}\' AS json)',
    "items": "(run_id, subject_id, position, size, attempts, subject_type, state, output_state, failure_class, error) "
    f"SELECT {RUN}, n + 1, n, 60, 1, 'document', CASE WHEN {REFUSED} THEN 'errored' WHEN {EXPIRED} THEN 'expired' "
    f"ELSE 'succeeded' END, CASE WHEN {REFUSED} OR {EXPIRED} THEN NULL WHEN {INVALID} THEN 'invalid' ELSE 'ok' END, "
    f"CASE WHEN {REFUSED} THEN 'fix' WHEN {EXPIRED} THEN 'retry' WHEN {INVALID} THEN 'output' END, "
    f"CASE WHEN {REFUSED} THEN 'invalid_request_error: kind ' || n / 100 % 7 WHEN {EXPIRED} THEN 'Not in 24 hours.' "
    f"WHEN {INVALID} THEN 'No label of the list.' END",
    "item_params": '(item_id, own) SELECT n + 1, \'{"messages":[{"role":"user","content":"a few words"}]}\'',
    "requests": "(batch_id, item_id, attempt, custom_id, state, failure_class) "
    f"SELECT {BATCH}, n + 1, 1, (n + 1) || '-token' || {RUN} || '-1', CASE WHEN {REFUSED} THEN 'errored' "
    f"WHEN {EXPIRED} THEN 'expired' ELSE 'succeeded' END, "
    f"CASE WHEN {REFUSED} THEN 'fix' WHEN {EXPIRED} THEN 'retry' END",
    "results": "(request_id, kind, stop_reason, error_type, error_message, size, line) SELECT n + 1, "
    f"CASE WHEN {REFUSED} THEN 'errored' WHEN {EXPIRED} THEN 'expired' ELSE 'succeeded' END, 'end_turn', NULL, "
    f"CASE WHEN {REFUSED} THEN 'invalid_request_error: kind ' || n / 100 % 7 "
    f"WHEN {EXPIRED} THEN 'Not in 24 hours.' END, "
    '120, \'{"result":{"type":"succeeded","message":{"content":[{"type":"text","text":"alpha"}]}}}\'',
    "outputs": "(request_id, state, value, reason, task_version) SELECT n + 1, "
    f"CASE WHEN {INVALID} THEN 'invalid' ELSE 'ok' END, CASE WHEN {INVALID} THEN NULL ELSE "
    'CAST(\'{"label":"alpha","row":\' || n || \'}\' AS json) END, '
    f"CASE WHEN {INVALID} THEN 'No label of the list.' END, '1'",
    "ledger_lines": "(api_batch_id, custom_id, account_id, run_id, request_id, model, input_tokens, write_5m_tokens, "
    "write_1h_tokens, read_tokens, output_tokens, web_searches, cost_usd, sync_cost_usd, priced_at) "
    f"SELECT 'msgbatch_' || n / :each, (n + 1) || '-token' || {RUN} || '-1', 1, {RUN}, n + 1, 'claude-haiku-4-5', 100, "
    "0, 0, 0, 20, 0, 0.0001, 0.0002, now()",
}
ANSWERED = ("outputs", "ledger_lines")  # that only answers have
# One chunk a batch, as ingestion and processing leave it.
TALLIED = (
    "INSERT INTO tallies (scope, run_id, batch_id, succeeded, errored, expired, ok, invalid) "
    "SELECT scope, b.run_id, b.id, c.succeeded, c.errored, c.expired, CASE scope WHEN 'items' THEN c.ok ELSE 0 END, "
    "CASE scope WHEN 'items' THEN c.invalid ELSE 0 END "
    "FROM batches b JOIN (SELECT r.batch_id, count(*) FILTER (WHERE r.state = 'succeeded') AS succeeded, "
    "count(*) FILTER (WHERE r.state = 'errored') AS errored, count(*) FILTER (WHERE r.state = 'expired') AS expired, "
    "count(*) FILTER (WHERE i.output_state = 'ok') AS ok, "
    "count(*) FILTER (WHERE i.output_state = 'invalid') AS invalid "
    "FROM requests r JOIN items i ON i.id = r.item_id GROUP BY r.batch_id) c ON c.batch_id = b.id, "
    "unnest(ARRAY['items', 'requests']) AS scope",
    "INSERT INTO ledger_tallies (run_id, api_batch_id, account_id, model, day, lines, unpriced, sync_unpriced, "
    "duplicates, cost_usd, sync_cost_usd, uncached_cost_usd, input_tokens, write_5m_tokens, write_1h_tokens, "
    "read_tokens, output_tokens, web_searches) "
    "SELECT run_id, api_batch_id, 1, model, CAST(priced_at AS date), count(*), 0, 0, 0, sum(cost_usd), "
    "sum(sync_cost_usd), sum(sync_cost_usd), sum(input_tokens), 0, 0, 0, sum(output_tokens), 0 "
    "FROM ledger_lines GROUP BY 1, 2, 4, 5",
    "UPDATE runs SET subjects = (SELECT coalesce(sum(total), 0) FROM batches WHERE run_id = runs.id)",
)


def fill(connection: psycopg.Connection, *, requests: int, batches: int) -> None:
    """Make so many requests in so many batches of ten runs; the first run has half of them."""
    numbers = {"requests": requests, "batches": batches, "each": requests // batches, "first": batches // 2}
    connection.autocommit = True
    # What is made here is thrown away by whoever made it, and the rows are as they should be: nothing is logged, no
    # foreign key is checked, and the ledger is tallied all at once.
    keys = connection.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f' AND "
        "(conrelid::regclass::text = ANY(%(many)s) OR confrelid::regclass::text = ANY(%(many)s))",
        {"many": list(MANY)},
    ).fetchall()
    for table, name in keys:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for table in MANY:
        connection.execute(f"ALTER TABLE {table} SET UNLOGGED")
    connection.execute("ALTER TABLE ledger_lines DISABLE TRIGGER tally_ledger_lines")
    connection.execute("SET synchronous_commit = off")
    for statement in ONCE:
        connection.execute(_with(statement, numbers))
    for table, statement in MANY.items():
        began = time.monotonic()
        answered = f"WHERE NOT ({REFUSED} OR {EXPIRED})" if table in ANSWERED else ""
        for start in range(0, requests, PART):
            rows = f"FROM generate_series({start}, {min(start + PART, requests) - 1}) n {answered} ORDER BY n"
            connection.execute(_with(f"INSERT INTO {table} {statement} {rows}", numbers))
        print(f"bench: {table} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    for statement in TALLIED:
        connection.execute(_with(statement, numbers))
    connection.execute("ALTER TABLE ledger_lines ENABLE TRIGGER tally_ledger_lines")
    connection.execute("VACUUM ANALYZE")


def _with(statement: str, numbers: dict[str, int]) -> str:
    for name, value in numbers.items():
        statement = statement.replace(f":{name}", str(value))
    return statement
