"""What the pages of datasets read of a large installation: 30,000 datasets, one of them of 200,000 subjects."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import Connection

from webapp import db
from webapp.admin.datasets import WINDOW, _list, find
from webapp.admin.filters import Cursor
from webapp.admin.subjects import present, slice_of

FIRST = Cursor(None, None)


@pytest.fixture
def large(app: Flask) -> None:
    """The first dataset holds 50,000 records; the 150,000 before them have changed, or are gone."""
    with db.transaction() as tx:
        for statement in (
            "INSERT INTO datasets (name, source, text_field, created_by) "
            "SELECT 'set ' || n, 'd.csv', 'text', 't' FROM generate_series(1, 30000) n",
            "INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, data, added_in, gone_in) "
            "SELECT 1, n, 'document', 'doc-' || n, '', 2, '{}', 1, CASE WHEN n < 150000 THEN 2 END "
            "FROM generate_series(0, 199999) n",
            "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner) "
            "SELECT 1 + n % 30000, 'classify', '1', '{}', 't' || n, 1, 't' FROM generate_series(1, 30000) n",
        ):
            db.run(tx, statement)
    with db.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def rows_read(tx: Connection) -> int:
    return int(db.scalar(tx, "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"))


def test_no_page_of_datasets_reads_more_than_it_must(large: None) -> None:
    cases = {
        "list": (lambda tx: _list(tx, FIRST, None).rows, 51, 1_000),
        "list, deep": (lambda tx: _list(tx, Cursor(9_000, None), None).rows, 51, 1_000),
        "list, by name": (lambda tx: _list(tx, FIRST, "SET 29999").rows, 1, 2 * WINDOW + 1_000),
        "dataset": (lambda tx: [find(tx, 1)], 1, 1_000),
        "subjects": (lambda tx: slice_of(tx, 1, None, None, None).rows, 50, 1_000),
        "subjects, deep": (lambda tx: slice_of(tx, 1, None, 190_000, None).rows, 50, 1_000),
        "subjects, back": (lambda tx: slice_of(tx, 1, None, None, 190_000).rows, 50, 1_000),
        "subjects, the last": (lambda tx: slice_of(tx, 1, None, 199_990, None).rows, 9, 1_000),
        "key": (lambda tx: present(tx, 1, "doc-199999", None, 51), 1, 1_000),
        "how all keys begin": (lambda tx: present(tx, 1, "doc", None, 51), 51, 2_000),
        "a key that is gone": (lambda tx: present(tx, 1, "doc-7777", None, 51), 0, 1_000),
    }
    told = {}
    for name, (fetch, expected, most) in cases.items():
        with db.transaction() as tx:
            before = rows_read(tx)
            told[name] = (len(fetch(tx)), rows_read(tx) - before)
        assert told[name][0] == expected, told
        assert told[name][1] <= most, told
    print(told)
