"""How the list of requests is found: by filters, by batch, by run, by key or custom_id.
Every way uses an index or stops after a limited number of rows, so that millions of requests do not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.admin.filters import Asked, Cursor, Found
from webapp.batches.completion import GOES_AGAIN
from webapp.batches.desk import ceiling
from webapp.batches.states import FAILED_STATES, FailureClass, RequestState

PER_PAGE = 50
WINDOW = 50_000  # rows that a filter over all requests looks through before it stops and says so
MATCHES = 500  # requests that one search shows
_SUBJECT_OF_ID = re.compile(r"(\d{1,18})-")  # a custom_id begins with the subject's id

_FILTERS = """
    (CAST(:state AS text) IS NULL OR r.state = :state)
    AND (CAST(:class AS text) IS NULL OR r.failure_class = :class OR (:class = 'output' AND EXISTS
         (SELECT 1 FROM outputs o WHERE o.request_id = r.id AND o.state = 'invalid')))
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of the list of requests."""

    state: str | None
    failure: str | None
    batch_id: int | None
    run_id: int | None
    words: str | None

    @classmethod
    def of(cls, asked: Asked) -> Wanted:
        """As an address asks for them."""
        return cls(
            state=asked.choice("state", list(RequestState)),
            failure=asked.choice("class", list(FailureClass)),
            batch_id=asked.row_id("batch"),
            run_id=asked.row_id("run"),
            words=asked.text("q"),
        )

    @property
    def binds(self) -> dict[str, Any]:
        return {"state": self.state, "class": self.failure}


def find(tx: Connection, wanted: Wanted, cursor: Cursor) -> Found:
    """The ids of the requests of a page, one more than fits; then their rows."""
    if wanted.words is not None:
        ids, stopped_at = _by_words(tx, wanted, cursor), None
    elif wanted.batch_id is not None:
        ids, stopped_at = _by_batches(tx, wanted, cursor, [wanted.batch_id]), None
    elif wanted.run_id is not None:
        ids, stopped_at = _by_batches(tx, wanted, cursor, _batches_holding(tx, wanted)), None
    elif wanted.state or wanted.failure:
        ids, stopped_at = _by_window(tx, wanted, cursor)
    else:
        ids, stopped_at = _by_id(tx, cursor), None
    return Found(_rows(tx, ids, cursor), stopped_at)


def _ids(tx: Connection, statement: str, cursor: Cursor, **binds: Any) -> list[int]:
    found = db.rows(tx, statement, start=cursor.start, limit=PER_PAGE + 1, **binds)
    return [request_id for (request_id,) in found]


def _by_id(tx: Connection, cursor: Cursor) -> list[int]:
    return _ids(
        tx,
        f"SELECT id FROM requests WHERE {cursor.sql('id')} ORDER BY {cursor.order('id')} LIMIT :limit",  # noqa: S608 - the cursor writes names that we gave it
        cursor,
    )


def _by_window(tx: Connection, wanted: Wanted, cursor: Cursor) -> tuple[list[int], int | None]:
    """Filters without a batch or run: the states are in no index, so only so many rows are looked through."""
    window = (
        f"SELECT id, state, failure_class FROM requests WHERE {cursor.sql('id')} "  # noqa: S608 - likewise
        f"ORDER BY {cursor.order('id')} LIMIT {WINDOW}"
    )
    ids = _ids(
        tx,
        f"SELECT r.id FROM ({window}) AS r WHERE {_FILTERS} ORDER BY {cursor.order('r.id')} LIMIT :limit",  # noqa: S608 - likewise
        cursor,
        **wanted.binds,
    )
    if len(ids) > PER_PAGE:
        return ids, None
    last = db.row(
        tx,
        f"SELECT {'max' if cursor.up else 'min'}(id) AS id, count(*) AS seen FROM ({window}) AS r",  # noqa: S608 - likewise
        start=cursor.start,
    )
    return ids, last.id if last.seen == WINDOW else None


def _by_batches(tx: Connection, wanted: Wanted, cursor: Cursor, batch_ids: list[int]) -> list[int]:
    """The newest matches of each batch by its index, then the newest of these."""
    return _ids(
        tx,
        f"""
        SELECT found.id FROM unnest(CAST(:batches AS bigint[])) AS b(id) CROSS JOIN LATERAL (
            SELECT r.id FROM requests r WHERE r.batch_id = b.id AND {cursor.sql("r.id")} AND {_FILTERS}
            ORDER BY {cursor.order("r.id")} LIMIT :limit
        ) AS found ORDER BY {cursor.order("found.id")} LIMIT :limit
        """,  # noqa: S608 - likewise
        cursor,
        batches=batch_ids,
        **wanted.binds,
    )


def _batches_holding(tx: Connection, wanted: Wanted) -> list[int]:
    """The batches of a run that hold what is wanted, by their tallies: the others need not be read."""
    failed = " + ".join(f"sum({state.value})" for state in FAILED_STATES)
    having = ""
    if wanted.state:
        having = f"HAVING sum({wanted.state}) > 0"  # one of our own states: the filter was checked
    elif wanted.failure and wanted.failure != "output":
        having = f"HAVING {failed} > 0"
    found = db.rows(
        tx,
        f"SELECT batch_id FROM tallies WHERE run_id = :run AND scope = 'requests' AND batch_id IS NOT NULL "  # noqa: S608 - likewise
        f"GROUP BY batch_id {having}",
        run=wanted.run_id,
    )
    return [batch_id for (batch_id,) in found]


def _by_words(tx: Connection, wanted: Wanted, cursor: Cursor) -> list[int]:
    """An exact custom_id, the beginning of one, or an exact key in any dataset."""
    begins = _SUBJECT_OF_ID.match(wanted.words or "")
    return _ids(
        tx,
        f"""
        WITH matching AS (
            (SELECT id FROM requests WHERE custom_id = :words)
            UNION
            (SELECT r.id FROM items i JOIN requests r ON r.item_id = i.id
             WHERE i.subject_id = :subject AND starts_with(r.custom_id, :words) LIMIT {MATCHES})
            UNION
            (SELECT r.id FROM datasets d
             JOIN subjects s ON s.dataset_id = d.id AND s.key = :words
             JOIN items i ON i.subject_id = s.id JOIN requests r ON r.item_id = i.id LIMIT {MATCHES})
        )
        SELECT r.id FROM requests r JOIN matching ON matching.id = r.id JOIN batches b ON b.id = r.batch_id
        WHERE {cursor.sql("r.id")} AND {_FILTERS} AND (CAST(:batch AS bigint) IS NULL OR r.batch_id = :batch)
          AND (CAST(:run AS bigint) IS NULL OR b.run_id = :run)
        ORDER BY {cursor.order("r.id")} LIMIT :limit
        """,  # noqa: S608 - likewise
        cursor,
        words=wanted.words,
        subject=int(begins[1]) if begins else None,
        batch=wanted.batch_id,
        run=wanted.run_id,
        **wanted.binds,
    )


def _rows(tx: Connection, ids: list[int], cursor: Cursor) -> list[Any]:
    if not ids:
        return []
    return list(
        db.rows(
            tx,
            f"""
            SELECT r.id, r.custom_id, r.batch_id, b.ordinal, b.run_id, r.attempt, i.attempts, s.key, s.kind,
                   coalesce(r.attempt = i.attempts AND {GOES_AGAIN}, false) AS retrying,
                   r.state, coalesce(r.failure_class, CASE WHEN o.state = 'invalid' THEN 'output' END)
                       AS failure_class, o.state AS output_state,
                   left(coalesce(o.reason, res.error_message, CASE WHEN i.attempts = r.attempt THEN i.error END), 200)
                       AS error
            FROM requests r JOIN items i ON i.id = r.item_id JOIN subjects s ON s.id = i.subject_id
            JOIN batches b ON b.id = r.batch_id JOIN runs run ON run.id = i.run_id
            LEFT JOIN outputs o ON o.request_id = r.id LEFT JOIN results res ON res.request_id = r.id
            WHERE r.id = ANY(:ids) ORDER BY {cursor.order("r.id")}
            """,  # noqa: S608 - likewise
            ids=ids,
            most=ceiling(),
        )
    )
