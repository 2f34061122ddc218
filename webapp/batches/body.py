"""What a batch consists of: its request lines, made of the stored parts as they are sent, images read as needed.
Submission calls it while it POSTs.

The texts come from the server as bytes and go out as such; nothing looks into a line but for the marks of images.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import encoding, leaving
from webapp.batches.ahead import ahead

PAGE_ROWS = 2000
PAGE_BYTES = 4_000_000
PIECE_BYTES = 1 << 17  # of which a piece is made of whole lines, and into which a longer one is cut
IMAGE_BYTES = 3 << 17  # of an image read at a time: whole groups of three, so that its base64 can be put together


def body_pieces(run_id: int, batch_id: int) -> Iterator[bytes]:
    """The body of a batch in pieces as they are sent, all of it but `encoding.TAIL`.

    A page of rows, or a part of an image, per transaction; memory is flat, however long the lines are.
    """
    with db.transaction() as tx:
        run = db.row(tx, "SELECT token, shared::text AS shared FROM runs WHERE id = :id", id=run_id)
    before, between, after = encoding.frame(run.shared.encode())
    mark, marks = encoding.mark_start(run.token), encoding.mark_pattern(run.token)
    parts, size = [encoding.HEAD], 0
    separator = before
    for page in ahead(_pages(batch_id)):
        for _, custom_id, own in page:
            parts += (separator, custom_id, between, own[1:])
            separator = after + b"," + before
            size += len(between) + len(own)
            if size >= PIECE_BYTES:
                yield from _filled(b"".join(parts), mark, marks)
                parts, size = [], 0
    yield from _filled(b"".join((*parts, after)), mark, marks)


def _filled(text: bytes, mark: bytes, marks: re.Pattern[bytes]) -> Iterator[bytes]:
    """A text with the base64 of its images where their marks are."""
    at = 0
    if mark in text:
        for found in marks.finditer(text):
            yield from _cut(text[at : found.start()])
            yield from _image(found[1].decode())
            at = found.end()
    yield from _cut(text[at:])


def _cut(text: bytes) -> Iterator[bytes]:
    """A long text in pieces: whoever sends one copies what is left of it each time that some of it is sent."""
    if 0 < len(text) <= 2 * PIECE_BYTES:
        yield text
        return
    for start in range(0, len(text), PIECE_BYTES):
        yield text[start : start + PIECE_BYTES]


def _image(sha256: str) -> Iterator[bytes]:
    """The base64 of an image, of which a part is held at a time."""
    start = 1
    while True:
        with db.transaction() as tx:
            ((part,),) = db.raw_rows(
                tx,
                "SELECT substr(content, %(start)s, %(length)s) FROM blobs WHERE sha256 = decode(%(sha)s, 'hex')",
                sha=sha256,
                start=start,
                length=IMAGE_BYTES,
            )
        yield b64encode(part)
        if len(part) < IMAGE_BYTES:
            return
        start += IMAGE_BYTES


def _pages(batch_id: int) -> Iterator[list[tuple[int, bytes, bytes]]]:
    after = 0
    while True:
        leaving.look()
        with db.transaction(by_key=True) as tx:
            page = _page(tx, batch_id, after)
        if not page:
            return
        yield page
        after = page[-1][0]


def _page(tx: Connection, batch_id: int, after: int) -> list[tuple[Any, ...]]:
    """The next requests of a batch, bounded by count and by bytes: (id, custom_id, own part)."""
    return db.raw_rows(
        tx,
        """
        SELECT r.id, r.custom_id, p.own FROM (
            SELECT r.id, r.custom_id, r.item_id, row_number() OVER w AS nth, sum(i.size) OVER w - i.size AS before
            FROM (SELECT id, custom_id, item_id FROM requests WHERE batch_id = %(batch)s AND id > %(after)s
                  ORDER BY id LIMIT %(rows)s) AS r
            JOIN items i ON i.id = r.item_id WINDOW w AS (ORDER BY r.id ROWS UNBOUNDED PRECEDING)
        ) AS r JOIN item_params p ON p.item_id = r.item_id
        WHERE r.nth = 1 OR r.before < %(bytes)s ORDER BY r.id
        """,
        batch=batch_id,
        after=after,
        rows=PAGE_ROWS,
        bytes=PAGE_BYTES,
    )
