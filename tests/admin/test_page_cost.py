"""No page issues a query that reads over 50,000 rows: every page there is, on an installation that would show it.

A run of 60,000 subjects of which nothing is of use, in one batch; another of which all is, in six batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from support.plans import explained
from support.visitor import Visitor
from werkzeug.routing import Rule

from webapp import db

MOST = 50_000
# What stands for the parts of an address; of several words the first does, and what is called an id is 1.
PARTS = {"sha256": "00" * 32, "source_name": "sql_query", "verb": "cancel", "plugin": "limits"}
FILTERED = [
    "/requests/?run=1",
    "/requests/?run=2&newer=0",
    "/requests/?run=1&state=errored",
    "/requests/?run=1&class=output",
    "/requests/?run=2&class=fix",
    "/requests/?state=pending",
    "/requests/?state=succeeded&run=2&older=90000",
    "/requests/?state=errored&older=30000",
    "/requests/?class=output&sort=oldest",
    "/requests/?error=nothing+says+this",
    "/requests/?error=nothing+says+this&class=fix&run=1",
    "/requests/?error=nothing+says+this&class=output&batch=1",
    "/requests/?cause=cause+1&class=fix&run=1",
    "/requests/?task=classify&from=2020-01-01&to=2090-01-01",
    "/requests/?q=doc-77",
    "/requests/?q=78-t",
    "/requests/resubmit?run=1",
    "/requests/resubmit?class=fix",
    "/requests/resubmit?cause=cause+1&batch=1",
    "/requests/reprocess?run=1&q=doc-77",
    "/requests/reprocess?batch=1",
    "/requests/rebuild?run=1&class=fix",
    "/requests/export.jsonl?state=errored",
    "/outputs/?text=nothing+says+this",
    "/outputs/?text=nothing+says+this&run=2",
    "/outputs/?state=invalid",
    "/outputs/?state=ok&task=classify",
    "/outputs/?q=doc-77",
    "/runs/?sort=subjects&state=finished",
    "/runs/?sort=longest&task=classify&dataset=d",
    "/batches/?sort=requests&run=2&from=2020-01-01",
    "/batches/?sort=waiting",
    "/runs/1/?before=40000",
    "/batches/1/?before=40000",
    "/live?run=1&run=2&batch=1&batch=2",
    "/live?stamp_run_id=1",
    *(f"/money/?by={by}" for by in ("task", "model", "owner", "dataset", "account", "run")),
    "/money/?from=2026-01-01&to=2026-12-31&owner=t&model=m",
    "/money/?money=play",
]


@pytest.fixture
def large(app: Flask) -> Iterator[None]:
    """Somebody has been looking since before, as somebody always is: nothing is known to be visible to everybody, and
    the planner does not take indexes for all there is to read.
    """
    with db.db.engine.connect().execution_options(isolation_level="REPEATABLE READ") as looking:
        looking.exec_driver_sql("SELECT 1 FROM runs")
        _fill()
        yield


def _fill() -> None:
    with db.transaction() as tx:
        for statement in (
            "INSERT INTO accounts (fingerprint, base_url, sandbox) VALUES ('f', 'u', false)",
            "INSERT INTO datasets (name, source, text_field, created_by, subjects) "
            "VALUES ('d', 'd', 'text', 't', 60000)",
            "INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, data) "
            "SELECT 1, n, 'document', 'doc-' || n, '', 2, '{}' FROM generate_series(0, 59999) n",
            "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state, shared) "
            "SELECT 1, 'classify', '1', '{}', 't' || n, 60000, 't', CASE n WHEN 1 THEN 'running' ELSE 'finished' END, "
            '\'{"model":"m"}\' FROM generate_series(1, 2) n',
            "INSERT INTO batches (run_id, account_id, ordinal, total, body_bytes, state, api_id) "
            "SELECT CASE n WHEN 1 THEN 1 ELSE 2 END, 1, n, CASE n WHEN 1 THEN 60000 ELSE 10000 END, 1, 'done', "
            "'msgbatch_' || n FROM generate_series(1, 7) n",
            # The others were cut before that was noted.
            "UPDATE batches SET first_request_id = 10000 * id + 40001, last_request_id = 10000 * id + 50000 "
            "WHERE id IN (3, 5, 7)",
            "INSERT INTO items (run_id, subject_id, position, size, attempts, subject_type, state, output_state, "
            "failure_class, error) SELECT 1 + n / 60000, 1 + n % 60000, n % 60000, 2, 1, 'document', "
            "CASE WHEN n < 20000 THEN 'missing' WHEN n < 40000 THEN 'errored' ELSE 'succeeded' END, "
            "CASE WHEN n BETWEEN 40000 AND 59999 THEN 'invalid' WHEN n >= 60000 THEN 'ok' END, "
            "CASE WHEN n < 20000 THEN 'retry' WHEN n < 40000 THEN 'fix' WHEN n < 60000 THEN 'output' END, "
            "CASE WHEN n < 60000 THEN 'cause ' || n % 30 END FROM generate_series(0, 119999) n",
            "INSERT INTO item_params (item_id, own) SELECT id, '{\"messages\":[]}' FROM items",
            "INSERT INTO requests (batch_id, item_id, attempt, custom_id, state, failure_class) "
            "SELECT CASE WHEN id <= 60000 THEN 1 ELSE 2 + (id - 60001) / 10000 END, id, 1, "
            "subject_id || '-t' || run_id || '-1', state, CASE failure_class WHEN 'output' THEN NULL "
            "ELSE failure_class END FROM items ORDER BY id",
            "INSERT INTO results (request_id, kind, error_message, size, line) SELECT r.id, r.state, i.error, 2, '{}' "
            "FROM requests r JOIN items i ON i.id = r.item_id WHERE r.state <> 'missing'",
            "INSERT INTO outputs (request_id, state, value, reason, task_version) SELECT r.id, i.output_state, "
            "CASE i.output_state WHEN 'ok' THEN CAST('{\"label\":\"alpha\"}' AS json) END, i.error, '1' "
            "FROM requests r JOIN items i ON i.id = r.item_id WHERE i.output_state IS NOT NULL",
            "INSERT INTO ledger_lines (api_batch_id, custom_id, account_id, run_id, request_id, model, cost_usd, "
            "sync_cost_usd, priced_at) SELECT b.api_id, r.custom_id, 1, b.run_id, r.id, 'm', 0.1, 0.2, now() "
            "FROM requests r JOIN batches b ON b.id = r.batch_id WHERE r.state = 'succeeded'",
            "INSERT INTO tallies (scope, run_id, batch_id, succeeded, errored, missing, ok, invalid, retry_attempt) "
            "SELECT 'items', 1, 1, 20000, 20000, 0, 0, 20000, NULL UNION ALL "
            "SELECT 'items', 1, 1, 0, 0, 20000, 0, 0, 1 "
            "UNION ALL SELECT 'items', 2, n, 10000, 0, 0, 10000, 0, NULL FROM generate_series(2, 7) n "
            "UNION ALL SELECT 'requests', 1, 1, 20000, 20000, 20000, 0, 0, NULL "
            "UNION ALL SELECT 'requests', 2, n, 10000, 0, 0, 0, 0, NULL FROM generate_series(2, 7) n",
            "INSERT INTO events (run_id, batch_id, kind, actor, reason) "
            "SELECT 1, 1, 'note', 't', 'told' FROM generate_series(1, 60000)",
            "INSERT INTO former_outputs (request_id, state, value, task_version, processed_at) "
            "SELECT 1, 'ok', '{}', '0', now()",
        ):
            db.run(tx, statement)
    with db.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def address(rule: Rule) -> str:
    """A page of a rule: of row 1, whatever it is a row of."""

    def filled(found: re.Match[str]) -> str:
        converter, _, name = found[1].rpartition(":")
        if words := re.match(r"any\(\s*(\w+)", converter):
            return words[1]
        if converter == "row":
            return "1"
        assert name in PARTS, f"say in PARTS what stands for {name} of {rule}"
        return PARTS[name]

    return re.sub(r"<([^>]+)>", filled, rule.rule)


def test_no_query_of_any_page_reads_over_50_000_rows(
    app: Flask, person: Callable[[str | None], Visitor], large: None
) -> None:
    admin = person("admin")
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
    assert len(rules) > 30
    told: dict[str, tuple[int, str]] = {}
    for path in [
        *(address(rule) for rule in rules if _leads_to_a_page(rule)),
        *FILTERED,
    ]:
        with explained() as statements:
            answer = admin.open(path)
        assert answer.status_code < 500, (path, answer.status_code)
        told[path] = max(statements, default=(0, ""))
    over = {path: most for path, most in told.items() if most[0] > MOST}
    assert not over, over
    assert told["/runs/1/"][0] > 1_000 and told["/requests/?state=pending"][0] == MOST, "so it is seen what is read"


def _leads_to_a_page(rule: Rule) -> bool:
    return not rule.endpoint.endswith("static") and "logout" not in rule.endpoint
