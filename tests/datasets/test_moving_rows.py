"""Rows go from one SQL database to another through a task, and once more: the table holds the same rows.

`python -m bench.moving` does it with 100,000 rows and real workers, and measures them.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from support.audit import audit
from support.desk import DeskDriver
from support.sandbox import Sandbox
from support.services import create_database, drop_database

from webapp import wishes
from webapp.batches.naming import new_token
from webapp.local import Services
from webapp.runs.staleness import Over

ROWS = 2_000


@pytest.fixture
def ledger(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The database that outputs go to; the one that rows come from is beside it."""
    shop, target = create_database(services, "moving_from"), create_database(services, "moving_to")
    with psycopg.connect(shop) as connection:
        connection.execute(
            "CREATE TABLE letters AS SELECT n AS key, 'Letter ' || n || CASE n % 2 WHEN 0 THEN ' about alpha' "
            f"ELSE ' about beta' END AS text FROM generate_series(1, {ROWS}) n"
        )
    monkeypatch.setenv("MOVING_FROM", shop)
    monkeypatch.setenv("MOVING_TO", target)
    yield target
    for name in ("moving_from", "moving_to"):
        drop_database(services, name)


def test_rows_go_from_one_database_to_another_twice_and_are_the_same(
    desk: DeskDriver, sandbox: Sandbox, ledger: str
) -> None:
    wishes.ask_make_destination("ledger", "sql_table", {"url": "env:MOVING_TO", "table": "done"}, actor="ann")
    letters = {"database": "env:MOVING_FROM", "query": "SELECT key, text FROM letters"}
    wishes.ask_source("sql_query", letters, dataset_name="Letters", actor="ann", token=new_token())
    desk.perform_due()
    assert desk.scalar("SELECT coalesce(reason, state) FROM uploads") == "imported"

    def moved() -> list[tuple[str, str, str]]:
        run_id = wishes.ask_start(
            1, "classify", {"labels": "alpha,beta"}, over=Over.ALL, actor="ann", token=new_token(), to=["ledger"]
        )
        while not desk.status(run_id).over or desk.rows("SELECT 1 FROM steps WHERE step = 'deliver'"):
            assert not desk.rows("SELECT error FROM steps WHERE failures > 2"), desk.rows("SELECT * FROM steps")
            desk.hurry()
            desk.perform_due()
        with psycopg.connect(ledger) as connection:
            return connection.execute("SELECT key, status, output::text FROM done ORDER BY key").fetchall()

    first = moved()
    assert {key for key, _, _ in first} == {str(n) for n in range(1, ROWS + 1)} and len(first) == ROWS
    assert {status for _, status, _ in first} == {"succeeded"}
    upload_id = wishes.ask_source_again(1, actor="ann", token=new_token())
    desk.perform_due()
    assert desk.scalar("SELECT same FROM uploads WHERE id = :id", id=upload_id) == ROWS
    assert moved() == first
    audit(desk, sandbox)
