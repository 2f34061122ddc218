"""How the list of events is found: by run, by batch, by who, by kind, by days, by words. The events page and the
account page ask. Events are never counted and never read as a whole: each look goes through one index, from an id on,
and ends after a limited number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.admin.filters import LAST, Asked, Cursor, Found

PER_PAGE = 50
WINDOW = 50_000  # events that one look goes through before it stops and says so
KINDS = 100  # kinds that are offered
# An event is written by a transaction that began before, so that times and ids are not in quite the same order.
SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of the list of events; `until` is the first moment that is none of theirs any more."""

    who: str | None = None
    kind: str | None = None
    run_id: int | None = None
    batch_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    words: str | None = None

    @classmethod
    def of(cls, asked: Asked, kinds: list[str]) -> Wanted:
        """As an address asks for them."""
        since, until = asked.days()
        return cls(
            who=asked.text("who"),
            kind=asked.choice("kind", kinds),
            run_id=asked.row_id("run"),
            batch_id=asked.row_id("batch"),
            since=since,
            until=until,
            words=asked.text("q"),
        )

    @property
    def binds(self) -> dict[str, Any]:
        return {
            "who": self.who,
            "kind": self.kind,
            "run": self.run_id,
            "batch": self.batch_id,
            "since": self.since,
            "until": self.until,
            "words": self.words,
        }

    @property
    def key(self) -> tuple[str, str] | None:
        """The column whose index the look goes through, and what it must be: the one that leaves fewest."""
        keys = (("batch_id", "batch"), ("run_id", "run"), ("actor", "who"), ("kind", "kind"))
        return next(((column, name) for column, name in keys if self.binds[name] is not None), None)


_FILTERS = """
    (CAST(:who AS text) IS NULL OR e.actor = :who) AND (CAST(:kind AS text) IS NULL OR e.kind = :kind)
    AND (CAST(:run AS bigint) IS NULL OR e.run_id = :run) AND (CAST(:batch AS bigint) IS NULL OR e.batch_id = :batch)
    AND (CAST(:since AS timestamptz) IS NULL OR e.at >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR e.at < :until)
    AND (CAST(:words AS text) IS NULL OR strpos(lower(e.reason), lower(:words)) > 0
         OR strpos(lower(e.target), lower(:words)) > 0)
"""
_COLUMNS = (
    "e.id, e.at, e.run_id, e.batch_id, b.ordinal, e.target_kind, e.target, e.kind, e.from_state, e.to_state, e.actor, "
    "e.address, e.reason"
)


def find(tx: Connection, wanted: Wanted, cursor: Cursor, size: int = PER_PAGE) -> Found:
    """The events of a page, one more than fits."""
    low, high = _bounds(tx, wanted)
    window, binds = _window(wanted, cursor, low, high)
    rows = db.rows(
        tx,
        f"""
        SELECT {_COLUMNS} FROM (
            SELECT e.* FROM ({window}) AS e WHERE {_FILTERS} ORDER BY {cursor.order("e.id")} LIMIT :limit
        ) AS e LEFT JOIN batches b ON b.id = e.batch_id ORDER BY {cursor.order("e.id")}
        """,  # noqa: S608 - made of names that we gave
        limit=size + 1,
        **binds,
    )
    if len(rows) > size:
        return Found(list(rows))
    last = db.scalar(tx, f"SELECT e.id FROM ({window}) AS e OFFSET {WINDOW - 1} LIMIT 1", **binds)  # noqa: S608 - likewise
    return Found(list(rows), last)


def _window(wanted: Wanted, cursor: Cursor, low: int, high: int) -> tuple[str, dict[str, Any]]:
    """The statement that goes through an index, from the cursor on."""
    if cursor.up:
        low = max(low, cursor.start)
    else:
        high = min(high, cursor.start)
    way = "ASC" if cursor.up else "DESC"
    binds = wanted.binds | {"low": low, "high": high}
    if wanted.key is None:
        where, order = "id > :low AND id < :high", f"id {way}"
    else:
        # Rows compared as wholes, in the order of the index: the planner has no other way to have that order than
        # this index, whatever it takes the column's values for.
        column, name = wanted.key
        where = f"({column}, id) > (:{name}, :low) AND ({column}, id) < (:{name}, :high)"
        order = f"{column} {way}, id {way}"
    return f"SELECT * FROM events WHERE {where} ORDER BY {order} LIMIT {WINDOW}", binds  # noqa: S608 - likewise


def _bounds(tx: Connection, wanted: Wanted) -> tuple[int, int]:
    """The ids between which the days lie: of an event well before them, and of one well after."""
    low, high = 0, LAST
    if wanted.since is not None:
        start = wanted.binds["since"] - SLACK
        low = db.scalar(tx, "SELECT id FROM events WHERE at < :start ORDER BY at DESC LIMIT 1", start=start) or 0
    if wanted.until is not None:
        end = wanted.binds["until"] + SLACK
        high = db.scalar(tx, "SELECT id FROM events WHERE at >= :end ORDER BY at LIMIT 1", end=end) or LAST
    return low, high


def kinds(tx: Connection) -> list[str]:
    """The kinds that there are, each found by one step through the index."""
    found = db.rows(
        tx,
        """
        WITH RECURSIVE k AS (
            (SELECT kind FROM events ORDER BY kind LIMIT 1)
            UNION ALL
            SELECT (SELECT e.kind FROM events e WHERE e.kind > k.kind ORDER BY e.kind LIMIT 1)
            FROM k WHERE k.kind IS NOT NULL
        ) SELECT kind FROM k WHERE kind IS NOT NULL LIMIT :limit
        """,
        limit=KINDS,
    )
    return [kind for (kind,) in found]


def pages(wanted: Wanted, size: int) -> Iterator[list[Any]]:
    """All events that are wanted, newest first, in pages; each read in a transaction of its own."""
    cursor = Cursor(None, None)
    while True:
        with db.transaction() as tx:
            found = find(tx, wanted, cursor, size)
        rows = found.rows[:size]
        yield rows
        onward = rows[-1].id if len(found.rows) > size else found.stopped_at
        if onward is None:
            return
        cursor = Cursor(onward, None)
