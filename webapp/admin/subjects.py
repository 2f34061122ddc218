"""The pages of subjects: those of a dataset, in the order of its file, and one of them with all that was asked of it.
The page of datasets takes them over by inheritance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, abort
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db
from webapp.admin.filters import Asked
from webapp.admin.frame import Page, expose, reading
from webapp.admin.payloads import MOST_SHOWN, download, laid_out
from webapp.batches.completion import GOES_AGAIN
from webapp.batches.desk import ceiling

PER_PAGE = 50
MATCHES = 500  # subjects that one search shows
ATTEMPTS = 100  # on a subject's page
FORMER = 50  # likewise
DIGITS = 9  # of a position


class SubjectPages(Page):
    """The records of one dataset."""

    @expose("/<row:dataset_id>/subjects/")
    def subjects(self, dataset_id: int) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        dataset = db.row(tx, "SELECT id, name, subjects, revision FROM datasets WHERE id = :id", id=dataset_id)
        if dataset is None:
            abort(404, f"There is no dataset {dataset_id}.")
        after, before = _place(asked, "after"), _place(asked, "before")
        found = slice_of(tx, dataset_id, asked.text("q"), after, before)
        return self.render("desk/subjects.html", dataset=dataset, found=found, asked=asked, matches=MATCHES)

    @expose("/<row:dataset_id>/subjects/<row:subject_id>/")
    def subject(self, dataset_id: int, subject_id: int) -> ResponseReturnValue:
        tx = reading()
        row = db.row(
            tx,
            "SELECT s.id, s.dataset_id, s.position, s.kind, s.key, s.size, s.added_in, s.gone_in, "
            "encode(s.image, 'hex') AS image, left(s.data::text, :most) AS data, d.name AS dataset, d.revision, "
            "b.width, b.height, b.size AS image_size "
            "FROM subjects s JOIN datasets d ON d.id = s.dataset_id LEFT JOIN blobs b ON b.sha256 = s.image "
            "WHERE s.id = :id AND s.dataset_id = :dataset",
            id=subject_id,
            dataset=dataset_id,
            most=MOST_SHOWN + 1,
        )
        if row is None:
            abort(404, f"Dataset {dataset_id} has no subject {subject_id}.")
        versions = _versions(tx, dataset_id, row.key)
        return self.render(
            "desk/subject.html",
            row=row,
            data=laid_out(row.data, row.size),
            versions=versions,
            attempts=_attempts(tx, [one.id for one in versions]),
            most=ATTEMPTS,
        )

    @expose("/<row:dataset_id>/subjects/<row:subject_id>/data.json")
    def data(self, dataset_id: int, subject_id: int) -> Response:
        """The record, byte for byte."""
        text = db.scalar(
            reading(),
            "SELECT data::text FROM subjects WHERE id = :id AND dataset_id = :dataset",
            id=subject_id,
            dataset=dataset_id,
        )
        if text is None:
            abort(404, f"Dataset {dataset_id} has no subject {subject_id}.")
        return download(text, f"subject-{subject_id}.json")


def _place(asked: Asked, name: str) -> int | None:
    """A position in an address, which links do not repeat."""
    place = asked.row_id(name)
    asked.given.pop(name, None)
    return place if place is None or place < 10**DIGITS else 10**DIGITS


@dataclass(frozen=True, slots=True)
class SubjectSlice:
    """A page of subjects in the order of their positions; `before` and `after` are where its neighbours are."""

    rows: list[Any]
    before: int | None
    after: int | None


def slice_of(tx: Connection, dataset_id: int, words: str | None, after: int | None, before: int | None) -> SubjectSlice:
    """The page after a position, or the one before it."""
    rows = present(tx, dataset_id, words, after if before is None else None, PER_PAGE + 1, before=before)
    more = len(rows) > PER_PAGE
    if before is not None:
        if not more:
            return slice_of(tx, dataset_id, words, None, None)
        rows = rows[1:]
        return SubjectSlice(rows, rows[0].position, rows[-1].position)
    rows = rows[:PER_PAGE]
    first = rows[0].position if rows and after is not None else None
    return SubjectSlice(rows, first, rows[-1].position if more else None)


def present(
    tx: Connection, dataset_id: int, words: str | None, after: int | None, limit: int, *, before: int | None = None
) -> list[Any]:
    """Subjects that a dataset holds at present, by position, found by index.

    :param words: how their keys begin; the first MATCHES in the order of the keys.
    """
    source = "FROM subjects s WHERE s.dataset_id = :dataset AND s.gone_in IS NULL"
    if words is not None:
        source = (
            f"FROM (SELECT * {source} AND s.key LIKE :pattern ORDER BY s.key USING ~<~ LIMIT {MATCHES}) s WHERE true"
        )
    order = "ASC" if before is None else "DESC"
    rows = db.rows(
        tx,
        f"SELECT s.id, s.position, s.kind, s.key, s.added_in, left(s.data::text, 400) AS data, "
        f"encode(s.image, 'hex') AS image {source} AND s.position > :after AND s.position < :before "
        f"ORDER BY s.position {order} LIMIT :limit",
        dataset=dataset_id,
        pattern=None if words is None else _begins(words),
        after=-1 if after is None else after,
        before=2**31 - 1 if before is None else before,
        limit=limit,
    )
    return list(rows if before is None else rows[::-1])


def _begins(words: str) -> str:
    for special in ("\\", "%", "_"):
        words = words.replace(special, "\\" + special)
    return words + "%"


def _versions(tx: Connection, dataset_id: int, key: str) -> list[Any]:
    """All subjects of a key, the latest first: what the record was in each revision."""
    return list(
        db.rows(
            tx,
            "SELECT id, added_in, gone_in, size, encode(content_hash, 'hex') AS hash FROM subjects "
            "WHERE dataset_id = :dataset AND key = :key ORDER BY added_in DESC LIMIT :limit",
            dataset=dataset_id,
            key=key,
            limit=FORMER,
        )
    )


def _attempts(tx: Connection, subject_ids: list[int]) -> list[Any]:
    """What was asked of a record, in any run and revision, the latest first."""
    return list(
        db.rows(
            tx,
            f"""
            SELECT r.id, r.attempt, i.subject_id, i.run_id, run.task, run.created_at, r.state,
                   coalesce(r.attempt = i.attempts AND {GOES_AGAIN}, false) AS retrying, o.state AS output_state,
                   coalesce(r.failure_class, CASE WHEN o.state = 'invalid' THEN 'output' END) AS failure_class,
                   left(coalesce(o.reason, res.error_message), 200) AS error, left(o.value::text, 300) AS value
            FROM items i JOIN requests r ON r.item_id = i.id JOIN runs run ON run.id = i.run_id
            LEFT JOIN results res ON res.request_id = r.id LEFT JOIN outputs o ON o.request_id = r.id
            WHERE i.subject_id = ANY(:ids) ORDER BY r.id DESC LIMIT :limit
            """,  # noqa: S608 - a constant
            ids=subject_ids,
            most=ceiling(),
            limit=ATTEMPTS,
        )
    )
