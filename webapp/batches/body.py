"""What a batch consists of: its request lines, made of the stored parts as they are sent, images read as needed.
Submission calls it while it POSTs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import encoding, leaving
from webapp.batches.ahead import ahead

PAGE_ROWS = 1000
PAGE_BYTES = 4_000_000


def request_lines(run_id: int, batch_id: int) -> Iterator[bytes]:
    """The request lines of a batch in order, as they are sent; a page of rows per transaction, memory flat."""
    with db.transaction() as tx:
        run = db.row(tx, "SELECT token, shared::text AS shared FROM runs WHERE id = :id", id=run_id)
    shared = run.shared.encode()
    marks = encoding.mark_pattern(run.token)
    content_of = lru_cache(maxsize=4)(_image)
    for page in ahead(_pages(batch_id)):
        for line in page:
            own = encoding.with_images(line.own.encode(), marks, content_of)
            yield encoding.join_line(line.custom_id.encode(), shared, own)


def _pages(batch_id: int) -> Iterator[list[Any]]:
    after = 0
    while True:
        leaving.look()
        with db.transaction(by_key=True) as tx:
            page = _page(tx, batch_id, after)
        if not page:
            return
        yield page
        after = page[-1].id


def _page(tx: Connection, batch_id: int, after: int) -> list[Any]:
    """The next requests of a batch with their stored part, bounded by count and by bytes."""
    return list(
        db.rows(
            tx,
            """
            SELECT r.id, r.custom_id, p.own::text AS own FROM (
                SELECT r.id, r.custom_id, r.item_id, row_number() OVER w AS nth, sum(i.size) OVER w - i.size AS before
                FROM (SELECT id, custom_id, item_id FROM requests WHERE batch_id = :batch AND id > :after
                      ORDER BY id LIMIT :rows) AS r
                JOIN items i ON i.id = r.item_id WINDOW w AS (ORDER BY r.id)
            ) AS r JOIN item_params p ON p.item_id = r.item_id
            WHERE r.nth = 1 OR r.before < :bytes ORDER BY r.id
            """,
            batch=batch_id,
            after=after,
            rows=PAGE_ROWS,
            bytes=PAGE_BYTES,
        )
    )


def _image(sha256: str) -> bytes:
    with db.transaction() as tx:
        content: bytes = db.scalar(tx, "SELECT content FROM blobs WHERE sha256 = decode(:sha, 'hex')", sha=sha256)
    return content
