"""The rows that the lists of requests and of outputs show, by their ids. `looking` finds the ids."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.admin.filters import Cursor
from webapp.batches.completion import GOES_AGAIN
from webapp.batches.desk import ceiling

BEGINNING = 300  # characters of an output's value

# What is said of a request r that failed or whose output is no use: by `o`, its output, `res`, its result, `i`, its
# item.
ERROR = "coalesce(o.reason, res.error_message, CASE WHEN i.attempts = r.attempt THEN i.error END)"


def of_requests(tx: Connection, ids: list[int], cursor: Cursor) -> list[Any]:
    """Requests, in the cursor's order."""
    if not ids:
        return []
    return list(
        db.rows(
            tx,
            f"""
            SELECT r.id, r.custom_id, r.batch_id, b.ordinal, b.run_id, r.attempt, i.attempts, s.key, s.kind,
                   coalesce(r.attempt = i.attempts AND {GOES_AGAIN}, false) AS retrying,
                   r.state, coalesce(r.failure_class, CASE WHEN o.state = 'invalid' THEN 'output' END)
                       AS failure_class, o.state AS output_state, left({ERROR}, 200) AS error
            FROM requests r JOIN items i ON i.id = r.item_id JOIN subjects s ON s.id = i.subject_id
            JOIN batches b ON b.id = r.batch_id JOIN runs run ON run.id = i.run_id
            LEFT JOIN outputs o ON o.request_id = r.id LEFT JOIN results res ON res.request_id = r.id
            WHERE r.id = ANY(:ids) ORDER BY {cursor.order("r.id")}
            """,  # noqa: S608 - constants
            ids=ids,
            most=ceiling(),
        )
    )


def of_outputs(tx: Connection, ids: list[int], cursor: Cursor) -> list[Any]:
    """Outputs, in the cursor's order, with how their values begin."""
    if not ids:
        return []
    return list(
        db.rows(
            tx,
            f"""
            SELECT r.id, r.batch_id, b.ordinal, b.run_id, run.task, s.key, s.kind, o.state, o.task_version,
                   o.processed_at, coalesce(left(o.value::text, {BEGINNING}), '') AS value,
                   length(o.value::text) > {BEGINNING} AS cut, left(o.reason, 200) AS reason
            FROM outputs o JOIN requests r ON r.id = o.request_id JOIN items i ON i.id = r.item_id
            JOIN subjects s ON s.id = i.subject_id JOIN batches b ON b.id = r.batch_id
            JOIN runs run ON run.id = i.run_id WHERE o.request_id = ANY(:ids) ORDER BY {cursor.order("o.request_id")}
            """,  # noqa: S608 - likewise
            ids=ids,
        )
    )
