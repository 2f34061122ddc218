"""What the list of requests reads of a large installation: 120,000 requests in twelve batches of three runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import Connection

from webapp import db
from webapp.admin.filters import Cursor
from webapp.admin.looking import WINDOW, Wanted, find, matching

ALL = 120_000
NOW = datetime.now(UTC) + timedelta(days=1)
NOTHING = Wanted()
FIRST = Cursor(None, None)


@pytest.fixture
def large(app: Flask) -> None:
    """Five failures in the second batch of the first run, all else succeeded."""
    with db.transaction() as tx:
        for statement in (
            "INSERT INTO datasets (name, source, text_field, created_by) VALUES ('d', 'd', 'text', 't')",
            "INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, data) "
            "SELECT 1, n, 'document', 'doc-' || n, '', 2, '{}' FROM generate_series(0, 39999) n",
            "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner) "
            "SELECT 1, 'classify', '1', '{}', 't' || n, 40000, 't' FROM generate_series(1, 3) n",
            "INSERT INTO batches (run_id, ordinal, total, body_bytes) "
            "SELECT 1 + n / 4, 1 + n % 4, 10000, 1 FROM generate_series(0, 11) n",
            "INSERT INTO items (run_id, subject_id, position, size, attempts, subject_type, state) "
            "SELECT 1 + n / 40000, 1 + n % 40000, n % 40000, 2, 1, 'document', 'succeeded' "
            "FROM generate_series(0, 119999) n",
            "INSERT INTO requests (batch_id, item_id, attempt, custom_id, state, failure_class) "
            "SELECT 1 + n / 10000, 1 + n, 1, (1 + n % 40000) || '-t' || (1 + n / 40000) || '-1', "
            "CASE WHEN n BETWEEN 12000 AND 12004 THEN 'errored' ELSE 'succeeded' END, "
            "CASE WHEN n BETWEEN 12000 AND 12004 THEN 'fix' END FROM generate_series(0, 119999) n",
            # The others were cut before that was noted.
            "UPDATE batches SET first_request_id = id * 10000 - 9999, last_request_id = id * 10000 WHERE id % 2 = 0",
            "INSERT INTO tallies (scope, run_id, batch_id, succeeded, errored) "
            "SELECT 'requests', run_id, id, 9995, CASE WHEN id = 2 THEN 5 ELSE 0 END FROM batches",
        ):
            db.run(tx, statement)
    with db.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def rows_read(tx: Connection) -> int:
    """Rows that this transaction has read of our tables."""
    return int(db.scalar(tx, "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"))


def test_no_way_to_a_request_reads_more_than_it_must(large: None) -> None:
    cases = {
        "newest": (NOTHING, FIRST, 50, 1_000),
        "deep": (NOTHING, Cursor(20_000, None), 50, 1_000),
        "oldest": (NOTHING, Cursor(None, 0), 50, 1_000),
        "batch": (Wanted(None, None, 3, None, None), FIRST, 50, 1_000),
        "run": (Wanted(None, None, None, 1, None), FIRST, 50, 2_000),
        "run and state": (Wanted("errored", None, None, 1, None), FIRST, 5, 1_000),
        "run and class": (Wanted(None, "fix", None, 1, None), FIRST, 5, 1_000),
        "run without failures": (Wanted("errored", None, None, 2, None), FIRST, 0, 1_000),
        "state": (Wanted("succeeded"), FIRST, 50, 1_000),
        "state of none": (Wanted("pending"), FIRST, 0, 2 * WINDOW + 1_000),
        "failures": (Wanted("errored"), FIRST, 5, 1_000),
        "error": (Wanted(error="x"), FIRST, 0, 1_000),
        "output": (Wanted(None, "output"), FIRST, 0, 1_000),
        "task": (Wanted(task="classify"), FIRST, 50, 1_000),
        "day": (Wanted(since=NOW), FIRST, 0, 1_000),
        "day and class": (Wanted(failure="fix", until=NOW), FIRST, 5, 1_000),
        "key": (Wanted(None, None, None, None, "doc-77"), FIRST, 3, 1_000),
        "custom_id": (Wanted(None, None, None, None, "78-t2-1"), FIRST, 1, 1_000),
        "its beginning": (Wanted(None, None, None, None, "78-t"), FIRST, 3, 1_000),
    }
    told = {}
    for name, (wanted, cursor, expected, most) in cases.items():
        with db.transaction() as tx:
            before = rows_read(tx)
            found = find(tx, wanted, cursor)
            told[name] = (min(len(found.rows), 50), rows_read(tx) - before)
        assert told[name][0] == expected, told
        assert told[name][1] <= most, told
    print(told)


def test_a_look_at_all_requests_goes_on_where_it_stopped(large: None) -> None:
    wanted = Wanted("pending")
    with db.transaction() as tx:
        db.run(tx, "UPDATE requests SET state = 'pending' WHERE id BETWEEN 12001 AND 12005")
    with db.transaction() as tx:
        first = find(tx, wanted, FIRST)
        assert (first.rows, first.stopped_at) == ([], ALL - WINDOW + 1)
        second = find(tx, wanted, Cursor(first.stopped_at, None))
        third = find(tx, wanted, Cursor(second.stopped_at, None))
    assert [row.id for row in (*second.rows, *third.rows)] == [12005, 12004, 12003, 12002, 12001]
    assert third.stopped_at is None


def test_all_that_matches_is_walked_by_key_however_rare(large: None) -> None:
    with db.transaction() as tx:
        db.run(tx, "UPDATE requests SET state = 'pending' WHERE id IN (3, 70000, 119999)")
        pages, after = [], 0
        while page := matching(tx, Wanted("pending"), after, 2):
            pages.append(page)
            after = page[-1]
        assert pages == [[3, 70_000], [119_999]]
        for wanted, count in ((NOTHING, ALL), (Wanted(run_id=2), 40_000), (Wanted(failure="fix", run_id=1), 5)):
            assert len(matching(tx, wanted, 0, ALL + 1)) == count
        assert matching(tx, Wanted(task="summarise"), 0, 10) == []
        assert matching(tx, Wanted(words="doc-77"), 78, 10) == [40_078, 80_078]
