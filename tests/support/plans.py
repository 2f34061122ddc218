"""What the statements of a request read of the tables, told by the database itself, statement by statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from webapp.db import db

SCANS = ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan", "Sample Scan")


@contextmanager
def explained() -> Iterator[list[tuple[int, str]]]:
    """Lists (rows read, statement) of each query that is made within the block.

    Each is explained where it is made, with its parameters, its connection and the settings of its transaction.
    """
    told: list[tuple[int, str]] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.lstrip(" (\n").upper().startswith(("SELECT", "WITH")) or "set_config" in statement:
            return
        with connection.connection.driver_connection.cursor() as own:
            own.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", parameters)
            ((plans,),) = own.fetchall()
        told.append((sum(rows_read(plan["Plan"]) for plan in plans), " ".join(statement.split())))

    event.listen(db.engine, "before_cursor_execute", explain)
    try:
        yield told
    finally:
        event.remove(db.engine, "before_cursor_execute", explain)


def rows_read(plan: dict[str, Any]) -> int:
    """The rows that a plan and those below it have fetched from tables, whether they were of use or not."""
    read = 0
    if plan["Node Type"] in SCANS:
        passed_over = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        read = round((plan["Actual Rows"] + passed_over) * plan["Actual Loops"])
    return read + sum(rows_read(below) for below in plan.get("Plans", ()))
