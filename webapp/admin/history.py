"""The events of a run or batch as a page tells them: newest first, a screenful at a time.
Details call `of`; live progress calls `stamp` to learn whether anything moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.datasets import uploads
from webapp.installed import installs

EVENTS = 30
_TARGETS = {"upload_id": uploads.TARGET, "install_id": installs.TARGET}


@dataclass(frozen=True, slots=True)
class History:
    """A screenful of events; `older` is the id to go on from, or None."""

    events: list[Any]
    older: int | None
    begins: bool  # it starts with the latest event


def of(tx: Connection, column: str, row_id: int, before: int | None) -> History:
    """The events of a row.

    :param column: `run_id`, `batch_id`, `schedule_id`, `upload_id` or `install_id`.
    :param before: events with smaller ids, or None for the latest.
    """
    found = db.rows(
        tx,
        f"SELECT e.id, e.at, e.run_id, e.batch_id, b.ordinal, e.kind, e.from_state, e.to_state, e.actor, e.reason "  # noqa: S608 - the column is named by our own code
        f"FROM events e LEFT JOIN batches b ON b.id = e.batch_id WHERE {_whose(column)} "
        f"AND e.id < coalesce(CAST(:before AS bigint), 9223372036854775807) ORDER BY e.id DESC LIMIT :limit",
        id=row_id,
        before=before,
        limit=EVENTS + 1,
    )
    shown = list(found[:EVENTS])
    return History(shown, shown[-1].id if len(found) > EVENTS else None, before is None)


def _whose(column: str) -> str:
    """The condition on events e of one row; binds :id."""
    if column in _TARGETS:
        return f"e.target_kind = '{_TARGETS[column]}' AND e.target = CAST(:id AS text)"
    return f"e.{column} = :id"


def stamp(tx: Connection, column: str | None = None, row_id: int | None = None) -> int:
    """The id of the latest event (of a row, or of all): when it changes, something moved."""
    where = f"WHERE {_whose(column)}" if column else ""
    return int(db.scalar(tx, f"SELECT coalesce(max(e.id), 0) FROM events e {where}", id=row_id))  # noqa: S608 - likewise
