"""How the lists of requests and of outputs are found: by filters, by batches, by key or custom_id.
Pages ask `find`; whatever works through all that a list holds (a job, an export) asks `matching`.

Ids rise in the order that requests are made in, and every list is in that order. So each way is a walk along the ids
by an index, over so many rows and no more: a list that is filtered stops there, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from webapp import db
from webapp.admin import rows
from webapp.admin.filters import LAST, Asked, Cursor, Found, page_of
from webapp.admin.lists import tasks_of
from webapp.admin.rows import ERROR
from webapp.batches.causes import CAUSE
from webapp.batches.states import FAILED_STATES, FailureClass, OutputState, RequestState

PER_PAGE = 50
SORTS = {"newest": "newest first", "oldest": "oldest first"}
WINDOW = 50_000  # rows that one look through a filtered list reads before it stops and says so
MATCHES = 500  # requests that one search for a key shows
STRETCH = 250  # ids that are gone through before the next id of the wanted batches is looked up
MOST_JUMPS = 20
_SUBJECT_OF_ID = re.compile(r"(\d{1,18})-")  # a custom_id begins with the subject's id

# Rows are reached by the keys that a look is given, whatever the planner takes the tables for.
_BY_KEY = text(f"{db.BY_KEY.text}, set_config('enable_bitmapscan', 'off', true)")

_COUNTED = ("batch_id", "run_id", "task", "since", "until")
_OF_BATCHES = """
    (CAST(:batch AS bigint) IS NULL OR b.id = :batch) AND (CAST(:run AS bigint) IS NULL OR b.run_id = :run)
    AND (CAST(:task AS text) IS NULL OR run.task = :task)
    AND (CAST(:since AS timestamptz) IS NULL OR b.created_at >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR b.created_at < :until)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of the list of requests, or (`outputs`) of outputs.

    :param words: a whole key or custom_id, or how one begins.
    :param error: words within what is said of a failure.
    :param cause: how it begins, to the letter: one group of failures, see `webapp.batches.causes`.
    :param since: when its batch was cut, at the earliest.
    :param until: likewise, and before.
    :param output_state: ok or invalid; of outputs only, as `within` is: words within the value.
    """

    state: str | None = None
    failure: str | None = None
    batch_id: int | None = None
    run_id: int | None = None
    words: str | None = None
    error: str | None = None
    cause: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    outputs: bool = False
    output_state: str | None = None
    within: str | None = None

    @classmethod
    def of(cls, asked: Asked) -> Wanted:
        """As the address of a list of requests asks for them."""
        since, until = asked.days()
        return cls(
            state=asked.choice("state", list(RequestState)),
            failure=asked.choice("class", list(FailureClass)),
            batch_id=asked.row_id("batch"),
            run_id=asked.row_id("run"),
            words=asked.text("q"),
            error=asked.text("error"),
            cause=asked.text("cause"),
            task=asked.text("task"),
            since=since,
            until=until,
        )

    @classmethod
    def of_outputs(cls, asked: Asked) -> Wanted:
        """As the address of a list of outputs asks for them."""
        since, until = asked.days()
        return cls(
            batch_id=asked.row_id("batch"),
            run_id=asked.row_id("run"),
            words=asked.text("q"),
            task=asked.text("task"),
            since=since,
            until=until,
            outputs=True,
            output_state=asked.choice("state", [OutputState.OK, OutputState.INVALID]),
            within=asked.text("text"),
        )

    @property
    def in_batches(self) -> bool:
        """Whether batches tell where to look."""
        return any(one is not None for one in (self.batch_id, self.run_id, self.task, self.since, self.until))

    @property
    def window(self) -> int:
        """How many requests (or outputs) one look goes through; all that it reads for them is `WINDOW` rows."""
        return WINDOW // ({"r": 1, "o": 2, "t": 3}[self.source] + (3 if self.error or self.cause else 0))

    @property
    def source(self) -> str:
        """What is gone through: requests (r), outputs (o), or both kinds of failures (t)."""
        if self.outputs or self.failure == FailureClass.OUTPUT:
            return "o"
        return "t" if (self.error or self.cause) and not (self.failure or self.state) else "r"

    def ids(self, order: str) -> str:
        """What is gone through between the ids `:low` and `:high`, up to `:left` of them, as a query."""
        of_outputs = "FROM outputs WHERE request_id BETWEEN :low AND :high"
        invalid, failed = "AND state = 'invalid'", "AND failure_class IS NOT NULL"
        end = f"ORDER BY id {order} LIMIT :left"
        if self.source == "o":
            only = invalid if not self.outputs or self.output_state == OutputState.INVALID else ""
            return f"SELECT request_id AS id, state, value, reason {of_outputs} {only} {end}"
        if self.source == "t":
            return (
                f"(SELECT id FROM requests WHERE id BETWEEN :low AND :high {failed} {end}) UNION ALL "  # noqa: S608 - constants
                f"(SELECT request_id AS id {of_outputs} {invalid} {end}) {end}"
            )
        only = failed if self.failure or self.state in FAILED_STATES else ""
        return (
            "SELECT id, batch_id, item_id, attempt, state, failure_class FROM requests "  # noqa: S608 - likewise
            f"WHERE id BETWEEN :low AND :high {only} {end}"
        )

    def chosen(self, ids: str) -> str:
        """The ids among those of a query that are wanted, as a query without its end."""
        said = bool(self.error or self.cause)
        parts = [f"SELECT {self.source}.id FROM ({ids}) AS {self.source}"]  # noqa: S608 - constants
        if self.source != "r":
            parts.append(f"JOIN requests r ON r.id = {self.source}.id")
        if said:
            parts.append("JOIN items i ON i.id = r.item_id LEFT JOIN results res ON res.request_id = r.id")
            parts.append("LEFT JOIN outputs o ON o.request_id = r.id" * (self.source != "o"))
        return " ".join((*parts, "WHERE", self.condition))

    @property
    def condition(self) -> str:
        """The filters on a request r, its output o, and what is joined for `ERROR`."""
        found = ["true"]
        if self.state:
            found.append("r.state = :state")
        if self.failure and self.failure != FailureClass.OUTPUT:
            found.append("r.failure_class = :class")
        if self.output_state:
            found.append("o.state = :output_state")
        if self.within:
            found.append("position(lower(:within) IN lower(o.value::text)) > 0")
        if self.error:
            found.append(f"position(lower(:error) IN lower({ERROR})) > 0")
        if self.cause:
            found.append(f"left({ERROR}, {CAUSE}) = :cause")
        return " AND ".join(found)

    @property
    def binds(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "class": self.failure,
            "error": self.error,
            "cause": self.cause,
            "output_state": self.output_state,
            "within": self.within,
        }

    @property
    def of_batches(self) -> dict[str, Any]:
        return {
            "batch": self.batch_id,
            "run": self.run_id,
            "task": self.task,
            "since": self.since,
            "until": self.until,
        }


def listed(tx: Connection, asked: Asked, wanted: Wanted) -> dict[str, Any]:
    """A page of the list, with what its template needs beside it."""
    sort = asked.choice("sort", list(SORTS)) or "newest"
    cursor = Cursor.of(asked, rising=sort == "oldest")
    return {
        "found": page_of(lambda at: find(tx, wanted, at), cursor, PER_PAGE),
        "asked": asked,
        "cursor": cursor,
        "window": wanted.window,
        "sorts": SORTS,
        "sort": sort,
        "tasks": tasks_of(tx),
    }


def find(tx: Connection, wanted: Wanted, cursor: Cursor) -> Found:
    """The rows of a page, and one more if there are more."""
    ids, stopped_at = _look(tx, wanted, cursor, PER_PAGE + 1)
    return Found((rows.of_outputs if wanted.outputs else rows.of_requests)(tx, ids, cursor), stopped_at)


def matching(tx: Connection, wanted: Wanted, after: int, limit: int) -> list[int]:
    """The ids of all requests that are wanted, by key: the next `limit` of them after `after`, rising; none at the end.

    Looks on until it has as many, however long that takes: for jobs and streams, not for pages.
    """
    found: list[int] = []
    at: int | None = after
    while at is not None and len(found) < limit:
        ids, at = _look(tx, wanted, Cursor(None, at), limit - len(found))
        found += ids
    return found


def _look(tx: Connection, wanted: Wanted, cursor: Cursor, limit: int) -> tuple[list[int], int | None]:
    """One look from a cursor on: up to `limit` ids in the cursor's order, and the id it stopped at before there were
    as many (None: nothing is left).
    """
    tx.execute(_BY_KEY)
    if wanted.words is not None:
        return _by_words(tx, wanted, cursor, limit), None
    batches = _batches(tx, wanted) if wanted.in_batches else None
    found: list[int] = []
    start, left = cursor.start, wanted.window
    stretch = left if batches is None else STRETCH
    for _ in range(MOST_JUMPS):
        ids, stopped_at = _walk(tx, wanted, start, limit - len(found), min(stretch, left), batches, up=cursor.up)
        found += ids
        left -= stretch
        if stopped_at is None or left <= 0:
            return found, stopped_at
        onward = _jump(tx, batches or [], stopped_at, up=cursor.up)
        if onward is None:
            return found, None
        # Rows of these batches, but not the wanted ones: the next stretch is a longer one.
        stretch = 4 * stretch if abs(onward - stopped_at) < STRETCH else STRETCH
        start = onward - 1 if cursor.up else onward + 1
    return found, start


def _walk(
    tx: Connection, wanted: Wanted, start: int, limit: int, left: int, batches: list[int] | None, *, up: bool
) -> tuple[list[int], int | None]:
    """Go through the next `left` ids after `start`: those that are wanted, and the last of them all if that was all.

    :param batches: whose requests are wanted; None: whose does not matter.
    """
    order = "ASC" if up else "DESC"
    ids = wanted.ids(order)
    in_batches = "" if batches is None else " AND r.batch_id = ANY(:batches)"
    low, high = (start + 1, LAST) if up else (0, start - 1)
    binds = wanted.binds | {"low": low, "high": high, "left": left, "batches": batches}
    seen = db.rows(
        tx,
        f"{wanted.chosen(ids)}{in_batches} ORDER BY {wanted.source}.id {order} LIMIT :limit",
        **binds,
        limit=limit,
    )
    found = [request_id for (request_id,) in seen]
    if len(found) == limit:
        return found, None
    last = f"SELECT count(*) AS count, {'max' if up else 'min'}(id) AS id FROM ({ids}) AS looked"  # noqa: S608 - constants
    looked = db.row(tx, last, **binds)
    return found, looked.id if looked.count == left else None


def _jump(tx: Connection, batches: list[int], start: int, *, up: bool) -> int | None:
    """The next id after `start` that any of these batches holds; None: there is none.

    A batch that lies wholly beyond `start` tells it by where it begins; only one that `start` falls into is looked at.
    """
    way, back, order, near, far = (">", "<=", "ASC", "first", "last") if up else ("<", ">=", "DESC", "last", "first")
    low, high = (start + 1, LAST) if up else (0, start - 1)
    found: int | None = db.scalar(
        tx,
        f"""
        SELECT {"min" if up else "max"}(next.id) FROM batches b CROSS JOIN LATERAL (
            SELECT b.{near}_request_id AS id WHERE b.{near}_request_id {way} :start
            UNION ALL
            -- In the order of the index by batch: whoever may choose another one walks through those of other batches.
            (SELECT r.id FROM requests r WHERE (r.batch_id, r.id) BETWEEN (b.id, :low) AND (b.id, :high)
             AND (b.{near}_request_id IS NULL
                  OR (b.{near}_request_id {back} :start AND b.{far}_request_id {way} :start))
             ORDER BY r.batch_id {order}, r.id {order} LIMIT 1)
        ) AS next
        WHERE b.id = ANY(:batches)
        """,  # noqa: S608 - likewise
        batches=batches,
        start=start,
        low=low,
        high=high,
    )
    return found


def _batches(tx: Connection, wanted: Wanted) -> list[int]:
    """The batches that may hold what is wanted."""
    holding = ""
    if wanted.state:  # one of our own states: the filter was checked
        holding = (
            f"AND (SELECT sum({wanted.state}) FROM tallies t WHERE t.batch_id = b.id AND t.scope = 'requests') > 0"  # noqa: S608 - likewise
        )
    found = db.rows(
        tx,
        f"SELECT b.id FROM batches b JOIN runs run ON run.id = b.run_id WHERE {_OF_BATCHES} {holding}",  # noqa: S608 - likewise
        **wanted.of_batches,
    )
    return [batch_id for (batch_id,) in found]


def _by_words(tx: Connection, wanted: Wanted, cursor: Cursor, limit: int) -> list[int]:
    """An exact custom_id, the beginning of one, or an exact key in any dataset."""
    begins = _SUBJECT_OF_ID.match(wanted.words or "")
    output = "AND o.request_id IS NOT NULL" if wanted.outputs else ""
    output += " AND o.state = 'invalid'" if wanted.failure == FailureClass.OUTPUT else ""
    found = db.rows(
        tx,
        f"""
        WITH matching AS (
            (SELECT id FROM requests WHERE custom_id = :words)
            UNION
            (SELECT r.id FROM items i JOIN requests r ON r.item_id = i.id
             WHERE i.subject_id = :subject AND starts_with(r.custom_id, :words) LIMIT :matches)
            UNION
            (SELECT r.id FROM datasets d
             JOIN subjects s ON s.dataset_id = d.id AND s.key = :words
             JOIN items i ON i.subject_id = s.id JOIN requests r ON r.item_id = i.id LIMIT :matches)
        )
        SELECT r.id FROM matching JOIN requests r ON r.id = matching.id JOIN batches b ON b.id = r.batch_id
        JOIN runs run ON run.id = b.run_id JOIN items i ON i.id = r.item_id
        LEFT JOIN outputs o ON o.request_id = r.id LEFT JOIN results res ON res.request_id = r.id
        WHERE {cursor.sql("r.id")} AND {wanted.condition} AND {_OF_BATCHES} {output}
        ORDER BY {cursor.order("r.id")} LIMIT :limit
        """,  # noqa: S608 - likewise
        words=wanted.words,
        subject=int(begins[1]) if begins else None,
        start=cursor.start,
        matches=MATCHES,
        limit=limit,
        **wanted.binds,
        **wanted.of_batches,
    )
    return [request_id for (request_id,) in found]


def count(tx: Connection, wanted: Wanted) -> int | None:
    """How many requests are wanted, where tallies tell: by batches and state. None: they would have to be counted."""
    if wanted != Wanted(state=wanted.state, **{name: getattr(wanted, name) for name in _COUNTED}):
        return None
    states = [wanted.state] if wanted.state else [state.value for state in RequestState]
    batches = f"JOIN batches b ON b.id = t.batch_id JOIN runs run ON run.id = b.run_id AND {_OF_BATCHES}"
    found = db.scalar(
        tx,
        f"SELECT coalesce(sum({' + '.join(f't.{state}' for state in states)}), 0) FROM tallies t "  # noqa: S608 - our own states
        f"{batches if wanted.task or wanted.since or wanted.until else ''} WHERE t.scope = 'requests' "
        "AND (CAST(:batch AS bigint) IS NULL OR t.batch_id = :batch) "
        "AND (CAST(:run AS bigint) IS NULL OR t.run_id = :run)",
        **wanted.of_batches,
    )
    return int(found)
