"""The requests that filters mean, one after the other, with what became of each: what a list is exported by.
Read in short transactions of so many rows, so that neither memory nor a transaction grows with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.queries import Reading, by_bytes
from webapp.batches.selecting import BY_WORDS, Meant, binds, fits
from webapp.records.exporting import RequestRow

LOOK = 5_000  # requests that one transaction looks through


def requests(reading: Reading, meant: Meant) -> Iterator[RequestRow]:
    """Every request that is meant, in the order they were made in within each batch, batch after batch."""
    with reading() as tx:
        batch_ids = _batches(tx, meant)
    for batch_id in batch_ids:
        after: int | None = 0
        while after is not None:
            with reading() as tx:
                page, after = _page(tx, meant, batch_id, after)
            for part in by_bytes(page):
                with reading() as tx:
                    rows = _rows(tx, part)
                yield from rows


def _batches(tx: Connection, meant: Meant) -> list[int | None]:
    """The batches to look through; None stands for all requests at once, by the words or the id that lead to them."""
    if meant.words is not None or meant.request_id is not None:
        return [None]
    conditions = {
        "batch_id": "b.id = :batch",
        "run_id": "b.run_id = :run",
        "task": "b.run_id IN (SELECT id FROM runs WHERE task = :task)",
        "since": "b.created_at >= :since",
        "until": "b.created_at < :until",
    }
    where = [sql for name, sql in conditions.items() if getattr(meant, name) is not None]
    found = db.rows(
        tx,
        f"SELECT b.id FROM batches b WHERE {' AND '.join(where) or 'true'} ORDER BY b.id",  # noqa: S608 - constants
        task=meant.task,
        since=meant.since,
        until=meant.until,
        **binds(meant),
    )
    return [batch_id for (batch_id,) in found]


def _page(tx: Connection, meant: Meant, batch_id: int | None, after: int) -> tuple[Sequence[Any], int | None]:
    """What is meant of the next requests, and the id to go on after; None: these were the last."""
    if batch_id is not None:
        where = "batch_id = :of"
    elif meant.request_id is not None:
        where = "id = :request"
    else:
        where = f"item_id IN ({BY_WORDS})"
    looked = db.rows(
        tx,
        f"""
        SELECT r.id, {fits(":chosen")} AS fits, octet_length(o.value::text) AS size
        FROM (SELECT * FROM requests WHERE {where} AND id > :after ORDER BY id LIMIT :look) AS r
        JOIN items i ON i.id = r.item_id LEFT JOIN outputs o ON o.request_id = r.id ORDER BY r.id
        """,  # noqa: S608 - constants
        of=batch_id,
        after=after,
        look=LOOK,
        **binds(meant),
    )
    return [line for line in looked if line.fits], looked[-1].id if len(looked) == LOOK else None


def _rows(tx: Connection, part: Sequence[Any]) -> list[RequestRow]:
    found = db.rows(
        tx,
        """
        SELECT s.key, CASE WHEN o.state = 'invalid' THEN 'invalid' ELSE r.state END AS status, o.value::text AS output,
               coalesce(o.reason, res.error_message, CASE WHEN i.attempts = r.attempt THEN i.error END) AS error,
               coalesce(r.failure_class, CASE WHEN o.state = 'invalid' THEN 'output' END) AS failure_class,
               r.custom_id, r.attempt, i.run_id, r.batch_id
        FROM requests r JOIN items i ON i.id = r.item_id JOIN subjects s ON s.id = i.subject_id
        LEFT JOIN outputs o ON o.request_id = r.id LEFT JOIN results res ON res.request_id = r.id
        WHERE r.id = ANY(CAST(:ids AS bigint[])) ORDER BY r.id
        """,
        ids=db.array(line.id for line in part),
    )
    return [RequestRow(*line) for line in found]
