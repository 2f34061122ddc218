"""Why subjects and requests failed: groups by class and cause, with what they are found by, which costs failures alone.
The pages of runs and batches ask; reads only.

A cause is the first `CAUSE` characters of what is said of a failure: the API's words, or the processor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Index, text

from webapp import db
from webapp.batches.completion import GOES_AGAIN
from webapp.batches.desk import ceiling
from webapp.batches.models import Item, Output, Request

CAUSE = 240  # characters that tell one cause from another
MOST_READ = 4_000  # failures that are put into groups; five rows are read for each
MOST_SHOWN = 20  # groups
LAST = 2**63 - 1  # id

# Nothing of what succeeds stands in them.
Index("ix_requests_failed", Request.id, postgresql_where=text("failure_class IS NOT NULL"))
Index("ix_items_failed", Item.run_id, Item.id, postgresql_where=text("failure_class IS NOT NULL"))
Index("ix_outputs_invalid", Output.request_id, postgresql_where=text("state = 'invalid'"))


@dataclass(frozen=True, slots=True)
class Causes:
    """Groups of failures, the most frequent class and cause first, each with one example.

    :param groups: rows of failure_class (`retrying`: goes again by itself), error, count, of_class and example, the
        id of a request.
    :param looked_at: how many failures were put into groups: the latest, where there are more.
    :param cut: there are more failures than that.
    """

    groups: list[Any]
    looked_at: int
    cut: bool


NONE = Causes([], 0, cut=False)


def of_run(tx: Connection, run_id: int) -> Causes:
    """Failures of a run's subjects, as they stand by their latest attempt."""
    return _causes(
        tx,
        f"""
        SELECT i.id, left(i.error, {CAUSE}) AS error,
               CASE WHEN {GOES_AGAIN} THEN 'retrying' ELSE i.failure_class END AS failure_class
        FROM (SELECT * FROM runs WHERE id = :id) AS run CROSS JOIN LATERAL (
            SELECT * FROM items WHERE run_id = run.id AND failure_class IS NOT NULL ORDER BY id DESC LIMIT :read
        ) AS i
        """,  # noqa: S608 - constants
        "(SELECT r.id FROM requests r WHERE r.item_id = cause.example ORDER BY r.attempt DESC LIMIT 1)",
        run_id,
    )


def of_batch(tx: Connection, batch_id: int) -> Causes:
    """Failures of a batch's requests, and answers of it that are no use."""
    held = "id BETWEEN mine.first AND mine.last"
    return _causes(
        tx,
        f"""
        WITH mine AS MATERIALIZED (
            -- In the order of the index by batch, where a batch does not note its ids.
            SELECT b.run_id, coalesce(b.first_request_id, (SELECT id FROM requests WHERE (batch_id, id)
                       BETWEEN (b.id, 0) AND (b.id, {LAST}) ORDER BY batch_id, id LIMIT 1)) AS first,
                   coalesce(b.last_request_id, (SELECT id FROM requests WHERE (batch_id, id)
                       BETWEEN (b.id, 0) AND (b.id, {LAST}) ORDER BY batch_id DESC, id DESC LIMIT 1)) AS last
            FROM batches b WHERE b.id = :id
        )
        SELECT r.id, CASE WHEN i.attempts = r.attempt AND {GOES_AGAIN} THEN 'retrying'
                          ELSE coalesce(r.failure_class, 'output') END AS failure_class,
               left(coalesce(o.reason, s.error_message, CASE WHEN i.attempts = r.attempt THEN i.error END), {CAUSE})
                   AS error
        FROM mine CROSS JOIN LATERAL (SELECT * FROM runs WHERE id = mine.run_id) AS run CROSS JOIN LATERAL (
            (SELECT id FROM requests WHERE failure_class IS NOT NULL AND {held} ORDER BY id DESC LIMIT :read)
            UNION ALL
            (SELECT request_id FROM outputs WHERE state = 'invalid' AND request_{held} ORDER BY request_id DESC
             LIMIT :read)
            ORDER BY id DESC LIMIT :read
        ) AS failed JOIN requests r ON r.id = failed.id AND r.batch_id = :id JOIN items i ON i.id = r.item_id
        LEFT JOIN outputs o ON o.request_id = r.id LEFT JOIN results s ON s.request_id = r.id
        """,  # noqa: S608 - likewise
        "cause.example",
        batch_id,
    )


def _causes(tx: Connection, failures: str, example: str, row_id: int) -> Causes:
    tx.execute(db.BY_KEY)
    groups = db.rows(
        tx,
        f"""
        SELECT cause.failure_class, cause.error, cause.count, cause.of_class, cause.looked_at, {example} AS example
        FROM (
            SELECT failure_class, error, count(*) AS count, min(id) AS example,
                   CAST(sum(count(*)) OVER (PARTITION BY failure_class) AS bigint) AS of_class,
                   CAST(sum(count(*)) OVER () AS bigint) AS looked_at
            FROM ({failures}) AS failed GROUP BY 1, 2
            ORDER BY of_class DESC, failure_class, count DESC LIMIT :shown
        ) AS cause
        """,  # noqa: S608 - likewise
        id=row_id,
        most=ceiling(),
        read=MOST_READ,
        shown=MOST_SHOWN,
    )
    looked_at = groups[0].looked_at if groups else 0
    return Causes(list(groups), looked_at, cut=looked_at >= MOST_READ)
